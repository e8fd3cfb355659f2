"""Convolutions trained wide and folded small: a k x k and a 1 x 1 convolution with nothing between them are one k x k convolution."""

import numpy as np

from lawbook.contract import DomainError, Paper, array, count, flag, matrix, nonnegative, positive, real, record, seed, vector
from lawbook.numerics import arrays
from lawbook.trials import Identity

paper = Paper(
    __name__,
    title="Collapsible Linear Blocks for Super-Efficient Super Resolution",
    arxiv="2103.09404",
    tags=["convolution", "super resolution", "overparameterization", "reparameterization", "inference", "efficiency", "vision"],
    source="code",
    says="""A small convolution is trained as a wide one followed by a 1 x 1 projection, with a short skip and no nonlinearity between; for use, all three collapse exactly into one
    small kernel. The set of functions stays the same, only the path of gradient descent through it changes. Collapsing in every training step saves most of the cost of
    training wide. Super-resolution networks built so have some ten thousand weights.""",
    notes="""Kernels are W[y, x, in, out] and slide without being flipped. Biases and activations (PReLU) are not in the published counts of parameters. For a factor of 4 the last
    layer has 16 channels and pixels are rearranged twice. The parameter and cost counts agree with the authors' README to the digits given there. The gradient flow is ours.""",
)

EXPAND = array("k", "k", "in", "p", most=3, doc="kernel that expands `in` channels to p", example=[[[[1.0, 2.0]]]])
PROJECT = matrix("p", "out", doc="the 1 x 1 convolution", example=[[0.5, 1.0], [0.25, -1.0]])
FEATURES = count("channels", typical=(4, 64), example=16)
BLOCKS = count("blocks", typical=(1, 16), doc="3 x 3 blocks between the first and the last layer", example=5)
SCALE = count("factor", typical=(1, 4), doc="enlargement of each side", example=2)
HAS_CENTRE = {
    "residual needs as many outputs as inputs": lambda expand, project, residual: not residual or expand.shape[2] == project.shape[1],
    "residual needs an odd kernel, which has a centre": lambda expand, residual: not residual or len(expand) % 2 == 1,
}


def drawn(rng, image=False):
    k, channels, width, residual = int(rng.choice([1, 3])), int(rng.integers(1, 3)), int(rng.integers(1, 4)), bool(rng.integers(2))
    given = {"expand": rng.normal(size=(k, k, channels, width)), "project": rng.normal(size=(width, channels)), "residual": residual}
    return given | ({"image": rng.normal(size=(5, 6, channels))} if image else {})


def correlated(image, kernel):
    """Valid cross-correlation of image[H, W, in] with kernel[k, k, in, out]."""
    windows = np.lib.stride_tricks.sliding_window_view(image, kernel.shape[:2], axis=(0, 1))
    return np.tensordot(windows, kernel, axes=([3, 4, 2], [0, 1, 2]))


def two_steps(expand, project, image, *, residual=False, bias1=0.0, bias2=0.0):
    out = (correlated(image, expand) + bias1) @ project + bias2
    half = len(expand) // 2
    return out + image[half : half + out.shape[0], half : half + out.shape[1]] if residual else out


@paper.algorithm(r"W_c[y,x,i,o] = \sum_m W_1[y,x,i,m]\, W_2[m,o] + [y = x = \lfloor k/2 \rfloor,\ i = o],\quad b_c = b_1 W_2 + b_2", requires=HAS_CENTRE, sample=drawn)
def collapse(
    expand: EXPAND,
    project: PROJECT,
    *,
    residual: flag(doc="whether the input is added to the output") = False,
    bias1: vector("p", doc="of the expanding convolution") = None,
    bias2: vector("out", doc="of the projection") = None,
) -> record(kernel=array("k", "k", "in", "out"), bias=vector("out")):
    """The one convolution that a wide convolution, its projection and their skip come to; exact under zero padding too, since the projection acts point by point."""
    expand, project = np.asarray(expand, float), np.asarray(project, float)
    kernel = expand @ project
    if residual:
        channels, half = np.arange(kernel.shape[2]), len(kernel) // 2
        kernel[half, half, channels, channels] += 1
    bias = np.zeros(project.shape[1]) if bias2 is None else np.asarray(bias2, float)
    return {"kernel": kernel, "bias": bias if bias1 is None else bias + np.asarray(bias1, float) @ project}


@paper.measure(
    r"\max |f_2(f_1(x)) - f_c(x)|",
    requires={**HAS_CENTRE, "image must be at least as large as the kernel": lambda image, expand: min(image.shape[:2]) >= len(expand)},
    sample=lambda rng: drawn(rng, image=True),
)
def collapse_error(expand: EXPAND, project: PROJECT, image: array("H", "W", "in", example=[[[1.0], [2.0]]]), *, residual: flag() = False) -> nonnegative():
    """Largest difference between the two convolutions in turn and the collapsed one, on an image: rounding."""
    expand, project, image = np.asarray(expand, float), np.asarray(project, float), np.asarray(image, float)
    return float(np.abs(two_steps(expand, project, image, residual=residual) - correlated(image, collapse(expand, project, residual=residual)["kernel"])).max())


@paper.law(r"P = 25 f + 9 m f^2 + 25 f s^2", closed_form=True, gives=13520)
def sesr_parameters(features: FEATURES, blocks: BLOCKS, scale: SCALE) -> count("params"):
    """Weights of the collapsed super-resolution network."""
    _, f, m, s = arrays(features, blocks, scale)
    return 25 * f + 9 * m * f**2 + 25 * f * s**2


@paper.law(r"P H W", closed_form=True, gives=3_115_008_000)
def sesr_macs(
    features: FEATURES, blocks: BLOCKS, scale: SCALE, height: count("pixels", typical=(32, 2000), example=360), width: count("pixels", typical=(32, 2000), example=640)
) -> count("multiply-adds"):
    """Multiply-adds for one image, whose size is that of the input."""
    _, h, w = arrays(height, width)
    return sesr_parameters(features, blocks, scale) * h * w


@paper.law(
    r"n [(25 p + p f) + m (9 f p + p f) + (25 f p + p s^2)],\quad n P + \sum_{\text{blocks}} (k^4\, i^2 p + k^2\, i\, p\, o)",
    closed_form=True,
    gives={"expanded": 41_775_267_840, "collapsed": 1_843_216_640},
)
def training_macs(
    features: FEATURES,
    blocks: BLOCKS,
    scale: SCALE,
    expansion: count("channels", typical=(32, 512), doc="p, width of the expanded layers", example=256),
    pixels: count("pixels", typical=(1000, 1_000_000), doc="of the whole batch: images times height times width", example=131072),
) -> record(expanded=count("multiply-adds"), collapsed=count("multiply-adds")):
    """Multiply-adds of a forward pass in training: through the wide layers, or through kernels that are collapsed first by sending an identity through them."""
    _, f, m, s, p, n = arrays(features, blocks, scale, expansion, pixels)

    def folding(k, inputs, outputs):
        return inputs * k**2 * (k**2 * inputs * p) + inputs * k**2 * p * outputs

    expanded = n * ((25 * p + p * f) + m * (9 * f * p + p * f) + (25 * f * p + p * s**2))
    return {"expanded": expanded, "collapsed": n * sesr_parameters(features, blocks, scale) + folding(5, 1, f) + m * folding(3, f, f) + folding(5, f, s**2)}


def first_factors(seed, width):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(9, width)) / 3, rng.normal(size=width) / np.sqrt(width)


@paper.model(r"\dot w = -(\|W_2\|^2 + W_1 W_1^\top) \nabla \ell(w),\quad w = W_1 W_2\ (+\ \delta)")
def overparameterised_flow(
    target: matrix(3, 3, of=real(typical=(-1, 1)), doc="kernel of the teacher", example=[[0.0, -1.0, 0.0], [-1.0, 5.0, -1.0], [0.0, -1.0, 0.0]]),
    seed: seed(example=0),
    *,
    width: count("channels", typical=(1, 64)) = 16,
    steps: count("steps", typical=(10, 200), high=1_000_000) = 100,
    learning_rate: positive(typical=(1e-3, 0.02)) = 0.01,
    skip: flag(doc="start from the identity: one is added at the centre") = False,
) -> record(
    direct=vector("steps+1", of=nonnegative(), doc="loss of the plain kernel"),
    collapsible=vector("steps+1", of=nonnegative(), doc="loss of the kernel in two factors"),
    kernel=matrix(3, 3, doc="of the two factors, at the end"),
    initial=matrix(3, 3, doc="from which both start"),
):
    """Losses under gradient descent on white-noise images, of a 3 x 3 kernel as it is and of the same kernel as a wide convolution and its projection."""
    goal, base = np.asarray(target, float).ravel(), skip * (np.arange(9) == 4)
    w1, w2 = first_factors(seed, width)
    plain = w1 @ w2 + base
    start, curves = plain.copy(), np.empty((2, steps + 1))
    for step in range(steps + 1):
        gap, gradient = plain - goal, w1 @ w2 + base - goal
        curves[:, step] = gap @ gap / 2, gradient @ gradient / 2
        if not np.isfinite(curves[:, step]).all() or curves[:, step].max() > 1e12:
            raise DomainError(f"learning_rate must be small enough for the loss to stay bounded; at {learning_rate} it passed 1e12 in step {step}.")
        if step < steps:
            plain = plain - learning_rate * gap
            w1, w2 = w1 - learning_rate * np.outer(gradient, w2), w2 - learning_rate * w1.T @ gradient
    return {"direct": curves[0], "collapsible": curves[1], "kernel": (w1 @ w2 + base).reshape(3, 3), "initial": start.reshape(3, 3)}


def not_reversed(*args, **options):
    found = collapse(*args, **options)
    return found | {"kernel": found["kernel"][::-1, ::-1]}


def skip_in_the_corner(expand, project, *, residual, **biases):
    found = collapse(expand, project, **biases)
    found["kernel"][0, 0] += residual * np.eye(project.shape[1])
    return found


def relu_between(expand, project, **options):
    return collapse(np.maximum(expand, 0), project, **options)


@paper.trial(
    Identity(rtol=1e-12, atol=1e-12),
    of=[collapse, collapse_error],
    controls={"axes not reversed": not_reversed, "skip in the corner": skip_in_the_corner, "a nonlinearity between": relu_between},
    quick=40,
    full=3000,
)
def both_layers_in_turn(draw, fold):
    """The folded kernel gives the outputs of SciPy's two convolutions with biases and zero padding, and is the reversed image of one-hot inputs."""
    from scipy.signal import correlate

    k, channels, width, residual = draw.choice([1, 3, 5]), draw.integer(1, 3), draw.integer(1, 6), draw.choice([True, False])
    expand, project, image = draw.normal(size=(k, k, channels, width)), draw.normal(size=(width, channels)), draw.rng.normal(size=(7, 9, channels))
    b1, b2 = draw.normal(size=width), draw.normal(size=channels)
    wide = np.stack([sum(correlate(image[..., i], expand[..., i, m], mode="same") for i in range(channels)) for m in range(width)], -1)
    expected = (wide + b1) @ project + b2 + residual * image
    found = fold(expand, project, residual=residual, bias1=b1, bias2=b2)
    output = correlated(np.pad(image, [(k // 2, k // 2)] * 2 + [(0, 0)]), found["kernel"]) + found["bias"]
    # one-hot channels, padded by k - 1, come out as the kernel upside down
    ones = [np.pad(row[None, None], [(k - 1, k - 1)] * 2 + [(0, 0)]) for row in np.eye(channels)]
    pushed = np.stack([two_steps(expand, project, one, residual=residual)[::-1, ::-1] for one in ones], axis=2)
    computed = np.concatenate([expected.ravel(), pushed.ravel(), [collapse_error(expand, project, image, residual=residual)]])
    return computed, np.concatenate([output.ravel(), found["kernel"].ravel(), [0.0]]), {"k": k, "channels": channels, "residual": residual}


def colour_output(features, blocks, scale):
    return 25 * features + 9 * blocks * features**2 + 75 * features * scale**2


@paper.trial(Identity(rtol=0), of=[sesr_parameters, sesr_macs, training_macs], controls={"three colours out": colour_output}, quick=10, full=300)
def counted(draw, parameters):
    """Weights of real kernels, the multiply-adds of wide layers counted shape by shape, and the published sizes of four networks."""
    f, m, s, p, h, w = draw.integer(2, 20), draw.integer(1, 6), draw.choice([2, 4]), draw.integer(2, 40), draw.integer(8, 40), draw.integer(8, 40)
    shapes = [(5, 1, f)] + [(3, f, f)] * m + [(5, f, s * s)]
    kernels = [collapse(np.ones((k, k, i, p)), np.ones((p, o)))["kernel"].size for k, i, o in shapes]
    wide = sum(h * w * (np.ones((k, k, i, p)).size + p * o) for k, i, o in shapes)
    # an identity of i images gives k x k outputs each from the wide layer and from the projection
    folded = sum(i * k * k * (np.ones((k, k, i, p)).size + p * o) for k, i, o in shapes)
    training = training_macs(f, m, s, p, h * w)
    sizes = [parameters(16, 5, 2), parameters(16, 11, 2), parameters(32, 11, 2), parameters(16, 5, 4)]
    counts = [sum(kernels), h * w * sum(kernels), wide, folded + h * w * sum(kernels), 13520, 27344, 105376, 18320]
    return counts, [parameters(f, m, s), sesr_macs(f, m, s, h, w), training["expanded"], training["collapsed"], *sizes], {"features": f, "blocks": m}


def without_skip(*args, skip, **options):
    return overparameterised_flow(*args, skip=False, **options)


def plain_descent(target, seed, **options):
    found = overparameterised_flow(target, seed, **options)
    return found | {"collapsible": found["direct"]}


@paper.trial(Identity(rtol=0.01), of=[overparameterised_flow], controls={"skip left out": without_skip, "no preconditioner": plain_descent}, quick=5, full=40)
def preconditioned_flow(draw, model):
    """Descent on the factors follows the flow of the kernel alone, in which ||W2||^2 + W1 W1' multiplies the gradient and grows with it."""
    from scipy.integrate import solve_ivp

    target, start, width, skip, rate, steps = draw.uniform(-1, 1, size=(3, 3)), draw.integer(0, 1000), draw.integer(1, 32), draw.choice([True, False]), 1e-3, 500
    w1, w2 = first_factors(start, width)
    base = skip * (np.arange(9) == 4)

    def flow(_, state):
        w, squared, outer = state[:9], state[9], state[10:].reshape(9, 9)
        gradient, product = w - target.ravel(), w - base
        return np.concatenate([-(squared * gradient + outer @ gradient), [-2 * product @ gradient], -(np.outer(gradient, product) + np.outer(product, gradient)).ravel()])

    solved = solve_ivp(flow, (0, rate * steps), np.concatenate([w1 @ w2 + base, [w2 @ w2], (w1 @ w1.T).ravel()]), rtol=1e-8, t_eval=[rate * steps / 2, rate * steps])
    losses = np.sum((solved.y[:9] - target.reshape(9, 1)) ** 2, 0) / 2
    found = model(target, start, width=width, steps=steps, learning_rate=rate, skip=skip)
    initial = np.sum((w1 @ w2 + base - target.ravel()) ** 2) / 2
    plain = initial * (1 - rate) ** (2 * steps)
    told = [found["collapsible"][steps // 2], found["collapsible"][-1], found["direct"][-1], np.sum((found["kernel"] - target) ** 2) / 2]
    return [*losses, plain, losses[-1]], told, {"width": width, "skip": skip}
