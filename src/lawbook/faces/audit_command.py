"""`lawbook audit`: what serving a model costs and what its weights say; what a log lets anyone conclude."""

import click
from click.core import ParameterSource

from ..contract import LawbookError

COLUMNS = ("name", "rows", "columns", "alpha", "stable_rank", "kappa", "rank_90", "spikes", "bits", "kappa_order")  # of the layers, in the shell; JSON has all
MOST_LAYERS = 60
LOGS = {"kind", "fields", "encoding", "threshold", "renormalise", "drop", "level", "group_size", "momentum", "lag", "refresh_interval", "target_error", "alpha"}
LOGS |= {"outcome_low", "outcome_high", "weights", "green", "embedder", "seed"}  # options for logs alone


@click.command()
@click.argument("path", type=click.Path())
@click.option("--only", type=click.Choice(["config", "weights"]), help="One of the two parts; both by default, as far as PATH holds them.")
@click.option("--device", default="H100-SXM", show_default=True, help="Device that serves the model, such as h100, a100-80, rtx-4090, mi300x or m3-max.")
@click.option("--count", default="1", show_default=True, help="Devices that share the work.")
@click.option("--dtype", help="What weights are stored in: bf16, fp8, int8, int4, ...; the config's own by default.")
@click.option("--kv-dtype", help="What the KV cache is stored in.")
@click.option("--compute-dtype", help="What is computed in.")
@click.option("--batch-size", default="1", show_default=True)
@click.option("--context-length", help="Tokens in the cache of each sequence, such as 128Ki; the model's own by default.")
@click.option("--prompt-length", help="Tokens of the prompt; the context length by default.")
@click.option("--output-tokens", default="256", show_default=True)
@click.option("--acceptance-rate", type=float, help="Of a drafted token, for speculative decoding.")
@click.option("--draft-params", help="Size of the draft model.")
@click.option("--host-link", help="Bytes per second between the host and each device; the device's own by default.")
@click.option("--host-memory", help="Memory of the host, for offloaded experts, such as 512GB.")
@click.option("--bits", type=float, default=4.0, show_default=True, help="Budget of the bit allocation over the weights, an average per weight.")
@click.option("--decompose/--no-decompose", default=True, show_default=True, help="Thin pairs of matrices by the three decompositions too, which takes longer than all the rest.")
@click.option("--fresh", is_flag=True, help="Measure every tensor, or count every sample, again, even where an earlier audit kept it.")
@click.option("--kind", help="What a log holds, where it is not recognised: judgments, samples, tokens, training, logits, embeddings, texts, rewards, evidence, records, ...")
@click.option("--field", "fields", multiple=True, metavar="ROLE=COLUMN", help="Column of a log for a role, by name or by number from 1; may be repeated.")
@click.option("--encoding", help="Of a log that is not UTF-8, such as latin-1.")
@click.option("--threshold", type=float, help="Score from which on a sample of a log counts as correct; .5 by default.")
@click.option("--renormalise", is_flag=True, help="Divide probabilities of a log that do not sum to one by their sum.")
@click.option("--drop", is_flag=True, help="Leave out rows of a log that hold NaN.")
@click.option("--level", type=float, help="Of the intervals for a log; .95 by default.")
@click.option("--group-size", type=int, help="Samples of a prompt that are rewarded together.")
@click.option("--momentum", type=float, help="Of the optimiser of a training run.")
@click.option("--lag", type=int, help="Steps by which the gradients of a training run are late.")
@click.option("--refresh-interval", type=int, help="Steps between two renewals of the sampling policy.")
@click.option("--target-error", type=float, help="That answers may have, for answer or abstain; .05 by default.")
@click.option("--alpha", type=float, help="Level of tests over all texts of a log; .01 by default.")
@click.option("--outcome-low", type=float, help="Least outcome that is possible, for effects of a treatment.")
@click.option("--outcome-high", type=float, help="Largest outcome that is possible.")
@click.option("--weight", "weights", multiple=True, metavar="HEAD=WEIGHT", help="Weight of a reward head; may be repeated.")
@click.option("--green", type=click.Path(dir_okay=False), help="Mask over the vocabulary (.npy) that a watermark prefers.")
@click.option("--embedder", type=click.Path(file_okay=False), help="Folder of a sentence-embedding model for texts.")
@click.option("--seed", type=int, help="Of splits and resamples for a log.")
@click.option("--report", type=click.Path(dir_okay=False), help="Write one self-contained HTML page.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_context
def audit(context, path, fresh, report, form, fields, weights, **setting):
    """Audit a config.json, a model folder, a .safetensors or .gguf file, or a log.

    From the configuration: bytes of weights and cache, time at the roofline, the best that anyone could reach, and what each saving would buy. From the weights: heavy tails,
    condition numbers, bit allocation, low rank, and the layers that stand out. Tensors are read one at a time; an interrupted audit goes on where it stopped.

    From a log (JSON lines, CSV, Parquet, NumPy) of judgments, samples, log-probabilities, logits, rewards, embeddings, texts, records or a training curve: every measure that
    applies, with its uncertainty, or the reason why this log does not tell.
    """
    from ..contract.encoding import dumps
    from ..jobs.audit import audit as make
    from ..jobs.audit import is_log
    from ..jobs.audit_log import LogAudit
    from .cli import Interrupted, bar, command_line, say

    setting |= {"fields": pairs("field", fields) or None, "weights": pairs("weight", weights, float) or None}
    if is_log(path, setting):  # defaults are those of models
        setting = {name: value for name, value in setting.items() if name in ("fields", "weights") or context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    else:
        setting = {name: value for name, value in setting.items() if name not in LOGS or value}

    try:
        with bar("auditing", None) as progress:
            made = make(path, resume=not fresh, progress=progress, **setting)
    except KeyboardInterrupt:
        kept = "what was counted of samples is kept" if is_log(path, setting) else "what was measured is kept"
        raise Interrupted(f"Interrupted; {kept}, and the same command goes on from there.") from None
    if report:
        from .report import write_audit

        write_audit(made, report, command_line())
        say(f"report written to {report}")
    if form == "json":
        click.echo(dumps(made.to_dict()))
        return
    if isinstance(made, LogAudit):
        _print_log(made)
        return
    for sentence in made.left_out:
        say(sentence)
    if made.config:
        _print_config(made.config)
    if made.weights:
        _print_weights(made.weights)


def pairs(option, given, read=str):
    """NAME=VALUE, as often as given, as a dict; LawbookError names what cannot be read."""
    found = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            found[name.strip()] = read(value.strip()) if name.strip() and value.strip() else int("")
        except ValueError:
            raise LawbookError(f"--{option} takes {'ROLE=COLUMN' if option == 'field' else 'HEAD=WEIGHT'}; it was {text!r}.") from None
    return found


def _print_log(found):
    from .cli import print_table, say

    for sentence in found.faults:
        say(f"caution: {sentence}")
    click.echo(" ".join(found.summary))
    for section in found.sections:
        known = [m for m in found.measures if m.section == section and m.trusted]
        click.echo(f"\n{section}")
        if known:
            columns = {"": "name", "value": "value", f"low ({100 * found.level:g} %)": "low", "high": "high", "unit": "unit", "corrected": "corrected", "source": "source"}
            if all(m.corrected is None for m in known):
                del columns["corrected"]
            print_table({title: [getattr(m, name) for m in known] for title, name in columns.items()})
        for m in found.measures:
            if m.section == section and not m.trusted:
                click.echo(f"{m.name}: not to be trusted here. {m.meaning}")
    for title, columns in found.tables.items():
        click.echo(f"\n{title}")
        print_table(columns)
    click.echo("")
    for sentence in found.said:
        click.echo(sentence)


def _print_config(found):
    from .cli import print_table, say

    for sentence in found.warnings:
        say(f"caution: {sentence}")
    model = found.architecture
    click.echo(
        f"{model.name}: {model.params:,} params"
        + (f", {model.active_params:,} active" if model.active_params != model.params else "")
        + f" on {found.setting['count']} x {found.device.name}"
    )
    entries = found.quantities
    print_table(
        {"": list(entries), "value": [q["value"] for q in entries.values()], "unit": [q["unit"] for q in entries.values()], "source": [q["source"] for q in entries.values()]}
    )
    for title, columns in found.tables().items():
        if columns:
            click.echo(f"\n{title}")
            print_table(columns)
    click.echo("")
    for sentence in [*found.sentences, *found.notes]:
        click.echo(sentence)


def _print_weights(found):
    from .cli import print_table

    columns = found.columns()
    if columns:
        rows = range(len(found.layers))[:MOST_LAYERS]
        click.echo("")
        print_table({name: [columns[name][i] for i in rows] for name in COLUMNS})
        if len(found.layers) > MOST_LAYERS:
            click.echo(f"{len(found.layers) - MOST_LAYERS} more matrices: --format json or --report shows all")
    if found.pairs:
        click.echo("\npairs of matrices, thinned together: share of the squared output lost")
        print_table({name: [row[name] for row in found.pairs] for name in found.pairs[0]})
    for sentence in found.remarks():
        click.echo(sentence)
    if not columns and not found.faults:
        raise LawbookError(f"There are no matrices in {found.path}.")
