"""Real layers as widely linear complex maps, quantised to the four roots of unity at one bit a weight and stage."""

import math

import numpy as np

from lawbook.contract import Paper, array, count, flag, integer, matrix, nonnegative, positive, real, record
from lawbook.trials import Identity, Inequality

paper = Paper(
    __name__,
    title="Fairy2i: Training Complex LLMs from Real LLMs with All Parameters in $\\{\\pm 1, \\pm i\\}$",
    arxiv="2512.02901",
    tags=["quantization", "complex numbers", "binarization", "1-bit", "2-bit", "residual", "widely linear", "hadamard", "weights", "serving"],
    source="code",
    says="""Every real linear layer with even sizes is, exactly and uniquely, a complex map U x + W conj(x). Rounding the phases of U and W to the four roots of unity, with one
    scale for each axis, costs one bit per real weight, and repeating it on what is left costs one more a stage. A pretrained real model can so be moved to this code and
    fine-tuned.""",
    notes="""The scales minimise the squared error of given codes, so that no stage adds error, except through the floor of 1e-6 under them: entries below it, zeros above all, are
    coded as 1e-6. That the scheme amounts to sign binarisation after a fixed rotation is derived here, and its two scales differ from a single one by little.""",
)

FLOOR = 1e-6
WEIGHTS = matrix(
    "rows",
    "columns",
    of=real(typical=(-2, 2)),
    doc="weights of a real layer",
    example=[[0.9, -0.2, 0.4, 0.1], [-0.5, 1.1, 0.3, -0.7], [0.2, 0.6, -0.8, 0.5], [1.0, -0.3, 0.1, 0.4]],
)
EVEN = {"matrix must have an even number of rows and of columns": lambda matrix: matrix.shape[0] % 2 == 0 and matrix.shape[1] % 2 == 0}
PART = matrix("n", "m", example=[[0.7, -0.3], [0.1, 0.5]])
STAGES = count("stages", high=16, typical=(1, 4), doc="each costs one bit a weight", example=2)


def draw_even(rng):
    return {"matrix": rng.normal(size=2 * rng.integers(1, 4, 2))}


@paper.law(r"U = \tfrac12[(A_{11} + A_{22}) + i(A_{21} - A_{12})],\quad W = \tfrac12[(A_{11} - A_{22}) + i(A_{12} + A_{21})]", requires=EVEN, sample=draw_even)
def widely_linear(matrix: WEIGHTS) -> record(u_real=PART, u_imag=PART, w_real=PART, w_imag=PART):
    """The complex U and W with y = U z + W conj(z) for z made of the halves of the input, y of the halves of the output."""
    a = np.asarray(matrix, float)
    (a11, a12), (a21, a22) = (np.split(half, 2, axis=1) for half in np.split(a, 2, axis=0))
    return {"u_real": (a11 + a22) / 2, "u_imag": (a21 - a12) / 2, "w_real": (a11 - a22) / 2, "w_imag": (a12 + a21) / 2}


@paper.law(r"A_{11} = \Re(U + W),\ A_{12} = \Im(W - U),\ A_{21} = \Im(U + W),\ A_{22} = \Re(U - W)")
def widely_linear_inverse(u_real: PART, u_imag: PART, w_real: PART, w_imag: PART) -> matrix("rows", "columns"):
    """The real matrix of a widely linear map."""
    ur, ui, wr, wi = (np.asarray(part, float) for part in (u_real, u_imag, w_real, w_imag))
    return np.block([[ur + wr, wi - ui], [ui + wi, ur - wr]])


@paper.algorithm(r"\hat Z = s_{re}\, c\ \text{if}\ c = \pm 1,\ s_{im}\, c\ \text{if}\ c = \pm i,\quad c = \arg\min_{c^4 = 1} |\arg(Z / c)|")
def phase_quantize(real: PART, imag: PART) -> record(
    real=PART,
    imag=PART,
    scale_real=positive(doc="mean |Re| where the code is 1 or -1, at least 1e-6"),
    scale_imag=positive(doc="mean |Im| where the code is i or -i, at least 1e-6"),
    codes=matrix("n", "m", of=integer(low=0, high=3), doc="0, 1, 2, 3 for 1, i, -1, -i"),
):
    """Each entry replaced by the nearest root of unity in angle, times the scale of its axis; a phase halfway goes to the next root counterclockwise, 0 to 1."""
    x, y = np.asarray(real, float), np.asarray(imag, float)
    # comparisons decide, not rounded angles: each quarter holds its clockwise edge
    codes = np.select([(y >= -x) & (y < x), (y >= x) & (x > -y), (y <= -x) & (y > x), (x == 0) & (y == 0)], [0, 1, 2, 0], 3).astype(np.int8)
    upright = codes % 2 == 1
    scales = [max(float(np.mean(np.abs(part[where]))), FLOOR) if where.any() else FLOOR for part, where in ((x, ~upright), (y, upright))]
    sign = 1.0 - 2.0 * (codes > 1)
    return {"real": np.where(upright, 0.0, sign * scales[0]), "imag": np.where(upright, sign * scales[1], 0.0), "scale_real": scales[0], "scale_imag": scales[1], "codes": codes}


def relative(error, whole):
    total = float(np.sum(whole**2))
    return float(np.sum(error**2)) / total if total > 0 else math.nan


ERROR = nonnegative(nan=True, doc="squared error over squared norm; NaN for a matrix of zeros")


@paper.algorithm(r"\hat U = \textstyle\sum_t Q(U - \hat U_{t-1}),\quad \hat W\ \text{likewise}", requires=EVEN, sample=draw_even)
def fairy_quantize(matrix: WEIGHTS, *, stages: STAGES = 2) -> record(
    matrix=matrix("rows", "columns"),
    relative_error=ERROR,
    bits_per_weight=positive("bits", doc="without the 4 scales a stage"),
    codes=array("stages", "parts", "n", "m", of=integer(low=0, high=3), doc="of U and of W, at each stage"),
    scales=array("stages", "parts", "axes", of=positive(), doc="of the real and the imaginary axis"),
):
    """A layer coded by roots of unity in its widely linear form, stage by stage on what is left."""
    a = np.asarray(matrix, float)
    parts = widely_linear(a)
    left = [[parts["u_real"], parts["u_imag"]], [parts["w_real"], parts["w_imag"]]]
    codes, scales = [], []
    for _ in range(stages):
        coded = [phase_quantize(*pair) for pair in left]
        left = [[x - q["real"], y - q["imag"]] for (x, y), q in zip(left, coded, strict=True)]
        codes.append([q["codes"] for q in coded])
        scales.append([[q["scale_real"], q["scale_imag"]] for q in coded])
    error = widely_linear_inverse(*left[0], *left[1])
    return {"matrix": a - error, "relative_error": relative(error, a), "bits_per_weight": float(stages), "codes": np.array(codes), "scales": np.array(scales)}


@paper.algorithm(
    r"r_t = r_{t-1} - \overline{|r_{t-1}|}\, \mathrm{sign}(r_{t-1})",
    requires={
        "matrix must have an even number of rows and of columns to be mixed": lambda matrix, mix: not mix or (matrix.shape[0] % 2 == 0 and matrix.shape[1] % 2 == 0),
    },
)
def sign_residual_quantize(
    matrix: WEIGHTS, *, stages: STAGES, mix: flag(doc="binarise (Re + Im)/sqrt 2 and (Re - Im)/sqrt 2 of U and W, each with its scale, instead of the weights themselves") = False
) -> record(matrix=matrix("rows", "columns"), relative_error=ERROR):
    """The plain baseline: signs times one scale, stage by stage on what is left; sign(0) = 1."""
    a = np.asarray(matrix, float)
    # the mixing is a rotation of four blocks up to a factor, so that errors add up alike on either side
    parts = list(widely_linear(a).values()) if mix else [a]
    left = [(parts[k] + sign * parts[k + 1]) / math.sqrt(2) for k in (0, 2) for sign in (1, -1)] if mix else parts
    for _ in range(stages):
        left = [r - np.mean(np.abs(r)) * np.where(r >= 0, 1.0, -1.0) for r in left]
    if mix:
        left = [(left[k] + sign * left[k + 1]) / math.sqrt(2) for k in (0, 2) for sign in (1, -1)]
    error = widely_linear_inverse(*left) if mix else left[0]
    return {"matrix": a - error, "relative_error": relative(error, a)}


@paper.law(r"D_T = D_{T-1} - s_T^2,\quad s_T = E\,r_{T-1},\quad r_t = |r_{t-1} - s_t|,\ r_0 = |x|,\ D_0 = 1", gives=0.363380)
def gaussian_distortion(stages: count("stages", high=12, typical=(1, 6), example=1)) -> positive(high=1):
    """Relative squared error of residual sign binarisation of Gaussian weights, with or without the mixing; 1 - 2/pi at one stage."""
    from scipy.special import ndtr

    # r is piecewise linear in |x|, with slopes of 1 and -1: slope (|x| - root) between edges
    edges, roots, slopes, distortion = np.array([0.0, np.inf]), np.array([0.0]), np.array([1.0]), 1.0
    for _ in range(stages):
        density = np.exp(-(edges**2) / 2) / math.sqrt(2 * math.pi)
        scale = 2 * float(np.sum(slopes * (-np.diff(density) - roots * -np.diff(ndtr(-edges)))))
        distortion -= scale**2
        # on a piece the next r is |x - centre|: it falls up to the centre and rises from there
        centres = roots + slopes * scale
        edges = np.append(np.stack([edges[:-1], np.clip(centres, edges[:-1], edges[1:])], 1).ravel(), np.inf)
        roots, slopes = np.repeat(centres, 2), np.tile([-1.0, 1.0], len(centres))
    return distortion


def without_conjugate(matrix):
    return widely_linear(matrix) | {"w_real": np.zeros(np.array(matrix.shape) // 2), "w_imag": np.zeros(np.array(matrix.shape) // 2)}


def sign_of_u_swapped(matrix):
    found = widely_linear(matrix)
    return found | {"u_imag": -found["u_imag"]}


@paper.trial(
    Identity(rtol=1e-12, atol=1e-12),
    of=[widely_linear, widely_linear_inverse],
    controls={"conjugate part dropped": without_conjugate, "A12 - A21 in U": sign_of_u_swapped},
    quick=40,
    full=2000,
)
def same_map(draw, parts_of):
    """The complex map gives the output of the real one, and goes back to the same matrix with half its squared norm."""
    n, m = draw.integer(1, 20), draw.integer(1, 20)
    a, x = draw.rng.normal(size=(2 * n, 2 * m)), draw.rng.normal(size=2 * m)
    parts = parts_of(a)
    u, w, z = parts["u_real"] + 1j * parts["u_imag"], parts["w_real"] + 1j * parts["w_imag"], x[:m] + 1j * x[m:]
    y = u @ z + w @ z.conj()
    norm = 2 * np.sum(np.abs(u) ** 2 + np.abs(w) ** 2)
    return np.concatenate([a @ x, a.ravel(), [np.sum(a**2)]]), np.concatenate([y.real, y.imag, widely_linear_inverse(**parts).ravel(), [norm]]), {"rows": 2 * n, "columns": 2 * m}


def one_scale(real, imag):
    found = phase_quantize(real, imag)
    scale = np.mean([found["scale_real"], found["scale_imag"]])
    return found | {"real": np.sign(found["real"]) * scale, "imag": np.sign(found["imag"]) * scale}


def axes_stretched(real, imag):
    return phase_quantize(1.5 * real, imag) | {"scale_real": 1.0}


@paper.trial(Identity(rtol=1e-9, atol=1e-12), of=[phase_quantize], controls={"one scale for both axes": one_scale, "axes stretched": axes_stretched}, quick=40, full=1000)
def nearest_root(draw, quantize):
    """Codes are the nearest fourth root of unity by angle, edges included, and the scales are the least-squares coefficients of the code."""
    shape = draw.integer(2, 12), draw.integer(2, 12)
    x, y = np.round(draw.rng.normal(size=(2, *shape)) * draw.uniform(0.5, 3))  # whole numbers: many entries on the edges
    x, y = x + 0.0, np.where((x == 0) & (y == 0), 1.0, y)
    x[0, 0], y[0, 0], x[0, 1], y[0, 1] = 3.0, 1.0, 1.0, -3.0  # both axes are used
    roots = np.array([1, 1j, -1, -1j])
    turned = np.angle((x + 1j * y)[..., None] / roots)  # the quarter from -pi/4, included, to pi/4, excluded
    codes = np.argmax((turned >= -math.pi / 4 - 1e-9) & (turned < math.pi / 4 - 1e-9), axis=-1)
    design = np.stack([np.stack([roots.real[codes], np.zeros(shape)]).ravel(), np.stack([np.zeros(shape), roots.imag[codes]]).ravel()], 1)
    scales = np.linalg.lstsq(design, np.stack([x, y]).ravel())[0]
    found = quantize(x, y)
    return np.concatenate([codes.ravel(), design @ scales]), np.concatenate([found["codes"].ravel(), found["real"].ravel(), found["imag"].ravel()]), {"entries": codes.size}


def coded_once_more(matrix, *, stages):
    """Each stage codes the whole again, not what is left."""
    half = fairy_quantize(matrix, stages=1)["matrix"]
    return {"relative_error": relative(matrix - stages * half, matrix), "matrix": stages * half}


@paper.trial(Inequality(atol=1e-9, search=60), of=[fairy_quantize, sign_residual_quantize], controls={"what is left is forgotten": coded_once_more}, quick=20, full=500)
def falls_with_stages(draw, quantize):
    """The error falls with every stage, of the baseline with and without mixing too, on plain and on spiky matrices, up to what the floor under the scales adds."""
    shape = (2 * draw.integer(2, 6), 2 * draw.integer(2, 6))
    a = draw.normal(size=shape) ** draw.choice([1, 3])
    errors = [quantize(a, stages=t)["relative_error"] for t in (1, 2, 3, 4)]
    signs = [sign_residual_quantize(a, stages=t, mix=mix)["relative_error"] for mix in (False, True) for t in (1, 2, 3)]
    return np.array([*errors[1:], *signs[1:3], *signs[4:]]), np.array([*errors[:-1], *signs[:2], *signs[3:5]]), {"shape": str(shape)}


def independent_stages(stages):
    return (1 - 2 / math.pi) ** stages


@paper.trial(
    Identity(rtol=0.01), of=[gaussian_distortion, fairy_quantize, sign_residual_quantize], controls={"each stage as on fresh Gaussians": independent_stages}, quick=1, full=5
)
def gaussian_weights(draw, distortion):
    """Gaussian layers lose the same by roots of unity, by signs and by signs after mixing, at one to three stages: what the law says."""
    a = draw.rng.normal(size=(1000, 1000))
    measured = [[f["relative_error"] for f in (fairy_quantize(a, stages=t), sign_residual_quantize(a, stages=t), sign_residual_quantize(a, stages=t, mix=True))] for t in (1, 2, 3)]
    return np.array(measured), np.repeat([[distortion(t)] for t in (1, 2, 3)], 3, axis=1)


@paper.finding(
    """The gain over plain residual signs is that of a fixed rotation and needs no complex numbers: on heavy-tailed weights (Student t, 3 degrees of freedom) signs after
    mixing four blocks orthogonally lose as much as the roots of unity, and both lose a good part less than plain signs; on Gaussian weights all three are equal."""
)
def gain_is_a_rotation():
    a = np.random.default_rng(0).standard_t(3, size=(512, 512))
    found = {
        f"{name}_{t}": f["relative_error"]
        for t in (1, 2, 3)
        for name, f in (("fairy", fairy_quantize(a, stages=t)), ("mixed", sign_residual_quantize(a, stages=t, mix=True)), ("plain", sign_residual_quantize(a, stages=t)))
    }
    alike = all(abs(found[f"fairy_{t}"] - found[f"mixed_{t}"]) < 0.002 for t in (1, 2, 3))
    return {"holds": alike and all(found[f"mixed_{t}"] < 0.9 * found[f"plain_{t}"] for t in (1, 2, 3)), **found}
