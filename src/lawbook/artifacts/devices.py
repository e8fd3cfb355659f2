"""Accelerators as their makers state them: dense peaks by number format, memory and its bandwidth, and what links them to each other and to a host."""

import re
from dataclasses import dataclass, field

from ..contract import LawbookError, UnknownName

GiB = 2**30  # memory is sold in GB and built in GiB


@dataclass(frozen=True)
class Device:
    """One accelerator's datasheet."""

    name: str
    peak_flops: float  # FLOP/s, dense bf16
    memory_bytes: float
    bandwidth: float  # bytes/s
    source: str
    peaks: dict[str, float] = field(default_factory=dict)  # FLOP/s of other number formats, dense
    interconnect: float | None = None  # bytes/s to its like, one way
    host_link: float | None = None  # bytes/s to host memory, one way; None where memory is shared or the link is not stated

    def peak(self, dtype="bf16"):
        """FLOP/s in a number format: of one that its units do not compute in, of the next wider one that they do."""
        wider = {"fp4": "fp8", "fp8": "bf16", "int4": "int8", "int8": "bf16", "fp16": "bf16"}
        while dtype not in self.peaks and dtype in wider:
            dtype = wider[dtype]
        return self.peaks.get(dtype, self.peak_flops)


PCIE4, PCIE5 = 32e9, 64e9  # sixteen lanes, one way
_HOPPER = {"fp32": 67e12, "fp8": 1979e12, "int8": 1979e12}
_AMPERE = {"fp32": 19.5e12, "int8": 624e12, "int4": 1248e12}
_SHADERS = "memory and bandwidth as Apple states them, FLOP/s of the GPU as cores x 128 x 2 x clock"


def _apple(name, cores, clock, memory, bandwidth):
    """A GPU without units for matrices: the peak of fp16 and bf16 is that of fp32."""
    flops = cores * 128 * 2 * clock
    return Device(name, flops, memory * GiB, bandwidth, f"Apple {name.replace('-', ' ')}, {cores} GPU cores: {_SHADERS}", {"fp32": flops})


DEVICES = {
    d.name: d
    for d in (
        Device("A100-40", 312e12, 40 * GiB, 1.555e12, "NVIDIA A100 datasheet", _AMPERE, 300e9, PCIE4),
        Device("A100-80", 312e12, 80 * GiB, 2.039e12, "NVIDIA A100 datasheet (SXM)", _AMPERE, 300e9, PCIE4),
        Device("H100-SXM", 989e12, 80 * GiB, 3.35e12, "NVIDIA H100 datasheet, without sparsity", _HOPPER, 450e9, PCIE5),
        Device("H100-PCIe", 756e12, 80 * GiB, 2.0e12, "NVIDIA H100 datasheet, without sparsity", {"fp32": 51e12, "fp8": 1513e12, "int8": 1513e12}, 300e9, PCIE5),
        Device("H200", 989e12, 141 * GiB, 4.8e12, "NVIDIA H200 datasheet, without sparsity", _HOPPER, 450e9, PCIE5),
        Device(
            "B200",
            2250e12,
            180 * GiB,
            8.0e12,
            "NVIDIA DGX B200 datasheet, per GPU, without sparsity",
            {"fp32": 75e12, "fp8": 4500e12, "int8": 4500e12, "fp4": 9000e12},
            900e9,
            PCIE5,
        ),
        Device("L4", 121e12, 24 * GiB, 0.3e12, "NVIDIA L4 datasheet, without sparsity", {"fp32": 30.3e12, "fp8": 242e12, "int8": 242e12}, None, PCIE4),
        Device("L40S", 362e12, 48 * GiB, 0.864e12, "NVIDIA L40S datasheet, without sparsity", {"fp32": 91.6e12, "fp8": 733e12, "int8": 733e12}, None, PCIE4),
        Device(
            "RTX-4090",
            165.2e12,
            24 * GiB,
            1.008e12,
            "NVIDIA Ada GPU architecture whitepaper, fp32 accumulation, without sparsity",
            {"fp32": 82.6e12, "fp8": 330.3e12, "int8": 660.6e12, "int4": 1321.2e12},
            None,
            PCIE4,
        ),
        Device(
            "RTX-5090",
            209.5e12,
            32 * GiB,
            1.792e12,
            "NVIDIA RTX Blackwell GPU architecture whitepaper, fp32 accumulation, without sparsity",
            {"fp32": 104.8e12, "fp8": 419e12, "int8": 838e12, "fp4": 1676e12},
            None,
            PCIE5,
        ),
        Device("MI300X", 1307e12, 192 * GiB, 5.3e12, "AMD MI300X datasheet, without sparsity", {"fp32": 163.4e12, "fp8": 2615e12, "int8": 2615e12}, 448e9, PCIE5),
        Device("TPU-v5e", 197e12, 16 * GiB, 0.819e12, "Google Cloud TPU v5e documentation", {"int8": 393e12}, 200e9),
        _apple("M1-Max", 32, 1.296e9, 64, 0.4e12),
        _apple("M2-Max", 38, 1.398e9, 96, 0.4e12),
        _apple("M2-Ultra", 76, 1.398e9, 192, 0.8e12),
        _apple("M3-Max", 40, 1.398e9, 128, 0.4e12),
        _apple("M3-Ultra", 80, 1.398e9, 512, 0.819e12),
        _apple("M4-Max", 40, 1.678e9, 128, 0.546e12),
        Device(
            "Xeon-8480+",
            114.7e12,
            1024 * GiB,
            0.3072e12,
            "one Intel Xeon Platinum 8480+: 56 cores at 2.0 GHz with AMX (1024 bf16 operations a cycle and core), 8 channels of DDR5-4800, filled with 1 TiB",
            {"fp32": 7.2e12, "int8": 229.4e12},
        ),
        Device(
            "EPYC-9654",
            14.7e12,
            768 * GiB,
            0.4608e12,
            "one AMD EPYC 9654: 96 cores at 2.4 GHz with AVX-512 (64 bf16 operations a cycle and core), 12 channels of DDR5-4800, filled with 768 GiB",
            {"fp32": 7.4e12, "int8": 29.5e12},
        ),
    )
}
SHORT = {  # as people call them, without vendor, memory and marks
    "a100": "A100-80",
    "a10080gb": "A100-80",
    "a10040gb": "A100-40",
    "h100": "H100-SXM",
    "h100sxm5": "H100-SXM",
    "h100nvl": "H100-PCIe",
    "h200sxm": "H200",
    "4090": "RTX-4090",
    "5090": "RTX-5090",
    "mi300": "MI300X",
    "v5e": "TPU-v5e",
    "tpuv5lite": "TPU-v5e",
    "xeon": "Xeon-8480+",
    "xeon8480": "Xeon-8480+",
    "epyc": "EPYC-9654",
    "cpu": "EPYC-9654",
}
MARKS = re.compile(r"\b(nvidia|geforce|tesla|amd|intel|instinct|apple|google|cloud|gpu|sxm4|hbm\w*|platinum)\b")
MEMORY = re.compile(r"\b\d+ ?gi?b\b")


def device(name):
    """The Device of that name, written as people write it; LawbookError with the nearest ones, or all, otherwise."""
    if isinstance(name, Device):
        return name
    known = {_letters(each): each for each in DEVICES} | SHORT
    spoken = str(name).lower()
    for attempt in (spoken, plain := MARKS.sub(" ", spoken), MEMORY.sub(" ", plain)):
        if (found := known.get(_letters(attempt))) is not None:
            return DEVICES[found]
    refusal = UnknownName("device", name, [*DEVICES, *map(str.upper, SHORT)])
    raise refusal if "did you mean" in str(refusal) else LawbookError(f"There is no device {name!r}; there is {', '.join(DEVICES)}.")


def _letters(name):
    return re.sub(r"[^a-z0-9]", "", name.lower())
