"""Logarithms of modified Bessel functions for any order and argument, and the von Mises-Fisher distribution that stands on them."""

import itertools
import math

import numpy as np

from lawbook.contract import Paper, count, either, flag, nonnegative, positive, probability, real, vector
from lawbook.trials import Guarantee, Identity, Inequality

paper = Paper(
    __name__,
    title="Accurate Computation of the Logarithm of Modified Bessel Functions on GPUs",
    arxiv="2409.08729",
    tags=["bessel", "von mises-fisher", "directional statistics", "special functions", "underflow", "high dimensions", "matern kernel"],
    source="code",
    says="""log I_v(x) and log K_v(x) are computed to machine precision for any order and argument by staying on the log scale and switching, by a fixed table of
    thresholds, between a power series or an integral, the expansion for large arguments, and Debye's uniform expansion for large orders at several truncations.
    The usual route through exponentially scaled functions underflows once the order is large; on the log scale von Mises-Fisher distributions can be fitted in tens of
    thousands of dimensions.""",
    notes="""The thresholds are those of an independent reimplementation of the paper's table. Two guards are ours: the large-argument sums are used beyond the
    first column of the table only where v^2 is small against x. K in the fallback region is a trapezoid sum of its integral where the source uses Simpson's rule on another one.
    The ratio I_{v+1}/I_v is ours: a continued fraction for x up to 100, beyond it quotients of the expansions with the prefactors cancelled by hand; with I' written in
    Debye's polynomials this takes a constant time at any order, where a continued fraction alone needs about x terms.""",
)

X = either(nonnegative(typical=(0, 1e3), high=1e150, example=100.0), vector("n", of=nonnegative(scale="log", typical=(1e-2, 1e4), high=1e150)), doc="argument")
ORDER = either(nonnegative(typical=(0, 1e3), high=1e150, example=1023.0), vector("n", of=nonnegative(scale="log", typical=(1e-2, 1e4), high=1e150)), doc="order v")
ANY_ORDER = either(real(typical=(-1e3, 1e3), low=-1e150, high=1e150), vector("n", of=real(low=-1e150, high=1e150)), doc="order v", example=0.5)
LOGARITHM = either(real("nats", infinite=True), vector("n", of=real("nats", infinite=True)), doc="infinite at x = 0")
DIM = count("dimensions", low=2, typical=(2, 4096), high=10**12, doc="d: directions are unit vectors of R^d", example=3)


@paper.algorithm(
    r"\log I_v(x) = \begin{cases} x - \tfrac12\log 2\pi x + \log\sum_k c_k & x \text{ large} \\ v\eta - \tfrac12\log 2\pi v r + \log\sum_k u_k(1/r)/v^k & v \text{ large} \\"
    r" v\log\tfrac x2 - \log\Gamma(v+1) + \log\sum_k \frac{(x^2/4)^k}{k!\,(v+1)_k} & \text{else} \end{cases}"
)
def log_bessel_i(order: ORDER, x: X, *, guards: flag(doc="keep the large-argument sums to where v^2 is small against x") = True) -> LOGARITHM:
    """Logarithm of the modified Bessel function of the first kind, I_v(x); -inf at x = 0 unless the order is 0."""
    from lawbook.numerics import bessel

    return bessel.elementwise(bessel.fill_log_i, order, x, guards=guards)


@paper.algorithm(
    r"\log K_v(x) = \begin{cases} -x + \tfrac12\log\tfrac{\pi}{2x} + \log\sum_k (-1)^k c_k & x \text{ large} \\"
    r" -v\eta + \tfrac12\log\tfrac{\pi}{2vr} + \log\sum_k u_k(1/r)/(-v)^k & v \text{ large} \\ \log\int_0^\infty e^{-x\cosh s}\cosh vs\,ds & \text{else} \end{cases}",
    gives=-0.7742086474,  # at order 1/2 and x = 1: log(pi/2)/2 - 1
)
def log_bessel_k(order: ANY_ORDER, x: either(*X.options, doc="argument", example=1.0)) -> LOGARITHM:
    """Logarithm of the modified Bessel function of the second kind, K_v(x), even in the order; +inf at x = 0."""
    from lawbook.numerics import bessel

    return bessel.elementwise(bessel.fill_log_k, np.abs(order), x)


@paper.measure(r"I_{v+1}(x) / I_v(x)", gives=0.3130352855)  # at order 1/2 and x = 1: coth(1) - 1
def bessel_ratio(order: either(*ORDER.options, doc="order v", example=0.5), x: either(*X.options, doc="argument", example=1.0)) -> either(
    probability(), vector("n", of=probability())
):
    """Ratio of neighbouring modified Bessel functions, to full relative precision: never the exponential of a difference of logarithms."""
    from lawbook.numerics import bessel

    return bessel.elementwise(bessel.fill_ratio, order, x)


@paper.algorithm(r"A_d(\kappa) = \frac{I_{d/2}(\kappa)}{I_{d/2-1}(\kappa)} = R,\quad \kappa \leftarrow \kappa - \frac{A - R}{1 - A^2 - (d-1)A/\kappa}", gives=1.7967559847)
def vmf_concentration(
    mean_resultant_length: probability(high=1, below=True, typical=(0.0, 0.99), doc="R: length of the mean of the unit vectors", example=0.5), dim: DIM
) -> nonnegative():
    """Concentration of the von Mises-Fisher distribution by maximum likelihood: Newton's method inside the bracket that Amos's bounds give."""
    R, d = mean_resultant_length, dim
    if R == 0:
        return 0.0
    gap = (1 - R) * (1 + R)
    low = (d - 1) * R / gap  # both ends are Amos's bounds on A_d, solved for kappa
    high = R * ((d - 1) / 2 + math.sqrt((d - 1) ** 2 / 4 + gap * d)) / gap
    kappa = banerjee_start(R, d)
    for _ in range(20):
        A = bessel_ratio(d / 2 - 1, kappa)
        slope = 1 - A * A - (d - 1) * A / kappa  # rounds to nothing as R nears 1, where the bracket alone is as sharp as R
        step = (A - R) / slope if slope > 0 else 0.0
        following = min(max(kappa - step, low), high)
        if abs(following - kappa) < 1e-12 * kappa:
            return following
        kappa = following
    return kappa


def banerjee_start(mean_resultant_length, dim):
    R = mean_resultant_length
    return R * (dim - R * R) / ((1 - R) * (1 + R))


@paper.measure(r"\log C_d(\kappa) = (\tfrac d2 - 1)\log\kappa - \tfrac d2\log 2\pi - \log I_{d/2-1}(\kappa)", gives=-3.126244439)  # d = 3: kappa / (4 pi sinh kappa)
def vmf_log_normalizer(concentration: positive(typical=(0.1, 1e4), doc="kappa of the density C_d(kappa) exp(kappa <mean direction, x>)", example=2.0), dim: DIM) -> real("nats"):
    """Logarithm of the factor that normalises the von Mises-Fisher density on the unit sphere."""
    return (dim / 2 - 1) * math.log(concentration) - dim / 2 * math.log(2 * math.pi) - log_bessel_i(dim / 2 - 1, concentration)


def precise(order, x):
    """log I_v(x), log K_v(x) and I_{v+1}(x)/I_v(x) by mpmath; K from its integral by the trapezoid rule, since mpmath's besselk errs (see the findings)."""
    import mpmath as mp

    with mp.workdps(50):
        v, x = mp.mpf(order), mp.mpf(x)
        value, following = mp.besseli(v, x), mp.besseli(v + 1, x)
        peak, step = mp.asinh(v / x), min(1 / mp.sqrt(mp.hypot(v, x)) / 3, mp.mpf(1) / 12)
        first, top = int(peak / step), v * peak - mp.hypot(v, x)
        mp.mp.dps = 30
        nodes = [itertools.takewhile(lambda j: v * j * step - x * mp.cosh(j * step) > top - 70, walk) for walk in (itertools.count(first), range(first - 1, -1, -1))]
        total = mp.fsum(mp.exp(-x * mp.cosh(j * step) - top) * mp.cosh(v * j * step) / (2 if j == 0 else 1) for j in itertools.chain(*nodes))
        return float(mp.log(value)), float(top + mp.log(total * step)), float(following / value)


def everywhere_debye(order, x):
    from lawbook.numerics import bessel

    return bessel.log_i_large_v(order, x, 13, bessel.DEBYE)


def with_81_as_80(order, x):
    from lawbook.numerics import bessel

    wrong = bessel.DEBYE.copy()
    wrong[2, 0] *= 80 / 81
    return bessel.elementwise(bessel.fill_log_i, order, x, debye=wrong)


def exponential_of_difference(order, x):
    return math.exp(log_bessel_i(order + 1, x) - log_bessel_i(order, x))


@paper.trial(
    Identity(rtol=0, atol=2e-14),
    of=[log_bessel_i, log_bessel_k, bessel_ratio],
    claim=(log_bessel_i, log_bessel_k, bessel_ratio),
    controls={
        "Debye's expansion everywhere": (everywhere_debye, log_bessel_k, bessel_ratio),
        "81 in u_2 changed to 80": (with_81_as_80, log_bessel_k, bessel_ratio),
        "ratio as the exponential of a difference": (log_bessel_i, log_bessel_k, exponential_of_difference),
    },
    quick=200,
    full=5000,
)
def many_digits(draw, claim):
    """The three functions agree with arithmetic of 30 to 50 digits; errors of logarithms are relative to max(1, |log|, sqrt(v^2 + x^2))."""
    # sqrt(v^2 + x^2) is the condition number: a relative change of x by one rounding changes log I and log K by about so many roundings
    v, x = draw.log_uniform(1e-2, 1e4), draw.log_uniform(1e-2, 1e4)
    exact = np.array(precise(v, x))
    scale = np.array([*np.maximum(np.abs(exact[:2]), max(1, math.hypot(v, x))), exact[2]])
    return exact / scale, np.array([f(v, x) for f in claim]) / scale, {"order": v, "x": x}


def neighbouring_order(order, x):
    return log_bessel_k(order + 1, x)


@paper.trial(Identity(rtol=0, atol=2e-14), of=[log_bessel_k, log_bessel_i], controls={"K of the neighbouring order": neighbouring_order}, quick=20, full=1000)
def wronskian(draw, claim):
    """I_v K_{v+1} + I_{v+1} K_v = 1/x, for orders and arguments up to a million."""
    v, x = 10 ** draw.rng.uniform(-3, 6, (2, 500))
    total = np.logaddexp(log_bessel_i(v, x) + claim(v + 1, x), log_bessel_i(v + 1, x) + claim(v, x))
    return (total + np.log(x)) / np.maximum(1, np.hypot(v, x)), np.zeros(500), {}


def next_ratio(order, x):
    return bessel_ratio(order + 1, x)


@paper.trial(Inequality(), of=[bessel_ratio], controls={"ratio of the next pair": next_ratio}, quick=200, full=5000)
def amos(draw, claim):
    """Amos's bounds enclose the ratio at any order and argument."""
    v, x = draw.log_uniform(1e-3, 1e6), draw.log_uniform(1e-3, 1e6)
    lower = x / (v + 0.5 + math.hypot(v + 1.5, x))
    upper = min(x / (v + 0.5 + math.hypot(v + 0.5, x)), x / (v + math.hypot(v + 2, x)))
    ratio = claim(v, x)
    return np.array([lower, ratio]), np.array([ratio, upper]), {"order": v, "x": x}


@paper.trial(Guarantee(), of=[vmf_concentration, bessel_ratio], controls={"starting value without Newton's steps": banerjee_start}, quick=100, full=5000)
def inversion(draw, claim):
    """The concentration comes back from its mean resultant length to nine digits, in up to 32768 dimensions."""
    d, kappa = draw.choice([2, 3, 512, 2048, 32768]), draw.log_uniform(0.1, 1e5)
    return abs(claim(bessel_ratio(d / 2 - 1, kappa), d) / kappa - 1), 1e-9, {"dim": d, "concentration": kappa}


def next_order(concentration, dim):
    return vmf_log_normalizer(concentration, dim + 2) + math.log(2 * math.pi / concentration)


@paper.trial(Identity(rtol=1e-12, atol=1e-12), of=[vmf_log_normalizer], controls={"order d/2 in place of d/2 - 1": next_order}, quick=100, full=3000)
def sphere(draw, claim):
    """The density integrates to 1: the integral over the cosine t = tanh(u) to the mean direction, times the area of its circle of latitude."""
    d, kappa = draw.choice([2, 3, 4, 7, 64, 2048, 32768]), draw.log_uniform(1e-2, 1e4)
    t = 2 * kappa / (d - 1 + math.hypot(d - 1, 2 * kappa))  # where exp(kappa t) (1 - t^2)^((d-1)/2) is largest
    width = 1 / math.sqrt((1 - t * t) * (2 * kappa * t + d - 1))
    u = np.arange(-(reach := 12 * width + 45 / (d - 1)), reach, step := min(width / 4, 0.05)) + math.atanh(t)
    f = kappa * np.tanh(u) - (d - 1) * np.logaddexp(u, -u) + (d - 1) * math.log(2)
    integral = f.max() + math.log(step * np.exp(f - f.max()).sum())
    latitude = math.log(2) + (d - 1) / 2 * math.log(math.pi) - math.lgamma((d - 1) / 2)
    return -latitude - integral, claim(kappa, d), {"dim": d, "concentration": kappa}


@paper.finding(
    """On the table's own log-slope boundary the large-argument sums lose eight digits: the absolute error of log I reaches 2.4e-8, harmless beside 3e5 but not in a
    difference of logarithms; asking for v^2 < 2x (20 terms) and v^2 < 0.002x (3 terms) there cures it.""",
    trial=many_digits,
)
def boundary_needs_guards():
    v, x = 1396.0, 3e5
    exact = precise(v, x)[0]
    error = {guards: abs(log_bessel_i(v, x, guards=guards) - exact) for guards in (False, True)}
    return {"holds": error[False] > 1e-8 and error[True] < 1e-10, "order": v, "x": x, "error_without_guards": error[False], "error_with_guards": error[True]}


@paper.finding(
    """Machine precision of log I and log K cannot mean relative error: both cross zero along a curve x = 0.66 v, where the error stays near sqrt(v^2 + x^2) roundings,
    which is what one rounding of x costs, while the logarithm itself vanishes.""",
    trial=many_digits,
)
def zero_crossing():
    v, x = 10_000.0, 6630.536731
    exact = precise(v, x)[0]
    error = abs(log_bessel_i(v, x) - exact)
    return {"holds": error > 1e-7 * abs(exact) and error < 1e-15 * math.hypot(v, x), "order": v, "x": x, "log_i": exact, "absolute_error": error}


@paper.finding("""SciPy's route log(ive(v, x)) + x fails for more than a fifth of orders and arguments drawn log-uniformly from [0.1, 3162], and for every large dimension.""")
def scipy_underflows():
    from scipy.special import ive, kve

    v, x = 10 ** np.random.default_rng(0).uniform(-1, 3.5, (2, 20_000))
    with np.errstate(all="ignore"):
        failed = [float(1 - np.isfinite(np.log(f(v, x))).mean()) for f in (ive, kve)]
        ratio = float(ive(16384, 5000) / ive(16383, 5000))
    ours = float(np.isfinite(log_bessel_i(v, x)).mean())
    estimate = vmf_concentration(bessel_ratio(16383.0, 5000.0), 32768)
    return {"holds": failed[0] > 0.2 and math.isnan(ratio) and ours == 1, "failed_i": failed[0], "failed_k": failed[1], "ratio_32768": ratio, "concentration_32768": estimate}


@paper.finding("""mpmath.besselk is wrong at large orders that are not whole, at any precision: log K at v = 537.74, x = 439.91 comes out as +137.34, and is -143.81.""")
def mpmath_is_no_reference():
    import mpmath

    v, x = 537.74, 439.91
    with mpmath.workdps(30):
        library = float(mpmath.log(mpmath.besselk(mpmath.mpf(v), mpmath.mpf(x))))
    ours, integral = log_bessel_k(v, x), precise(v, x)[1]
    return {"holds": abs(ours - integral) < 1e-10 and abs(library - integral) > 1, "mpmath": library, "integral": integral, "ours": ours}
