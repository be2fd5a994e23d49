"""``fedmpi export-model`` and ``fedmpi model``: the trained model of a run."""

import json
import os

import click

from fedmpi.commands.reading import one_run, run_argument
from fedmpi.commands.target import check_new
from fedmpi.core.errors import UserError
from fedmpi.core.wide import aligned, terminal_width, wrapped

ROUND = click.option(
    "--round", type=click.IntRange(0),
    help="After this round; it needs a checkpoint.  [default: the newest one]")


@click.command("export-model", short_help="The trained model and its masks in a safetensors file.")
@run_argument("run")
@click.option(
    "--out", type=click.Path(), required=True, metavar="MODEL.safetensors")
@ROUND
@click.option(
    "--sparse", is_flag=True, help="Kept weights only, and a bit a weight for where they are.")
@click.option(
    "--adapters-only", is_flag=True,
    help="Of a run with --adapters, these alone: --out is a folder, with the files of peft.")
@click.option("--overwrite", is_flag=True, help="Replace the file where it exists.")
def export_model(run, out, round, sparse, adapters_only, overwrite):
    """The trained model as a torch state dict with its masks, in a safetensors file; options,
    round, accuracy, sparsity and how inputs are normalised are its metadata. Adapters are merged
    into the weights beside them.

    \b
    # dense or sparse
    state, masks = fedmpi.load_model("model.safetensors", masks=True)
    network.load_state_dict(state)

    Without fedmpi, a dense file:

    \b
    tensors = safetensors.torch.load_file("model.safetensors")
    state = {name: each for name, each in tensors.items()
             if not name.endswith(".mask")}

    and of a sparse one each tensor NAME of the metadata's shapes:

    \b
    packed = tensors[NAME + ".mask"].numpy()
    bits = numpy.unpackbits(packed, count=math.prod(shape)).astype(bool)
    weight = torch.zeros(shape)
    weight.view(-1)[torch.from_numpy(bits)] = tensors[NAME + ".values"]
    """
    if adapters_only:
        _export_adapters(run, out, round, sparse, overwrite)
        return
    if not out.endswith(".safetensors"):
        raise UserError(f"{out}: the name must end in .safetensors")
    check_new(out, overwrite)
    from fedmpi.read import trained
    run_file = one_run(run)
    result = trained.trained(run_file, round, _warn)
    trained.write(result, out, sparse)
    form = "sparse" if sparse else "dense"
    num_bytes = os.path.getsize(out)
    click.echo(f"{out}: {summary(result)}; {form}, {num_bytes:,} bytes")


def _export_adapters(run, folder, round, sparse, overwrite):
    """Write the adapters of a run to a folder."""
    if sparse:
        raise UserError("--sparse has no effect on --adapters-only: leave one of them out")
    from fedmpi.read import adapters
    check_new(folder, overwrite)
    result = adapters.trained_adapters(one_run(run), round, _warn)
    if result.left_out:
        names = ", ".join(result.left_out)
        _warn(f"{folder} lacks what the run trained besides: {names}; export the merged model for it")
    adapters.write(result, folder)
    num_values = sum(tensor.numel() for tensor in result.tensors.values())
    click.echo(f"{folder}: {len(result.config['target_modules'])} adapters, {num_values:,} values")


def _warn(line):
    click.echo(f"warning: {line}", err=True)


@click.command(short_help="A trained model layer by layer.")
@run_argument("place", "RUN.h5|MODEL.safetensors")
@ROUND
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def model(place, round, as_json):
    """A trained model layer by layer: kept weights, sparsity, FLOPs of a sample's forward pass,
    bytes in either file that export-model writes."""
    from fedmpi.read import trained
    result = trained_model(place, round)
    rows = trained.by_layer(result)
    if as_json:
        click.echo(json.dumps({"about": result.about, "layers": rows}))
        return
    lines = wrapped(summary(result), terminal_width(), "  ")
    lines.append("")
    lines += _table(rows)
    click.echo("\n".join(lines))


def trained_model(place, round):
    """The ``TrainedModel`` of a run, after ``round`` or the newest, or in a safetensors file."""
    from fedmpi.read import trained
    if not place.endswith(".safetensors"):
        return trained.trained(one_run(place), round, _warn)
    if round is not None:
        raise UserError(f"--round goes with a run file; {place} holds one model")
    return trained.load(place)


def summary(result):
    """The model, its round, headline and sparsity of a ``TrainedModel``, in a line."""
    from fedmpi.read.report.text import measure_text
    about = result.about
    text = f"{about['model']} after round {about['round']}"
    # Files of older versions are of classification.
    name = about.get("headline", "accuracy")
    value = about[name]
    if value is not None:
        word = name.replace("_", " ")
        text += f", test {word} {measure_text(value)}"
    return f"{text}, sparsity {result.sparsity:.4f}"


def _table(rows):
    """The lines of the table of layers."""
    head = (
        "layer",
        "shape",
        "weights",
        "kept",
        "sparsity",
        "FLOPs",
        "of dense",
        "dense file",
        "sparse file",
    )
    texts = [_cells(row) for row in rows]
    return aligned(head, texts, (0, 1), terminal_width())


def _cells(row):
    """The texts of a row, in the order of the head."""
    from fedmpi.read.report.text import human_bytes, human_flops
    # The last row, of all layers, has no shape.
    sizes = row["shape"] or ()
    sparsity = flops = share = "-"
    if row["sparsity"] is not None:
        sparsity = f"{row['sparsity']:.4f}"
    if row["flops"] is not None:
        flops = human_flops(row["flops"])
    if row["flops_dense"]:
        ratio = row["flops"] / row["flops_dense"]
        share = f"{ratio:.3f}"
    return (
        row["layer"],
        " x ".join(map(str, sizes)),
        f"{row['weights']:,}",
        f"{row['kept']:,}",
        sparsity,
        flops,
        share,
        human_bytes(row["dense_bytes"]),
        human_bytes(row["sparse_bytes"]),
    )
