"""log I_v(x), log K_v(x) and I_{v+1}(x)/I_v(x) for every order v >= 0 and argument x > 0, compiled by numba on first use.

Importing this module imports numba: papers do so inside their functions.
"""

import math
from fractions import Fraction

import numpy as np

from .kernels import compiled

SERIES, LARGE_X, LARGE_V = 0, 1, 2  # families of formulas
LOG_2PI = math.log(2 * math.pi)


def debye_polynomials(terms):
    """u[k, j]: the coefficient of t^(k+2j) in Debye's polynomial u_k, exact up to the last rounding.

    u_0 = 1 and u_{k+1}(t) = t^2 (1 - t^2) u_k'(t) / 2 + (1/8) int_0^t (1 - 5 s^2) u_k(s) ds.
    """
    u = {0: Fraction(1)}  # power -> coefficient
    table = np.zeros((terms + 1, terms + 1))
    for k in range(terms + 1):
        for power, coefficient in u.items():
            table[k, (power - k) // 2] = float(coefficient)
        following = dict.fromkeys(range(k + 1, 3 * k + 4, 2), Fraction(0))
        for p, c in u.items():
            following[p + 1] += c * (Fraction(p, 2) + Fraction(1, 8 * (p + 1)))
            following[p + 3] -= c * (Fraction(p, 2) + Fraction(5, 8 * (p + 3)))
        u = following
    return table


DEBYE = debye_polynomials(13)


@compiled
def family(v, x, guards):
    """(family, number of terms) to use at order v and argument x: the first line that matches. `guards` keeps large-x sums where they converge."""
    if x <= 19.6931 and v <= 12.6964:  # no line below can match: spare the logarithms
        return SERIES, 0
    log_x, log_v = np.log(x), np.log(v)
    if (x > 1400 and v < 3.05) or (v > 3.1 and 0.6229 * log_x - 3.2318 > log_v and (not guards or v * v < 0.002 * x)):
        return LARGE_X, 3
    if (x > 30 and v < 15.3919) or (x > 59.6925 and 0.5113 * log_x + 0.7939 > log_v and (not guards or v * v < 2 * x)):
        return LARGE_X, 20
    if (x > 274.2377 and v > 0.3) or v > 163.6993:
        return LARGE_V, 4
    if (x > 84.4153 and v > 0.46) or v > 56.9971:
        return LARGE_V, 6
    if (x > 35.9074 and v > 0.6) or v > 20.1534:
        return LARGE_V, 9
    if (x > 19.6931 and v > 0.7) or v > 12.6964:
        return LARGE_V, 13
    return SERIES, 0


@compiled
def large_x_sum(v, x, terms, sign):
    """sum_{k>=1} c_k with c_0 = 1 and c_k = sign c_{k-1} (4 v^2 - (2k-1)^2) / (8 k x): sign -1 for I, +1 for K."""
    mu, c, total = 4 * v * v, 1.0, 0.0
    for k in range(1, terms + 1):
        c *= sign * (mu - (2 * k - 1) ** 2) / (8 * k * x)
        total += c
        if abs(c) < 1e-17:
            break
    return total


@compiled
def debye_sums(v, t, terms, sign, u):
    """(sum_{k>=1} u_k(t) / (sign v)^k, sum_{k>=0} (u_k/2 + t u_k')(t) / (sign v)^k), from the highest k down."""
    square, ratio = t * t, sign * t / v
    total = slope = 0.0
    for k in range(terms, 0, -1):
        value = derivative = 0.0
        for j in range(k, -1, -1):
            value = value * square + u[k, j]
            derivative = derivative * square + (0.5 + k + 2 * j) * u[k, j]
        total = (total + value) * ratio
        slope = (slope + derivative) * ratio
    return total, 0.5 + slope


@compiled
def debye_exponent(v, x):
    """(r, eta) at z = x/v: r = sqrt(1 + z^2) and eta = r + log(z / (1 + r))."""
    z = x / v
    r = math.sqrt(1 + z * z)
    return r, r + (math.log(z / (1 + r)) if z > 1e-300 else math.log(x) - math.log(v) - math.log(2))


@compiled
def log_i_large_v(v, x, terms, u):
    r, eta = debye_exponent(v, x)
    return v * eta - 0.5 * (LOG_2PI + math.log(v * r)) + math.log1p(debye_sums(v, 1 / r, terms, 1.0, u)[0])


@compiled
def log_k_large_v(v, x, terms, u):
    r, eta = debye_exponent(v, x)
    return -v * eta + 0.5 * math.log(math.pi / (2 * v * r)) + math.log1p(debye_sums(v, 1 / r, terms, -1.0, u)[0])


@compiled
def log_i_series(v, x):
    """v log(x/2) - lgamma(v+1) + log sum_k (x^2/4)^k / (k! (v+1)...(v+k)); every term is positive."""
    quarter, term, rest, k = x * x / 4, 1.0, 0.0, 1
    while True:
        term *= quarter / (k * (k + v))
        rest += term
        if term < 1e-17 * (1 + rest):
            break
        k += 1
    leading = v * (math.log(x) - math.log(2)) - math.lgamma(v + 1) if v > 0 else 0.0
    return leading + math.log1p(rest)


@compiled
def log_k_integral(v, x):
    """int_0^inf exp(-x cosh s) cosh(v s) ds by the trapezoid rule from the peak outwards; at the step 1/8 its error is below rounding for v < 13, x < 31."""
    step = 0.125
    peak = math.asinh(v / x) if v < 1e300 * x else math.log(2 * v) - math.log(x)
    top = v * peak - math.hypot(v, x)  # log of twice the integrand, about where it is largest
    total, first = 0.0, int(peak / step)
    for direction in (1, -1):
        j = first if direction == 1 else first - 1
        while j >= 0:
            s = j * step
            half = math.exp(0.5 * s)  # in halves, so that x exp(s) is finite for the least x
            exponent = v * s - 0.5 * (x * half * half + x / half / half) - top
            mirrored = math.exp(-2 * v * s) if 2 * v * s < 40 else 0.0
            total += (1 + mirrored) * math.exp(exponent) * (0.5 if j == 0 else 1.0)
            if exponent < -40 and (direction == -1 or s > peak):
                break
            j += direction
    return top + math.log(0.5 * step * total)


@compiled
def log_i(v, x, guards, u):
    if not (v >= 0 and x >= 0):
        return np.nan
    if x == 0:
        return 0.0 if v == 0 else -np.inf
    kind, terms = family(v, x, guards)
    if kind == LARGE_X:
        return x - 0.5 * (LOG_2PI + math.log(x)) + math.log1p(large_x_sum(v, x, terms, -1.0))
    return log_i_large_v(v, x, terms, u) if kind == LARGE_V else log_i_series(v, x)


@compiled
def log_k(v, x, guards, u):
    if not (v >= 0 and x >= 0):
        return np.nan
    if x == 0:
        return np.inf
    kind, terms = family(v, x, guards)
    if kind == LARGE_X:
        return -x + 0.5 * (math.log(math.pi / 2) - math.log(x)) + math.log1p(large_x_sum(v, x, terms, 1.0))
    return log_k_large_v(v, x, terms, u) if kind == LARGE_V else log_k_integral(v, x)


@compiled
def ratio(v, x, guards, u):
    """I_{v+1}(x) / I_v(x) without the prefactors, which cancel; never the exponential of a difference of logarithms."""
    if not (v >= 0 and x >= 0):
        return np.nan
    if x <= 1e-9 * (v + 1):
        return x / (2 * (v + 1))
    if x <= 100:
        # Gauss: I_{v+1}/I_v = 1/(b_1 + 1/(b_2 + ...)) with b_j = 2(v+j)/x, by Lentz's method: about x terms at most
        f = c = 2 * (v + 1) / x
        d, j = 0.0, 1
        while True:
            j += 1
            b = 2 * (v + j) / x
            c, d = b + 1 / c, 1 / (b + d)
            f *= c * d
            if abs(c * d - 1) < 2e-16:
                return 1 / f
    kind, terms = family(v, x, guards)
    if kind == LARGE_X:
        kind, terms = family(v + 1, x, guards)
    if kind == LARGE_X:
        return (1 + large_x_sum(v + 1, x, 20, -1.0)) / (1 + large_x_sum(v, x, 20, -1.0))
    # I'/I - v/x, with the Debye expansions of I' and I; the terms of order 1/z are taken out by hand
    z = x / v
    r = math.sqrt(1 + z * z)
    total, slope = debye_sums(v, 1 / r, terms, 1.0, u)
    return z * (1 / (1 + r) - slope / (r * r * v * (1 + total)))


@compiled
def fill_log_i(v, x, guards, u, out):
    for j in range(out.size):
        out[j] = log_i(v[j], x[j], guards, u)


@compiled
def fill_log_k(v, x, guards, u, out):
    for j in range(out.size):
        out[j] = log_k(v[j], x[j], guards, u)


@compiled
def fill_ratio(v, x, guards, u, out):
    for j in range(out.size):
        out[j] = ratio(v[j], x[j], guards, u)


def elementwise(fill, order, x, *, guards=True, debye=DEBYE):
    """`fill` over the broadcast of order and x, as floats; a number where both are numbers."""
    v, x = np.broadcast_arrays(np.asarray(order, float), np.asarray(x, float))
    out = np.empty(v.size)
    fill(np.ascontiguousarray(v).ravel(), np.ascontiguousarray(x).ravel(), guards, debye, out)
    return out.reshape(v.shape) if v.ndim else float(out[0])
