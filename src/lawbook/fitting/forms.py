"""General forms for tables that no law of the book names: the choice of one by what it extrapolates, its constants, and their resamples.

Everything is chosen on the rows given as train rows: parts of them, the largest by each scale, are foretold from the others. One form serves all groups and all targets; each
group has constants of its own for each target.
"""

import re
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from ..contract import LawbookError
from ..numerics import generator
from ..numerics.separable import MEMORY, best_fits, descend, sides
from .axes import floats, inputs_and_targets, read_axes
from .library import Form, Library

TUNED = ("lr", "learning_rate", "bsz", "bs", "batch_size", "batch", "weight_decay", "wd", "warmup", "dropout", "temperature", "momentum", "beta1", "beta2")  # have an optimum
CHOICE_ROWS, FIT_ROWS = 1_500, 10_000  # rows on which the form is chosen, and its constants are fitted; of larger tables an even sample
THRESHOLDS = (None, 1e-3)  # of Huber's loss: from the spread of the residuals, or small, as in published fits; of the best forms the one that extrapolates better
CONTENDERS = 6  # forms for which both are tried, and which are fitted to all rows
TIED = 1.3  # inner errors within this factor of the least are told apart by AICc
WILD = 2.0  # an error of this many standard deviations of the target counts as much as any larger one


@dataclass(frozen=True)
class FormFit:
    """One general form with constants of its own for each group and target, and how well it foretold train rows that it was not fitted to."""

    form: str
    statement: str
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    groups: list
    constants: dict  # group -> name -> value; with several targets the names are "target.name"
    constants_per_group: int
    rows: int
    objective: float  # sum of Huber losses over all groups
    rms: float  # of relative residuals, or of residuals over the spread of the target where it is not above 0
    score: float  # what forms are ranked by: root mean square error of the inner forecasts over the spread of the target, mean over splits, groups and targets
    r2: float  # of the inner forecasts
    relative_error: float  # of the inner forecasts
    aicc: float
    bic: float
    notes: list[str] = field(default_factory=list)
    fitted: Any = field(default=None, repr=False)  # Fitted

    def predict(self, columns, groups=None):
        """Predictions[n], or [n, targets] where there are several, for columns of inputs and, where the form was fitted by group, the group of each row."""
        return self.fitted.predict(columns, groups, self.fitted.q, self.fitted.c)

    def to_dict(self):
        return {name: value for name, value in self.__dict__.items() if name != "fitted"}


@dataclass(frozen=True)
class Fitted:
    """What predictions and resamples need: problem g * targets + t is group g and target t."""

    form: Form
    axes: tuple
    targets: tuple
    flips: np.ndarray
    groups: list
    pooled: bool  # the last group is that of all rows, for groups too small for constants of their own
    q: np.ndarray
    c: np.ndarray
    delta: np.ndarray
    data: "Stack" = field(repr=False)

    def predict(self, columns, groups, q, c):
        missing = [axis.name for axis in self.axes if axis.name not in columns]
        if missing:
            raise LawbookError(f"The form needs the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; there is {', '.join(columns) or 'none'}.")
        x = np.stack([axis.coordinate(columns[axis.name]) for axis in self.axes], -1)
        place = self._places(groups, len(x))
        found = np.empty((*q.shape[:-2], len(x), len(self.targets)))
        for g in np.unique(place):
            rows = place == g
            for t, flip in enumerate(self.flips):
                problem = g * len(self.targets) + t
                with np.errstate(all="ignore"):
                    found[..., rows, t] = flip * self.form.law.predict(x[rows], q[..., problem, :], c[..., problem, :])
        return found if len(self.targets) > 1 else found[..., 0]

    def _places(self, groups, rows):
        if len(self.groups) == 1 and self.groups[0] is None:
            return np.zeros(rows, int)
        if groups is None or len(groups) != rows:
            raise LawbookError(f"groups must name the group of each of the {rows} rows: the form has constants of its own for each.")
        known = {str(name): g for g, name in enumerate(self.groups)}
        other = len(self.groups) - 1 if self.pooled else None
        unknown = sorted({str(name) for name in groups} - known.keys())
        if unknown and other is None:
            raise LawbookError(f"There are no fitted rows of the group{'s' if len(unknown) > 1 else ''} {', '.join(unknown[:5])}.")
        return np.array([known.get(str(name), other) for name in groups])


@dataclass(frozen=True)
class Stack:
    """Groups of rows of unequal number as one array, rows of weight 0 filling up."""

    x: np.ndarray  # [g, n, m]
    y: np.ndarray  # [g, t, n]
    weights: np.ndarray  # [g, n]
    relative: bool

    def problems(self, law, weights=None):
        """(x, target, scale, weights) with one leading axis for all groups and targets, and for all rows of weights[s, g, n] where they are given."""
        weights = self.weights[None] if weights is None else weights
        shape = (len(weights), *self.y.shape)
        target, scale = sides(law, self.y, self.relative)
        x = np.broadcast_to(self.x[:, None], (len(weights), *self.y.shape, self.x.shape[-1])).reshape(-1, *self.x.shape[1:])
        spread = 1.0 if law.log or self.relative else 1 / self.spread()[..., None]
        return x, *(np.broadcast_to(v, shape).reshape(-1, shape[-1]) for v in (target, scale * spread, weights[:, :, None]))

    def spread(self):
        """Standard deviation of each target in each group[g, t]."""
        w = self.weights[:, None]
        count = w.sum(-1)
        mean = (w * self.y).sum(-1) / count
        return np.maximum(np.sqrt((w * (self.y - mean[..., None]) ** 2).sum(-1) / count), 1e-9 * np.abs(self.y).max(-1) + 1e-300)


def rank_forms(table, target, *, inputs=None, groups=None, rows=None, seed=0, progress=None, map=map):
    """Every form that the train rows allow, the best extrapolator of them first.

    `table` maps names to columns, `target` is a name or several; `rows` are the numbers of the train rows, by default all. Forms are ranked by how well they foretell the train
    rows with the largest scales (shares: any) from the others; forms that do so equally well by their AICc. Raises LawbookError where the rows are too few or nothing varies.
    """
    targets = (target,) if isinstance(target, str) else tuple(target)
    given = inputs_and_targets(table)[0] if inputs is None else list(inputs)
    inputs = [name for name in given if name not in targets]
    rows = np.arange(len(table[targets[0]])) if rows is None else np.asarray(rows)
    notes = []
    numbers = {name: floats(table[name]) for name in (*inputs, *targets)}
    words = [name for name, v in numbers.items() if v is None]
    if words:
        raise LawbookError(f"Column {words[0]} must hold numbers.")
    sound = rows[np.all([np.isfinite(v[rows]) for v in numbers.values()], axis=0)]
    if len(sound) < len(rows):
        notes.append(f"{len(rows) - len(sound)} rows without a number in every column are left out")
    numbers, groups, rows = {name: v[sound] for name, v in numbers.items()}, None if groups is None else np.asarray(groups)[sound], np.arange(len(sound))
    if len(rows) < 4:
        raise LawbookError(f"A form needs at least 4 rows to be fitted to; the table has {len(rows)} with numbers in {', '.join((*inputs, *targets))}.")
    flat = [name for name in targets if np.ptp(numbers[name][rows]) <= 1e-12 * np.abs(numbers[name][rows]).max()]
    if flat:
        raise LawbookError(f"Column {flat[0]} must vary: it is {numbers[flat[0]][rows[0]]:g} in all fitted rows.")
    axes, said = read_axes(numbers, inputs, rows)
    notes += said
    labels, members, pooled = _members(groups, rows, notes)
    axes, flips = _orient(axes, numbers, targets, members)
    positive = bool(all((numbers[name][rows] > 0).all() for name in targets) and (flips > 0).all())
    relative = positive and all(numbers[name][rows].max() < 100 * numbers[name][rows].min() for name in targets)
    bowls = _bowls(axes, numbers, targets, flips, members)
    library, seen = {}, set()
    for tuned in bowls:
        for form in Library(axes, positive=positive, bowls=tuned).forms():
            if form.text not in seen:
                seen.add(form.text)
                library[f"{form.name} in {', '.join(axes[i].name for i in tuned)}" if "bowl" in form.name else form.name] = form
    smallest, chosen = min(map(len, members)), _sample(members, CHOICE_ROWS)
    choice, whole = (_stack(axes, numbers, targets, flips, picked, relative) for picked in (chosen, _sample(members, FIT_ROWS)))
    if len(rows) > CHOICE_ROWS < sum(map(len, members)):
        notes.append(
            f"the form is chosen on an even sample of {sum(map(len, chosen))} of {len(rows)} rows" + (f", its constants fitted to {FIT_ROWS}" if len(rows) > FIT_ROWS else "")
        )
    tuned, scales = bowls[-1], [i for i, axis in enumerate(axes) if axis.role != "share"]
    held = _splits(axes, choice, tuned, seed)
    suited = [(name, form) for name, form in library.items() if form.constants + 2 <= smallest]
    share = all(re.search(r"acc|exact|match", name.lower()) and numbers[name][rows].min() >= 0 and numbers[name][rows].max() <= 1 for name in targets)

    def told(found):
        if progress:
            progress(found["name"])
        return found

    first = sorted(map(lambda item: told(_forecast(*item, choice, held, seed, THRESHOLDS[0])), suited), key=lambda found: found["score"])
    second = map(lambda found: told(_forecast(found["name"], found["form"], choice, held, seed, THRESHOLDS[1])), first[:CONTENDERS])
    contenders = [min(pair, key=lambda found: found["score"]) for pair in zip(first, second, strict=False)]
    fitted = [*map(lambda found: _fit_all(found, whole, scales, tuned, share, seed), contenders)]
    rest = [*map(lambda found: _fit_all(found, choice, scales, tuned, share, seed), first[CONTENDERS:])]
    judged = [*_ranked(fitted), *sorted(rest, key=lambda found: (bool(found["astray"]), found["score"]))]
    if judged[0]["name"] == "mean" or judged[0]["score"] >= 1:
        notes.append("no form foretells the train rows with the largest scales better than their mean would: do not trust it beyond the rows")
    return [_form_fit(found, axes, targets, flips, labels, pooled, len(rows), notes) for found in judged]


def _members(groups, rows, notes):
    """(labels, rows of each group, whether the last is all rows together): groups of fewer than 4 rows share the constants of all."""
    if groups is None:
        return [None], [rows], False
    named = np.asarray(groups)[rows].astype(str)
    labels = list(dict.fromkeys(named.tolist()))
    order = np.argsort(named, kind="stable")
    parts = dict(zip(np.unique(named).tolist(), np.split(rows[order], np.flatnonzero(np.diff(np.unique(named, return_inverse=True)[1][order])) + 1), strict=True))
    small = [label for label in labels if len(parts[label]) < 4]
    if not small:
        return labels, [parts[label] for label in labels], False
    kept = [label for label in labels if label not in small]
    notes.append(f"{len(small)} groups of fewer than 4 rows ({', '.join(small[:5])}{', …' if len(small) > 5 else ''}) share the constants of all rows together")
    return [*kept, None], [*(parts[label] for label in kept), rows], True


def _sample(members, most):
    """At most about `most` rows in all, evenly from each group."""
    total = sum(map(len, members))
    if total <= most:
        return members
    return [m[np.unique(np.linspace(0, len(m) - 1, max(4, round(len(m) * most / total))).astype(int))] for m in members]


def _stack(axes, numbers, targets, flips, members, relative):
    longest = max(map(len, members))
    padded = np.array([np.pad(m, (0, longest - len(m)), mode="edge") for m in members])
    weights = np.array([np.arange(longest) < len(m) for m in members], float)
    x = np.stack([axis.coordinate(numbers[axis.name][padded]) for axis in axes], -1)
    y = np.stack([flip * numbers[name][padded] for name, flip in zip(targets, flips, strict=True)], 1)
    return Stack(x, y, weights, relative)


def _within(values, members):
    """Values of all groups, less the mean of each group."""
    return np.concatenate([values[m] - values[m].mean(0) for m in members])


def _orient(axes, numbers, targets, members):
    """(axes, flips): targets that all inputs raise are turned round, and of inputs that raise a target that others lower, the reciprocal is taken."""
    scales = [i for i, axis in enumerate(axes) if axis.role != "share"]
    flips = np.ones(len(targets), int)
    if not scales:
        return axes, flips
    x = np.stack([axis.coordinate(numbers[axis.name]) for axis in axes], -1)
    x = _within(x, members)
    x = x / (x.std(0) + 1e-300)
    slopes = []
    for name in targets:
        y = _within(numbers[name], members)
        slope, _, _, _ = np.linalg.lstsq(x, y, rcond=None)
        noise = (y - x @ slope).std() / np.sqrt(len(y))
        slopes.append(slope[scales] / (np.abs(slope[scales]).max() + noise + 1e-300))
    total = np.array([s.sum() for s in slopes])
    if (total > 0).all() and all("loss" not in name.lower() for name in targets):
        flips = -flips
        slopes = [-s for s in slopes]
    mean = np.mean(slopes, axis=0)
    turned = {i for i, slope in zip(scales, mean, strict=True) if slope > 0.1}
    return [replace(axis, sign=-1) if i in turned else axis for i, axis in enumerate(axes)], flips


def _bowls(axes, numbers, targets, flips, members):
    """Sets of inputs that may have an optimum: those named as tuned, and those along which targets bend upwards by more than noise with the least inside the rows."""
    scales = [i for i, axis in enumerate(axes) if axis.role != "share"]
    named = tuple(i for i in scales if str(axes[i].name).lower() in TUNED)
    x = np.stack([axes[i].coordinate(numbers[axes[i].name]) for i in scales], -1) if scales else np.zeros((0, 0))
    bent = []
    pairs = list(combinations(range(len(scales)), 2))
    for j, i in enumerate(scales):
        votes = []
        for name, flip in zip(targets, flips, strict=True):
            z = (x - x[np.concatenate(members)].mean(0)) / x[np.concatenate(members)].std(0)
            design = np.column_stack([z, z**2, *(z[:, a] * z[:, b] for a, b in pairs)])
            design, y = _within(design, members), _within(flip * numbers[name], members)
            if len(y) < 2 * design.shape[1] + 3:
                continue
            fit, *_ = np.linalg.lstsq(design, y, rcond=None)
            left = y - design @ fit
            error = np.sqrt(np.diag(np.linalg.pinv(design.T @ design)) * (left**2).sum() / max(len(y) - design.shape[1], 1))
            bend, slope = fit[len(scales) + j], fit[j]
            least = -slope / (2 * bend) if bend > 0 else np.inf
            inside = np.concatenate(members)
            votes.append(bend > 4 * error[len(scales) + j] and z[inside, j].min() < least < z[inside, j].max())
        if votes and np.mean(votes) > 0.5:
            bent.append(i)
    sets = [(), named, tuple(bent), tuple(sorted({*named, *bent}))]
    return list(dict.fromkeys(sets))


def _splits(axes, data, tuned, seed):
    """Train rows held out, held[s, g, n]: the largest by all scales together and by each scale, two cuts of each, and rows at random where there are shares alone."""
    groups, rows = data.weights.shape
    scales = [i for i, axis in enumerate(axes) if axis.role != "share" and i not in tuned] or [i for i, axis in enumerate(axes) if axis.role != "share"]
    held = []

    def cut(score, share):
        """The rows of each group with the highest scores: whole levels, at least `share` of the rows where that leaves more than half."""
        found = np.zeros((groups, rows), bool)
        for g in range(groups):
            real = data.weights[g] > 0
            levels, counts = np.unique(np.round(score[g][real], 9), return_counts=True)
            if len(levels) < 3:
                continue
            above = np.cumsum(counts[::-1])[::-1] / counts.sum()
            fits = [level for level, part in zip(levels[1:], above[1:], strict=True) if part <= max(0.5, above[-1])]
            wanted = [level for level, part in zip(levels[1:], above[1:], strict=True) if part >= share and level in fits]
            lowest = wanted[-1] if wanted else (fits[0] if fits else levels[-1])
            found[g] = real & (np.round(score[g], 9) >= lowest)
        return found

    if scales:
        x = data.x * np.array([axis.sign for axis in axes])
        spread = np.sqrt((data.weights[..., None] * (x - (data.weights[..., None] * x).sum(1, keepdims=True) / data.weights.sum(1)[:, None, None]) ** 2).sum(1, keepdims=True))
        z = x / (spread + 1e-300)
        together = z[..., scales].sum(-1)
        for share in (0.05, 0.2, 0.35) if len(scales) == 1 else (0.1, 0.3):
            held.append(cut(together, share))
        if len(scales) > 1:
            for i in scales:
                held += [cut(x[..., i], share) for share in (0.1, 0.3)]
    else:
        rng = generator(seed, "forms", "folds")
        for _ in range(2):
            order = np.array([rng.permutation(rows) for _ in range(groups)])
            held += [(order % 5 == fold) & (data.weights > 0) for fold in range(5)]
    different = {h.tobytes(): h for h in held if h.any()}
    if not different:
        raise LawbookError("The inputs take too few values to tell forms apart: no input has three.")
    return np.array([*different.values()])


def _forecast(name, form, data, held, seed, delta):
    """Inner forecasts of one form with Huber threshold delta: errors[s, g, t] in standard deviations of the target, their mean, r2, and mean relative error."""
    x, target, scale, w = data.problems(form.law, data.weights * ~held)
    q, c, _, _ = best_fits(form.law, x, target, scale, starts=_starts(form, 8), seed=_start(seed, name), delta=delta, weights=w, rounds=(10, 40))
    out = np.broadcast_to(held[:, :, None], (len(held), *data.y.shape))
    with np.errstate(all="ignore"):
        predicted = form.law.predict(x, q, c).reshape(out.shape)
    spread, number = data.spread()[..., None], np.maximum(out.sum(-1), 1)
    off = np.nan_to_num(np.clip((predicted - data.y) / spread, -WILD, WILD), nan=WILD)
    square = (off**2 * out).sum(-1) / number
    errors = np.where(out.any(-1), np.sqrt(square), np.nan)
    return {
        "name": name,
        "form": form,
        "delta": delta,
        "errors": errors,
        "score": _mean_error(errors),
        "r2": float(1 - np.average(square, weights=number * out.any(-1))),
        "relative": float(np.mean(np.abs(off * spread / data.y)[out])) if (data.y != 0).all() else np.nan,
    }


def _mean_error(errors):
    """Mean over groups and targets, geometric mean over splits, so that the hardest split does not decide alone."""
    with np.errstate(all="ignore"):
        return float(np.exp(np.mean([np.log(max(np.nanmean(e), 1e-3)) for e in errors if np.isfinite(e).any()])))


def _fit_all(found, data, scales, tuned, share, seed):
    """The form fitted to all rows of `data`, why it is not to be trusted beyond them, and its criteria, from residuals of fits alike: thresholds differ between forms."""
    form, name = found["form"], found["name"]
    x, target, scale, w = data.problems(form.law)

    def fit(starts, delta):
        return best_fits(form.law, x, target, scale, starts=_starts(form, starts), seed=_start(seed, name), delta=delta, weights=w)

    best = fit(16, found["delta"])
    rms, aicc, bic = _criteria(form, data, *(best if found["delta"] is None else fit(8, None))[:2])
    return {**found, "data": data, "fit": best, "astray": _astray(form, data, scales, tuned, share, *best[:2]), "rms": rms, "aicc": aicc, "bic": bic}


def _start(seed, name):
    return int(generator(seed, "forms", name).integers(2**31))


def _starts(form, most):
    return 1 if not form.inner else most if len(form.inner) < 4 else 2 * most


def _astray(form, data, scales, tuned, share, q, c):
    """Why the form is not to be trusted half as far again beyond the rows, or nothing.

    It must not leave the range of a target by more than four times its width, nor rise again along an input that shows no optimum within the rows: in no more than a tenth, or
    a quarter, of the groups and targets. Where targets are shares, such as accuracy, it must not leave 0 to 1.
    """
    x = np.repeat(data.x, data.y.shape[1], 0)
    low, width = data.y.min(-1, keepdims=True), np.ptp(data.y, axis=-1, keepdims=True)

    def at(x):
        with np.errstate(all="ignore"):
            return form.law.predict(x, q, c).reshape(data.y.shape)

    here, far = at(x), np.zeros(x.shape[-1])
    far[scales] = 0.5
    beyond = at(x + far * np.ptp(x, axis=1, keepdims=True))
    if (~(np.isfinite(beyond) & (beyond > low - 4 * width) & (beyond < low + 5 * width))).any(-1).mean() > 0.1:
        return "beyond the rows it soon leaves the range of the target by far"
    if share and (np.abs(np.abs(beyond) - 0.5) > 0.55).any(-1).mean() > 0.25:
        return "beyond the rows it soon leaves the range from 0 to 1"
    for i in (i for i in scales if i not in tuned):
        step = np.zeros(x.shape[-1])
        step[i] = 0.5
        top = data.x[..., i] >= np.quantile(data.x[..., i], 0.75, axis=1, keepdims=True)
        rise = ((at(x + step * np.ptp(x, axis=1, keepdims=True)) - here) * top[:, None]).sum(-1) / top.sum(1)[:, None]
        if (rise > 0.05 * width[..., 0]).mean() > 0.25:
            return f"beyond the rows it turns round along input {i + 1}"
    return ""


def _criteria(form, data, q, c):
    """rms, AICc and BIC over all problems, residuals relative or over the spread of the target."""
    with np.errstate(all="ignore"):
        off = form.law.predict(np.repeat(data.x, data.y.shape[1], 0), q, c).reshape(data.y.shape) - data.y
    off = np.nan_to_num(off / (data.y if data.relative else data.spread()[..., None]), nan=1e3, posinf=1e3, neginf=1e3)
    n, k = data.weights.sum(1)[:, None], form.constants + 1  # the noise counts as a constant
    square = np.maximum((off**2 * data.weights[:, None]).sum(-1) / n, 1e-24)
    fit = n * np.log(square)
    return (
        float(np.sqrt(np.average(square, weights=np.broadcast_to(n, square.shape)))),
        float(np.sum(fit + 2 * k + 2 * k * (k + 1) / np.maximum(n - k - 1, 0.5))),
        float(np.sum(fit + k * np.log(n))),
    )


def _ranked(judged):
    """By error of the inner forecasts; of those within TIED of the best the least AICc comes first, and of those within 2 of it the form with the fewest constants."""
    best = min(WILD if found["astray"] else found["score"] for found in judged)
    tied = [found for found in judged if not found["astray"] and found["score"] <= best * TIED]
    least = min((found["aicc"] for found in tied), default=0.0)

    def place(found):
        if found["astray"]:
            return 3, found["score"], 0.0
        if not any(found is other for other in tied):
            return 2, found["score"], 0.0
        return (0, found["form"].constants, found["score"]) if found["aicc"] <= least + 2 else (1, found["aicc"], 0.0)

    return sorted(judged, key=place)


def _form_fit(found, axes, targets, flips, labels, pooled, rows, notes):
    form, (q, c, value, delta) = found["form"], found["fit"]
    fitted = Fitted(form, tuple(axes), targets, flips, labels, pooled, q, c, delta, found["data"])
    constants = {}
    for g, label in enumerate(labels):
        named = [form.named(q[g * len(targets) + t], c[g * len(targets) + t]) for t in range(len(targets))]
        constants[label] = named[0] if len(targets) == 1 else {f"{target}.{name}": v for target, values in zip(targets, named, strict=True) for name, v in values.items()}
    said = list(notes)
    if found["astray"]:
        said.append(f"refused: {found['astray']}")
    left = targets[0] if len(targets) == 1 else "each of " + ", ".join(targets)
    return FormFit(
        form=found["name"],
        statement=f"{left} = {form.text}" if (flips > 0).all() else f"{left} = -({form.text})",
        inputs=tuple(axis.name for axis in axes),
        targets=targets,
        groups=labels,
        constants=constants,
        constants_per_group=form.constants,
        rows=rows,
        objective=float(value.sum()),
        rms=found["rms"],
        score=found["score"],
        r2=found["r2"],
        relative_error=found["relative"],
        aicc=found["aicc"],
        bic=found["bic"],
        notes=said,
        fitted=fitted,
    )


@dataclass(frozen=True)
class Resamples:
    """Constants of a FormFit refitted to rows drawn with replacement within each group."""

    fitted: Fitted
    q: np.ndarray  # [draws, problems, k]
    c: np.ndarray  # [draws, problems, j]

    def predict(self, columns, groups=None):
        """Predictions[draws, n], or [draws, n, targets] where there are several: what the constants leave open, without the noise of a single run."""
        return self.fitted.predict(columns, groups, self.q, self.c)


def resample(fit, draws=200, seed=0):
    """Resamples of a FormFit: its constants refitted from where they are to rows drawn with replacement (pairs bootstrap, by group)."""
    if draws < 1 or draws != int(draws):
        raise LawbookError(f"draws must be a whole number of resamples of at least 1; it was {draws}.")
    fitted = fit.fitted
    law, data = fitted.form.law, fitted.data
    x, target, scale, _ = data.problems(law)
    repeats, real = len(fitted.targets), data.weights.sum(1)
    rng = generator(seed, "forms", "resample")
    counts = np.stack([rng.multinomial(round(n), w / n, size=int(draws)) for n, w in zip(real, data.weights, strict=True)], 1)  # [draws, g, n]
    problems, found = len(x), []
    at_once = max(1, MEMORY // (x.shape[1] * fitted.c.shape[1] * (fitted.q.shape[1] + 1)))
    with np.errstate(all="ignore"):
        for block in np.array_split(np.arange(draws * problems), -(-draws * problems // at_once)):
            draw, problem = np.divmod(block, problems)
            parts = [v[problem] for v in (x, target, scale, fitted.q)]
            found.append(descend(law, *parts, rounds=15, delta=fitted.delta[problem], weights=counts[draw, problem // repeats])[:2])
    q, c = (np.concatenate(part).reshape(draws, problems, -1) for part in zip(*found, strict=True))
    return Resamples(fitted, q, c)
