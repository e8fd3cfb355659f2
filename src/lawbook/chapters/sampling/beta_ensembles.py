"""Beta-ensembles: eigenvalues that repel, drawn as spectra of random tridiagonal matrices."""

import numpy as np

from lawbook.contract import Paper, caution, choice, count, nonnegative, positive, probability, real, seed, vector
from lawbook.numerics import arrays
from lawbook.trials import Distribution, Estimate, Identity, Sample

paper = Paper(
    __name__,
    title="Fast sampling from beta-ensembles",
    arxiv="2003.02344",
    tags=["random matrix", "eigenvalues", "beta ensemble", "tridiagonal", "Gibbs sampling", "Hermite", "Laguerre", "Jacobi", "covariance spectrum"],
    source="known",
    says="""Points whose density is prod exp(-V(x_i)) prod |x_i - x_j|^beta are the eigenvalues of a random symmetric tridiagonal matrix. For the Hermite, Laguerre
    and Jacobi weights its entries are independent, so that a spectrum of any size and any beta costs a tridiagonal eigenvalue problem. For another polynomial V
    the entries interact only with their neighbours, and a Gibbs sampler over them needs few passes.""",
    notes="""Conventions of the weights: exp(-x^2/2) (Hermite), x^(beta(M-N+1)/2-1) exp(-x/2) (Laguerre), x^(a-1) (1-x)^(b-1) (Jacobi). At beta = 0 the Hermite and Jacobi
    points are independent; the Laguerre weight is then not integrable. That the Gibbs sampler mixes in O(log N) passes is a conjecture (Krishnapur, Rider, Virag).
    Its start is shifted and scaled to the polynomial, so that far-off or narrow potentials need no longer runs.""",
)

SIZE = count("points", typical=(1, 60), example=5)
BETA = positive(typical=(0.3, 8), doc="inverse temperature: strength of the repulsion", example=2.0)
BETA_OR_ZERO = nonnegative(typical=(0, 8), doc="inverse temperature: strength of the repulsion; 0 means independent points", example=2.0)
ROWS = positive(typical=(1, 200), doc="degrees of freedom (columns of the data matrix), need not be whole", example=7.5)
SHAPE_A = positive(typical=(0.2, 5), doc="exponent at 0, plus 1", example=1.5)
SHAPE_B = positive(typical=(0.2, 5), doc="exponent at 1, plus 1", example=2.0)
WIDE = {"m must be above n - 1: the weight is not integrable otherwise": lambda n, m: m > n - 1}


def spectrum(diagonal, off_diagonal):
    """Ascending eigenvalues of a symmetric tridiagonal matrix."""
    from scipy.linalg import eigh_tridiagonal

    return eigh_tridiagonal(diagonal, off_diagonal, eigvals_only=True) if len(diagonal) > 1 else np.array(diagonal, float)


@paper.algorithm(r"a_i \sim N(0, 1),\quad b_i^2 \sim \Gamma(\beta(N-i)/2)")
def sample_hermite(n: SIZE, beta: BETA_OR_ZERO, *, seed: seed() = 0) -> vector("n", of=real()):
    """One draw of the Hermite ensemble, ascending."""
    rng = np.random.default_rng(seed)
    return spectrum(rng.normal(size=n), np.sqrt(rng.gamma(beta / 2 * np.arange(n - 1, 0, -1))))


def bidiagonal_spectrum(diagonal, below):
    """Ascending eigenvalues of B B' for a lower bidiagonal B."""
    previous = np.concatenate([[0.0], below])
    return spectrum(diagonal**2 + previous**2, diagonal[:-1] * below)


@paper.algorithm(r"J = B B^\top,\quad B_{ii} \sim \chi_{\beta(M-i+1)},\ B_{i+1,i} \sim \chi_{\beta(N-i)}", requires=WIDE)
def sample_laguerre(n: SIZE, m: ROWS, beta: BETA, *, seed: seed() = 0) -> vector("n", of=nonnegative()):
    """One draw of the Laguerre ensemble (spectrum of a Wishart matrix), ascending."""
    rng = np.random.default_rng(seed)
    diagonal, below = (np.sqrt(rng.chisquare(beta * freedom)) for freedom in (m - np.arange(n), np.arange(n - 1, 0, -1)))
    return np.maximum(bidiagonal_spectrum(diagonal, below), 0.0)


@paper.algorithm(
    r"c_{2i-1} \sim B(a + \tfrac{\beta}{2}(N-i),\ b + \tfrac{\beta}{2}(N-i)),\ c_{2i} \sim B(\tfrac{\beta}{2}(N-i),\ a + b + \tfrac{\beta}{2}(N-1-i)),\ \xi_k = (1 - c_{k-1}) c_k"
)
def sample_jacobi(n: SIZE, a: SHAPE_A, b: SHAPE_B, beta: BETA_OR_ZERO, *, seed: seed() = 0) -> vector("n", of=probability()):
    """One draw of the Jacobi ensemble on [0, 1], ascending."""
    rng = np.random.default_rng(seed)
    rest = beta / 2 * np.arange(n - 1, -1, -1)  # beta (N - i) / 2 for i = 1..N
    c = np.zeros(2 * n)  # c_0 = 0, then c_1, ..., c_{2N-1}
    c[1::2] = rng.beta(a + rest, b + rest)
    if beta > 0:
        c[2::2] = rng.beta(rest[:-1], a + b + rest[1:])
    xi = (1 - c[:-1]) * c[1:]
    even = np.concatenate([[0.0], xi[1::2]])
    return np.clip(spectrum(even + xi[0::2], np.sqrt(xi[0:-1:2] * xi[1::2])), 0.0, 1.0)


def row_energies(diagonal, off_diagonal, potential):
    """The diagonal of V(J), chain by chain: closed walks of length k from a row, met half-way from both of its ends."""
    half = (len(potential) - 1) // 2
    n = diagonal.shape[-1]
    pad = [(0, 0)] * (diagonal.ndim - 1)
    around = np.lib.stride_tricks.sliding_window_view
    stay = around(np.pad(diagonal, [*pad, (half, half)]), 2 * half + 1, axis=-1)  # [..., row, offset] = a at row + offset
    hop = around(np.pad(off_diagonal, [*pad, (half, half + 1)]), 2 * half + 1, axis=-1)  # b between row + offset and the next
    walks = [np.zeros(stay.shape)]
    walks[0][..., half] = 1
    for _ in range(half):  # walks[k] holds the row of J^k
        last = walks[-1]
        step = last * stay
        step[..., 1:] += last[..., :-1] * hop[..., :-1]
        step[..., :-1] += last[..., 1:] * hop[..., :-1]
        walks.append(step)
    energy = np.full((*diagonal.shape[:-1], n), potential[0])
    for k in range(1, len(potential)):
        if potential[k]:
            energy = energy + potential[k] * np.einsum("...i,...i->...", walks[k // 2], walks[k - k // 2])
    return energy


def tridiagonal_gibbs(powers, potential, centre, scale, step, sweeps, rng, chains):
    """`chains` states (a, b) of the density prod b_i^powers_i exp(-tr V(J)) after some sweeps.

    An entry moves the energies of the rows within half the degree only, so entries one window apart are updated at once, each with its own decision.
    """
    n, half = len(powers) + 1, (len(potential) - 1) // 2
    width = 2 * half + 1
    diagonal = np.full((chains, n), centre)
    off_diagonal = np.tile(scale * np.sqrt(np.arange(n - 1, 0, -1) / n), (chains, 1))
    energy = row_energies(diagonal, off_diagonal, potential)
    windows = np.lib.stride_tricks.sliding_window_view
    for _ in range(sweeps):
        for first, entries in ((f, kind) for f in range(width) for kind in (diagonal, off_diagonal)):
            sites = np.arange(first, entries.shape[1], width)
            if not len(sites):
                continue
            for factor in (0.5, 1.0, 2.0):
                proposed = entries.copy()
                proposed[:, sites] += factor * step * rng.normal(size=(chains, len(sites)))
                change = 0.0
                if entries is off_diagonal:
                    proposed = np.abs(proposed)  # reflection at 0 keeps the proposal symmetric
                    change = powers[sites] * (np.log(proposed[:, sites]) - np.log(entries[:, sites]))
                new = row_energies(*((proposed, off_diagonal) if entries is diagonal else (diagonal, proposed)), potential)
                moved = windows(np.pad(energy - new, ((0, 0), (half, half))), width, axis=-1).sum(-1)[:, sites]
                accepted = np.log(rng.uniform(size=moved.shape)) < change + moved
                entries[:, sites] = np.where(accepted, proposed[:, sites], entries[:, sites])
                changed = np.zeros(energy.shape, bool)
                changed[:, sites] = accepted
                energy = np.where(windows(np.pad(changed, ((0, 0), (half, half))), width, axis=-1).any(-1), new, energy)
    return diagonal, off_diagonal


def polynomial_chains(n, beta, coefficients, sweeps, rng, chains, extra_power=0.0):
    """Entries of `chains` independent runs for V = (beta n / 2) sum c_k x^k."""
    c = np.trim_zeros(np.asarray(coefficients, float), "b")
    degree = len(c) - 1
    centre = -c[-2] / (degree * c[-1])  # where the polynomial's second-highest term vanishes
    scale = (1 / (degree * c[-1])) ** (1 / degree)
    powers = beta * np.arange(n - 1, 0, -1) - 1 + extra_power
    return tridiagonal_gibbs(powers, beta * n / 2 * c, centre, scale, scale / np.sqrt(beta * n), sweeps, rng, chains)


def confining(coefficients):
    c = np.trim_zeros(coefficients, "b")
    return len(c) in (3, 5, 7) and c[-1] > 0


def is_convex(coefficients):
    curvature = np.polynomial.Polynomial(np.trim_zeros(coefficients, "b")).deriv(2)
    return min(curvature(np.append(curvature.deriv().roots().real, 0.0))) >= -1e-9


def draw_convex(rng):
    coefficients = [0.0, float(rng.normal()), *[float(rng.uniform(0.1, 1)), 0.0] * int(rng.integers(3)), float(rng.uniform(0.2, 1))]
    return {"n": int(rng.integers(1, 30)), "beta": float(rng.uniform(0.5, 6)), "coefficients": coefficients, "sweeps": int(rng.integers(1, 10))}


@paper.algorithm(
    r"p(a, b) \propto \prod_i b_i^{\beta(N-i)-1} e^{-\operatorname{tr} V(J)},\quad V(x) = \tfrac{\beta N}{2} \sum_k c_k x^k",
    requires={"coefficients must be those of a polynomial of degree 2, 4 or 6 with a positive leading one": confining},
    sample=draw_convex,
)
def sample_polynomial(
    n: SIZE,
    beta: BETA,
    coefficients: vector("terms", of=real(typical=(-1, 1)), doc="c_0, c_1, ... of the potential over beta n / 2", example=[0, 0, 0, 0, 0.25]),
    sweeps: count("sweeps", typical=(1, 30), doc="Gibbs passes over all entries; about 10 + 2 log n are enough for potentials with one well", example=20),
    *,
    seed: seed() = 0,
) -> vector("n", of=real()):
    """Approximate draw of the ensemble with a polynomial potential by Gibbs sampling of the tridiagonal entries, ascending."""
    if not is_convex(coefficients):
        caution("The potential is not convex: with more than one well the chain may need many more sweeps.")
    diagonal, off_diagonal = polynomial_chains(n, beta, coefficients, sweeps, np.random.default_rng(seed), 1)
    return spectrum(diagonal[0], off_diagonal[0])


@paper.law(r"E \sum x_i^2 = N + \beta N(N-1)/2", closed_form=True, gives=25)
def hermite_second_moment(n: SIZE, beta: BETA_OR_ZERO) -> positive():
    """Expected sum of squares of the Hermite ensemble."""
    _, n, beta = arrays(n, beta)
    return n + beta * n * (n - 1) / 2


@paper.law(r"E \sum x_i = \beta N M", requires=WIDE, closed_form=True, gives=75)
def laguerre_mean_trace(n: SIZE, m: ROWS, beta: BETA) -> positive():
    """Expected sum of the Laguerre ensemble."""
    _, n, m, beta = arrays(n, m, beta)
    return beta * n * m


@paper.law(r"E \sum x_i^2 = \beta N M (\beta (N + M - 1) + 2)", requires=WIDE, closed_form=True, gives=1875)
def laguerre_second_moment(n: SIZE, m: ROWS, beta: BETA) -> positive():
    """Expected sum of squares of the Laguerre ensemble."""
    _, n, m, beta = arrays(n, m, beta)
    return beta * n * m * (beta * (n + m - 1) + 2)


@paper.law(r"E[x_1 \cdots x_k] = \prod_{j=1}^k \frac{a + (N-j)\beta/2}{a + b + (2N-j-1)\beta/2}", requires={"k must be at most n": lambda k, n: k <= n}, closed_form=True)
def jacobi_mean_product(
    n: SIZE, a: SHAPE_A, b: SHAPE_B, beta: BETA_OR_ZERO, k: count("points", typical=(1, 5), static=True, doc="how many points are multiplied", example=2)
) -> probability():
    """Expected product of k points of the Jacobi ensemble, the points in random order (Aomoto's integral)."""
    _, n, a, b, beta = arrays(n, a, b, beta)
    product = 1.0
    for j in range(1, k + 1):
        product = product * (a + (n - j) * beta / 2) / (a + b + (2 * n - j - 1) * beta / 2)
    return product


QUARTIC_EDGE = (16 / 3) ** 0.25


@paper.limit(
    r"\rho = \frac{\sqrt{4 - x^2}}{2\pi},\quad \frac{(x^2 + r^2/2)\sqrt{r^2 - x^2}}{2\pi},\ r^4 = \tfrac{16}{3},\quad \frac{\sqrt{(x-l)(u-x)}}{2\pi c x},\ l,u=(1 \mp \sqrt{c})^2",
    requires={"ratio must be given for the potential laguerre, and only there": lambda potential, ratio: (ratio is not None) == (potential == "laguerre")},
    closed_form=True,
)
def equilibrium_density(
    x: vector("x", of=real(typical=(-2.5, 4)), doc="where", example=[-1.0, 0.0, 1.5]),
    potential: choice("quadratic", "quartic", "laguerre", doc="beta N/2 times x^2/2 (Hermite over sqrt(beta N/2)) or x^4/4; Laguerre over beta M", example="quadratic"),
    *,
    ratio: positive(high=1, typical=(0.05, 1), doc="N/M of the Laguerre ensemble") = None,
) -> vector("x", of=nonnegative()):
    """Density of the points as N grows; 0 at and beyond the edges of its support."""
    xp, x, c = arrays(x, ratio)
    if potential == "laguerre":
        low, high, at = (1 - xp.sqrt(c)) ** 2, (1 + xp.sqrt(c)) ** 2, xp.where(x > 0, x, 1.0)
        inside = (x - low) * (high - x)
        factor = xp.where(x > 0, 1 / (c * at), 0.0)
    elif potential == "quartic":
        inside, factor = QUARTIC_EDGE**2 - x**2, x**2 + QUARTIC_EDGE**2 / 2
    else:
        inside, factor = 4 - x**2, xp.ones_like(x)
    return xp.where(inside > 0, factor * xp.sqrt(xp.where(inside > 0, inside, 1.0)) / (2 * np.pi), 0.0)


LAWS = {"hermite": hermite_second_moment, "trace": laguerre_mean_trace, "laguerre": laguerre_second_moment, "jacobi": jacobi_mean_product}
SAMPLERS = {"hermite": sample_hermite, "laguerre": sample_laguerre, "jacobi": sample_jacobi}
QUARTIC = np.array([0, 0, 0, 0, 0.25])


def gauss_mean(nodes, weights, n, beta, statistic):
    """Mean of a statistic of n points under the density, by the n-fold Gauss rule of the weight (exact for even beta)."""
    points = np.stack(np.meshgrid(*[nodes] * n, indexing="ij"), -1).reshape(-1, n)
    density = np.stack(np.meshgrid(*[weights] * n, indexing="ij"), -1).reshape(-1, n).prod(-1)
    for i in range(n):
        for j in range(i):
            density = density * np.abs(points[:, i] - points[:, j]) ** beta
    return density @ statistic(points) / density.sum()


def without_two(n, m, beta):
    return beta * n * m * beta * (n + m - 1)


def beta_doubled(n, a, b, beta, k):
    return jacobi_mean_product(n, a, b, 2 * beta, k)


WRONG_LAWS = {"beta for beta/2 in Aomoto's product": {**LAWS, "jacobi": beta_doubled}, "Laguerre without + 2": {**LAWS, "laguerre": without_two}}


@paper.trial(Identity(rtol=1e-9), of=[hermite_second_moment, laguerre_mean_trace, laguerre_second_moment, jacobi_mean_product], claim=LAWS, controls=WRONG_LAWS, quick=12, full=200)
def moments_by_quadrature(draw, laws):
    """The exact moments are those of the density itself, integrated over two and three points with Gauss rules that are exact for even beta."""
    from scipy import special as rules

    n, beta, size = draw.integer(2, 3), draw.choice([2, 4]), 12
    m, a, b, k = n - 1 + draw.uniform(0.2, 5), draw.uniform(0.2, 4), draw.uniform(0.2, 4), draw.integer(1, n)
    laguerre_nodes, laguerre_weights = rules.roots_genlaguerre(size, beta * (m - n + 1) / 2 - 1)
    jacobi_nodes, jacobi_weights = rules.roots_jacobi(size, b - 1, a - 1)
    hermite = gauss_mean(*rules.roots_hermitenorm(size), n, beta, lambda x: (x**2).sum(-1))
    laguerre = gauss_mean(2 * laguerre_nodes, laguerre_weights, n, beta, lambda x: np.stack([x.sum(-1), (x**2).sum(-1)], -1))
    jacobi = gauss_mean((1 + jacobi_nodes) / 2, jacobi_weights, n, beta, lambda x: x[:, :k].prod(-1))
    claimed = [laws["hermite"](n, beta), laws["trace"](n, m, beta), laws["laguerre"](n, m, beta), laws["jacobi"](n, a, b, beta, k)]
    return [hermite, *laguerre, jacobi], claimed, {"n": n, "beta": beta, "m": m, "a": a, "b": b, "k": k}


def hermite_shape_doubled(n, beta, *, seed):
    rng = np.random.default_rng(seed)
    return spectrum(rng.normal(size=n), np.sqrt(rng.gamma(beta * np.arange(n - 1, 0, -1))))


def laguerre_reversed(n, m, beta, *, seed):
    rng = np.random.default_rng(seed)
    return bidiagonal_spectrum(*(np.sqrt(rng.chisquare(beta * freedom)) for freedom in (m - np.arange(n), np.arange(1, n))))


def jacobi_exchanged(n, a, b, beta, *, seed):
    return sample_jacobi(n, b, a, beta, seed=seed)


WRONG_SAMPLERS = {
    "Hermite shape beta(N-i)": {**SAMPLERS, "hermite": hermite_shape_doubled},
    "Laguerre subdiagonal reversed": {**SAMPLERS, "laguerre": laguerre_reversed},
    "Jacobi ends exchanged": {**SAMPLERS, "jacobi": jacobi_exchanged},
}


WRONG_ENDS = {name: WRONG_SAMPLERS[name] for name in ("Hermite shape beta(N-i)", "Jacobi ends exchanged")}


def spectra(sampler, rng, runs, *arguments):
    return np.array([sampler(*arguments, seed=int(s)) for s in rng.integers(2**62, size=runs)])


@paper.trial(Identity(rtol=0), of=[sample_hermite, sample_laguerre, sample_jacobi], claim=SAMPLERS, controls=WRONG_SAMPLERS, quick=2, full=40)
def sampled_moments(draw, samplers):
    """Five sampled points have the exact moments at every beta, those between and beyond 1, 2 and 4 included."""
    n, beta, m, a, b, runs = 5, draw.log_uniform(0.5, 6), draw.uniform(4.5, 7), draw.uniform(0.3, 1), draw.uniform(1.5, 4), 500
    hermite, laguerre = spectra(samplers["hermite"], draw.rng, runs, n, beta), spectra(samplers["laguerre"], draw.rng, runs, n, m, beta)
    jacobi = spectra(samplers["jacobi"], draw.rng, runs, n, a, b, beta)
    pairs = (jacobi.sum(-1) ** 2 - (jacobi**2).sum(-1)) / (n * (n - 1))
    sampled = np.stack([(hermite**2).sum(-1), laguerre.sum(-1), (laguerre**2).sum(-1), jacobi.mean(-1), pairs, jacobi.prod(-1)], -1)
    exact = [hermite_second_moment(n, beta), laguerre_mean_trace(n, m, beta), laguerre_second_moment(n, m, beta), *(jacobi_mean_product(n, a, b, beta, k) for k in (1, 2, n))]
    return Estimate.of(sampled), exact, {"beta": beta, "m": m, "a": a, "b": b}


@paper.trial(Distribution(), of=[sample_hermite, sample_laguerre, sample_jacobi], claim=SAMPLERS, controls=WRONG_ENDS, quick=300, full=10_000)
def laws_of_points(draw, samplers):
    """The gap of two Hermite points has the density g^beta exp(-g^2/4), and extreme points are those of dense Gaussian, Wishart and MANOVA matrices (beta 1 and 2)."""
    from scipy.stats import chi

    n, m, other, rng, tested = 4, 6, 9, draw.rng, {}
    for beta in (0.0, 0.5, 3.5):
        tested[f"gap beta={beta}"] = Sample(np.ptp(spectra(samplers["hermite"], rng, draw.size, 2, beta), axis=1), cdf=chi(beta + 1, scale=2**0.5).cdf)
    for beta in (1, 2):  # real entries, or complex ones with both parts of unit variance
        square, wide, second = (rng.normal(size=(draw.size, n, columns, 2)) @ [1, 1j * (beta - 1)] for columns in (n, m, other))
        wishart, against = (x @ x.conj().mT for x in (wide, second))
        shapes = [beta * (columns - n + 1) / 2 for columns in (m, other)]
        drawn = {
            "hermite": (np.linalg.eigvalsh((square + square.conj().mT) / 2), (n, beta)),
            "laguerre": (np.linalg.eigvalsh(wishart), (n, m, beta)),
            "jacobi": (np.sort(np.linalg.eigvals(np.linalg.solve(wishart + against, wishart)).real), (n, *shapes, beta)),
        }
        for name, (dense, arguments) in drawn.items():
            points = spectra(samplers[name], rng, draw.size, *arguments)
            tested |= {f"{name} {end} beta={beta}": Sample(points[:, which], like=dense[:, which]) for end, which in (("least", 0), ("largest", -1))}
    return tested


def jacobian_forgotten(n, beta, coefficients, sweeps, rng, chains):
    return polynomial_chains(n, beta, coefficients, sweeps, rng, chains, extra_power=1.0)


@paper.trial(Identity(rtol=0), of=[sample_polynomial], claim=polynomial_chains, controls={"the Jacobian of b^2 forgotten": jacobian_forgotten}, quick=2, full=60)
def loop_equations(draw, chains_of):
    """The Gibbs chains meet two exact identities of the density, E sum V'(x) = 0 and E sum x V'(x) = N + beta N(N-1)/2, for random polynomials of degree 2, 4, 6."""
    n, beta, degree = draw.integer(2, 12), draw.log_uniform(0.7, 5), draw.choice([2, 4, 6])
    c = np.array([0.0, *draw.uniform(-0.3, 0.3, degree - 1), draw.uniform(0.2, 1)])
    x = np.array([spectrum(a, b) for a, b in zip(*chains_of(n, beta, c, 25, draw.rng, 120), strict=True)])
    force = beta * n / 2 * np.polynomial.Polynomial(c).deriv()(x)
    return Estimate.of(np.stack([force.sum(-1), (x * force).sum(-1)], -1)), [0.0, n + beta * n * (n - 1) / 2], {"n": n, "beta": beta, "coefficients": c}


def one_sweep(n, beta, coefficients, sweeps, *, seed):
    return sample_polynomial(n, beta, coefficients, 1, seed=seed)


@paper.trial(Identity(rtol=0.01), of=[sample_polynomial], controls={"one sweep": one_sweep}, quick=1, full=10)
def quartic_after_ten_sweeps(draw, sampler):
    """Ten sweeps bring a hundred points in the quartic potential to the second moment of the equilibrium density, 4 / (3 sqrt 3), within 1%."""
    return np.mean(spectra(sampler, draw.rng, 8, 100, 2.0, QUARTIC, 10) ** 2), 4 / (3 * np.sqrt(3))


def wider(x, potential, *, ratio=None):
    return equilibrium_density(x / 1.15, potential, ratio=ratio) / 1.15


def quadratic_for_quartic(x, potential, *, ratio=None):
    return equilibrium_density(x, "quadratic" if potential == "quartic" else potential, ratio=ratio)


@paper.trial(Distribution(within=0.02), of=[equilibrium_density], controls={"15% wider": wider, "semicircle in the quartic potential": quadratic_for_quartic}, quick=40, full=400)
def global_shape(draw, density):
    """Large spectra fill the equilibrium densities: Kolmogorov distance below .02 at 200 points (quartic: 100)."""
    beta, ratio, n, grid = draw.uniform(1, 4), draw.uniform(0.2, 0.8), 200, np.linspace(-3, 4, 20_001)

    def sample(points, potential, ratio=None):
        heights = density(grid, potential, ratio=ratio)
        area = np.concatenate([[0.0], np.cumsum((heights[1:] + heights[:-1]) / 2 * np.diff(grid))])
        return Sample(points, cdf=lambda x: np.interp(x, grid, area))

    return {
        "Hermite": sample(spectra(sample_hermite, draw.rng, draw.size, n, beta) / np.sqrt(beta * n / 2), "quadratic"),
        "Laguerre": sample(spectra(sample_laguerre, draw.rng, draw.size, n, n / ratio, beta) / (beta * n / ratio), "laguerre", ratio),
        "quartic": sample([spectrum(a, b) for a, b in zip(*polynomial_chains(100, 2.0, QUARTIC, 12, draw.rng, draw.size), strict=True)], "quartic"),
    }


@paper.finding(
    "The mean trace cannot tell a wrong Laguerre sampler: with the subdiagonal degrees of freedom reversed it stays beta N M, and only the second moment falls (9% at N = 5)."
)
def trace_is_blind():
    n, m, beta = 5, 7.5, 2.0
    wrong = spectra(laguerre_reversed, np.random.default_rng(0), 4000, n, m, beta)
    trace, second, exact = Estimate.of(wrong.sum(-1)), Estimate.of((wrong**2).sum(-1)), float(laguerre_second_moment(n, m, beta))
    holds = abs(trace.value - beta * n * m) < 4 * trace.error and second.value < exact - 4 * second.error
    return {"holds": bool(holds), "trace": float(trace.value), "exact_trace": beta * n * m, "second_moment": float(second.value), "exact_second_moment": exact}
