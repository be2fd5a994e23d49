"""``fedmpi data``."""

import json

import click

from fedmpi.build.options import opened
from fedmpi.commands.run_options import Options, data_options
from fedmpi.commands.runs import check_parts
from fedmpi.commands.say import write_out
from fedmpi.core.wide import terminal_width, wrapped
from fedmpi.run.launcher import speaks


@click.command(cls=Options, short_help="Who holds which samples, before any training.")
@data_options
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.option(
    "--picture", type=click.Path(dir_okay=False),
    help="Also write a heat map as .png, .svg or .pdf.")
def data(as_json, picture, **flags):
    """Who holds which samples, before any training: a line a client, how far labels are skewed,
    what is wrong with whom. The same options and seed give train the same data."""
    # Under a launcher every rank runs this command: one speaks.
    if not speaks():
        return
    check_parts(flags)
    from fedmpi.read import report
    if picture:
        report.picture_kind(picture)
    from fedmpi.build.federation import federation
    from fedmpi.build.parts import of_data
    from fedmpi.build.population import data_lines, population
    # No model is trained here: whole numbers are not taken for ids of one that has an embedding.
    options, parts = of_data(opened(flags))
    dealt = federation(options, parts)
    clients = population(options, dealt)
    description = report.described(dealt, clients, options)
    if picture:
        report.save_partition(description, picture)
    if as_json:
        plain = report.plain(description)
        write_out(json.dumps(plain))
        return
    width = terminal_width()
    for line in data_lines(options, dealt):
        write_out("\n".join(wrapped(line, width, "  ")))
    text = report.partition_text(description, width)
    drawn = report.partition_picture(description, width)
    write_out(f"{text}\n\n{drawn}")
    if picture:
        write_out(f"\npicture: {picture}")
