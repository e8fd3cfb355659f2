"""One matrix of a model measured from one set of singular values and one pass over its panels, by the papers of the book."""

import math
import re

import numpy as np

from ..artifacts.weights import Tensor
from ..chapters.generalization.condition_number_tuning import kappa_report
from ..chapters.generalization.condition_number_tuning import spectrum as of_full_rank
from ..chapters.generalization.heavy_tail_layer_quality import mp_edges, noise_ceiling, power_law_alpha, significant, spectral_metrics, trace_log_tail
from ..chapters.serving.modular_decomposition import low_rank_compressibility
from ..chapters.serving.quantization_bit_allocation import uniform_quantize
from ..chapters.serving.weight_informed_sparsity import top, wina_scores
from ..contract import LawbookError
from ..numerics.streamed import streamed_spectrum

SAMPLE = 64  # rows, spread evenly, on which quantisation is tried
INPUTS = (16, 256, 2**13)  # standard normal inputs on which sparsity is tried: least, most, and numbers in all
EMBEDDING = re.compile(r"embed|embd|\bwte\b|\bwpe\b|(^|\.)shared\.weight$|relative_attention_bias")
OUTPUT = re.compile(r"lm_head|(^|\.)output\.weight$|embed_out")
TAIL = ("alpha", "sigma", "xmin", "ks", "delta", "alpha_weighted", "log_alpha_norm", "log_spectral_norm", "soft_rank")
FIGURES = ("norm", "variance", "stable_rank", "kappa", "random_kappa", "deficit", *TAIL, "low_rank_error", "low_rank_noise", "low_rank_saved")
TRIED = ("quantization_error", "sparsity_error", "sparsity_magnitude")
COUNTS = ("tail", "erg_count", "spikes", "rank", "rank_90", "rank_99", "rank_needed")


def measure(tensor: Tensor, *, bits=4, inputs_first=False):
    """One matrix as a record, `fault` being a sentence where it has no spectrum. Tensors of more axes are flattened to (out, rest).

    `quantization_error` is the squared error of a symmetric grid of `bits` bits a row over the squared weights; `sparsity_error` that of the output with half the inputs
    dropped by the column norms, for standard normal inputs with independent signs (`sparsity_magnitude`: by magnitude alone); `low_rank_error` that of the best factors
    with a quarter fewer parameters, which is `low_rank_noise` where all singular values are equal. Matrices too small for a tail bring a Caution.
    """
    shape = (tensor.shape[0], tensor.size // tensor.shape[0])
    kind = "embedding" if EMBEDDING.search(tensor.name) else "output" if OUTPUT.search(tensor.name) else "convolution" if len(tensor.shape) > 2 else "matrix"
    row = (
        {"name": tensor.name, "kind": kind, "dtype": tensor.dtype, "rows": shape[0], "columns": shape[1], "params": tensor.size, "nonfinite": 0, "fault": ""}
        | dict.fromkeys((*FIGURES, *TRIED), math.nan)
        | dict.fromkeys(COUNTS, 0)
    )
    across = shape[0] < shape[1]
    sampled = np.unique(np.linspace(0, shape[0] - 1, SAMPLE).astype(int))
    sample: list = []

    def blocks():
        at = 0
        sample.clear()
        for panel in tensor.panels(across):
            sample.append(panel[sampled] if across else panel[sampled[(sampled >= at) & (sampled < at + len(panel))] - at])
            at += len(panel)
            yield panel.T if across else panel

    try:
        with np.errstate(all="ignore"):
            values, along, over = streamed_spectrum(blocks)
            norm, squares = float(np.linalg.norm(values)), values**2
        if math.isnan(norm):
            nonfinite = sum(int(np.sum(~np.isfinite(panel))) for panel in tensor.panels())
            fault = f"The tensor {tensor.name} in {tensor.file} has no spectrum: {nonfinite:,} of its {tensor.size:,} weights are NaN or infinite."
            return row | {"nonfinite": nonfinite, "fault": fault}
    except LawbookError as error:
        return row | {"fault": str(error)}
    if norm and not 1e-150 < norm < 1e150:
        return row | {"fault": f"The tensor {tensor.name} in {tensor.file} has no spectrum: its norm is {norm:.3g}, out of the range from 1e-150 to 1e150."}
    stand_in = np.broadcast_to(np.float32(0), shape)  # the papers need no more than the shape beside the singular values
    spectrum = kappa_report([{"name": tensor.name, "matrix": stand_in, "singular_values": values}])
    row |= {"norm": norm, **{key: float(spectrum[key][0]) for key in ("stable_rank", "kappa", "random_kappa", "deficit")}}
    row |= {"rank": int(of_full_rank(stand_in, values)[1])} | _tail(squares, shape, norm)
    energy = np.cumsum(squares) / (squares.sum() or 1.0)
    ranks = {f"rank_{share}": int(np.searchsorted(energy, share / 100 * (1 - 1e-12))) + 1 if norm else 0 for share in (90, 99)}
    low = low_rank_compressibility(stand_in, singular_values=values)
    row |= ranks | {"low_rank_error": low["error"], "low_rank_noise": low["noise_error"]}
    row |= {"rank_needed": low["rank_needed"], "low_rank_saved": low["saved"], "variance": norm**2 / tensor.size}
    row["quantization_error"] = _quantization_error(np.concatenate(sample, axis=1 if across else 0), bits)
    if kind != "embedding" and norm:  # an embedding's input is one row
        norms = np.sqrt(along if inputs_first != across else over)  # of what each input is multiplied by
        if norms.size > 1:
            row["sparsity_error"], row["sparsity_magnitude"] = _sparsity(norms)
    return row


def _quantization_error(rows, bits):
    """Squared error of rows, each on a grid of its own, over their squares; NaN for zeros."""
    largest = np.abs(rows).max(1, keepdims=True).astype(float)
    alike = np.divide(rows, largest, out=np.zeros(rows.shape), where=largest > 0)  # which share one grid
    lost, whole = (np.sum(np.square(part * largest)) for part in (alike - uniform_quantize(alike, bits)["values"], alike))
    return float(lost / whole) if whole > 0 else math.nan


def _tail(squares, shape, norm):
    """The heavy tail of a spectrum by both criteria, and what stands above noise of the same size."""
    if not norm:
        return {}
    fit, erg, top = power_law_alpha(squares), trace_log_tail(squares), float(squares[0])
    sigma = norm / math.sqrt(math.prod(shape))
    scaled = spectral_metrics(squares, alpha=fit["alpha"])
    return {
        **{key: fit[key] for key in ("alpha", "sigma", "xmin", "ks", "tail")},
        **{key: scaled[key] for key in ("alpha_weighted", "log_alpha_norm", "log_spectral_norm")},
        "erg_count": erg["count"],
        "delta": float(fit["xmin"] / significant(squares).mean() - erg["start_value"]) if fit["tail"] else math.nan,
        "spikes": int(np.sum(squares > max(noise_ceiling(shape, sigma), 1e-6 * top))),
        "soft_rank": max(shape) * float(mp_edges(*shape, sigma=sigma)["high"]) / top,
    }


def _sparsity(norms):
    """Errors over the whole output when half the inputs are dropped, by the column norms and without: norms alone decide over the mean over signs."""
    least, most, numbers = INPUTS
    inputs, keep = np.random.default_rng(0).normal(size=(min(max(numbers // norms.size, least), most), norms.size)), (norms.size + 1) // 2
    scores = wina_scores(norms[None, :], inputs)  # of a weight of one row that has these column norms
    wina, teal = (float(np.sum(np.square(scores, where=~top(by, keep), out=np.zeros(scores.shape)))) for by in (scores, np.abs(inputs)))
    whole = float(np.sum(scores**2))
    return wina / whole, teal / whole
