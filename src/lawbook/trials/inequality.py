from dataclasses import dataclass

import numpy as np

from ..contract import Outcome
from ..numerics import Draw
from ..numerics.statistics import quantiles
from .form import Form, draws, pair, plain, split

TINY = 1e-13  # sides below this are rounding noise: their ratio says nothing about tightness


@dataclass(frozen=True)
class Inequality(Form):
    """(smaller, larger) with smaller <= larger in every case: random draws, then a search for a counterexample from the tightest of them.

    `search` evaluations of differential evolution move the continuous draws of the `starts` tightest cases. A case counts against the claim where
    smaller > larger + atol + rtol * max(|smaller|, |larger|). `reaches`: the tightness smaller/larger that the best case must come to where the claim
    says that the bound is attained. `trivial`: what holds without the claim; a bound that never beats it is vacuous.
    """

    rtol: float = 1e-12
    atol: float = 0.0
    search: int = 300
    starts: int = 2
    reaches: float | None = None
    trivial: float | None = None

    def judge(self, make, rng, n, *, stop_early=False, progress=None):
        random_rng, search_rng = rng.spawn(2)
        cases = []  # (margin, tightness, larger, evidence, draw)
        for index, draw in enumerate(draws(random_rng, n, progress)):
            cases.append((*self._measure(make(draw)), f"draw {index}", draw))
            if stop_early and cases[-1][0] > 0:
                break
        if not (stop_early and cases[-1][0] > 0):
            for start in sorted(cases, key=lambda case: -case[1])[: self.starts if self.search else 0]:
                found = self._search(make, start, search_rng.spawn(1)[0])
                if found is not None:
                    cases.append(found)
        worst = max(cases, key=lambda case: case[0])
        tightest = max(case[1] for case in cases)
        left, right, case = pair(worst[3])
        kept = {"found_by": worst[4], "smaller": plain(left), "larger": plain(right), **{k: plain(v) for k, v in case.items()}}
        tightness = {f"tightness_{k}": v for k, v in quantiles([case[1] for case in cases[:n]]).items()} | {"tightness_after_search": tightest}
        count = f"{len(cases[:n])} random cases and {len(cases) - len(cases[:n])} searches of {self.search} evaluations"
        if worst[0] > 0:
            return Outcome("violated", f"A counterexample: {plain(left)!r:.60} is not at most {plain(right)!r:.60} (found by {worst[4]}).", len(cases), None, tightness, kept)
        if self.trivial is not None and all(case[2] >= self.trivial for case in cases):
            return Outcome("vacuous", f"The bound never beats {self.trivial:.6g}, which holds without it ({count}).", len(cases), None, tightness, kept)
        if self.reaches is not None and tightest < self.reaches:
            return Outcome(
                "inconclusive", f"No violation in {count}, but the tightest case reaches {tightest:.6g} where {self.reaches:.6g} is claimed.", len(cases), None, tightness, kept
            )
        return Outcome("upheld", f"No violation in {count}; the tightest case reaches {tightest:.4g} of its bound.", len(cases), None, tightness, kept)

    def _measure(self, evidence):
        """(excess over what is allowed, tightness, larger side, evidence) of the worst entry."""
        left, right, _ = pair(evidence)
        a, b = np.broadcast_arrays(split(left)[0], split(right)[0])
        if a.dtype.kind == "c" or b.dtype.kind == "c" or np.isnan(a).any() or np.isnan(b).any():
            return np.inf, np.inf, np.nan, evidence
        with np.errstate(invalid="ignore", divide="ignore"):
            excess = np.where(a <= b, np.minimum(a - b, 0), a - b - self.atol - self.rtol * np.maximum(np.abs(a), np.abs(b)))
            ratio = np.where((b > 0) & (a >= 0), a / b, 1 + (a - b) / (np.abs(a) + np.abs(b) + 1e-300))
            ratio = np.where(np.maximum(np.abs(a), np.abs(b)) > max(TINY, 1e3 * self.atol), ratio, 0.0)
        excess = np.where(a == b, 0.0, np.where(np.isnan(excess), np.inf, excess))  # an infinite smaller side exceeds whatever is allowed
        return float(np.max(excess)), float(np.max(np.where(np.isnan(ratio), 0, ratio))), float(np.min(b)), evidence

    def _search(self, make, start, rng):
        from scipy.optimize import differential_evolution

        tape, choices = np.array(start[5].tape), start[5].choices
        if not len(tape):
            return None
        best = None

        def looseness(tape_):
            nonlocal best
            draw = Draw(np.random.default_rng(0), tape=tape_, choices=choices)
            measured = (*self._measure(make(draw)), "search", draw)
            if best is None or measured[:2] > best[:2]:
                best = measured
            return -measured[1] if np.isfinite(measured[1]) else -1e300

        size = int(np.clip(len(tape), 5, 15))
        spread = rng.choice([0.003, 0.03, 0.3], size=(size, 1)) * rng.normal(size=(size, len(tape)))
        population = np.clip(tape + spread, 1e-6, 1 - 1e-6)
        population[0] = np.clip(tape, 1e-6, 1 - 1e-6)
        rounds = max(self.search // size - 1, 1)
        differential_evolution(
            looseness, [(1e-9, 1 - 1e-9)] * len(tape), init=population, maxiter=rounds, polish=False, tol=0, rng=rng, callback=lambda *_: best is not None and best[0] > 0
        )
        return best
