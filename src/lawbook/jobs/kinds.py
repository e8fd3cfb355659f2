"""What the workbench does in the background: each kind of job with its options, declared like the arguments of a result, and the work itself."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..chapters.scaling.beyond_chinchilla import CONSTANTS
from ..contract import LawbookError, UnknownName, catalogue, choice, count, flag, integer, listing, optional, positive, probability, real, text
from ..contract import seed as seed_quantity
from ..contract.quantity import Quantity

NOT_A_PLACE = "path must be a model's folder or file inside one of the folders named when the server was started"


@dataclass(frozen=True)
class Kind:
    """A kind of job. `uploads` is the most tables that it takes; one that `resumes` goes on after its server was killed, as what it has finished is kept."""

    name: str
    title: str
    options: dict[str, Quantity]
    defaults: dict[str, Any]
    work: Callable  # (options, paths of tables, Setting) -> an object with to_dict
    uploads: int = 0
    resumes: bool = False

    @property
    def arguments(self):
        """The options, under the name that a result has for them."""
        return self.options

    def bind(self, given):
        """Validated options, defaults filled in; DomainError and UnknownName say what is wrong."""
        for name in given:
            if name not in self.options:
                raise UnknownName(f"option of {self.name}", name, self.options)
        given = {name: value for name, value in given.items() if value is not None and value != ""}
        missing = [name for name in self.options if name not in given and name not in self.defaults]
        if missing:
            raise LawbookError(f"{self.name} needs {missing[0]}, which must be {self.options[missing[0]].allowed()}.")
        return {name: quantity.read(given[name], name) if name in given else self.defaults[name] for name, quantity in self.options.items()}

    def schema(self):
        """JSON schema of the options."""
        properties = {name: {**q.schema(), **({"default": self.defaults[name]} if self.defaults.get(name) is not None else {})} for name, q in self.options.items()}
        required = [name for name in self.options if name not in self.defaults]
        return {"type": "object", "title": self.name, "properties": properties, "required": required, "additionalProperties": False}

    def command(self, options, names):
        """The same job as a line for the shell."""
        if self.name in ("run", "solve"):
            unknown = [f"{options['unknown'].replace('_', '-')}=?", "--target", _word(options["target"])] if self.name == "solve" else []
            unknown += ["--field", options["field"]] if unknown and options["field"] else []
            words = [self.name, options["result"], *unknown, *(part for name, value in options["arguments"].items() for part in (f"--{name.replace('_', '-')}", _word(value)))]
        elif self.name == "verify":
            words = ["verify", *(options["names"] or ["--all"]), "--seed", str(options["seed"]), *(["--full"] if options["effort"] == "full" else [])]
        else:
            words = ["audit" if self.name == "log" else self.name, *(names or [options[key] for key in ("constants", "path") if options.get(key)])]
            words += [part for role, column in roles(options.get("fields")).items() for part in ("--field", f"{role}={column}")]
            for name, value in options.items():
                if name not in ("constants", "path", "fields") and value != self.defaults.get(name) and value is not None:
                    words += [f"--{'no-' if value is False else ''}{name.replace('_', '-')}", *([] if isinstance(value, bool) else [_word(value)])]
        return shlex.join(["lawbook", *words])


@dataclass(frozen=True)
class Setting:
    """What a job works with besides its options."""

    say: Callable = lambda done=None, total=None, text="", passing=False, **more: None  # progress; what is passing is shown, but not remembered
    folders: tuple[str, ...] = ()
    records: Any = None  # of verdicts


@dataclass(frozen=True)
class Verdicts:
    """What a round of trials says."""

    verdicts: list = field(default_factory=list)

    def to_dict(self):
        statuses = [v.status for v in self.verdicts]
        return {"counts": {s: statuses.count(s) for s in dict.fromkeys(statuses)}, "verdicts": [v.to_dict() for v in self.verdicts]}


def _word(value):
    from ..contract.encoding import dumps

    return value if isinstance(value, str) else dumps(value)


def _run(options, paths, setting):
    from .run import run

    return run(options["result"], options["arguments"], progress=lambda done, total: setting.say(done, total, "points"))


def _solve(options, paths, setting):
    from .solve import solve

    return solve(options["result"], options["unknown"], target=options["target"], field=options["field"], arguments=options["arguments"])


def _verify(options, paths, setting):
    from .verify import trials_of, verify

    total, finished = len(trials_of(options["names"])), 0
    setting.say(0, total, "trials begin")

    def drawn(trial, done, planned):
        counted = (done, planned) if total == 1 else (finished, total)
        setting.say(*counted, f"{trial.id}: {done:,} of {planned:,} draws", passing=True)

    def arrived(done, total, verdict):
        nonlocal finished
        finished = done
        setting.say(done, total, f"{verdict.id}: {verdict.status}", verdict={"id": verdict.id, "status": verdict.status, "reason": verdict.reason})

    # of one trial the reader wants a new hearing; a round of many goes on where it was interrupted
    resume = total > 1 and not options["fresh"]
    return Verdicts(verify(*options["names"], seed=options["seed"], effort=options["effort"], resume=resume, records=setting.records, progress=arrived, drawn=drawn))


def _fit(options, paths, setting):
    from ..artifacts import datasets
    from ..artifacts.tables import read_curves, read_runs
    from .fit import fit

    setting.say(text="reading the table")
    table = read_runs(paths[0]) if len(paths) == 1 else read_runs(datasets.load("ladder")) if not paths else None
    if table is None or table.is_curve:
        table = read_curves(paths)
    if not paths:
        table.say("no table given: fitted to lawbook's own ladder of training runs")
    setting.say(text=f"{len(table):,} rows read")
    done = []

    def progress(name):
        done.append(name)
        setting.say(len(done), None, f"fitted {name}")

    return fit(table, progress=progress, **options)


def _plan(options, paths, setting):
    from .plan import plan

    setting.say(text="planning")
    source = paths[0] if paths else options["constants"]
    return plan(source, **{name: value for name, value in options.items() if name != "constants"})


def _audit(options, paths, setting):
    from .audit import audit

    path = allowed_path(options["path"], setting.folders)
    everything_inside(path, setting.folders)
    given = {name: value for name, value in options.items() if name != "path" and value is not None}
    return audit(path, progress=lambda done, total, name: setting.say(done, total, name or "taken over from an earlier audit"), **given)


def _log(options, paths, setting):
    from .audit_log import audit_log

    path = paths[0] if paths else options["path"] and allowed_path(options["path"], setting.folders)
    if not path:
        raise LawbookError("A log must be uploaded, or path must name one inside one of the folders named when the server was started.")
    given = {name: value for name, value in options.items() if name not in ("path", "fields") and value is not None}
    return audit_log(path, fields=roles(options["fields"]) or None, progress=setting.say, **given)


def roles(text):
    """Roles and their columns out of "role=column, role=column"; LawbookError where it is written otherwise."""
    found = {}
    for part in filter(None, map(str.strip, (text or "").split(","))):
        role, _, column = map(str.strip, part.partition("="))
        if not role or not column:
            raise LawbookError(f"fields must be written role=column, with commas between; it was {text!r}.")
        found[role] = column
    return found


def allowed_path(path, folders):
    """The Path that `path` names once all links are followed. LawbookError where it is outside `folders`, in the same words whether it exists or not."""
    for folder in folders:
        try:
            root = Path(folder).resolve(strict=True)
            found = Path(path).resolve(strict=True) if Path(path).is_absolute() else (root / path).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            continue
        if found.is_relative_to(root):
            return found
    raise LawbookError(f"{NOT_A_PLACE} ({', '.join(map(str, folders)) or 'it was started without any'}); it was {path!r}.")


def everything_inside(path, folders):
    """LawbookError where a link in this folder, or beside this file, leads out of `folders`: readers follow links."""
    roots = [Path(folder).resolve() for folder in folders]
    for entry in path.rglob("*") if path.is_dir() else path.parent.glob("*"):
        if entry.is_symlink() and (entry.is_dir() or not any(entry.resolve().is_relative_to(root) for root in roots)):
            raise LawbookError(f"{NOT_A_PLACE}; {entry.name!r} in it is a link to another folder or out of them.")


_seed = seed_quantity()
_number = optional(positive())

KINDS = {
    kind.name: kind
    for kind in (
        Kind("run", "Evaluate a result", {"result": text(), "arguments": text()}, {"arguments": {}}, _run),
        Kind("solve", "Solve a result", {"result": text(), "unknown": text(), "target": text(), "field": text(), "arguments": text()}, {"field": None, "arguments": {}}, _solve),
        Kind(
            "verify",
            "Put claims on trial",
            {
                "names": listing(text(), doc="papers, trials or results (SLUG, SLUG.TRIAL or SLUG.RESULT); the whole book without any", example=["rope-base-region"]),
                "effort": choice("quick", "full", doc="seconds or minutes"),
                "seed": _seed,
                "fresh": flag(doc="hold every trial again, even where a verdict is kept"),
            },
            {"names": [], "effort": "quick", "seed": 0, "fresh": False},
            _verify,
            resumes=True,
        ),
        Kind(
            "fit",
            "Fit laws to a table of runs",
            {
                "law": optional(text(doc="only this law (SLUG.RESULT); all that apply by default")),
                "holdout": probability(below=True, doc="share of the rows, the dearest by compute, that is held out"),
                "drop_highest": integer(low=0, doc="leave out this many rows with the highest observations"),
                "bootstrap": integer(low=0, high=10_000, doc="resamples for the intervals of parameters"),
                "resampling": choice("pairs", "residual", "group", doc="what is resampled: rows, residuals, or rows by a column"),
                "by": optional(text(doc="rows with the same entry in this column are resampled together")),
                "profile": flag(doc="profile-likelihood intervals beside those of the bootstrap"),
                "huber_delta": positive(infinite=True, doc="threshold of the Huber loss on (log) residuals; inf: squares"),
                "quantile": probability(above=True, below=True, doc="below a half the law runs along the lower edge of the observations"),
                "starts": count(high=100_000, doc="starting points of each fit"),
                "seed": _seed,
            },
            {
                "law": None,
                "holdout": 0.2,
                "drop_highest": 0,
                "bootstrap": 200,
                "resampling": "pairs",
                "by": None,
                "profile": False,
                "huber_delta": 1e-3,
                "quantile": 0.5,
                "starts": 1024,
                "seed": 0,
            },
            _fit,
            uploads=20,
        ),
        Kind(
            "plan",
            "Plan a training run",
            {
                "constants": choice(*CONSTANTS, doc="published constants, where no table is given"),
                "compute": optional(positive("FLOP", doc="training budget", example=1e24)),
                "gpu_hours": optional(positive("hours", doc="budget in hours of the device at the utilization")),
                "money": optional(positive(doc="budget in the currency of price_per_gpu_hour")),
                "price_per_gpu_hour": _number,
                "days": optional(positive("days", doc="budget in days on a number of devices")),
                "devices": optional(count(doc="how many devices work side by side")),
                "device": text(doc="accelerator"),
                "utilization": probability(above=True, doc="share of the device's bf16 peak that training reaches"),
                "target_loss": optional(positive("nats", doc="reach this loss at the least cost")),
                "inference_tokens": positive("tokens", above=False, doc="tokens served over the model's life; their cost is part of the budget"),
                "max_params": optional(positive("params", doc="largest model allowed")),
                "max_tokens": optional(positive("tokens", doc="data available")),
                "max_epochs": positive(low=1, above=False, doc="how often the data of max_tokens may be passed over"),
                "learning_rate": optional(positive(high=1, doc="peak rate of the weight matrices; with it the plan gives weight decay")),
                "seed": _seed,
            },
            {
                "constants": "epoch",
                **dict.fromkeys(("compute", "gpu_hours", "money", "price_per_gpu_hour", "days", "devices")),
                "device": "H100-SXM",
                "utilization": 0.4,
                "target_loss": None,
                "inference_tokens": 0,
                "max_params": None,
                "max_tokens": None,
                "max_epochs": 1,
                "learning_rate": None,
                "seed": 0,
            },
            _plan,
            uploads=1,
        ),
        Kind(
            "audit",
            "Audit a model",
            {
                "path": text(doc="a model's folder, config.json, .safetensors or .gguf file, inside the folders named when the server was started"),
                "only": optional(choice("config", "weights", doc="both, as far as the path holds them, by default")),
                "bits": positive("bits", low=2, high=16, above=False, doc="average width of a weight that is shared out over the layers"),
                "decompose": flag(doc="also thin pairs of matrices"),
                "device": text(doc="accelerator"),
                "count": count("devices", doc="how many devices share the work"),
                "batch_size": count("sequences", doc="sequences served at once"),
                "context_length": optional(count("tokens", doc="length of the context; the model's own by default")),
                "prompt_length": optional(count("tokens", doc="length of the prompt; the context length by default")),
                "output_tokens": count("tokens", doc="tokens that are answered"),
                "dtype": optional(text(doc="what weights are stored in, such as bf16 or int4; the config's own by default")),
                "kv_dtype": optional(text(doc="what the KV cache is stored in")),
                "compute_dtype": optional(text(doc="what is computed in")),
                "acceptance_rate": optional(probability(doc="of a drafted token, for speculative decoding")),
                "draft_params": optional(positive("params", doc="size of the draft model")),
                "host_link": optional(positive("bytes/s", doc="between the host and each device; the device's own by default")),
                "host_memory": optional(positive("bytes", doc="memory of the host, for offloaded experts")),
            },
            {
                "only": None,
                "bits": 4.0,
                "decompose": True,
                "device": "H100-SXM",
                "count": 1,
                "batch_size": 1,
                "output_tokens": 256,
                **dict.fromkeys(("context_length", "prompt_length", "dtype", "kv_dtype", "compute_dtype", "acceptance_rate", "draft_params", "host_link", "host_memory")),
            },
            _audit,
            resumes=True,
        ),
        Kind(
            "log",
            "Audit a log",
            {
                "path": optional(text(doc="a log inside the folders named when the server was started, where none is uploaded")),
                "kind": optional(text(doc="what it holds, where that is not recognised: judgments, samples, tokens, training, logits, records, ...")),
                "fields": optional(text(doc="columns for roles, such as sensitive=sex, prediction=income; columns of a file without a header by their numbers")),
                "encoding": optional(text(doc="of a file that is not UTF-8, such as latin-1")),
                "threshold": probability(above=True, doc="score from which on a sample counts as correct"),
                "renormalise": flag(doc="divide probabilities that do not sum to one by their sum"),
                "drop": flag(doc="leave out rows that hold NaN"),
                "level": probability(low=0.5, below=True, doc="of the intervals"),
                "group_size": optional(count("samples", low=2, doc="samples of a prompt that are rewarded together")),
                "momentum": optional(probability(below=True, doc="of the optimiser of a training run")),
                "lag": optional(count("steps", low=0, doc="by which the gradients of a training run are late")),
                "refresh_interval": optional(count("steps", doc="between two renewals of the sampling policy")),
                "target_error": optional(probability(doc="that answers may have, for answer or abstain")),
                "outcome_low": optional(real(doc="least outcome that is possible, for effects of a treatment")),
                "outcome_high": optional(real(doc="largest outcome that is possible")),
                "seed": _seed,
            },
            {
                "threshold": 0.5,
                "renormalise": False,
                "drop": False,
                "level": 0.95,
                "seed": 0,
                **dict.fromkeys(("path", "kind", "fields", "encoding", "group_size", "momentum", "lag", "refresh_interval", "target_error", "outcome_low", "outcome_high")),
            },
            _log,
            uploads=1,
            resumes=True,
        ),
    )
}


def kind_of(name):
    """The Kind by name; UnknownName without it."""
    if name not in KINDS:
        raise UnknownName("kind of job", name, KINDS)
    return KINDS[name]


def prepared(name, given, folders=()):
    """Options of a job, as far as they can be checked before it begins."""
    kind = kind_of(name)
    if name in ("run", "solve"):
        return _of_a_result(kind, given)
    options = kind.bind(given)
    if name == "verify":
        from .verify import trials_of

        trials_of(options["names"])
    if name == "fit" and options["law"]:
        catalogue.result(options["law"])
    if name == "log":
        roles(options["fields"])
    if options.get("path"):
        allowed_path(options["path"], folders)
    return options


def _of_a_result(kind, given):
    """Options of a job about one result; its arguments are read when they are used, as they may be sweeps."""
    given = {**kind.defaults, **given}
    for name in given:
        if name not in kind.options:
            raise UnknownName(f"option of {kind.name}", name, kind.options)
    missing = [name for name in kind.options if name not in given]
    if missing:
        raise LawbookError(f"{kind.name} needs {', '.join(missing)}.")
    if not isinstance(given["result"], str) or not isinstance(given["arguments"], dict):
        raise LawbookError(f"{kind.name} takes a result, written SLUG.RESULT, and arguments, an object from names to values.")
    found = catalogue.result(given["result"])
    for name in (*given["arguments"], *([given["unknown"]] if kind.name == "solve" else [])):
        if name not in found.arguments:
            raise UnknownName(f"argument of {found.id}", name, found.arguments)
    return {**given, "result": found.id}
