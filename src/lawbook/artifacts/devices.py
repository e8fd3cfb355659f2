"""Accelerators as their makers state them: dense bf16 peak, memory and its bandwidth."""

from dataclasses import dataclass

from ..contract import UnknownName


@dataclass(frozen=True)
class Device:
    """One accelerator's datasheet."""

    name: str
    peak_flops: float  # FLOP/s, dense bf16
    memory_bytes: float
    bandwidth: float  # bytes/s
    source: str


DEVICES = {
    d.name: d
    for d in (
        Device("A100-40", 312e12, 40e9, 1.555e12, "NVIDIA A100 datasheet"),
        Device("A100-80", 312e12, 80e9, 2.039e12, "NVIDIA A100 datasheet (SXM)"),
        Device("H100-SXM", 989e12, 80e9, 3.35e12, "NVIDIA H100 datasheet, without sparsity"),
        Device("H200", 989e12, 141e9, 4.8e12, "NVIDIA H200 datasheet, without sparsity"),
        Device("B200", 2250e12, 180e9, 8.0e12, "NVIDIA DGX B200 datasheet, per GPU, without sparsity"),
        Device("L40S", 362e12, 48e9, 0.864e12, "NVIDIA L40S datasheet, without sparsity"),
        Device("MI300X", 1307e12, 192e9, 5.3e12, "AMD MI300X datasheet, without sparsity"),
        Device("TPU-v5e", 197e12, 16e9, 0.819e12, "Google Cloud TPU v5e documentation"),
    )
}


def device(name):
    """The Device of that name; UnknownName with the nearest ones otherwise."""
    if name not in DEVICES:
        raise UnknownName("device", name, DEVICES)
    return DEVICES[name]
