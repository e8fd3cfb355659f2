"""`lawbook audit`: what serving a model costs, and what its weights say."""

import click

from ..contract import LawbookError

COLUMNS = ("name", "rows", "columns", "alpha", "stable_rank", "kappa", "rank_90", "spikes", "bits", "kappa_order")  # of the layers, in the shell; JSON has all
MOST_LAYERS = 60


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
@click.option("--fresh", is_flag=True, help="Measure every tensor again, even where an earlier audit kept it.")
@click.option("--report", type=click.Path(dir_okay=False), help="Write one self-contained HTML page.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def audit(path, only, bits, decompose, fresh, report, form, **setting):
    """Audit a config.json, a model folder, or a .safetensors or .gguf file.

    From the configuration: bytes of weights and cache, time at the roofline, the best that anyone could reach, and what each saving would buy. From the weights: heavy tails,
    condition numbers, bit allocation, low rank, and the layers that stand out. Tensors are read one at a time; an interrupted audit goes on where it stopped.
    """
    from ..contract.encoding import dumps
    from ..jobs.audit import audit as make
    from .cli import Interrupted, bar, command_line, say

    try:
        with bar("auditing", None) as progress:
            made = make(path, only=only, bits=bits, decompose=decompose, resume=not fresh, progress=progress, **setting)
    except KeyboardInterrupt:
        raise Interrupted("Interrupted; what was measured is kept, and the same command goes on from there.") from None
    if report:
        from .report import write_audit

        write_audit(made, report, command_line())
        say(f"report written to {report}")
    if form == "json":
        click.echo(dumps(made.to_dict()))
        return
    for sentence in made.left_out:
        say(sentence)
    if made.config:
        _print_config(made.config)
    if made.weights:
        _print_weights(made.weights)


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
