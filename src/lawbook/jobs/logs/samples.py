"""Samples with their correctness: coverage and its law, how many more samples would pay, prompts without a signal, what training kept, lost and found."""

import math

import numpy as np

from ...chapters.alignment.invisible_leash import leash_mass, support_change
from ...chapters.decoding.repeated_sampling_coverage import beta_coverage, coverage_law, fit_coverage
from ...contract import LawbookError
from ...numerics.statistics import pass_at_k, sign_flip
from .sheet import Picture, Series, percent

COVERAGE, LEASH = "repeated-sampling-coverage", "invisible-leash"
FEWEST_PROMPTS, FEWEST_SAMPLES = 20, 8  # for a law of coverage
GROWTH = (2, 10, 100)  # times as many samples as the log holds
OFF = 0.02  # held-out error of a coverage law beyond which it is not extrapolated
RESAMPLES = 200
GROUP = 8  # samples of a prompt that are rewarded together


class Tally:
    """Counts of samples and of correct ones by (model, stage, prompt), in memory that grows with the number of prompts alone."""

    LARGE = 1_000_000

    def __init__(self, state=None):
        self.parts = [] if state is None else [state]
        self.waiting = 0

    def add(self, columns):
        import polars as pl

        rows = len(columns["prompt"])
        names = {name: columns.get(name) if columns.get(name) is not None else [""] * rows for name in ("model", "stage")}
        names = {name: [str(value) if value is not None else "" for value in values] for name, values in names.items()}
        part = pl.DataFrame({**names, "prompt": columns["prompt"], "samples": columns["samples"], "correct": columns["correct"]})
        self.parts.append(self._grouped(part))
        self.waiting += len(self.parts[-1])
        if self.waiting > max(self.LARGE, len(self.parts[0])):
            self.state()

    def state(self):
        """All counts so far as one table, to be kept and gone on from."""
        import polars as pl

        if not self.parts:
            return None
        if len(self.parts) > 1:
            self.parts = [self._grouped(pl.concat(self.parts))]
        self.waiting = 0
        return self.parts[0]

    @staticmethod
    def _grouped(table):
        import polars as pl

        return table.group_by("model", "stage", "prompt", maintain_order=True).agg(pl.col("samples").cast(pl.Int64).sum(), pl.col("correct").cast(pl.Int64).sum())


def measures(tally, sheet, *, group_size=None, **_):
    """Everything that counts of correct samples say, for each model and stage."""
    table = tally.state()
    if table is None or not len(table):
        raise LawbookError("The log holds no sample that could be read.")
    runs = dict(table.group_by("model", "stage", maintain_order=True))
    for (model, stage), part in runs.items():
        sheet.section = " ".join(["Samples", *(f"of {model}" for _ in [0] if model), *(f"({stage})" for _ in [0] if stage)])
        one_run(part["samples"].to_numpy(), part["correct"].to_numpy(), sheet, group_size)
    compare(runs, sheet)


def one_run(samples, correct, sheet, group_size=None):
    """Coverage of one model on its prompts."""
    n, c = np.asarray(samples, int), np.asarray(correct, int)
    prompts, least = len(n), int(n.min())
    first = sheet.clustered(
        "pass@1", f"{COVERAGE}.pass_at_k", c / n, np.ones(prompts), meaning=f"Share of correct samples, averaged over {prompts:,} prompts with {n.sum():,} samples in all."
    )
    sheet.headlines.append(
        f"{sheet.section}: pass@1 is {percent(first.value)}{_between(first)} on {prompts:,} prompt{'s' if prompts > 1 else ''}"
        f" with {least:,}{f' to {n.max():,}' if n.max() > least else ''} samples each."
    )
    never, always = int(np.sum(c == 0)), int(np.sum(c == n))
    sheet.rate("never solved", f"{COVERAGE}.pass_at_k", never, prompts, meaning="Prompts without one correct sample in the log.")
    sheet.rate("always solved", f"{COVERAGE}.pass_at_k", always, prompts, meaning="Prompts whose samples are all correct.")
    _silent(n, c, sheet, group_size)
    if least < 2:
        sheet.distrust("coverage", f"{COVERAGE}.fit_coverage", "Every prompt needs at least two samples before more samples can be foretold; the least here is 1.")
        return
    ks = np.unique(np.round(np.geomspace(1, least, 24)).astype(int))
    kinds, times = np.unique(np.stack([n, c], 1), axis=0, return_counts=True)
    curves = np.stack([pass_at_k(*kinds.T, int(k)) for k in ks], 1)  # kinds of prompts x numbers of samples
    coverage = times @ curves / prompts
    ends = np.array([_spread(curves[:, i], times, sheet.level) for i in range(len(ks))])
    series = [Series("measured", ks, coverage, ends[:, 0], ends[:, 1], "points")]
    sheet.tables[f"{sheet.section}: coverage"] = {"samples": ks.tolist(), "coverage": coverage.tolist(), "low": ends[:, 0].tolist(), "high": ends[:, 1].tolist()}
    _law(kinds, times, curves, ks, coverage, least, sheet, series)
    sheet.pictures.append(Picture(f"{sheet.section}: coverage", "samples per prompt", "share of prompts solved", series, log_x=True))


def _silent(n, c, sheet, group_size):
    """Prompts whose group of samples carries no gradient, all being right or all wrong."""
    group = min(GROUP, int(n.min())) if group_size is None else int(group_size)
    if group < 2 or int(n.min()) < group:
        sheet.distrust(
            "silent prompts", "grpo-oscillator.silent_prompts", f"A group of {group} samples takes two or more, and as many samples of every prompt; the least here is {n.min()}."
        )
        return
    kinds, times = np.unique(np.stack([n, c], 1), axis=0, return_counts=True)
    total, right = kinds.T
    silent = 2 - pass_at_k(total, right, group) - pass_at_k(total, total - right, group)
    sheet.clustered(
        f"silent prompts in groups of {group}",
        "grpo-oscillator.silent_prompts",
        np.repeat(silent, times),
        np.ones(len(n)),
        meaning="Groups all right or all wrong carry no gradient under group-relative training. Unbiased, from the counts; observed rates put into p^G + (1-p)^G would not be.",
    )


def _spread(values, times, level):
    """Normal interval of a mean over prompts of which `times` have each value, kept inside [0, 1]."""
    from ...numerics.statistics import normal_quantile

    total = times.sum()
    mean = times @ values / total
    half = normal_quantile((1 - level) / 2) * math.sqrt(times @ (values - mean) ** 2 / max(total - 1, 1) / total)
    return max(mean - half, 0.0), min(mean + half, 1.0)


def _law(kinds, times, curves, ks, coverage, least, sheet, series):
    """The law of coverage, its error on held-out numbers of samples, and what more samples would buy."""
    prompts = int(times.sum())
    source = f"{COVERAGE}.fit_coverage"
    inside = (coverage > 0) & (coverage < 1)
    if prompts < FEWEST_PROMPTS or least < FEWEST_SAMPLES or inside.sum() < 4:
        sheet.distrust(
            "coverage law",
            source,
            f"It takes {FEWEST_PROMPTS} prompts, {FEWEST_SAMPLES} samples of each and coverages between 0 and 1; here there are {prompts} prompts with {least}.",
        )
        return
    alpha, beta = beta_rates(kinds, times)
    until = max(least // 4, int(ks[1]))
    held = ks > until
    fits = {
        "power law": (fit_coverage(ks, coverage, fit_until=until)["holdout_rmse"], fit_coverage(ks, coverage)),
        "Beta law": (float(np.sqrt(np.mean((beta_coverage(ks[held], alpha=alpha, beta=beta) - coverage[held]) ** 2))), {"a": alpha, "b": beta}),
    }
    off, law = fits["power law"]
    sheet.add("coverage law a", source, law["a"], meaning="log of the coverage at one sample in exp(a k^b)")
    sheet.add("coverage law b", source, law["b"], meaning="exponent of the samples")
    sheet.add(
        "held-out error of the law", source, off, unit="coverage", meaning=f"Root mean square error on {until + 1} to {least} samples of the law fitted to at most {until} samples."
    )
    sheet.add("Beta law alpha", f"{COVERAGE}.beta_coverage", alpha, meaning="weight of nearly unsolvable prompts in the Beta law of success rates, by maximum likelihood")
    sheet.add("Beta law beta", f"{COVERAGE}.beta_coverage", beta, meaning="weight of nearly certain prompts")
    ahead = np.unique(np.round(np.geomspace(1, least * GROWTH[-1], 80)).astype(int))
    series += [Series("exp(a k^b)", ahead, coverage_law(ahead, a=law["a"], b=law["b"])), Series("Beta law", ahead, beta_coverage(ahead, alpha=alpha, beta=beta))]
    if off > OFF:
        why = f"The law fitted to {until} samples misses the rest of the log by {off:.3f}, more than {OFF}: it is not carried further."
        sheet.distrust("coverage with more samples", source, why)
        return
    rng, draws = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        drawn = rng.multinomial(prompts, times / prompts) @ curves / prompts
        if ((drawn > 0) & (drawn < 1)).sum() >= 3:
            draws.append(fit_coverage(ks, drawn))
    gains = []
    for factor in GROWTH:
        k = least * factor
        found = [coverage_law(np.array([k], float), a=d["a"], b=d["b"])[0] for d in draws]
        tail = (1 - sheet.level) / 2
        low, high = (float(np.quantile(found, q)) for q in (tail, 1 - tail))
        other = float(beta_coverage(np.array([k], float), alpha=alpha, beta=beta)[0])
        value = float(coverage_law(np.array([k], float), a=law["a"], b=law["b"])[0])
        gains.append(value)
        sheet.add(
            f"coverage with {k:,} samples",
            f"{COVERAGE}.coverage_law",
            value,
            low=min(low, other),
            high=max(high, other),
            interval="bootstrap over prompts, widened to the Beta law's answer",
            meaning=f"{factor} times as many samples as now; the Beta law says {other:.3f}.",
        )
    now = float(coverage[-1])
    sheet.headlines.append(
        f"Coverage at {least:,} samples is {percent(now)}; twice as many would bring {percent(gains[0])}, ten times as many {percent(gains[1])}"
        f"{': more samples hardly pay any more' if gains[1] - now < 0.01 else ''}."
    )


def beta_rates(kinds, times):
    """(alpha, beta) of the Beta law of success rates that makes the counts most likely: `kinds` holds (samples, correct), `times` how often each occurs."""
    from scipy.optimize import minimize
    from scipy.special import betaln

    n, c = np.asarray(kinds, float).T

    def loss(theta):
        a, b = np.exp(theta)
        return -float(times @ (betaln(c + a, n - c + b) - betaln(a, b))) / times.sum()

    mean = float(np.clip(times @ c / (times @ n), 0.01, 0.99))
    found = minimize(loss, [math.log(mean), math.log(1 - mean)], method="L-BFGS-B", bounds=[(-7, 9)] * 2)
    return float(np.exp(found.x[0])), float(np.exp(found.x[1]))


def compare(runs, sheet):
    """Two stages of one model (base, trained), or the two models of a log, on the prompts that both have."""
    stages = sorted({stage for _, stage in runs}, key=lambda s: s != "base")
    models = sorted({model for model, _ in runs})
    if len(runs) != 2 or (len(stages) == 2 and "base" not in stages):
        if len(runs) > 1:
            sheet.said.append(f"{len(runs)} runs are told apart ({', '.join(models)}); they are compared where there are two, or the stages base and trained.")
        return
    first, second = sorted(runs, key=lambda key: (key[1] != "base", key))
    joined = runs[first].join(runs[second], on="prompt", suffix="_after")
    names = [" ".join(filter(None, key)) or "unnamed" for key in (first, second)]
    sheet.section = f"{names[0]} against {names[1]}"
    if len(joined) < 2:
        sheet.distrust("comparison", f"{LEASH}.support_change", "The two runs share fewer than two prompts.")
        return
    n, c, m, d = (joined[name].to_numpy() for name in ("samples", "correct", "samples_after", "correct_after"))
    sheet.mean("change of pass@1", f"{COVERAGE}.pass_at_k", d / m - c / n, "prompts that both runs have", meaning=f"{names[1]} minus {names[0]}")
    sheet.test("no change of pass@1", f"{COVERAGE}.pass_at_k", sign_flip(d / m - c / n), meaning="Differences by prompt, with signs flipped at random.")
    if not (np.all(n == n[0]) and np.all(m == n[0])):
        sheet.distrust("support kept and lost", f"{LEASH}.support_change", "Solved at least once compares like with like only where every prompt has as many samples in both runs.")
        return
    change = support_change(c > 0, d > 0)
    for name in ("preserved", "shrunk", "expanded", "outside"):
        sheet.rate(f"prompts {name}", f"{LEASH}.support_change", int(change[name]), len(n), meaning=SUPPORT[name])
    merged = np.minimum(c + d, 2 * n)
    chance = float(np.sum(1 - pass_at_k(2 * n[0], merged[merged > 0], int(n[0])))) if merged.any() else 0.0
    sheet.add(
        "prompts shrunk by chance alone",
        f"{LEASH}.support_change",
        chance,
        unit="prompts",
        meaning=f"Expected, beside {change['shrunk']} seen, if both runs succeeded equally often on each prompt: exact, over all ways to deal out the successes.",
    )
    for name in ("retention", "discovery", "net_change"):
        if math.isfinite(change[name]):
            sheet.add(name.replace("_", " "), f"{LEASH}.support_change", change[name])
    if first[1] == "base":
        rates, times = np.unique(c / n, return_counts=True)
        sheet.add(
            "best pass@1 within 1 nat of the base",
            f"{LEASH}.leash_mass",
            float(times @ [leash_mass(float(p), 1.0) for p in rates] / len(n)),
            meaning="What training could reach on average if it moved each prompt's answers by 1 nat of KL; plug-in of observed base rates.",
        )
    sheet.headlines.append(
        f"Of {len(n):,} prompts, {names[1]} keeps {change['preserved']:,} that {names[0]} solved, loses {change['shrunk']:,} and finds {change['expanded']:,} new ones"
        f" (at {int(n[0]):,} samples each; {chance:.1f} either way would be chance)."
    )


SUPPORT = {
    "preserved": "Solved by both.",
    "shrunk": "Solved by the first only.",
    "expanded": "Solved by the second only.",
    "outside": "Solved by neither.",
}


def _between(measure):
    return f" ({percent(measure.low)} to {percent(measure.high)})" if measure.low is not None else ""
