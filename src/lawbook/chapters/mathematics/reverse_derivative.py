"""Laws that a reverse derivative obeys, put to any vector-Jacobian product: which of them does an implementation break?"""

from itertools import pairwise

import numpy as np

from lawbook.contract import Paper, count, function, listing, matrix, nonnegative, positive, real, record, seed, text, vector
from lawbook.trials import Guarantee, Identity

paper = Paper(
    __name__,
    title="Reverse derivative categories",
    arxiv="1910.07065",
    tags=["reverse-mode differentiation", "vector-jacobian product", "automatic differentiation", "category theory", "chain rule", "gradient check"],
    source="known",
    says="""Reverse-mode differentiation is axiomatised by itself: an operator R takes f to R[f](x, y), for smooth maps the transposed Jacobian at x applied to y, and
    seven laws say how it treats sums, the cotangent y, products, compositions and second derivatives. Such an operator gives a forward derivative for free, by reversing
    in the cotangent; the way back needs a transpose on linear maps. Put to the code of a vector-Jacobian product, the laws tell what kind of mistake it makes.""",
    notes="""Laws RD1, RD3 and RD4 relate R of different maps and say nothing about one implementation alone, and RD6 comes with RD2 here, where linear combinations are
    tried, not sums alone. RD5 is tried on the composition with a smooth map of known reverse derivative: comparing with central differences alone would repeat the
    transpose law. Symmetry is RD7, for the forward derivative that the reverse one induces.""",
)

MAP = function("x[inputs] -> f(x)[outputs]", example=lambda x: np.array([x[0] * x[1], np.sin(x[0])]))
VJP = function("x[inputs], y[outputs] -> J(x)^T y [inputs]", example=lambda x, y: np.array([x[1] * y[0] + np.cos(x[0]) * y[1], x[0] * y[0]]))
JACOBIANS = listing(matrix(), least=1, doc="Jacobians of the stages in the order in which they are applied", example=[[[1.0, 2.0], [3.0, 4.0], [0.0, 1.0]], [[1.0, -1.0, 2.0]]])
FIT = {"jacobians must fit: each has as many columns as the one before has rows": lambda jacobians: all(b.shape[1] == a.shape[0] for a, b in pairwise(jacobians))}
LAWS = ("RD2", "RD5", "transpose", "forward", "symmetry")


@paper.law(r"D[f](x, v) = R_2\bigl[R[f]\bigr](x, 0; v),\qquad D[f](x, v)_i = \langle R[f](x, e_i),\, v \rangle")
def forward_from_reverse(
    vjp: VJP,
    x: vector("n", of=real(typical=(-2, 2)), doc="where", example=[0.5, -1.0]),
    v: vector("n", of=real(typical=(-2, 2)), doc="direction", example=[1.0, 2.0]),
    outputs: count(high=100_000, typical=(1, 5), doc="length of y", example=2),
) -> vector("outputs"):
    """Forward derivative J(x) v from a vector-Jacobian product alone, with one call for each output."""
    return np.array([np.dot(np.ravel(vjp(x, unit)), v) for unit in np.eye(outputs)])


def relative(found, claimed):
    """Largest difference, relative to 1 + the size of the values."""
    found, claimed = np.asarray(found, float), np.asarray(claimed, float)
    return float(np.abs(found - claimed).max() / (1 + np.abs(claimed).max()))


def differences(f, x, v, step):
    """Directional derivative by central differences."""
    return (np.ravel(f(x + step * v)) - np.ravel(f(x - step * v))) / (2 * step)


VIOLATION = nonnegative(infinite=True, doc="largest violation, relative to 1 + the size of what is compared")


@paper.measure(
    r"R(x, ay + bz) = aR(x, y) + bR(x, z);\quad R[gf](x, z) = R[f](x, R[g](f(x), z));\quad \langle R(x, y), v\rangle = \langle y, Jv\rangle;\quad D^2 f(x; v, w) = D^2 f(x; w, v)"
)
def check_reverse_derivative(
    function: MAP,
    vjp: VJP,
    inputs: count(high=100_000, typical=(1, 5), doc="length of x", example=2),
    outputs: count(high=100_000, typical=(1, 5), doc="length of y", example=2),
    seed: seed(example=0),
    *,
    trials: count(high=10_000, typical=(1, 50), doc="random points, standard normal") = 20,
    tolerance: positive(typical=(1e-9, 1e-3), doc="violation from which a law counts as broken") = 1e-6,
) -> record(RD2=VIOLATION, RD5=VIOLATION, transpose=VIOLATION, forward=VIOLATION, symmetry=VIOLATION, broken=listing(text(), doc="laws violated beyond the tolerance")):
    """Violations of the laws by a function with its vector-Jacobian product: linear in the cotangent (RD2), chain rule (RD5), transpose of central differences, forward derivative
    from the reverse one, and symmetry of the second derivatives (RD7)."""
    rng = np.random.default_rng(seed)
    worst = dict.fromkeys(LAWS, 0.0)
    for _ in range(trials):
        x, v, w = rng.normal(size=(3, inputs))
        y, z = rng.normal(size=(2, outputs))
        v, w = v / np.linalg.norm(v), w / np.linalg.norm(w)
        a, b = rng.normal(size=2)
        step = 1e-5 * (1 + np.linalg.norm(x))
        slope = differences(function, x, v, step)
        size = 1 + np.linalg.norm(slope) + np.linalg.norm(np.ravel(function(x)))
        mix = rng.normal(size=(outputs, outputs)) / size  # the map after: u -> sin(mix u), scaled so that differences see it well

        def reverse(y, x=x):
            return np.ravel(vjp(x, y)).astype(float)

        def forward(x, v):
            return forward_from_reverse(vjp, x, v, outputs)

        def after(x, mix=mix):
            return np.sin(mix @ np.ravel(function(x)))

        pulled = mix.T @ (np.cos(mix @ np.ravel(function(x))) * z)  # R of the map after, at f(x) and z
        found = {
            "RD2": max(relative(reverse(a * y + b * z), a * reverse(y) + b * reverse(z)), relative(reverse(0 * y), 0 * x)),
            "RD5": relative(reverse(pulled) @ v, z @ differences(after, x, v, step)),
            "transpose": relative(reverse(y) @ v, y @ slope),
            "forward": relative(forward(x, v), slope),
            "symmetry": relative(differences(lambda x, v=v: forward(x, v), x, w, step), differences(lambda x, w=w: forward(x, w), x, v, step)),
        }
        worst = {law: max(worst[law], np.inf if np.isnan(found[law]) else found[law]) for law in LAWS}
    return {**worst, "broken": [law for law in LAWS if worst[law] > tolerance]}


def draw_stages(rng):
    sizes = rng.integers(1, 5, rng.integers(2, 5))
    return [rng.normal(size=(after, before)) for before, after in pairwise(sizes)]


def draw_reverses(rng):
    stages = draw_stages(rng)
    return {
        "jacobians": stages,
        "reverses": [j.T + 0.1 * rng.normal(size=j.T.shape) for j in stages],
        "composite_reverse": rng.normal(size=(stages[0].shape[1], stages[-1].shape[0])),
    }


@paper.measure(
    r"\max_i \|R_i - J_i^{\mathsf T}\|_\infty,\qquad \|R - R_1 R_2 \cdots R_L\|_\infty",
    requires={
        **FIT,
        "reverses must have the shapes of the transposed jacobians": lambda reverses, jacobians: [r.shape[::-1] for r in reverses] == [j.shape for j in jacobians],
        "composite_reverse must have a row for each input of the first stage and a column for each output of the last": lambda composite_reverse, jacobians: (
            composite_reverse.shape == (jacobians[0].shape[1], jacobians[-1].shape[0])
        ),
    },
    sample=draw_reverses,
)
def reverse_matrix_laws(
    jacobians: JACOBIANS,
    reverses: listing(matrix(), least=1, doc="matrices of y -> R(x, y) of the stages", example=[[[1.0, 3.0, 0.0], [2.0, 4.0, 1.0]], [[1.0], [-1.0], [2.0]]]),
    composite_reverse: matrix(doc="the same of the whole pipeline", example=[[-2.0], [0.0]]),
) -> record(transpose=nonnegative(), chain=nonnegative()):
    """How far the reverse derivatives of a pipeline are from the transposes of its Jacobians, and the composite one from the product of the stages'."""
    transpose = max(float(np.abs(r - j.T).max()) for r, j in zip(reverses, jacobians, strict=True))
    product = np.linalg.multi_dot(reverses) if len(reverses) > 1 else reverses[0]
    return {"transpose": transpose, "chain": float(np.abs(composite_reverse - product).max())}


@paper.law(
    r"R[f_L \cdots f_1](x, y) = J_1^{\mathsf T}(J_2^{\mathsf T}(\cdots J_L^{\mathsf T} y))",
    requires={**FIT, "cotangent must have an entry for each output of the last stage": lambda cotangent, jacobians: len(cotangent) == len(jacobians[-1])},
    sample=lambda rng: {"jacobians": (stages := draw_stages(rng)), "cotangent": rng.normal(size=len(stages[-1]))},
)
def pipeline_vjp(jacobians: JACOBIANS, cotangent: vector("outputs", doc="y, after the last stage", example=[2.0])) -> vector("inputs"):
    """Reverse derivative of a pipeline: the cotangent pulled back through the transposed Jacobians, last stage first."""
    for jacobian in reversed(jacobians):
        cotangent = np.asarray(jacobian).T @ cotangent
    return cotangent


def maps(rng, n, m):
    """name -> (f, vjp, outputs) of right pairs on n inputs; f takes complex numbers too."""
    a, b = rng.normal(size=(2, m, n))
    column = rng.normal(size=n)

    def softmax(x):
        return np.exp(x) / np.exp(x).sum()

    def softmax_vjp(x, y):
        return softmax(x) * (y - softmax(x) @ y)

    def length(x):
        return np.sqrt((x * x).sum())

    return {
        "polynomial": (lambda x: a @ x + (b @ x) ** 3, lambda x, y: a.T @ y + b.T @ (3 * (b @ x) ** 2 * y), m),
        "product of matrices": (lambda x: np.outer(x, column) @ x, lambda x, y: (column @ x) * y + (x @ y) * column, n),
        "softmax": (softmax, softmax_vjp, n),
        "logsumexp": (lambda x: np.log(np.exp(x).sum())[None], lambda x, y: softmax(x) * y[0], 1),
        "normalise": (lambda x: x / length(x), lambda x, y: y / length(x) - x * (x @ y) / length(x) ** 3, n),
    }


def first_output_only(vjp, x, v, outputs):
    return np.where(np.arange(outputs) == 0, forward_from_reverse(vjp, x, v, outputs), 0.0)


def reversed_again(vjp, x, v, outputs):
    """The direction taken for a cotangent."""
    return np.resize(vjp(x, np.resize(v, outputs)), outputs)


@paper.trial(
    Identity(rtol=1e-11, atol=1e-11),
    of=[forward_from_reverse, pipeline_vjp, reverse_matrix_laws],
    controls={"first output only": first_output_only, "direction taken for a cotangent": reversed_again},
    quick=40,
    full=400,
)
def forward_derivative_comes_free(draw, claim):
    """The forward derivative from the reverse one equals the derivative by a complex step, for five maps; a pipeline's is the transposed product, and only then its laws hold."""
    n, m = draw.integer(2, 6), draw.integer(1, 6)
    f, vjp, outputs = maps(draw.rng, n, m)[draw.choice(["polynomial", "product of matrices", "softmax", "logsumexp", "normalise"])]
    x, v = draw.normal(size=(2, n))
    stages = [draw.rng.normal(size=(m, n)), draw.rng.normal(size=(n, m)), draw.rng.normal(size=(m, n))]
    y = draw.normal(size=m)
    whole = (stages[2] @ stages[1] @ stages[0]).T
    off = draw.uniform(0.1, 1.0)
    spoiled = reverse_matrix_laws(stages, [s.T + off * (i == 1) for i, s in enumerate(stages)], whole)
    change = off * np.abs(np.outer(stages[0].sum(0), stages[2].sum(1))).max()
    laws = reverse_matrix_laws(stages, [s.T for s in stages], whole)
    left = [*claim(vjp, x, v, outputs), *pipeline_vjp(stages, y), laws["transpose"], laws["chain"], spoiled["transpose"], spoiled["chain"]]
    right = [*f(x + 1e-30j * v).imag / 1e-30, *whole @ y, 0, 0, off, change]
    return left, right


def flawed(rng, n):
    """name -> (f, wrong vjp, outputs, laws it breaks)."""
    f, vjp, outputs = maps(rng, n, 3)["polynomial"]
    softmax = maps(rng, n, 3)["softmax"][0]
    return {
        "square without its factor 2": (lambda x: (x @ x)[None], lambda x, y: x * y[0], 1, ["RD5", "transpose", "forward"]),
        "softmax without the rank-one term": (softmax, lambda x, y: softmax(x) * y, n, ["RD5", "transpose", "forward", "symmetry"]),
        "cotangent times its length": (f, lambda x, y: vjp(x, y) * np.linalg.norm(y), outputs, ["RD2", "RD5", "transpose"]),
    }


def only_linear(function, vjp, inputs, outputs, seed):
    """A checker that looks at the cotangent alone."""
    told = check_reverse_derivative(function, vjp, inputs, outputs, seed)
    return {**told, "broken": [law for law in told["broken"] if law == "RD2"]}


def coarse(function, vjp, inputs, outputs, seed):
    """A checker that calls a law broken only by a violation above 1."""
    return check_reverse_derivative(function, vjp, inputs, outputs, seed, tolerance=1.0)


def strict(function, vjp, inputs, outputs, seed):
    """A checker that allows rounding errors only, and not those of differences."""
    return check_reverse_derivative(function, vjp, inputs, outputs, seed, tolerance=1e-14)


@paper.trial(
    Guarantee(),
    of=[check_reverse_derivative],
    controls={"cotangent alone": only_linear, "violations above 1 only": coarse, "rounding errors only": strict},
    quick=6,
    full=60,
)
def mistakes_are_named(draw, claim):
    """Five right pairs break no law, to 1e-6; three wrong ones break exactly those that their mistake concerns."""
    n, seed = draw.integer(3, 5), draw.integer(0, 1000)
    right = {name: (*pair, []) for name, pair in maps(draw.rng, n, 3).items()}
    cases = {**right, **flawed(draw.rng, n)}
    return all(claim(f, vjp, n, outputs, seed)["broken"] == broken for f, vjp, outputs, broken in cases.values())


@paper.finding(
    """No law does it alone: a vjp that is wrong only in not being linear in the cotangent induces the right forward derivative and symmetric second derivatives, and one that is
    off by a factor is linear and symmetric. Gradient checks along coordinate cotangents, which try the forward law alone, pass the first."""
)
def coordinate_checks_miss_nonlinear_cotangents():
    wrong = flawed(np.random.default_rng(0), 4)
    told = {name: check_reverse_derivative(f, vjp, 4, outputs, 0) for name, (f, vjp, outputs, _) in wrong.items()}
    nonlinear, factor = told["cotangent times its length"], told["square without its factor 2"]
    holds = nonlinear["forward"] < 1e-6 and nonlinear["symmetry"] < 1e-6 and nonlinear["transpose"] > 0.01 and factor["RD2"] < 1e-12 and factor["symmetry"] < 1e-6
    return {"holds": bool(holds), "nonlinear": {law: nonlinear[law] for law in LAWS}, "factor": {law: factor[law] for law in LAWS}}
