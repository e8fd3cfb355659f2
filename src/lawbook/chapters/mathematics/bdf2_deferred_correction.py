"""Third order on any time grid: variable-step BDF2, and one pass more with its own truncation error put back."""

from functools import lru_cache

import numpy as np

from lawbook.contract import DomainError, Paper, count, function, matrix, nonnegative, optional, positive, real, record, vector
from lawbook.trials import Identity, Inequality, Rate

paper = Paper(
    __name__,
    title="Mesh-robust stability and convergence of variable-step deferred correction methods based on the BDF2 formula",
    arxiv="2402.06129",
    tags=["ordinary differential equations", "stiff", "bdf2", "deferred correction", "variable step", "time grid", "error estimate", "stability"],
    source="derived",
    says="""Two-step backward differentiation with variable steps is stable on arbitrary time grids in a weak enough sense, and so are deferred corrections of it: a second pass
    over the same grid, with the leading truncation error estimated from the first, has order three. Beginning with one backward Euler step does not spoil that order.
    The difference between the passes estimates the error of the first.""",
    notes="""The correction is derived here from the truncation error v' - D2 v = v''' tau_k (tau_k + tau_{k-1}) / 6 + O(tau^3), with v''' from second divided differences of f
    along the first pass; the paper's own corrections may differ. Step ratios above 1 + sqrt 2 leave classical zero-stability, those above 4.8645 the energy arguments;
    both numbers are from the literature that the paper relaxes.""",
)

RATIOS = {"times must have adjacent steps that differ by a factor of at most 1e8": lambda times: bool((np.abs(np.diff(np.log(np.diff(times)))) <= np.log(1e8)).all())}
RATE_RULE = {**RATIOS, "rate must be below 1 over the longest step: the implicit step has no solution to follow otherwise": lambda rate, times: rate * np.diff(times).max() < 1}
TIMES = vector("n", of=real(typical=(0, 2)), order="increasing", least=4, most=12, doc="time grid", example=[0.0, 0.1, 0.3, 0.35, 0.6, 1.0])
START = vector("d", of=real(typical=(-2, 2)), doc="values at the first time", example=[1.0, 0.0])
FIELD = function("t, u[d] -> du/dt[d]", example=lambda t, u: np.array([u[1], np.sin(t) - 5 * u[0] - 6 * u[1]]))
JACOBIAN = optional(function("t, u[d] -> df/du[d, d]", doc="None: by finite differences", example=lambda t, u: np.array([[0.0, 1.0], [-5.0, -6.0]])))
RATE = real(typical=(-50, 0.4), doc="lambda of u' = lambda u", example=-3.0)
VALUE = real(typical=(-2, 2), doc="value at the first time", example=1.0)


def coefficients(times):
    """Steps and the two weights of D2 at every time; entry 0 is not used, and at time 1 it is the backward Euler quotient."""
    steps = np.diff(times, prepend=np.nan)
    ratio = np.zeros(len(times))
    ratio[2:] = steps[2:] / steps[1:-1]
    return steps, (1 + 2 * ratio) / (steps * (1 + ratio)), -(ratio**2) / (steps * (1 + ratio))


def march(times, start, solve, correction=None, weights=coefficients):
    """u[n, d] with D2 u_k + c_k = f(t_k, u_k); solve(k, b, h) gives the u of b u - f(t_k, u) = h."""
    _, near, far = weights(times)
    u = np.zeros((len(times), len(start)))
    u[0] = start
    for k in range(1, len(times)):
        known = near[k] * u[k - 1] - far[k] * (u[k - 1] - u[k - 2])
        u[k] = solve(k, near[k], known if correction is None else known - correction[k], u[k - 1])
    return u


def newton(f, jacobian, times):
    """The implicit step of a general equation."""

    def differences(t, u):
        base, shift = np.asarray(f(t, u), float), 1e-7 * (1 + np.abs(u))
        return np.stack([(np.asarray(f(t, u + step), float) - base) / step[i] for i, step in enumerate(np.diag(shift))], 1)

    slopes = differences if jacobian is None else jacobian

    def solve(k, b, known, u):
        last = np.inf
        for _ in range(50):
            move = np.linalg.solve(b * np.eye(len(u)) - np.asarray(slopes(times[k], u), float), known - b * u + np.asarray(f(times[k], u), float))
            u = u + move
            size = np.abs(move).max() / (1 + np.abs(u).max())
            if size <= 1e-14 or last < 1e-10:  # one step more than quadratic convergence needs
                return u
            last = size
        raise DomainError(f"times must have steps short enough for Newton's method; it did not converge at time {times[k]:.6g}.")

    return solve


def corrections(times, slopes, values=None):
    """What D2 misses at every time, from second divided differences of u' along the first pass; at time 1 from the parabola through the first three."""
    steps = np.diff(times, prepend=np.nan)[:, None]
    first = np.diff(slopes, axis=0, prepend=np.nan) / steps
    second = np.diff(first, axis=0, prepend=np.nan)
    second[2:] /= steps[2:] + steps[1:-1]
    missed = np.zeros(slopes.shape)
    missed[1] = steps[1] / 2 * first[1] + steps[1] ** 2 / 6 * second[2]
    missed[2:] = steps[2:] * (steps[2:] + steps[1:-1]) / 3 * second[2:]
    return missed


@paper.measure(r"D_2 v_k = \frac{1+2r}{\tau_k(1+r)}(v_k - v_{k-1}) - \frac{r^2}{\tau_k(1+r)}(v_{k-1} - v_{k-2}),\quad r = \tau_k/\tau_{k-1}", requires=RATIOS)
def bdf2_derivative(
    times: vector(3, of=real(typical=(0, 2)), order="increasing", doc="three times", example=[0.0, 0.1, 0.3]),
    values: vector(3, of=real(typical=(-2, 2)), doc="values there", example=[0.0, 0.01, 0.09]),
) -> real():
    """Derivative at the last of three times of the parabola through three values."""
    _, near, far = coefficients(times)
    return float(near[2] * (values[2] - values[1]) + far[2] * (values[1] - values[0]))


@paper.algorithm(r"D_2 u_k = f(t_k, u_k),\quad D_2 u_1 = (u_1 - u_0)/\tau_1", requires=RATIOS)
def bdf2_solve(f: FIELD, jacobian: JACOBIAN, times: TIMES, start: START) -> matrix("n", "d"):
    """Solution of u' = f(t, u) on a given time grid, to second order."""
    return march(times, start, newton(f, jacobian, times))


@paper.algorithm(r"D_2 w_k + c_k = f(t_k, w_k),\quad c_k = \tfrac13 \tau_k(\tau_k + \tau_{k-1})\, f(t,u)[t_{k-2}, t_{k-1}, t_k]", requires=RATIOS)
def bdf2_dc3(f: FIELD, jacobian: JACOBIAN, times: TIMES, start: START) -> record(
    solution=matrix("n", "d"),
    correction_norm=nonnegative(doc="largest correction"),
    error_estimate=vector("n", of=nonnegative(), doc="of the first pass: the largest difference between the passes at each time"),
):
    """Solution of u' = f(t, u) on a given time grid, to third order by one correction of BDF2, with an error estimate of the latter."""
    return corrected(f, jacobian, times, start)


def corrected(f, jacobian, times, start, correct=corrections):
    solve = newton(f, jacobian, times)
    u = march(times, start, solve)
    missed = correct(times, np.array([f(t, v) for t, v in zip(times, u, strict=True)], float), u)
    w = march(times, start, solve, missed)
    return {"solution": w, "correction_norm": float(np.abs(missed).max()), "error_estimate": np.abs(w - u).max(1)}


def divide(rate):
    return lambda k, b, known, u: known / (b - rate)


@paper.algorithm(r"D_2 u_k = \lambda u_k", requires=RATE_RULE)
def bdf2_solve_linear(rate: RATE, times: TIMES, start: VALUE) -> vector("n"):
    """BDF2 solution of u' = rate u on a given time grid."""
    return march(times, np.array([start]), divide(rate))[:, 0]


@paper.algorithm(r"D_2 w_k + \tfrac13 \tau_k(\tau_k + \tau_{k-1})\, \lambda u[t_{k-2}, t_{k-1}, t_k] = \lambda w_k", requires=RATE_RULE)
def bdf2_dc3_linear(rate: RATE, times: TIMES, start: VALUE) -> vector("n"):
    """Corrected BDF2 solution of u' = rate u on a given time grid, of third order."""
    u = march(times, np.array([start]), divide(rate))
    return march(times, np.array([start]), divide(rate), corrections(times, rate * u))[:, 0]


@paper.measure(r"\max_k r_k,\quad \#\{k : r_k > 1 + \sqrt 2\},\quad \#\{k : r_k > 4.8645\},\quad r_k = \tau_k / \tau_{k-1}")
def mesh_report(times: TIMES) -> record(max_ratio=positive(), count_above_2_414=count(low=0), count_above_4_8645=count(low=0)):
    """Largest ratio of adjacent steps, and how many leave classical zero-stability and the energy arguments."""
    steps = np.diff(times)
    ratio = steps[1:] / steps[:-1]
    return {"max_ratio": float(ratio.max()), "count_above_2_414": int((ratio > 1 + np.sqrt(2)).sum()), "count_above_4_8645": int((ratio > 4.8645).sum())}


def grid(family, n, rng, end=2.0):
    if family == "random":
        steps = rng.uniform(0.01, 1.01, n)
        steps[0] = steps.mean()  # the error of the start goes with its square: of one size on all grids, so that the order shows
        return np.append(0, np.cumsum(steps) * end / steps.sum())
    return end * np.linspace(0, 1, n + 1) ** (2 if family == "graded" else 1)


def field(t, u):
    return -u + np.sin(t) - 0.2 * u**3


def field_jacobian(t, u):
    return np.diag(-1 - 0.6 * u**2)


@lru_cache(maxsize=1)
def reference():
    from scipy.integrate import solve_ivp

    return solve_ivp(field, (0, 2), [1.0], method="DOP853", rtol=1e-13, atol=1e-14, dense_output=True, max_step=0.02).sol


SIZES = np.array([80, 160, 320, 640])


def largest_errors(solve, family, rng):
    """Of a solver on one grid of each size."""
    grids = [grid(family, n, rng) for n in SIZES]
    return np.array([np.abs(solve(field, field_jacobian, times, np.array([1.0])) - reference()(times).T).max() for times in grids])


def errors(draw, solve):
    family = draw.choice(["uniform", "random", "graded"])
    found = np.exp(np.mean([np.log(largest_errors(solve, family, draw.rng)) for _ in range(2 if family == "random" else 1)], axis=0))
    return SIZES, found / found[0]


def sign_flipped(f, jacobian, times, start):
    return march(times, start, newton(f, jacobian, times), weights=flipped)


def flipped(times):
    steps, near, far = coefficients(times)
    return steps, near, -far


@paper.trial(Rate(within=0.2, one_sided=True), of=[bdf2_solve], controls={"sign of the far weight flipped": sign_flipped}, quick=6, full=24)
def first_pass_has_order_two(draw, claim):
    """The error of the first pass falls with the number of steps like n^-2, to within .2, on uniform, random and graded grids."""
    return *errors(draw, claim), -2.0


def half_corrected(f, jacobian, times, start):
    return corrected(f, jacobian, times, start, lambda times, slopes, values: corrections(times, slopes) / 2)


@paper.trial(Rate(within=0.3, one_sided=True), of=[bdf2_dc3], controls={"half of the correction": half_corrected}, quick=6, full=24)
def corrected_pass_has_order_three(draw, claim):
    """The error of the corrected pass falls with the number of steps like n^-3, to within .3, on uniform, random and graded grids."""
    return *errors(draw, lambda *given: claim(*given)["solution"]), -3.0


def explicit(rate, times, start):
    """The same weights with f at the time before."""
    return march(times, np.array([start]), lambda k, b, known, u: (known + rate * u) / b)[:, 0]


@paper.trial(Inequality(rtol=1e-9, search=300), of=[bdf2_solve_linear], controls={"f at the time before": explicit}, quick=40, full=400)
def first_pass_never_grows(draw, claim):
    """On random grids of 60 steps with adjacent ratios up to 100 the first pass on u' = rate u, rates from -1e5 to -.1, never exceeds its initial value."""
    rate, steps = -draw.log_uniform(0.1, 1e5), draw.log_uniform(0.01, 1.0, 60)
    times = np.append(0, np.cumsum(steps / steps.sum()))
    with np.errstate(over="ignore", invalid="ignore"):
        largest = np.abs(claim(rate, times, 1.0)[1:]).max()
    return np.nan_to_num(largest, nan=np.inf), 1.0, {"rate": rate}


def derivative_flipped(times, values):
    _, near, far = flipped(times)
    return near[2] * (values[2] - values[1]) + far[2] * (values[1] - values[0])


@paper.trial(
    Identity(rtol=1e-9, atol=1e-9),
    of=[bdf2_derivative, bdf2_solve, bdf2_dc3, bdf2_solve_linear, bdf2_dc3_linear, mesh_report],
    controls={"sign of the far weight flipped": derivative_flipped},
    quick=30,
    full=300,
)
def exact_on_parabolas(draw, claim):
    """D2 is exact on parabolas; the first pass satisfies its equation, the corrected one is exact where u' is a parabola in t, and general and linear solvers agree."""
    times = np.append(0, np.cumsum(draw.log_uniform(0.01, 1.0, 8)))
    a, b, c, rate, start = draw.normal(size=5)
    rate = -abs(rate)
    parabola = np.polynomial.Polynomial([a, b, c])
    told = claim(times[:3], parabola(times[:3]))
    linear = bdf2_solve_linear(rate, times, start)
    general = bdf2_solve(lambda t, u: rate * u, None, times, np.array([start]))[:, 0]
    corrected_linear = bdf2_dc3_linear(rate, times, start)
    both = bdf2_dc3(lambda t, u: rate * u, None, times, np.array([start]))
    residual = [claim(times[k - 2 : k + 1], linear[k - 2 : k + 1]) for k in range(2, 9)]
    cubic = bdf2_dc3(lambda t, u: np.array([parabola(t)]), None, times, np.array([start]))["solution"][:, 0]
    report, ratio = mesh_report(times), np.exp(np.diff(np.log(np.diff(times))))
    left = [told, *residual, *general, *both["solution"][:, 0], *both["error_estimate"], *cubic, *report.values()]
    right = [parabola.deriv()(times[2]), *rate * linear[2:], *linear, *corrected_linear, *np.abs(corrected_linear - linear), *start + parabola.integ()(times)]
    return left, [*right, ratio.max(), (ratio > 2.414214).sum(), (ratio > 4.8645).sum()]


@paper.finding(
    """Stable does not mean bounded by the initial value: on grids that do not resolve the initial layer the corrected pass overshoots it several times over, where the first
    pass stays below; the correction differentiates the layer."""
)
def corrected_pass_overshoots():
    rng = np.random.default_rng(0)
    first, second = [], []
    for _ in range(200):
        rate, steps = -(10 ** rng.uniform(-1, 5)), 100 ** rng.uniform(-1, 0, 60)
        times = np.append(0, np.cumsum(steps / steps.sum()))
        first.append(np.abs(bdf2_solve_linear(rate, times, 1.0)).max())
        second.append(np.abs(bdf2_dc3_linear(rate, times, 1.0)).max())
    holds = max(first) <= 1 + 1e-12 and max(second) > 3
    return {"holds": bool(holds), "first_pass": float(max(first)), "corrected": float(max(second)), "grids_with_overshoot": int((np.array(second) > 1 + 1e-9).sum())}


def third_differences(times, slopes, values):
    """v''' from third divided differences of u, which know nothing of the equation; at the first three times all from the first cubic."""
    table = values
    for order in (1, 2, 3):
        table = np.diff(table, axis=0) / (times[order:] - times[:-order])[:, None]
    missed = corrections(times, slopes)
    steps = np.diff(times)
    missed[2] = steps[1] * (steps[1] + steps[0]) * table[0]
    missed[3:] = (steps[2:] * (steps[2:] + steps[1:-1]))[:, None] * table
    return missed


@paper.finding(
    """The correction has to come from differences of f. With the third derivative from third differences of u instead, which amplify the error that the backward Euler start
    leaves, the corrected pass comes to an order near two on a uniform grid, where it has order three."""
)
def third_differences_lose_the_order():
    solvers = [lambda *given: corrected(*given, third_differences)["solution"], lambda *given: bdf2_dc3(*given)["solution"], bdf2_solve]
    lost, kept, first = (largest_errors(solver, "uniform", None) for solver in solvers)
    order = [float(np.log2(found[-2] / found[-1])) for found in (lost, kept, first)]
    holds = order[0] < 2.5 and order[1] > 2.7 and order[2] > 1.8
    return {"holds": bool(holds), "order_from_u": order[0], "order_from_f": order[1], "order_of_first_pass": order[2], "errors_from_u": lost, "errors_from_f": kept}
