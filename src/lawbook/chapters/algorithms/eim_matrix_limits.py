"""Inverses and log-determinants of parametrised matrices at many parameters from a few solves, with weights by empirical interpolation and a certificate."""

from itertools import combinations_with_replacement

import numpy as np

from lawbook.contract import Paper, array, count, matrix, nonnegative, positive, real, record, vector
from lawbook.numerics.singular import spectral_norm
from lawbook.trials import Identity, Inequality, Rate

paper = Paper(
    __name__,
    title="Nonintrusive approximation of parametrized limits of matrix power algorithms - application to matrix inverses and log-determinants",
    arxiv="1710.02488",
    tags=["empirical interpolation", "reduced basis", "log-determinant", "matrix inverse", "surrogate models"],
    source="derived",
    says="""Where a matrix depends on parameters through a few scalar functions, its powers depend on them through monomials of these functions, and so does everything that is a
    limit of powers: the inverse, the logarithm of the determinant. Empirical interpolation of the monomials gives a few parameters and weights that serve all of these, so
    the answer at any parameter is a fixed combination of answers of an ordinary solver at the chosen ones.""",
    notes="""The error bounds are derived here: Neumann series to the degree of the monomials, each word contributing its norm times the error of its coefficient, and the
    remainder twice. In one smooth parameter Chebyshev nodes do as well; the gain is with several parameters or irregular functions. Equispaced parameters are no worse
    certificate: their Lebesgue constant is often as small.""",
)

GRID = np.linspace(0, 1, 9)
COEFFICIENTS = matrix(
    "g",
    "q",
    of=real(typical=(-0.4, 0.4)),
    doc="value of each coefficient function at each training parameter",
    example=np.round(np.stack([0.45 * np.cos(GRID), 0.36 * GRID], 1), 6).tolist(),
)
MATRICES = array("q", "n", "n", of=real(typical=(-0.4, 0.4)), doc="M_1..M_q, where A = I - sum theta_i M_i", example=[[[0.6, 0.2], [0.2, -0.3]], [[0.1, 0.5], [0.5, 0.4]]])
DEGREE = count(typical=(2, 6), doc="largest degree of the monomials", example=8)
TERMS = count(typical=(1, 6), doc="parameters to choose, at most", example=5)


def monomials(coefficients, degree):
    """Values of all monomials up to `degree` at each parameter, by degree and then in lexicographic order; a column each."""
    q = coefficients.shape[1]
    return np.stack([np.prod(coefficients[:, list(word)], axis=1) for k in range(degree + 1) for word in combinations_with_replacement(range(q), k)], 1)


def interpolation(values, terms):
    """(points, functions, weights) by greedy choice of the function and the point that the others interpolate worst."""
    points, functions, residual, weights = [], [], values.copy(), None
    scale = np.abs(values).max()
    while len(points) < terms:
        function, point = divmod(int(np.argmax(np.abs(residual.T))), len(values))  # ties to the first monomial, then to the first parameter
        if abs(residual[point, function]) < 1e-14 * scale:
            break
        points.append(point)
        functions.append(function)
        basis = values[np.ix_(points, functions)]
        weights = np.linalg.lstsq(basis.T, values[:, functions].T, rcond=None)[0].T
        residual = values - weights @ values[points]
    return np.array(points), np.array(functions), weights


SELECTION = record(
    points=vector("m", of=count(low=0, doc="rows of the training parameters that were chosen")),
    weights=matrix("g", "m", of=real()),
    lebesgue=positive(doc="largest sum of absolute weights"),
    interpolation_error=nonnegative(doc="largest error over all monomials and training parameters"),
)


@paper.algorithm(r"\sum_j \lambda_j(\mu)\, g_i(\mu_j) = g_i(\mu),\quad (g_{m+1}, \mu_{m+1}) = \arg\max_{g, \mu} \left|g(\mu) - \sum_j \lambda_j(\mu) g(\mu_j)\right|")
def eim_select(coefficients: COEFFICIENTS, degree: DEGREE, terms: TERMS) -> SELECTION:
    """Parameters that interpolate all monomials of the coefficients, and the weights of each training parameter; fewer where nothing is left to interpolate."""
    values = monomials(coefficients, degree)
    points, _, weights = interpolation(values, terms)
    error = np.abs(values - weights @ values[points]).max()
    return {"points": points, "weights": weights, "lebesgue": float(np.abs(weights).sum(1).max()), "interpolation_error": float(error)}


@paper.bound(
    r"\left\|A(\mu)^{-1} - \sum_j \lambda_j A(\mu_j)^{-1}\right\| \le \delta_P \sum_{k=0}^{P} \Big(\sum_i \|M_i\|\Big)^k + (1 + \Lambda)\frac{\rho^{P+1}}{1 - \rho}",
    gives=0.0126,
)
def eim_error(
    interpolation_error: nonnegative(typical=(0, 1e-3), doc="of the monomials", example=0.001),
    lebesgue: positive(typical=(1, 10), doc="largest sum of absolute weights", example=3.0),
    norms: vector("q", of=nonnegative(typical=(0, 1)), doc="spectral norms of M_1..M_q", example=[0.5, 0.5]),
    degree: count(typical=(2, 20), doc="P", example=9),
    rho: nonnegative(typical=(0, 1.1), doc="largest norm of M(mu)", example=0.4525),
) -> nonnegative(infinite=True, doc="infinite where rho is 1 or more"):
    """Bound on the spectral error of an interpolated inverse."""
    if rho >= 1:
        return float("inf")
    words = (norms.sum() ** np.arange(degree + 1)).sum()
    return float(interpolation_error * words + (1 + lebesgue) * rho ** (degree + 1) / (1 - rho))


def log_det_error(interpolation_error, lebesgue, norms, degree, rho, size):
    """The same for the log-determinant, whose series divides the k-th power by k."""
    if rho >= 1:
        return float("inf")
    k = np.arange(1, degree + 1)
    return float(size * (interpolation_error * (norms.sum() ** k / k).sum() + (1 + lebesgue) * rho ** (degree + 1) / ((degree + 1) * (1 - rho))))


def parts(matrices, coefficients):
    """Norms of M_1..M_q and the largest norm of M(mu) over the training parameters; where the norms nearby rule a parameter out, its own is not computed."""
    norms = spectral_norm(matrices)
    most, at_most = 0.0, np.abs(coefficients) @ norms
    while at_most.max() > most * (1 + 1e-12):
        i = int(np.argmax(at_most))
        here = spectral_norm(np.tensordot(coefficients[i], matrices, 1))
        most, at_most = max(most, here), np.minimum(at_most, here + np.abs(coefficients - coefficients[i]) @ norms)
        at_most[i] = min(at_most[i], most)
    return norms, float(most)


def sample_family(rng):
    """Random symmetric families with norms mostly below 1."""
    q, n, g = rng.integers(1, 4), rng.integers(2, 6), rng.integers(5, 12)
    coefficients = rng.uniform(-1, 1, size=(g, q))
    matrices = rng.normal(size=(q, n, n))
    matrices = matrices + matrices.swapaxes(1, 2)
    matrices *= rng.uniform(0.2, 0.95) / parts(matrices, coefficients)[1]
    return {"matrices": matrices, "coefficients": coefficients, "degree": int(rng.integers(2, 7)), "terms": int(rng.integers(1, 7))}


@paper.algorithm(
    r"A(\mu)^{-1} \approx \sum_j \lambda_j(\mu)\, A(\mu_j)^{-1},\quad A(\mu) = I - \sum_i \theta_i(\mu) M_i",
    requires={
        "index must be a row of coefficients, counted from 0": lambda index, coefficients: index < len(coefficients),
        "matrices must be as many as coefficients has columns": lambda matrices, coefficients: len(matrices) == coefficients.shape[1],
    },
    sample=lambda rng: {**sample_family(rng), "index": int(rng.integers(5))},
)
def eim_inverse(
    matrices: MATRICES,
    coefficients: COEFFICIENTS,
    degree: DEGREE,
    terms: TERMS,
    index: count(low=0, typical=(0, 4), doc="training parameter at which the inverse is wanted", example=4),
) -> record(
    inverse=matrix("n", "n", of=real()), points=vector("m", of=count(low=0)), error_bound=positive(low=0.0, above=False, infinite=True, doc="infinite where norms reach 1")
):
    """The inverse at a parameter as a combination of inverses at the chosen ones, and a bound on its spectral error."""
    chosen = eim_select(coefficients, degree, terms)
    norms, rho = parts(matrices, coefficients)
    inverses = np.linalg.inv(np.eye(matrices.shape[1]) - np.tensordot(coefficients[chosen["points"]], matrices, 1))
    bound = eim_error(chosen["interpolation_error"], chosen["lebesgue"], norms, degree, rho)
    return {"inverse": np.tensordot(chosen["weights"][index], inverses, 1), "points": chosen["points"], "error_bound": bound}


@paper.algorithm(
    r"\log\det A(\mu) \approx \sum_j \lambda_j(\mu) \log\det A(\mu_j)",
    requires={"matrices must be as many as coefficients has columns": lambda matrices, coefficients: len(matrices) == coefficients.shape[1]},
    sample=sample_family,
)
def eim_logdet(matrices: MATRICES, coefficients: COEFFICIENTS, degree: DEGREE, terms: TERMS) -> record(
    log_det=vector("g", of=real("nats")), points=vector("m", of=count(low=0)), error_bound=nonnegative(infinite=True, doc="infinite where norms reach 1")
):
    """log |det A| at all training parameters from those at the chosen ones, and a bound on its error."""
    chosen = eim_select(coefficients, degree, terms)
    norms, rho = parts(matrices, coefficients)
    at_points = np.linalg.slogdet(np.eye(matrices.shape[1]) - np.tensordot(coefficients[chosen["points"]], matrices, 1))[1]
    bound = log_det_error(chosen["interpolation_error"], chosen["lebesgue"], norms, degree, rho, matrices.shape[1])
    return {"log_det": chosen["weights"] @ at_points, "points": chosen["points"], "error_bound": bound}


def sign_flipped(matrices, coefficients, degree, terms, **index):
    """Solves with the sign of the second term turned, its certificate unchanged."""
    turned = eim_inverse(np.concatenate([matrices[:1], -matrices[1:]]), coefficients, degree, terms, **index)
    return {**turned, "error_bound": eim_inverse(matrices, coefficients, degree, terms, **index)["error_bound"]}


def log_sign_flipped(matrices, coefficients, degree, terms):
    turned = eim_logdet(np.concatenate([matrices[:1], -matrices[1:]]), coefficients, degree, terms)
    return {**turned, "error_bound": eim_logdet(matrices, coefficients, degree, terms)["error_bound"]}


@paper.trial(
    Inequality(search=0, atol=1e-11),
    of=[eim_inverse, eim_logdet, eim_error],
    claim=(eim_inverse, eim_logdet),
    controls={"sign of the second term flipped": (sign_flipped, eim_logdet), "sign flipped in determinants": (eim_inverse, log_sign_flipped)},
    quick=12,
    full=100,
)
def certificates(draw, claim):
    """Errors of inverses and log-determinants at every training parameter stay below their bounds: random families, and one where the bound is small."""
    inverse, log_det = claim
    family = sample_family(draw.rng)
    if draw.integer(0, 1):
        x, m = np.linspace(0, 1, 41), draw.rng.normal(size=(2, 8, 8))
        coefficients, m = np.stack([np.cos(4 * x), x], 1), m + m.swapaxes(1, 2)
        family = {"matrices": m * 0.5 / parts(m, coefficients)[1], "coefficients": coefficients, "degree": 16, "terms": 13}
    exact = np.eye(family["matrices"].shape[1]) - np.tensordot(family["coefficients"], family["matrices"], 1)
    told = [inverse(**family, index=i) for i in range(0, len(exact), 3)]
    errors = [np.linalg.norm(np.linalg.inv(A) - found["inverse"], 2) for A, found in zip(exact[::3], told, strict=True)]
    logs = log_det(**family)
    gap = np.abs(np.linalg.slogdet(exact)[1] - logs["log_det"]).max()
    return [*errors, gap], [*(found["error_bound"] for found in told), logs["error_bound"]], {"terms": family["terms"]}


def nearest_point(coefficients, degree, terms):
    """Takes over the value at the nearest chosen parameter."""
    points = eim_select(coefficients, degree, terms)["points"]
    return {"points": points, "weights": np.eye(len(points))[np.argmin(((coefficients[:, None] - coefficients[points]) ** 2).sum(2), 1)]}


@paper.trial(Rate(within=0.6, axes="linear", one_sided=True), of=[eim_select], controls={"nearest chosen parameter": nearest_point}, quick=3, full=30)
def error_against_terms(draw, claim):
    """The logarithm of the error of the inverse falls by at least 1.4 for every parameter that is added (two smooth functions, 30 x 30 matrices)."""
    mu = np.linspace(0, 1, 61)
    coefficients, m = np.stack([0.45 * np.cos(mu), 0.36 * mu], 1), draw.rng.normal(size=(2, 30, 30))
    m = m + m.swapaxes(1, 2)
    m /= np.linalg.norm(m, 2, axis=(1, 2))[:, None, None]
    inverses, terms, errors = np.linalg.inv(np.eye(30) - np.tensordot(coefficients, m, 1)), np.arange(2, 11, 2), []
    for count_ in terms:
        found = claim(coefficients, 12, int(count_))
        errors.append(np.linalg.norm(inverses - np.tensordot(found["weights"], inverses[found["points"]], 1), 2, axis=(1, 2)).max())
    return terms, np.log(errors), -2.0


@paper.trial(Identity(rtol=1e-9, atol=1e-9), of=[eim_select], controls={"nearest chosen parameter": nearest_point}, quick=10, full=100)
def powers_interpolated(draw, claim):
    """With as many terms as there are monomials, the weights reproduce powers and polynomials of the coefficients exactly."""
    coefficients = draw.rng.uniform(-1, 1, size=(30, 2))
    found = claim(coefficients, 3, 10)
    x, y = coefficients.T
    wanted = np.stack([np.ones(30), x**2 * y - y**3, (1 + x - y) ** 3])
    return wanted, wanted[:, found["points"]] @ found["weights"].T
