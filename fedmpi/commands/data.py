"""``fedmpi data``."""

import json

import click

from fedmpi.commands.runs import check_parts
from fedmpi.commands.given import Options, data_options
from fedmpi.launcher import rank_and_size
from fedmpi.options import DEFAULTS
from fedmpi.wide import terminal_width


@click.command(cls=Options)
@data_options
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@click.option("--picture", type=click.Path(dir_okay=False), help="Also write a heat map as .png, .svg or .pdf.")
def data(as_json, picture, **given):
    """Who holds which samples, before any training: a line a client, how far labels are skewed, what is wrong with
    whom. The same options and seed give train the same data."""
    if rank_and_size()[0]:
        return
    check_parts(given)
    from fedmpi import report
    if picture:
        report.picture_kind(picture)
    from fedmpi import assemble
    options = DEFAULTS | {key: value for key, value in given.items() if value is not None}
    dealt = assemble.federation(options)
    found = report.described(dealt, assemble.population(dealt, options), options)
    if picture:
        report.save_partition(found, picture)
    if as_json:
        click.echo(json.dumps(report.plain(found)))
    else:
        width = terminal_width()
        click.echo(report.partition_text(found, width) + "\n\n" + report.partition_picture(found, width))
        if picture:
            click.echo(f"\npicture: {picture}")
