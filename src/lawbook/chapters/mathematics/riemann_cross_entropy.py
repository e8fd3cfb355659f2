"""Counting zeros of the zeta function on and off the critical line, beside sampling for them: the difference between evidence and proof."""

import math
from functools import lru_cache
from itertools import pairwise

import numpy as np

from lawbook.chapters.mathematics.fhk_zeta_maximum import riemann_siegel_z
from lawbook.contract import Paper, count, flag, function, positive, probability, real, record, seed, vector
from lawbook.trials import Guarantee, Identity

paper = Paper(
    __name__,
    title="Analysis on Riemann Hypothesis with Cross Entropy Optimization and Reasoning",
    arxiv="2409.19790",
    tags=["riemann hypothesis", "zeta zeros", "cross-entropy method", "rare events", "argument principle", "verification"],
    source="none",
    says="""Proposes rare-event sampling with the cross-entropy method, the law of large numbers and induction, helped by language models, as a framework for the Riemann
    Hypothesis. What can be computed is something else: a sign change of the real function Z is a zero exactly on the line, the argument principle counts all zeros, and where
    both numbers agree every zero up to that height is simple and on the line.""",
    notes="""Nothing about the Riemann Hypothesis is proved here. Sampling finitely many points, a law of large numbers over samples, or fitting a sampling distribution to
    zeros cannot exclude an off-line zero: RH is a statement about ALL zeros, and an off-line zero of density zero is invisible to any such averaging. Induction over a continuum
    of heights has no valid step in the argument outlined. RH is open; numerical verification covers a finite height only (3*10^12: Platt-Trudgian 2021).""",
)

GABCKE = 0.127  # |Z - Riemann-Siegel with one correction| <= 0.127 t^(-3/4) from t = 200 on


def zeta(s):
    """The zeta function on an array right of Re s = -1, by Euler-Maclaurin summation to about twelve digits."""
    from scipy.special import bernoulli

    s = np.asarray(s, complex)
    if not s.size:
        return s
    terms = int(np.abs(s.imag).max() / 2) + 20
    logs = np.log(np.arange(1, terms))
    block = max(1, int(2e6 / terms))
    total = np.concatenate([np.exp(-np.outer(s[i : i + block], logs)).sum(1) for i in range(0, len(s), block)])
    total += terms ** (1 - s) / (s - 1) + terms**-s / 2
    rising = s * terms ** (-s - 1)
    for k, b in enumerate(bernoulli(24)[2::2], 1):
        total += b / math.factorial(2 * k) * rising
        rising = rising * (s + 2 * k - 1) * (s + 2 * k) / terms**2
    return total


def theta(t):
    from scipy.special import loggamma

    return loggamma(0.25 + 0.5j * t).imag - t / 2 * math.log(math.pi)


def hardy_z(t):
    """Z with a sign that can be trusted: slowly, from zeta, below 200 and wherever the fast value is within its error of zero."""
    z = riemann_siegel_z(np.maximum(t, 50))
    doubtful = (t < 200) | (np.abs(z) <= GABCKE * t**-0.75)
    z[doubtful] = (np.exp(1j * theta(t[doubtful])) * zeta(0.5 + 1j * t[doubtful])).real
    return z


def count_sign_changes(height, enough, per_spacing=8, rounds=6):
    """Sign changes of Z on (0, height): on a grid with so many points a mean spacing of zeros, refined where |Z| dips without a change until there are enough."""
    t = np.linspace(10, height, max(int(20 * height), 100))  # below 10 there is no zero, and theta / pi, the smooth count of zeros, increases
    phase = t / 2 * np.log(t / (2 * math.pi * math.e)) / math.pi
    t = np.append(np.interp(np.arange(phase[0], phase[-1], 1 / per_spacing), phase, t), height)
    z = hardy_z(t)
    for _ in range(rounds):
        if np.count_nonzero(np.diff(np.sign(z))) >= enough:
            break
        same = (np.sign(z[:-2]) == np.sign(z[1:-1])) & (np.sign(z[1:-1]) == np.sign(z[2:]))
        dips = np.flatnonzero(same & (np.abs(z[1:-1]) <= np.minimum(np.abs(z[:-2]), np.abs(z[2:])))) + 1
        if not len(dips):
            break
        shares = np.arange(1, 8) / 8
        more = np.concatenate([(a[:, None] + np.outer(b - a, shares)).ravel() for a, b in ((t[dips - 1], t[dips]), (t[dips], t[dips + 1]))])
        t, order = np.unique(np.concatenate([t, more]), return_index=True)
        z = np.concatenate([z, hardy_z(more)])[order]
    return int(np.count_nonzero(np.diff(np.sign(z))))


def winding(values):
    """Change of argument along a path, in turns; NaN where it is not sampled finely enough to tell."""
    steps = np.angle(values[1:] / values[:-1])
    return float(steps.sum() / (2 * math.pi)) if np.abs(steps).max() < 2 else math.nan


def count_all(height):
    """N(T) = theta(T) / pi + 1 + S(T): the zeros with heights up to T wherever they lie, by the argument principle; S from the way 2 + iT -> 1/2 + iT."""
    path = zeta(np.linspace(2, 0.5, 60) + 1j * height)
    s = np.angle(path[0]) / math.pi + 2 * winding(path)  # |zeta(2 + iT) - 1| < 1: its argument is the principal one
    return round(theta(height) / math.pi + 1 + s)


@paper.measure(
    r"\#\{\text{sign changes of } Z \text{ on } (0, T)\} = N(T) = \frac{\theta(T)}{\pi} + 1 + S(T) \implies \text{all zeros up to } T \text{ are simple and on the line}",
    assumes=["Floating-point arithmetic, not interval arithmetic. Nothing is said about any zero above the height."],
    gives={"sign_changes": 649, "predicted": 649, "verified": True},
)
def zeros_on_line(height: positive(low=15, high=1e5, above=False, typical=(20, 300), doc="T", example=1000.0)) -> record(
    sign_changes=count(low=0, doc="zeros of odd order on the line"),
    predicted=count(low=0, doc="all zeros up to the height"),
    verified=flag(doc="they agree, up to this height only"),
):
    """Zeros on the line up to a height, by sign changes, beside the number of all zeros, by the argument principle."""
    predicted = count_all(height)
    found = count_sign_changes(height, predicted)
    return {"sign_changes": found, "predicted": predicted, "verified": found == predicted}


def bowl(points):
    """A quadratic with its minimum at (1, 2)."""
    return ((points - np.array([1.0, 2.0])) ** 2).sum(1)


@paper.algorithm(r"x_i \sim N(\mu, \mathrm{diag}\,\sigma^2),\quad (\mu, \sigma) \leftarrow \text{mean and deviation of the best share } \varrho \text{ of the } f(x_i)")
def cross_entropy_minimize(
    function: function("points [samples, d] -> values [samples]", example=bowl),
    mean: vector("d", doc="where sampling starts", example=[0.0, 0.0]),
    spread: vector("d", of=positive(typical=(0.1, 3)), doc="deviations at the start", example=[2.0, 2.0]),
    samples: count(high=10**7, typical=(20, 500), doc="points an iteration", example=200),
    elite: probability(above=True, typical=(0.05, 0.5), doc="share that is kept", example=0.1),
    iterations: count(high=10_000, typical=(1, 50), example=30),
    seed: seed(example=0),
) -> record(best=vector("d"), value=real(infinite=True)):
    """Best point that the cross-entropy method finds: a Gaussian is refitted to the best points it drew. It converges to one local minimum and says nothing about others."""
    rng = np.random.default_rng(seed)
    mean, spread = np.asarray(mean, float), np.asarray(spread, float)
    keep = min(samples, max(2, round(elite * samples)))
    best, value = mean, math.inf
    for _ in range(iterations):
        points = mean + spread * rng.normal(size=(samples, len(mean)))
        values = np.asarray(function(points), float)
        order = np.argsort(values)[:keep]
        if values[order[0]] < value:
            best, value = points[order[0]], float(values[order[0]])
        mean, spread = points[order].mean(0), points[order].std(0)
    return {"best": best, "value": value}


def planted(width, height):
    """zeta times a factor near 1 with the zeros 1/2 +- width +- i height, off the line and with the symmetries of the true ones; its poles lie outside -1/4 < Re s < 5/4."""

    def function(s):
        zeros, poles = ([(s - 0.5) ** 2 - (w + sign * 1j * height) ** 2 for sign in (1, -1)] for w in (width, 0.8))
        return zeta(s) * (zeros[0] * zeros[1]) / (poles[0] * poles[1])

    return function


def by_counting(f, low, high):
    """Whether all zeros in a range of heights are simple and on the line: sign changes on it against the argument principle around it."""
    corners = [1.2 + 1j * low, 1.2 + 1j * high, -0.2 + 1j * high, -0.2 + 1j * low, 1.2 + 1j * low]
    around = np.concatenate([np.linspace(a, b, 1500) for a, b in pairwise(corners)])
    t = np.linspace(low, high, 3000)
    z = (f(0.5 + 1j * t) * np.exp(1j * theta(t))).real  # the factor is real on the line
    return bool(np.count_nonzero(np.diff(np.sign(z))) == round(winding(f(around))))


def sampled_zero(f, low, high, key):
    """Where 10^5 samples of |f| from a box as wide as the strip lead the cross-entropy method."""
    return cross_entropy_minimize(lambda x: np.abs(f(x[:, 0] + 1j * x[:, 1])), [0.5, (low + high) / 2], [0.5, (high - low) / 4], 2500, 0.1, 40, key)["best"]


def by_sampling(f, low, high):
    """The same from samples: a zero is off the line if the one that was found is, by more than the .01 to which zeros are found."""
    return bool(abs(sampled_zero(f, low, high, 0)[0] - 0.5) < 0.01)


@paper.trial(Identity(), of=[cross_entropy_minimize], claim=by_counting, controls={"cross-entropy sampling": by_sampling}, quick=4, full=50)
def planted_zeros_are_seen(draw, claim):
    """Counting accepts zeta and sees zeros planted off the line, by .3 or by a millionth; 10^5 samples see neither to their own accuracy. The sampler finds a lone minimum."""
    low = draw.uniform(12, 40)
    told = [claim(f, low, low + 40) for f in (zeta, *(planted(width, low + draw.uniform(2, 38)) for width in (0.3, 1e-6)))]
    optimum = cross_entropy_minimize(bowl, [0.0, 0.0], [2.0, 2.0], 200, 0.1, 40, draw.integer(0, 1000))["best"]
    return [True, False, False, 1, 2], [*told, *np.round(optimum, 3)], {"low": low}


@lru_cache(100)
def known(height):
    import mpmath

    return int(mpmath.nzeros(height))


def coarse_grid(height):
    predicted = count_all(height)
    found = count_sign_changes(height, predicted, per_spacing=1, rounds=0)
    return {"sign_changes": found, "predicted": predicted, "verified": found == predicted}


@paper.trial(Guarantee(), of=[zeros_on_line], controls={"one point a spacing, no refinement": coarse_grid}, quick=1, full=1)
def all_zeros_found(draw, claim, effort):
    """Up to heights 50, 100, 500 and 1000 (and in full 7010, beyond Lehmer's close pair) both counts agree with each other and with mpmath's."""
    heights = [50, 100, 500, 1000] + ([2000, 7010] if effort == "full" else [])
    found = [claim(float(T)) for T in heights]
    return all(f["verified"] and f["sign_changes"] == f["predicted"] == known(T) for f, T in zip(found, heights, strict=True))


@paper.finding(
    """A run of cross-entropy sampling ends near one zero and says nothing about the others: with 10^5 points over some ten zeros it misses zeros planted .3 off the line in every
    run. A pair planted a millionth off draws it in (nearly a double zero, it has the widest basin), but since zeros of zeta itself come out up to .001 off the line, an offset
    of a millionth in its answer is no evidence. Counting sees both."""
)
def sampling_sees_one_zero():
    low, high, heights = 20.0, 60.0, (23.0, 31.7, 57.5)
    counted = [by_counting(planted(width, t), low, high) for width in (0.3, 1e-6) for t in heights]
    functions = {"wide": [planted(0.3, t) for t in heights], "close": [planted(1e-6, 37.9)], "zeta": [zeta] * 2}
    off = {f"off_{name}": [abs(float(sampled_zero(f, low, high, key)[0]) - 0.5) for key, f in enumerate(of)] for name, of in functions.items()}
    holds = not any(counted) and max(off["off_wide"]) < 0.01 and max(off["off_close"]) < max(off["off_zeta"]) < 0.01
    return {"holds": holds, "seen_by_counting": counted.count(False), "of": len(counted), **off}
