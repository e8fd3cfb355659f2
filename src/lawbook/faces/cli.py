"""The shell: the verbs with the same names and arguments as in Python. Options of `run` and `solve` are made from the quantities."""

import contextlib
import csv
import json
import os
import sys
import warnings
from importlib import import_module
from pathlib import Path

import click

from ..contract import LawbookError, catalogue
from ..contract.encoding import dumps
from ..contract.numbers import show_number
from .audit_command import audit

FORMATS = click.Choice(["table", "json", "csv"])
MARKS = {"upheld": "green", "violated": "red", "vacuous": "yellow", "inconclusive": "bright_black"}


def console():
    from rich.console import Console

    wide = None if sys.stdout.isatty() else 200  # a pipe has no width of its own
    return Console(width=wide, highlight=False, soft_wrap=False)


def say(text):
    """A remark beside the answer: to standard error, so that pipes stay clean."""
    click.echo(text, err=True)


def print_table(columns, units=None, title=None):
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, title=title, title_justify="left", pad_edge=False)
    for name in columns:
        unit = (units or {}).get(name)
        table.add_column(Text(f"{name} ({unit})" if unit else name), overflow="fold")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*(Text(_cell(value)) for value in row))
    console().print(table)


def _cell(value):
    import numpy as np

    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, str) or value is None:
        return value or ""
    if isinstance(value, int | float | complex):
        return show_number(value)
    text = dumps(value)
    return text if len(text) <= 120 else text[:117] + "..."


def write_csv(columns):
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        out.writerow([value if isinstance(value, str | int | float) else dumps(value) for value in row])


LATER = {"serve": "web.commands", "digest": "digest_command"}  # verbs in modules of their own, imported when they are asked for


class Verbs(click.Group):
    """The verbs in the order a newcomer needs them."""

    def list_commands(self, ctx):
        return [*self.commands, *LATER]

    def get_command(self, ctx, cmd_name):
        if cmd_name in LATER:
            return getattr(import_module(f".{LATER[cmd_name]}", __package__), cmd_name)
        return super().get_command(ctx, cmd_name)


class Results(click.Group):
    """A command for every result of the book, made when it is asked for."""

    def __init__(self, make, **more):
        super().__init__(**more)
        self.make = make

    def list_commands(self, ctx):
        return []

    def get_command(self, ctx, cmd_name):
        return self.make(catalogue.result(cmd_name))

    def resolve_command(self, ctx, args):
        return args[0], self.get_command(ctx, args[0]), args[1:]


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.version_option(package_name="lawbook")
def lawbook():
    """The executable handbook of machine-learning theory.

    \b
    lawbook find context length          which papers speak of it
    lawbook show SLUG                    a paper, its results and its trials
    lawbook run SLUG.RESULT --help       the arguments of a result
    lawbook run SLUG.RESULT --tokens 15T --context-length 4k:1M:log:50 --plot out.svg
    lawbook solve SLUG.RESULT tokens=? --target 2.0 --params 7B
    lawbook fit runs.csv                 which law fits these training runs
    lawbook plan runs.csv --compute 1e24 what to train with this budget
    lawbook audit MODEL --device h100    what serving costs, and which layers stand out
    lawbook verify SLUG                  put its claims on trial
    lawbook serve                        the book in a browser

    Numbers may be written 70B, 128k (= 128000), 128Ki (= 131072), 1e21, 50%.
    """


@lawbook.command()
@click.argument("words", nargs=-1)
@click.option("--tag", help="Only papers with this tag.")
@click.option("--kind", help="Only papers with a result of this kind: law, bound, limit, algorithm, model or measure.")
@click.option("--chapter", help="Only papers of this chapter.")
@click.option("--argument", help="Only papers with a result that takes this argument, such as context_length.")
@click.option("--format", "form", type=FORMATS, default="table", show_default=True)
def find(words, tag, kind, chapter, argument, form):
    """Search the book by words, tag, kind, chapter or argument name; without any, list it all."""
    from ..jobs.find import find as search

    found = search(" ".join(words), tag=tag, kind=kind, chapter=chapter, argument=argument)
    if form == "json":
        click.echo(dumps(found, indent=1))
        return
    columns = {
        "paper": [e["slug"] for e in found],
        "chapter": [e["chapter"] for e in found],
        "title": [e["title"] for e in found],
        "results": [", ".join(r["name"] for r in e["results"]) for e in found],
    }
    if form == "csv":
        write_csv(columns)
    elif found:
        print_table(columns)
    else:
        raise LawbookError(f"Nothing in the book speaks of {' '.join(words)!r}; `lawbook find` lists all papers.")


@lawbook.command()
@click.argument("name")
def show(name):
    """A paper (SLUG) or one of its results (SLUG.RESULT): what it says, arguments, assumptions, source, trials, findings."""
    if "." in name:
        import inspect

        result = catalogue.result(name)
        click.echo(f"{result.id} ({result.kind})\n\n{inspect.getdoc(result.function)}")
        return
    from textwrap import fill

    from ..contract.paper import SOURCES

    paper = catalogue.paper(name)
    click.echo(f"{paper.title}\n{paper.link}   {paper.chapter}, {paper.year}   formulas: {SOURCES[paper.source]}\n\n{fill(paper.says, 100)}\n")
    print_table({"result": [r.id for r in paper.results.values()], "kind": [r.kind for r in paper.results.values()], "what it gives": [r.summary for r in paper.results.values()]})
    print_table({"trial": [t.id for t in paper.trials.values()], "form": [t.form.name for t in paper.trials.values()], "what it tests": [t.summary for t in paper.trials.values()]})
    for finding in paper.findings.values():
        click.echo(fill(f"Finding: {finding.sentence}", 100, subsequent_indent="  "))
    if paper.notes:
        click.echo(fill(f"Source: {paper.notes}", 100, subsequent_indent="  "))


def quantity_options(result, taken=()):
    """One option for every argument of a result, --argument-NAME where the verb has an option of that name; values are read by their quantities."""
    options: list[click.Parameter] = []
    for name, quantity in result.arguments.items():
        default = f"  [default: {result.defaults[name]}]" if name in result.defaults else "  [required]"
        about = f"{quantity.doc + ': ' if quantity.doc else ''}{quantity.allowed()}{default}"
        option = f"--{'argument-' if name in taken else ''}{name.replace('_', '-')}"
        options.append(click.Option([option, f"given_{name}"], help=about, metavar="VALUE"))
    return options


def given_arguments(result, values, args_file):
    """What the user gave: options over the entries of the --args file."""
    given = _read_args(args_file) if args_file else {}
    for name in result.arguments:
        if values.get(f"given_{name}") is not None:
            given[name] = values[f"given_{name}"]
    return given


def _read_args(source):
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LawbookError(f"The arguments in {source} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise LawbookError(f"The arguments in {source} must be a JSON object; the JSON breaks off or is wrong at line {error.lineno}, column {error.colno}.") from None
    if not isinstance(given, dict):
        raise LawbookError(f"The arguments in {source} must be a JSON object from names to values; it was a {type(given).__name__}.")
    return given


WORKERS = (
    (["--workers"], {"type": int, "help": "Processes that work on this machine; does not change an answer."}),
    (["--cluster"], {"metavar": "ADDRESS", "help": "Work on the Dask cluster with this scheduler, such as tcp://host:8786; does not change an answer."}),
)


def workers_options(command):
    """--workers and --cluster of the verbs whose work can be spread: both None where not given."""
    for names, more in reversed(WORKERS):
        command = click.option(*names, **more)(command)
    return command


RUN_OPTIONS = ("args", "format", "plot", "field", "workers", "cluster", "help")
SOLVE_OPTIONS = ("target", "field", "args", "format", "help")


def run_command(result):
    def callback(args_file, form, plot, field, workers, cluster, **values):
        from ..jobs.run import Sweep
        from ..jobs.run import run as evaluate
        from ..jobs.workers import workers as workers_of

        if plot:
            from .plots import check_format

            check_format(plot)
        given = given_arguments(result, values, args_file)
        with bar(f"{result.id}", None) as progress:
            if workers is None and cluster is None:
                answer = evaluate(result, given, progress=progress)
            else:
                with workers_of(workers, cluster) as pool:
                    answer = evaluate(result, given, progress=progress, spread=pool.map)
        if plot:
            if not isinstance(answer, Sweep):
                raise LawbookError(f"A plot needs a sweep: give a numeric argument of {result.id} a range such as 1k:1M:log:50.")
            from .plots import save_sweep

            save_sweep(answer, plot, field)
            say(f"plot written to {plot}")
        print_answer(answer, form)

    options = [
        click.Option(["--args", "args_file"], metavar="FILE", help="JSON file with arguments, - for standard input."),
        click.Option(["--format", "form"], type=FORMATS, default="table", show_default=True),
        click.Option(["--plot"], metavar="FILE", help="Draw a sweep into this svg, png or html file."),
        click.Option(["--field"], help="Which field of a record the plot shows."),
        *(click.Option(names, **more) for names, more in WORKERS),
    ]
    return click.Command(
        result.id, params=[*quantity_options(result, RUN_OPTIONS), *options], callback=callback, help=_help(result), context_settings={"help_option_names": ["-h", "--help"]}
    )


def _help(result):
    example = " ".join(f"--{name.replace('_', '-')} {_shell(v)}" for name, v in result.example().items())
    return f"{result.summary}\n\n\b\n{result.statement}\n\nAny number may be a sweep: low:high:log:50 or 1,2,4.\n\n\b\nExample: lawbook run {result.id} {example}"


def _shell(value):
    text = value if isinstance(value, str) else dumps(value)
    return f"'{text}'" if set(text) & set(" []{}\"'*;") else text


def print_answer(answer, form):
    from ..jobs.run import Answer, unit_of

    for sentence in answer.cautions:
        say(f"caution: {sentence}")
    result = answer.result
    if form == "json":
        click.echo(dumps(answer.to_dict()))
        return
    columns = answer.columns()
    if form == "csv":
        write_csv(columns)
        return
    units = {name: unit_of(result, name) for name in columns}
    if isinstance(answer, Answer) and all(len(c) == 1 for c in columns.values()):
        width = max(map(len, columns))
        for name, (value,) in columns.items():
            unit = units[name]
            click.echo(f"{name:<{width}}  {_cell(value)}{f' {unit}' if unit else ''}")
    else:
        print_table(columns, units)


def solve_command(result):
    def callback(unknown, target, field, args_file, form, **values):
        from ..jobs.solve import solve as invert

        given = given_arguments(result, values, args_file)
        name, _, mark = unknown.partition("=")
        if mark not in ("?", ""):
            raise LawbookError(f"The unknown is written {name}=?; it was {unknown!r}.")
        solution = invert(result, name.replace("-", "_"), target=target, field=field, arguments=given)
        for sentence in solution.cautions:
            say(f"caution: {sentence}")
        if form == "json":
            click.echo(dumps(solution.to_dict()))
        elif form == "csv":
            write_csv({solution.unknown: solution.roots, field or result.name: solution.answers})
        elif not solution.roots:
            raise LawbookError(f"No solution: {solution.reason}")
        else:
            returns = result.returns if field is None else result.returns.fields[field]
            for root, value in zip(solution.roots, solution.answers, strict=True):
                click.echo(f"{solution.unknown} = {show_number(root, result.arguments[solution.unknown].unit, 10)}   ({field or result.name} = {show_number(value, returns.unit)})")

    params: list[click.Parameter] = [
        click.Argument(["unknown"]),
        click.Option(["--target"], required=True, help="The value that the result shall have."),
        click.Option(["--field"], help="Which field of a record shall have it."),
        click.Option(["--args", "args_file"], metavar="FILE", help="JSON file with arguments, - for standard input."),
        click.Option(["--format", "form"], type=FORMATS, default="table", show_default=True),
    ]
    return click.Command(
        result.id,
        params=[*params, *quantity_options(result, SOLVE_OPTIONS)],
        callback=callback,
        help=f"Solve {result.id} for the argument written UNKNOWN=?.\n\n\b\n{result.statement}",
    )


lawbook.add_command(
    Results(
        run_command,
        name="run",
        subcommand_metavar="SLUG.RESULT [OPTIONS]",
        no_args_is_help=True,
        help="Evaluate a result. `lawbook run SLUG.RESULT --help` lists its arguments, `lawbook find` the results.",
    )
)
lawbook.add_command(
    Results(
        solve_command,
        name="solve",
        subcommand_metavar="SLUG.RESULT UNKNOWN=? --target VALUE [OPTIONS]",
        no_args_is_help=True,
        help="Solve a result for one of its numeric arguments: every root in its domain, or why there is none.",
    )
)


@lawbook.command()
@click.argument("tables", nargs=-1, metavar="[TABLE]...")
@click.option("--law", help="Only this law (SLUG.RESULT); all that apply by default.")
@click.option("--test", "tests", multiple=True, metavar="TABLE", help="Held-out table or curve; may be repeated.")
@click.option("--holdout", type=float, default=0.2, show_default=True, help="Share of the rows, the dearest by compute, that is held out without --test.")
@click.option("--drop-highest", type=int, default=0, show_default=True, help="Leave out this many rows with the highest observations.")
@click.option("--bootstrap", type=int, default=200, show_default=True, help="Resamples for the intervals of parameters.")
@click.option("--resampling", type=click.Choice(["pairs", "residual", "group"]), default="pairs", show_default=True, help="What is resampled: rows, residuals, or rows by --by.")
@click.option("--by", metavar="COLUMN", help="Rows with the same entry in this column are resampled together.")
@click.option("--profile", is_flag=True, help="Profile-likelihood intervals beside those of the bootstrap.")
@click.option("--warmup-steps", type=int, help="Warm-up of loss curves whose log starts later.")
@click.option("--huber-delta", type=float, default=1e-3, show_default=True, help="Threshold of the Huber loss on (log) residuals; inf: squares.")
@click.option("--quantile", type=float, default=0.5, show_default=True, help="Below a half the law runs along the lower edge of the observations.")
@click.option("--starts", type=int, default=1024, show_default=True, help="Starting points of each fit.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--report", type=click.Path(dir_okay=False), help="Write one self-contained HTML page about the fits.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@workers_options
def fit(tables, tests, warmup_steps, report, form, workers, cluster, **options):
    """Fit laws to a table of runs and rank them by held-out error.

    One CSV, TSV, Parquet or JSON-lines TABLE of runs, or of models and their benchmark scores by family, or several loss curves (step, lr, loss).
    Without a table: lawbook's own ladder of training runs.
    """
    from ..artifacts import datasets
    from ..artifacts.tables import read_curves, read_runs
    from ..jobs.fit import fit as fit_laws
    from ..jobs.scores import ScoresFit
    from ..jobs.workers import workers as workers_of
    from .text import ranking_lines

    def read(paths):
        table = read_runs(paths[0]) if len(paths) == 1 else None
        return table if table is not None and not table.is_curve else read_curves(paths, warmup_steps=warmup_steps)

    source = read(tables) if tables else read_runs(datasets.load("ladder"))
    if not tables:
        source.say("no table given: fitted to lawbook's own ladder of training runs")
    test = read(tests) if tests else None
    with bar("fitting", None) as progress, workers_of(workers, cluster) as pool:
        ranking = fit_laws(source, test=test, run=pool.map, progress=lambda name: progress(None, None, name), **options)
    if report:
        from .report import write_fit, write_scores

        write = write_scores if isinstance(ranking, ScoresFit) else write_fit
        write(ranking, report, command_line())
        say(f"report written to {report}")
    if form == "json":
        click.echo(dumps(ranking.to_dict()))
        return
    for sentence in ranking.said:
        say(sentence)
    if isinstance(ranking, ScoresFit):
        click.echo(ranking.split)
        print_table(ranking.ranked())
        for line in ranking.remarks():
            click.echo(line)
        return
    for line in ranking_lines(ranking):
        click.echo(line)
    for name, reason in ranking.failed.items():
        say(f"{name}: {reason}")


def command_line():
    import shlex

    return shlex.join(["lawbook", *click.get_current_context().find_root().obj])


lawbook.add_command(audit)


@lawbook.command()
@click.argument("source", default="epoch", metavar="[TABLE|CONSTANTS]")
@click.option("--compute", help="Training budget in FLOP, such as 1e24.")
@click.option("--gpu-hours", help="Budget in hours of --device at --utilization.")
@click.option("--money", help="Budget in the currency of --price-per-gpu-hour.")
@click.option("--price-per-gpu-hour")
@click.option("--days", help="Budget in days on --devices.")
@click.option("--devices", help="How many devices work side by side.")
@click.option("--device", default="H100-SXM", show_default=True)
@click.option("--utilization", type=float, default=0.4, show_default=True, help="Share of the device's bf16 peak that training reaches.")
@click.option("--target-loss", help="Reach this loss at the least cost.")
@click.option("--inference-tokens", default="0", help="Tokens served over the model's life; their cost is part of the budget.")
@click.option("--max-params", help="Largest model allowed.")
@click.option("--max-tokens", help="Data available.")
@click.option("--max-epochs", default="1", show_default=True, help="How often the data of --max-tokens may be passed over.")
@click.option("--learning-rate", help="Peak rate of the weight matrices; with it the plan gives weight decay.")
@click.option("--curves", multiple=True, help="Loss curve (step, lr, loss) to fit the multi-power law to, for the schedule; repeat it for several.")
@click.option("--report", type=click.Path(dir_okay=False), help="Write one self-contained HTML page about the plan.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def plan(source, form, utilization, report, curves, **options):
    """What to train under a budget: parameters, tokens, batch size, schedule and predicted loss, with the cost of deviating.

    From a TABLE of your runs (the Chinchilla law is fitted to it), or from published CONSTANTS: hoffmann, hoffmann_tex, epoch, c4_muennighoff.
    Without a budget, --max-params or --max-tokens is one.
    """
    from textwrap import fill

    from ..jobs.plan import plan as make_plan

    with bar("planning", None):
        made = make_plan(source, utilization=utilization, curves=list(curves) or None, **options)
    if report:
        from .report import write_plan

        write_plan(made, report, command_line())
        say(f"report written to {report}")
    if form == "json":
        click.echo(dumps(made.to_dict()))
        return
    for sentence in made.warnings:
        say(f"caution: {sentence}")
    click.echo(made.budget)
    with_interval = any(q["low"] is not None for q in made.quantities.values())
    columns = {"": list(made.quantities), "value": [q["value"] for q in made.quantities.values()]}
    if with_interval:
        columns |= {"low (90 %)": [q["low"] for q in made.quantities.values()], "high": [q["high"] for q in made.quantities.values()]}
    print_table(columns | {"unit": [q["unit"] for q in made.quantities.values()], "source": [q["source"] for q in made.quantities.values()]})
    click.echo("\nDeviating: other sizes at the same cost, and what they need for the same loss (compute as a multiple)")
    print_table(made.deviating)
    if made.schedule:
        click.echo(f"\nLearning rate ({made.schedule['source']}); predicted final loss: " + ", ".join(f"{name} {loss:.4f}" for name, loss in made.schedule["final_loss"].items()))
        print_table(made.schedule["knots"])
    click.echo("")
    for sentence in [*made.notes, *(made.schedule["notes"] if made.schedule else [])]:
        click.echo(fill(sentence, 110, subsequent_indent="    "))


@lawbook.command()
@click.argument("names", nargs=-1, metavar="[SLUG|SLUG.TRIAL|SLUG.RESULT]...")
@click.option("--all", "everything", is_flag=True, help="The whole book; goes on where an earlier round was interrupted.")
@click.option("--full", is_flag=True, help="Full trials (minutes) instead of quick ones (seconds).")
@click.option("--seed", type=int, default=0, show_default=True)
@workers_options
@click.option("--fresh", is_flag=True, help="Hold every trial again, even where a verdict is kept.")
@click.option("--data", type=click.Path(file_okay=False), help="Folder of the named data sets that some trials use.")
@click.option("--records", help="Database of the verdicts (URL); SQLite in the records' folder by default.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def verify(names, everything, full, seed, workers, cluster, fresh, data, records, form):
    """Put claims on trial: a verdict for each trial, with its evidence.

    Ends with status 1 where a trial was inconclusive; a violated claim is a result, not an error.
    """
    from ..artifacts.datasets import DATA
    from ..jobs.records import Records
    from ..jobs.verify import verify as put_on_trial

    if bool(names) == everything:
        raise LawbookError("Say what to verify: one or more SLUG, SLUG.TRIAL or SLUG.RESULT, or --all.")
    if workers is None and cluster is None:
        workers = os.cpu_count() or 1
    if data:
        os.environ[DATA] = data
    shown = []

    def progress_of(advance):
        def arrived(done, total, verdict):
            shown.append(verdict)
            if form == "table":
                rejected = sum(c["rejected"] for c in verdict.controls)
                line = (
                    click.style(f"{verdict.status:<12}", fg=MARKS[verdict.status])
                    + f" {verdict.id:<50} {verdict.form:<12} {verdict.reason} [controls rejected: {rejected}/{len(verdict.controls)}]"
                )
                advance.print(line)
            advance(done, total, verdict.id)

        return arrived

    try:
        with bar("verifying", None) as advance:
            verdicts = put_on_trial(
                *names,
                seed=seed,
                effort="full" if full else "quick",
                workers=workers,
                cluster=cluster,
                resume=everything and not fresh,
                records=Records(records),
                progress=progress_of(advance),
                drawn=lambda trial, done, total: advance(len(shown), None, f"{trial.id}: {done:,} of {total:,} draws"),
            )
    except KeyboardInterrupt:
        raise Interrupted(f"Interrupted after {len(shown)} verdicts, which are kept: the same command with --all goes on from there.") from None
    if form == "json":
        click.echo(dumps([v.to_dict() for v in verdicts]))
    counts = {status: sum(v.status == status for v in verdicts) for status in MARKS}
    say(", ".join(f"{n} {status}" for status, n in counts.items() if n))
    if counts["inconclusive"]:
        sys.exit(1)


@lawbook.command()
@click.argument("slugs", nargs=-1)
@click.option("--run", "rerun", is_flag=True, help="Reproduce each finding and show its numbers.")
@click.option("--data", type=click.Path(file_okay=False), help="Folder of the named data sets that some findings use.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def findings(slugs, rerun, data, form):
    """Where a paper's claim, constant or usual reading turned out wrong, loose or incomplete."""
    from textwrap import fill

    from ..artifacts.datasets import DATA, MissingData
    from ..jobs.verify import findings as known
    from ..jobs.verify import reproduce

    if data:
        os.environ[DATA] = data
    listed = []
    found = known(*slugs)
    with bar("reproducing", len(found) if rerun else None) as progress:
        for i, finding in enumerate(found):
            entry = {"paper": finding.paper.slug, "name": finding.name, "finding": finding.sentence, "trial": finding.trial}
            if rerun:
                try:
                    entry["evidence"] = reproduce(finding)
                except MissingData as error:
                    entry["missing"] = str(error)
                progress(i + 1, len(found), finding.paper.slug)
            listed.append(entry)
    if form == "json":
        click.echo(dumps(listed, indent=1))
        return
    for entry in listed:
        click.echo(fill(f"{entry['paper']}: {entry['finding']}", 110, subsequent_indent="    "))
        if "missing" in entry:
            click.echo(f"    not reproduced here: {entry['missing']}")
        elif rerun:
            numbers = dict(entry["evidence"])
            click.echo(f"    {'reproduced' if numbers.pop('holds') else 'NOT REPRODUCED'}: " + ", ".join(f"{k} = {_cell(v)}" for k, v in numbers.items()))


@lawbook.command()
@click.option("--out", default="lawbook-demo.html", show_default=True, help="The page that is written.")
@click.option("--workers", type=int, default=max(os.cpu_count() or 1, 1), show_default=True)
def demo(out, workers):
    """Fit a law to lawbook's own training runs, look at the RoPE bases of released models, put three claims on trial, and write one page about it."""
    from ..jobs.demo import demonstrate
    from .report import write_demo

    with bar("demo", None) as progress:
        shown = demonstrate(workers=workers, progress=lambda text: progress(None, None, text))
    write_demo(shown, out)
    best = shown.ranking.best
    click.echo(
        f"{best.law.id} predicts the largest held-out runs within {100 * best.test['relative_error']:.2g} % ({best.test['baseline']}: {100 * best.test['baseline_error']:.2g} %)."
    )
    feasible = int(sum(shown.models["feasible"]))
    click.echo(f"{feasible} of {len(shown.models['feasible'])} released models have a RoPE base inside the region at tolerance {shown.tolerance}.")
    for verdict in shown.verdicts:
        click.echo(f"{verdict.id}: {verdict.status}")
    click.echo(f"The page is {out}.")


class Interrupted(LawbookError):
    """Ctrl-C, with what is kept."""


@contextlib.contextmanager
def bar(title, total):
    """A progress bar on a terminal, silence elsewhere: a callable (done, total, text) with `print` for lines above the bar."""
    if not sys.stderr.isatty():
        yield Advance(None, None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[text]}"))
    # output goes above the bar where both are on the terminal, and stays out of its way where it is piped
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()) as progress:
        yield Advance(progress, progress.add_task(title, total=total, text=""))


class Advance:
    def __init__(self, progress, task):
        self._progress, self._task = progress, task

    def __call__(self, done, total=None, text=""):
        if self._progress:
            self._progress.update(self._task, completed=done, total=total, text=text)

    def print(self, line):
        click.echo(line)


def main(arguments=None):
    """Run the shell: errors that a user can mend are one sentence on standard error, exit status 2."""
    warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
    try:
        status = lawbook.main(args=arguments, standalone_mode=False, obj=sys.argv[1:] if arguments is None else arguments)
        sys.exit(status if isinstance(status, int) else 0)
    except Interrupted as error:
        say(str(error))
        sys.exit(130)
    except LawbookError as error:
        say(str(error))
        sys.exit(2)
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "lawbook"
        say(f"{error.format_message()} `{where} --help` shows how it is used.")
        sys.exit(2)
    except click.ClickException as error:
        say(error.format_message())
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        say("Interrupted.")
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone: `lawbook find | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


if __name__ == "__main__":
    main()
