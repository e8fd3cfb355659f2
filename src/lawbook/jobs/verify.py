"""Put claims on trial, in parallel, resumably; and reproduce findings."""

import time
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from ..artifacts import datasets
from ..contract import UnknownName, catalogue
from ..contract import seed as seed_quantity
from ..trials.judge import run_trial, undecided
from .records import Records
from .workers import alone
from .workers import workers as workers_of

TELLS = 0.25  # seconds between two words on the draws of a trial

_watcher: ContextVar = ContextVar("watcher", default=None)


def trials_of(names=()):
    """The trials of the named papers ("slug"), trials or results ("slug.name"); of the whole book without names."""
    if not names:
        return [t for p in catalogue.papers() for t in p.trials.values()]
    found = []
    for name in names:
        slug, _, part = name.partition(".")
        paper = catalogue.paper(slug)
        chosen = [t for t in paper.trials.values() if not part or part == t.name or part in t.results]
        if not chosen:
            raise UnknownName(f"trial or result of {slug}", part, [*paper.trials, *paper.results])
        found += chosen
    return list({t.id: t for t in found}.values())


def verify(*names, seed=0, effort="quick", workers=None, cluster=None, resume=None, records=None, progress=None, drawn=None):
    """Verdicts on the named claims ("slug", "slug.trial" or "slug.result"), or on all of the book, in the book's order.

    `effort` is "quick" (seconds) or "full". With `resume` (the default for the whole book), verdicts kept from an earlier, interrupted round with the same seed, effort and
    code are taken over. `progress(done, total, verdict)` is called as verdicts arrive. `workers` processes here, or those of the Dask `cluster`, do not change a verdict:
    each trial has its own random stream. Of trials that are held in this process, `drawn(trial, done, total)` is told a few times a second how many draws they have made.
    """
    if effort not in ("quick", "full"):
        raise UnknownName("effort", effort, ["quick", "full"])
    seed = seed_quantity().read(seed, "seed")
    trials = trials_of(names)
    records = records or Records()
    resume = not names if resume is None else resume
    with workers_of(workers, cluster) as pool:
        verdicts, todo = {}, []
        for trial in trials:
            kept = records.find(trial, seed, effort) if resume else None
            if kept is None or kept.status == "inconclusive":
                todo.append(trial)
            else:
                verdicts[trial.id] = kept
                if progress:
                    progress(len(verdicts), len(trials), kept)
        with _watched(drawn):
            for index, verdict in pool.each(_judged, [(trial.paper.slug, trial.name, seed, effort) for trial in todo]):
                records.keep(todo[index], verdict)
                verdicts[verdict.id] = verdict
                if progress:
                    progress(len(verdicts), len(trials), verdict)
    return [verdicts[trial.id] for trial in trials]


@contextmanager
def _watched(drawn):
    token = _watcher.set(drawn)
    try:
        yield
    finally:
        _watcher.reset(token)


def _counter(trial, effort):
    """What a trial calls once a draw; None where nobody watches."""
    drawn = _watcher.get()
    if drawn is None:
        return None
    done, told, total = 0, time.monotonic(), trial.quick if effort == "quick" else trial.full

    def count():
        nonlocal done, told
        done += 1
        if done == total or time.monotonic() - told >= TELLS:
            told = time.monotonic()
            with suppress(Exception):  # a verdict does not depend on who watches
                drawn(trial, done, total)

    return count


def _judged(task):
    return judge(*task)


def judge(slug, name, seed, effort):
    """One trial by name. A trial that breaks or lacks its data is inconclusive, with the reason."""
    with alone():
        return _judge(catalogue.paper(slug).trials[name], seed, effort)


def _judge(trial, seed, effort):
    try:
        data = datasets.load(trial.data) if trial.data else None
        return run_trial(trial, seed=seed, effort=effort, data=data, progress=_counter(trial, effort))
    except datasets.MissingData as error:
        return undecided(trial, str(error), seed=seed, effort=effort)
    except Exception as error:  # a defect of one trial must not end the round for the others
        return undecided(trial, f"The trial itself failed: {type(error).__name__}: {error}", seed=seed, effort=effort)


def findings(*slugs):
    """The findings of the named papers, or of the whole book."""
    papers = [catalogue.paper(slug) for slug in slugs] if slugs else catalogue.papers()
    return [finding for paper in papers for finding in paper.findings.values()]


def reproduce(finding):
    """The numbers that reproduce a finding: a record with the truth value `holds`. MissingData where its data set is not here."""
    evidence = finding.function(datasets.load(finding.data)) if finding.data else finding.function()
    return {"holds": bool(evidence["holds"]), **{k: v for k, v in evidence.items() if k != "holds"}}
