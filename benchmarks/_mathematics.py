"""The mathematics of the book beside its peers, for the table of algorithms.py."""

import lzma
import math
import zlib

import numpy as np
from _table import against, curve, row
from _timing import median_seconds

from lawbook.chapters.mathematics.apery_level_eight import apery_relation, apery_series
from lawbook.chapters.mathematics.arithmetic_function_space import dirichlet_convolve
from lawbook.chapters.mathematics.bdf2_deferred_correction import bdf2_dc3, bdf2_solve
from lawbook.chapters.mathematics.fhk_zeta_maximum import riemann_siegel_z
from lawbook.chapters.mathematics.log_bessel import log_bessel_i
from lawbook.chapters.mathematics.mzv_identities import mzv
from lawbook.chapters.mathematics.prime_coding import compressed_prime_bits, cramer_entropy, omega_table
from lawbook.chapters.mathematics.reverse_derivative import check_reverse_derivative
from lawbook.chapters.mathematics.riemann_cross_entropy import zeros_on_line
from lawbook.chapters.mathematics.variable_exponent_sde import cauchy_monte_carlo, cauchy_solve
from lawbook.numerics.iterated_integrals import multiple_zeta
from lawbook.numerics.sieves import prime_flags


def series():
    import mpmath as mp

    value = apery_series(3, -4.0, digits=60)
    ours, _ = median_seconds(apery_series, 3, -4.0, digits=60)

    def alternating():
        with mp.workdps(60):
            return mp.nsum(lambda n: mp.mpf(-4) ** n / (mp.binomial(2 * n, n) * n**3), [1, mp.inf], method="alternating")

    theirs, found = median_seconds(alternating, repeats=1)
    with mp.workdps(70):
        row("Apery series at -4, weight 3, 60 digits", ours, "mpmath nsum, alternating", theirs, f"difference {float(abs(found - mp.mpf(value))):.1e}")
    basis = ["zeta(3)", "pi^2*ln2"]
    ours, relation = median_seconds(apery_relation, 3, 4.0, basis, digits=40, repeats=3)

    def identify(pslq=False):
        with mp.workdps(40):
            terms = [mp.mpf(apery_series(3, 4.0, digits=45)), mp.zeta(3), mp.pi**2 * mp.ln2]
            return mp.pslq(terms, maxcoeff=10_000, maxsteps=100_000) if pslq else mp.identify(terms[0], ["zeta(3)", "pi**2*log(2)"])

    for name, pslq in (("mpmath identify", False), ("mpmath pslq, not verified", True)):
        theirs, found = median_seconds(identify, pslq, repeats=3)
        row("relation at 4 of two constants, 40 digits", ours, name, theirs, f"{relation['coefficients'].tolist()} against {found}")


def zeta_values():
    def fresh(index, digits):
        multiple_zeta.cache_clear()
        return mzv(index, digits=digits)

    for index, digits in (([2, 3], 30), ([2, 3], 200), ([2, 2, 3, 2], 50)):
        ours, value = median_seconds(fresh, index, digits)

        def zetamult(cypari, index=index, digits=digits):
            cypari.pari.set_real_precision(digits + 5)
            return str(cypari.pari(f"zetamult({index[::-1]})"))

        def told(other, value=value, digits=digits):
            import mpmath as mp

            with mp.workdps(digits + 10):
                return f"difference {float(abs(mp.mpf(value) - mp.mpf(other))):.1e}"

        against(f"zeta{tuple(index)}, {digits} digits", ours, "PARI zetamult", "cypari", zetamult, told)
    sizes = [50, 100, 200, 400]
    curve("zeta(2, 3), digits", sizes, [median_seconds(fresh, [2, 3], digits, repeats=3)[0] for digits in sizes], "digits^2", 2.0)


def convolutions():
    n = 20_000
    ours, divisors = median_seconds(dirichlet_convolve, np.ones(n), np.ones(n))
    against(
        f"divisors of the numbers to {n}",
        ours,
        "sympy divisor_count, each",
        "sympy",
        lambda sympy: [int(sympy.divisor_count(k)) for k in range(1, n + 1)],
        lambda counts: f"largest difference {np.abs(divisors - counts).max():.0f}",
        repeats=1,
    )
    sizes = [2**k for k in range(14, 21)]
    curve("Dirichlet convolution, N", sizes, [median_seconds(dirichlet_convolve, np.ones(n), np.ones(n), repeats=3)[0] for n in sizes], "N ln N", 1.08)


def equations():
    """One component slow and nonlinear, the other tied to its square by a rate of 1000; largest errors at the times that each method chose."""
    from scipy.integrate import solve_ivp

    start, end = np.array([1.0, 1.0]), 2.0

    def field(t, u):
        return np.array([-u[0] + np.sin(t) - 0.2 * u[0] ** 3, -1000 * (u[1] - u[0] ** 2)])

    def slope(t, u):
        return np.array([[-1 - 0.6 * u[0] ** 2, 0.0], [2000 * u[0], -1000.0]])

    exact = solve_ivp(field, (0, end), start, method="Radau", jac=slope, rtol=1e-11, atol=1e-13, dense_output=True).sol
    times = end * np.linspace(0, 1, 201) ** 2
    ours, found = median_seconds(bdf2_dc3, field, slope, times, start, repeats=3)
    errors = [np.abs(u - exact(times).T).max() for u in (found["solution"], bdf2_solve(field, slope, times, start))]
    for method in ("BDF", "Radau"):
        for tolerance in 10.0 ** -np.arange(2, 12, 0.5):  # the loosest that is as accurate
            given = {"method": method, "jac": slope, "rtol": tolerance, "atol": tolerance / 10}
            answer = solve_ivp(field, (0, end), start, **given)
            error = np.abs(answer.y - exact(answer.t)).max()
            if error <= errors[0]:
                break
        theirs, _ = median_seconds(solve_ivp, field, (0, end), start, **given, repeats=3)
        told = f"error {errors[0]:.1e} (first pass {errors[1]:.1e}) in 200 steps twice against {error:.1e} in {len(answer.t) - 1}"
        row("a stiff equation, equal error", ours, f"SciPy {method}", theirs, told)
        if method == "BDF":
            while len(answer.t) <= len(times):  # then about as many steps
                given = given | {"rtol": given["rtol"] / 1.5, "atol": given["atol"] / 1.5}
                answer = solve_ivp(field, (0, end), start, **given)
            theirs, _ = median_seconds(solve_ivp, field, (0, end), start, **given, repeats=3)
            told = f"error {errors[0]:.1e} in 200 steps twice against {np.abs(answer.y - exact(answer.t)).max():.1e} in {len(answer.t) - 1}"
            row("a stiff equation, as many steps", ours, f"SciPy {method}", theirs, told)


def zeta_function():
    import mpmath as mp

    t = np.random.default_rng(0).uniform(1e6, 1.001e6, 20_000)
    riemann_siegel_z(t[:10])
    ours, z = median_seconds(riemann_siegel_z, t, repeats=3)
    theirs, exact = median_seconds(lambda: [float(mp.siegelz(x)) for x in t[:20]], repeats=1)
    error = np.abs(z[:20] - exact).max()
    row("a value of Z at height 10^6", ours / len(t), "mpmath siegelz", theirs / 20, f"largest error {error:.1e}, promised {0.127 * 1e6**-0.75:.1e}")
    heights = np.array([1e5, 1e6, 1e7, 1e8])
    curve("Z at 2000 heights, t", heights, [median_seconds(riemann_siegel_z, np.linspace(h, 1.001 * h, 2000), repeats=1)[0] for h in heights], "sqrt t", 0.5)
    ours, found = median_seconds(zeros_on_line, 1000.0, repeats=1)
    theirs, number = median_seconds(mp.nzeros, 1000, repeats=3)
    row(
        "zeros to height 1000, counted and on the line",
        ours,
        "mpmath nzeros, counted only",
        theirs,
        f"{found['sign_changes']} on the line of {found['predicted']} against {number}",
    )
    theirs, _ = median_seconds(lambda: [mp.zetazero(k) for k in (100, 350, 600)], repeats=1)
    row("zeros to height 1000, counted and on the line", ours, "mpmath zetazero, one by one", theirs * number / 3, "theirs multiplied out from three zeros; it locates them too")


def bessel():
    from scipy.special import ive

    v, x = 0.1 * 31_620 ** np.random.default_rng(0).uniform(size=(2, 10**6))
    log_bessel_i(v[:10], x[:10])
    ours, mine = median_seconds(log_bessel_i, v, x, repeats=3)
    with np.errstate(all="ignore"):
        theirs, other = median_seconds(lambda: np.log(ive(v, x)) + x, repeats=3)
    both = np.isfinite(other)
    deviation = np.max(np.abs(mine - other)[both] / np.maximum(1, np.abs(mine[both])))
    failures = 100 * (1 - np.isfinite(mine).mean()), 100 * (1 - both.mean())
    row("log I at 10^6 points", ours, "SciPy, log of ive", theirs, f"fails at {failures[0]:.1f}% against {failures[1]:.1f}% of them, else apart by {deviation:.1e}")


def primes():
    limit = 10**6
    ours, flags = median_seconds(prime_flags, limit)
    against("primes to 10^6", ours, "sympy primepi (counts only)", "sympy", lambda sympy: int(sympy.primepi(limit)), lambda count: f"{flags.sum()} against {count}", repeats=1)
    few = 20_000
    ours, omega = median_seconds(omega_table, few)
    against(
        f"prime factors of the numbers to {few}",
        ours,
        "sympy primefactors, each",
        "sympy",
        lambda sympy: [len(sympy.primefactors(k)) for k in range(1, few + 1)],
        lambda counts: f"largest difference {np.abs(omega - counts).max()}",
        repeats=1,
    )
    packed = np.packbits(flags[3:]).tobytes()
    ours, entropy = median_seconds(cramer_entropy, limit)
    wheeled = cramer_entropy(limit, wheel=30)
    for name, compress in (("lzma", lzma.compress), ("zlib", lambda data: zlib.compress(data, 9))):
        theirs, data = median_seconds(compress, packed, repeats=1)
        by_wheel = compressed_prime_bits(limit, method=name, wheel=30)
        told = f"bits a number: entropy {entropy / limit:.3f}, {wheeled / limit:.3f} mod 30, against {8 * len(data) / limit:.3f}, {by_wheel / limit:.3f}"
        row("information of the primes to 10^6", ours, name, theirs, told)
    sizes = [10**4, 10**5, 10**6, 10**7]
    curve("prime factors, N", sizes, [median_seconds(omega_table, n, repeats=3)[0] for n in sizes], "N lnln N", 1.06)


def gradients():
    """A softmax with its derivative by hand, and one that forgets the rank-one term."""
    import jax

    n, points = 8, 20

    def softmax(x):
        e = np.exp(x - x.max())
        return e / e.sum()

    def right(x, y):
        s = softmax(x)
        return s * (y - s @ y)

    def wrong(x, y):
        return softmax(x) * y

    ours, found = median_seconds(check_reverse_derivative, softmax, right, n, n, 0, trials=points, repeats=3)
    broken = check_reverse_derivative(softmax, wrong, n, n, 0, trials=points)["broken"]
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(points, n))

    def by_jax(backward):
        from jax.test_util import check_grads

        @jax.custom_vjp
        def f(x):
            return jax.nn.softmax(x)

        f.defvjp(lambda x: (f(x), x), backward)
        try:
            with jax.enable_x64(True):
                for x in inputs:
                    check_grads(f, (jax.numpy.asarray(x),), order=1, modes=["rev"])
            return "passes"
        except AssertionError:
            return "fails"

    def right_in_jax(x, y):
        s = jax.nn.softmax(x)
        return (s * (y - s @ y),)

    told = f"right: breaks {found['broken'] or 'no law'} against"
    theirs, verdict = median_seconds(by_jax, right_in_jax, repeats=1)
    row(
        f"derivative of a softmax at {points} points", ours, "jax check_grads", theirs, f"{told} {verdict}; wrong: {broken} against {by_jax(lambda x, y: (jax.nn.softmax(x) * y,))}"
    )

    def by_torch(torch, backward=right):
        class Softmax(torch.autograd.Function):
            @staticmethod
            def forward(context, x):
                context.save_for_backward(x)
                return torch.softmax(x, 0)

            @staticmethod
            def backward(context, y):
                return torch.as_tensor(backward(context.saved_tensors[0].numpy(), y.numpy()))

        good = all(torch.autograd.gradcheck(Softmax.apply, (torch.tensor(x, requires_grad=True),), raise_exception=False) for x in inputs)
        return "passes" if good else "fails"

    def both(torch):
        return by_torch(torch), by_torch(torch, wrong)

    against(
        f"two derivatives of a softmax at {points} points",
        2 * ours,
        "torch gradcheck",
        "torch",
        both,
        lambda verdicts: f"{told} {verdicts[0]}; wrong: {broken} against {verdicts[1]}",
        why="torch is not installed: its package for Linux brings some gigabytes for graphics cards",
        warm=True,
    )


def options():
    """A put where both exponents are 1: lognormal, with drift and potential the rate of interest."""
    rate, spread, horizon, x0, strike, nodes, steps = 0.05, 0.3, 1.0, 1.0, 1.1, 1200, 400
    one = np.array([1.0, 0.0])
    given = (rate, spread, one, one, horizon, x0)
    ours, value = median_seconds(cauchy_solve, *given, payoff="put", strike=strike, potential=rate, nodes=nodes, steps=steps)
    simulated, paths = median_seconds(cauchy_monte_carlo, *given, 0, payoff="put", strike=strike, potential=rate, paths=100_000, steps=50, repeats=1)

    def market(ql):
        today = ql.Date(1, 1, 2025)
        ql.Settings.instance().evaluationDate = today
        days = ql.Actual365Fixed()
        curve_, spot = (ql.YieldTermStructureHandle(ql.FlatForward(today, r, days)) for r in (rate, 0.0))
        surface = ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), spread, days))
        process = ql.BlackScholesMertonProcess(ql.QuoteHandle(ql.SimpleQuote(x0)), spot, curve_, surface)
        option = ql.VanillaOption(ql.PlainVanillaPayoff(ql.Option.Put, strike), ql.EuropeanExercise(today + 365))
        return process, option

    def analytic(ql):
        process, option = market(ql)
        option.setPricingEngine(ql.AnalyticEuropeanEngine(process))
        return option.NPV()

    def differences(ql):
        process, option = market(ql)
        option.setPricingEngine(ql.FdBlackScholesVanillaEngine(process, steps, nodes))
        return option.NPV()

    def monte_carlo(ql):
        process, option = market(ql)
        option.setPricingEngine(ql.MCEuropeanEngine(process, "pseudorandom", timeSteps=50, requiredSamples=100_000, seed=1))
        return option.NPV()

    from scipy.special import ndtr

    edge = (math.log(strike / x0) - (rate - spread**2 / 2) * horizon) / (spread * horizon**0.5)
    exact = strike * math.exp(-rate * horizon) * ndtr(edge) - x0 * ndtr(edge - spread * horizon**0.5)

    def off(own):
        return lambda price: f"error {abs(own - exact):.1e} against {abs(price - exact):.1e}"

    against("a put by finite differences, 1200 x 400", ours, "QuantLib, the same grid", "QuantLib", differences, off(value))
    against("a put by finite differences, 1200 x 400", ours, "QuantLib, closed form", "QuantLib", analytic, off(value))
    against("a put from 100 000 paths of 50 steps", simulated, "QuantLib, Monte Carlo", "QuantLib", monte_carlo, off(paths["value"]), repeats=1)
    sizes = [4800 * 2**i for i in range(5)]
    curve(
        "the parabolic equation, nodes",
        sizes,
        [median_seconds(cauchy_solve, *given, payoff="put", strike=strike, nodes=n, steps=50, repeats=3)[0] for n in sizes],
        "nodes",
        1.0,
    )


PARTS = (series, zeta_values, convolutions, equations, zeta_function, bessel, primes, gradients, options)
