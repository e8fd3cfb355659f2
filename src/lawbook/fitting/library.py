"""The library of general forms: each is linear in some constants, and works on any coordinates."""

import re
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..numerics.separable import Separable
from ..numerics.separable import columns as terms_of

EXPONENT = (np.log([0.05, 1.0]), np.log([0.01, 4.0]))  # where exponents start, and stay


@dataclass(frozen=True)
class Form:
    """A Separable law of the coordinates of a table, with names of its constants: those of `inner` that end in "!" are logarithms of what they are named."""

    name: str
    law: Separable
    linear: tuple[str, ...]
    inner: tuple[str, ...]
    text: str

    @property
    def constants(self):
        return len(self.linear) + len(self.inner)

    def named(self, q, c):
        return {**dict(zip(self.linear, map(float, c), strict=True)), **{n.rstrip("!"): float(np.exp(v) if n.endswith("!") else v) for n, v in zip(self.inner, q, strict=True)}}


def _weighted(x, which, q):
    """sum_i q_i x_i over the coordinates `which`."""
    return (x[..., which] @ q[..., None])[..., 0]


def _power(x, i, q):
    return np.exp(-np.exp(q) * x[..., i])


class Library:
    """Forms for a set of axes: `positive` where the target is above 0, so that floors are not below 0; `bowls` are the coordinates that have an optimum."""

    def __init__(self, axes, *, positive, bowls=(), signs=None):
        self.axes, self.positive, self.bowls = axes, positive, tuple(bowls)
        self.shares = [i for i, a in enumerate(axes) if a.role == "share"]
        self.scales = [i for i, a in enumerate(axes) if a.role != "share"]

    def form(self, name, basis, linear, inner, boxes, text, *, free=(), log=False):
        """A Form; `boxes` are (start, limits) of each inner constant, linear constants are not below 0 but those in `free`."""
        free = {*free, *(() if self.positive else ("E",))}
        positive = () if log else tuple(j for j, n in enumerate(linear) if n not in free)
        box, limits = (np.reshape([pair[k] for pair in boxes], (-1, 2)).astype(float) for k in (0, 1))
        return Form(name, Separable(basis, box, positive, log, limits), tuple(linear), tuple(inner), text)

    def forms(self):
        mean = self.form("mean", lambda x, q: terms_of(1.0 + 0.0 * x[..., 0]), ["a"], [], [], "a", free=["a"])
        if self.shares:
            return [mean, *self.mixtures()]
        return [mean, *self.curves(), *self.counts(), *self.repetition(), *self.bowl_shaped()]

    def _product(self, which, names):
        return " ".join(self.axes[i].power(n) for i, n in zip(which, names, strict=True))

    def curves(self):
        """Forms that any inputs may follow."""
        s, axes = self.scales, self.axes
        names, alphas = [axes[i].name for i in s], [f"alpha_{axes[i].name}" for i in s]
        pairs = list(combinations(range(len(s)), 2))
        logs = [axes[i].text() for i in s]
        linear_text = " + ".join(f"b_{n} {z}" for n, z in zip(names, logs, strict=True))
        crossed = [f"b_{names[i]}_{names[j]}" for i, j in pairs]
        crossed_text = "".join(f" + {c} {logs[i]} {logs[j]}" for c, (i, j) in zip(crossed, pairs, strict=True))
        square_text = "".join(f" + c_{n} {z}^2" for n, z in zip(names, logs, strict=True))
        bs, cs = [f"b_{n}" for n in names], [f"c_{n}" for n in names]

        def line(x, q):
            return terms_of(1.0, *(x[..., i] for i in s))

        def bilinear(x, q):
            return terms_of(1.0, *(x[..., i] for i in s), *(x[..., s[i]] * x[..., s[j]] for i, j in pairs))

        def quadratic(x, q):
            return np.concatenate([bilinear(x, q), terms_of(*(x[..., i] ** 2 for i in s))], -2)

        def cubic(x, q):
            return np.concatenate([quadratic(x, q), terms_of(x[..., s[0]] ** 3)], -2)

        for log in (False, True) if self.positive else (False,):
            wrap = "exp({})" if log else "{}"
            tail = "power" if log else "logarithm"
            yield self.form(tail, line, ["a", *bs], [], [], wrap.format(f"a + {linear_text}"), free=["a", *bs], log=log)
            if pairs:
                yield self.form(f"bilinear {tail}", bilinear, ["a", *bs, *crossed], [], [], wrap.format(f"a + {linear_text}{crossed_text}"), free=["a", *bs, *crossed], log=log)
            every_square = ["a", *bs, *crossed, *cs]
            yield self.form(f"quadratic {tail}", quadratic, every_square, [], [], wrap.format(f"a + {linear_text}{crossed_text}{square_text}"), free=every_square, log=log)
            if len(s) == 1 and axes[s[0]].role == "plain":
                names3 = [*every_square, f"d_{names[0]}"]
                yield self.form(f"cubic {tail}", cubic, names3, [], [], wrap.format(f"a + {linear_text}{square_text} + d_{names[0]} {logs[0]}^3"), free=names3, log=log)

        def floor(x, q):
            return terms_of(1.0, np.exp(-_weighted(x, s, np.exp(q))))

        def rectified(x, q):
            return terms_of(1.0, 1 / (np.exp(q[..., :1]) + np.exp(_weighted(x, s, np.exp(q[..., 1:])))))

        def broken(x, q):  # the slope turns into (1 + change) times itself
            turn, change, u = q[..., :1], q[..., 1:2], _weighted(x, s, np.exp(q[..., 2:]))
            return terms_of(1.0, np.exp(-u - change / 4 * np.logaddexp(0, 4 * (u - turn))))

        def additive(x, q):
            return terms_of(1.0, *(_power(x, i, q[..., k : k + 1]) for k, i in enumerate(s)))

        def interacting(x, q):
            return np.concatenate([additive(x, q), np.exp(-_weighted(x, s, np.exp(q)))[..., None, :]], -2)

        slopes, exponents, product = [EXPONENT] * len(s), [a + "!" for a in alphas], self._product(s, alphas)
        inverse = " ".join(axes[i].power(a).replace("^-", "^").replace("exp(-", "exp(") for i, a in zip(s, alphas, strict=True))
        yield self.form("power and floor", floor, ["E", "A"], exponents, slopes, f"E + A {product}")
        yield self.form("rectified power", rectified, ["E", "A"], ["r!", *exponents], [((-4, 4), (-9, 12)), *slopes], f"E + A/(r + {inverse})")
        if len(s) == 1:

            def shifted(x, q):
                return terms_of(1.0, np.exp(-np.exp(q[..., 1:]) * np.logaddexp(q[..., :1], x[..., s[0]])))

            yield self.form(
                "shifted power",
                shifted,
                ["E", "A"],
                ["r!", *exponents],
                [((-4, 4), (-9, 12)), *slopes],
                f"E + A ({axes[s[0]].power('1').replace('^-1', '').replace('exp(-1 ', 'exp(')} + r)^-{alphas[0]}",
            )
        yield self.form(
            "broken power",
            broken,
            ["E", "A"],
            ["turn", "change", *exponents],
            [((-2, 2), (-8, 8)), ((-0.8, 2), (-0.98, 8)), *slopes],
            f"E + A exp(-u - change/4 ln(1 + exp(4 (u - turn)))), exp(-u) = {product}",
        )
        if len(s) > 1:
            parts = [f"A_{n} {axes[i].power(a)}" for n, i, a in zip(names, s, alphas, strict=True)]
            powers = ["E", *(f"A_{n}" for n in names)]
            yield self.form("additive powers", additive, powers, exponents, slopes, "E + " + " + ".join(parts))
            yield self.form("additive powers and product", interacting, [*powers, "A"], exponents, slopes, "E + " + " + ".join(parts) + f" + A {product}")

    def counts(self):
        """Forms in which a small whole number multiplies the size of a run: by 1 + k ln of it, or up to a limit."""
        for p in (i for i in self.scales if self.axes[i].count and self.axes[i].sign > 0):
            others = [i for i in self.scales if i != p]
            if not others or any(self.axes[i].role == "plain" for i in others):
                continue
            count, k = self.axes[p], len(others)
            alphas = [f"alpha_{self.axes[i].name}" for i in others]
            powers, names = [EXPONENT] * k, [a + "!" for a in alphas]
            carrier = next((j for j, i in enumerate(others) if "param" in self.axes[i].name), 0)
            lead = self.axes[others[carrier]]

            def logarithmic(x, q, p=p, at=count.at, others=others, carrier=carrier):
                grown = np.log1p(np.exp(q[..., -1:]) * (x[..., p] + np.log(at)))
                parts = (x[..., i] + (grown if j == carrier else 0.0) for j, i in enumerate(others))
                return terms_of(1.0, *(np.exp(-np.exp(q[..., j : j + 1]) * u) for j, u in enumerate(parts)))

            sizes = [f"A_{self.axes[i].name}" for i in others]
            texts = [
                f"{a} ({self.axes[i].name} (1 + k ln {count.name})/{self.axes[i].at:g})^-{e}" if j == carrier else f"{a} {self.axes[i].power(e)}"
                for j, (a, i, e) in enumerate(zip(sizes, others, alphas, strict=True))
            ]
            if lead.sign > 0 and lead.role == "scale":
                yield self.form(
                    f"{lead.name} times a logarithm of {count.name}",
                    logarithmic,
                    ["E", *sizes],
                    [*names, "k!"],
                    [*powers, (np.log([0.05, 2.0]), np.log([1e-4, 50.0]))],
                    "E + " + " + ".join(texts),
                )
            if count.at != 1.0 or k > 2:
                continue

            def effective(x, q, p=p):
                start, most = np.exp(q[..., :1]), np.exp(q[..., :1]) + np.exp(q[..., 1:2])
                return -np.log(1 / (np.expm1(x[..., p]) + 1 / (1 / start - 1 / most)) + 1 / most)

            def saturating(x, q, others=others, effective=effective):
                return terms_of(1.0, np.exp(-_weighted(x, others, np.exp(q[..., 3:])) - np.exp(q[..., 2:3]) * effective(x, q)))

            def routed(x, q, others=others, effective=effective):
                e = effective(x, q)
                return terms_of(1.0, *(x[..., i] for i in others), e, *(x[..., i] * e for i in others))

            limit = f"1/{count.name}^ = 1/({count.name} - 1 + 1/(1/start - 1/most)) + 1/most, most = start + span"
            window = [(np.log([1.0, 30.0]), np.log([0.1, 300.0])), (np.log([10.0, 1000.0]), np.log([1.0, 1e5]))]
            yield self.form(
                f"saturating {count.name} and floor",
                saturating,
                ["E", "A"],
                ["start!", "span!", f"alpha_{count.name}!", *names],
                [*window, EXPONENT, *powers],
                f"E + A {self._product(others, alphas)} {count.name}^^-alpha_{count.name}, {limit}",
            )
            if self.positive:
                logs = [self.axes[i].text() for i in others]
                bs, cs = [f"b_{self.axes[i].name}" for i in others], [f"c_{self.axes[i].name}" for i in others]
                first = " + ".join(f"{b} {z}" for b, z in zip(bs, logs, strict=True))
                last = " + ".join(f"{c} {z} ln {count.name}^" for c, z in zip(cs, logs, strict=True))
                linear = ["a", *bs, f"b_{count.name}", *cs]
                yield self.form(
                    f"saturating {count.name}, bilinear",
                    routed,
                    linear,
                    ["start!", "span!"],
                    window,
                    f"exp(a + {first} + b_{count.name} ln {count.name}^ + {last}), {limit}",
                    free=linear,
                    log=True,
                )

    def repetition(self):
        """Forms in which tokens beyond the unique ones count less and less, and so do parameters beyond those that the unique tokens are enough for."""
        u = next((i for i in self.scales if "unique" in self.axes[i].name.lower()), None)
        d = next((i for i in self.scales if i != u and re.search(r"token|data|sample|character", self.axes[i].name.lower())), None)
        others = [i for i in self.scales if i not in (u, d)]
        if u is None or d is None or any(self.axes[i].role != "scale" or self.axes[i].sign < 0 for i in (u, d, *others)):
            return
        unique, tokens = self.axes[u], self.axes[d]
        alphas, sizes = [f"alpha_{self.axes[i].name}" for i in others], [f"A_{self.axes[i].name}" for i in others]

        def effective(x, q):
            least = np.minimum(x[..., u] + np.log(unique.at / tokens.at), x[..., d])
            return least + np.log1p(-np.exp(q) * np.expm1(-np.expm1(x[..., d] - least) * np.exp(-q)))

        def repeated(x, q):
            powers = (np.exp(-np.exp(q[..., k : k + 1]) * x[..., i]) for k, i in enumerate(others))
            return terms_of(1.0, np.exp(-np.exp(q[..., -2:-1]) * effective(x, q[..., -1:])), *powers)

        powers, again = [EXPONENT] * (len(others) + 1), (np.log([2.0, 50.0]), np.log([0.3, 1e3]))
        data = f"{tokens.name}' = U + U R (1 - exp(-({tokens.name}/U - 1)/R)), U = min({unique.name}, {tokens.name})"
        size_text = "".join(f" + {a} {self.axes[i].power(e)}" for a, i, e in zip(sizes, others, alphas, strict=True))
        inner = [*(a + "!" for a in alphas), f"alpha_{tokens.name}!"]
        yield self.form(
            "repeated data",
            repeated,
            ["E", f"A_{tokens.name}", *sizes],
            [*inner, "R!"],
            [*powers, again],
            f"E + A_{tokens.name} ({tokens.name}'/{tokens.at:g})^-alpha_{tokens.name}{size_text}, {data}",
        )
        if len(others) != 1:
            return
        (n,) = others
        params = self.axes[n]

        def both(x, q):  # q: alpha, beta, R, R_size, and the logarithm of the size that suits `tokens.at` unique tokens
            alpha, beta = np.exp(q[..., :1]), np.exp(q[..., 1:2])
            least = np.minimum(x[..., u] + np.log(unique.at / tokens.at), x[..., d])
            base = np.minimum(x[..., n], q[..., 4:5] + beta / alpha * least)
            size = base + np.log1p(-np.exp(q[..., 3:4]) * np.expm1(-np.expm1(x[..., n] - base) * np.exp(-q[..., 3:4])))
            return terms_of(1.0, np.exp(-beta * effective(x, q[..., 2:3])) + beta / alpha * np.exp(alpha * (q[..., 4:5] - size)))

        yield self.form(
            "repeated data and spare size",
            both,
            ["E", "B"],
            [f"alpha_{params.name}!", f"alpha_{tokens.name}!", "R!", "R_size!", "suited"],
            [EXPONENT, EXPONENT, again, again, ((-3, 3), (-9, 9))],
            f"E + B (({tokens.name}'/{tokens.at:g})^-beta + beta/alpha exp(alpha suited) ({params.name}'/{params.at:g})^-alpha), {data}, "
            f"{params.name}' likewise beyond S = min({params.name}, {params.at:g} exp(suited) (U/{tokens.at:g})^(beta/alpha)) with R_size; "
            f"alpha = alpha_{params.name}, beta = alpha_{tokens.name}",
        )

    def bowl_shaped(self):
        """A floor, power laws of the scales, and a quadratic bowl in the inputs that have an optimum, which may move with the scales."""
        b, s = list(self.bowls), [i for i in self.scales if i not in self.bowls]
        if not b:
            return
        pairs = list(combinations(range(len(b)), 2))
        scale_names, names = [self.axes[i].name for i in s], [self.axes[i].name for i in b]
        alphas, sizes = [f"alpha_{n}" for n in scale_names], [f"A_{n}" for n in scale_names]
        curves, crossed = [f"c_{n}" for n in names], [f"c_{names[i]}_{names[j]}" for i, j in pairs]
        size_text = "".join(f" + {a} {self.axes[i].power(e)}" for a, i, e in zip(sizes, s, alphas, strict=True))
        bowl_text = " + ".join(
            [*(f"{c} z_{n}^2" for c, n in zip(curves, names, strict=True)), *(f"{c} z_{names[i]} z_{names[j]}" for c, (i, j) in zip(crossed, pairs, strict=True))]
        )
        for moving in (False, True) if s else (False,):
            for product in (False, True) if moving and len(s) > 1 else (False,):

                def basis(x, q, moving=moving, product=product):
                    z = []
                    for j, i in enumerate(b):
                        at = len(s) + j * (1 + moving * len(s))
                        best = q[..., at : at + 1] + (_weighted(x, s, q[..., at + 1 : at + 1 + len(s)]) if moving else 0.0)
                        z.append(x[..., i] - best)
                    powers = [np.exp(-_weighted(x, s, np.exp(q[..., : len(s)])))] if product else [_power(x, i, q[..., k : k + 1]) for k, i in enumerate(s)]
                    return terms_of(1.0, *powers, *(v**2 for v in z), *(z[i] * z[j] for i, j in pairs))

                inner, boxes, optima = [a + "!" for a in alphas], [EXPONENT] * len(s), []
                for i, n in zip(b, names, strict=True):
                    inner += [f"best_{n}", *(f"move_{n}_{m}" for m in (scale_names if moving else ()))]
                    boxes += [((-1.0, 1.0), (-12.0, 12.0)), *([((-0.6, 0.6), (-3.0, 3.0))] * (len(s) * moving))]
                    moves = "".join(f" - move_{n}_{self.axes[k].name} {self.axes[k].text()}" for k in s) if moving else ""
                    optima.append(f"z_{n} = {self.axes[i].text()} - best_{n}{moves}")
                sizes_here = ["A"] if product else sizes
                text = f" + A {self._product(s, alphas)}" if product else size_text
                name = f"{'product of powers' if product else 'powers'} and {'moving ' if moving else ''}bowl" if s else "bowl"
                yield self.form(name, basis, ["E", *sizes_here, *curves, *crossed], inner, boxes, f"E{text} + {bowl_text}, " + ", ".join(optima), free=crossed)

    def mixtures(self):
        """Forms of shares that sum to 1, beside any scales."""
        h, s = self.shares, self.scales
        names, free = [self.axes[i].name for i in h], self.shares[:-1]  # one share follows from the others
        alphas = [f"alpha_{self.axes[i].name}" for i in s]
        ts, bs = [f"t_{self.axes[i].name}" for i in free], [f"b_{self.axes[i].name}" for i in s]
        mixed, scaled = " + ".join(f"{t} {self.axes[i].name}" for t, i in zip(ts, free, strict=True)), "".join(f" + {b} {self.axes[i].text()}" for b, i in zip(bs, s, strict=True))
        lines = [f"t_{n}" for n in names]
        line_text = " + ".join(f"{t} {n}" for t, n in zip(lines, names, strict=True)) + scaled

        def line(x, q):
            return terms_of(*(x[..., i] for i in h), *(x[..., i] for i in s))

        def power(x, q):
            return terms_of(1.0, np.exp(_weighted(x, free, q[..., : len(free)]) - _weighted(x, s, np.exp(q[..., len(free) :]))))

        def roots(x, q):
            return terms_of(1.0, *(np.sqrt(np.maximum(x[..., i], 0)) for i in h), *(x[..., i] for i in s))

        def apart(x, q):
            return terms_of(1.0, np.exp(_weighted(x, free, q[..., : len(free)])), *(_power(x, i, q[..., len(free) + k : len(free) + k + 1]) for k, i in enumerate(s)))

        everything, rest = [*lines, *bs], f", {names[-1]} = 1 - {' - '.join(names[:-1])}"
        yield self.form("linear mixing", line, everything, [], [], line_text, free=everything)
        root_names = ["a", *lines, *bs]
        yield self.form(
            "square roots of shares", roots, root_names, [], [], "a + " + " + ".join(f"{t} {n}^0.5" for t, n in zip(lines, names, strict=True)) + scaled, free=root_names
        )
        if self.positive:
            yield self.form("exponential mixing without floor", line, everything, [], [], f"exp({line_text})", free=everything, log=True)
        boxes = [*[(tuple(np.log([0.05, 20.0])), (-40.0, 40.0))] * len(free), *[EXPONENT] * len(s)]
        inner = [*ts, *(a + "!" for a in alphas)]
        yield self.form("exponential mixing", power, ["E", "A"], inner, boxes, f"E + A exp({mixed}) {self._product(s, alphas)}".rstrip() + rest)
        if s:
            sizes = [f"A_{self.axes[i].name}" for i in s]
            text = "".join(f" + {a} {self.axes[i].power(e)}" for a, i, e in zip(sizes, s, alphas, strict=True))
            yield self.form("exponential mixing and powers", apart, ["E", "A", *sizes], inner, boxes, f"E + A exp({mixed}){text}{rest}")
