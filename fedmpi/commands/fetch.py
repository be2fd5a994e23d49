"""``fedmpi fetch``."""

import click

from fedmpi.run.launcher import rank_and_size


@click.command(short_help="Download or unpack a data set, once.")
@click.argument("name")
@click.option("--data-dir", default="data", show_default=True, help="Where to put it.")
def fetch(name, data_dir):
    """Download the data set NAME, or unpack it where its archives already lie in the folder. Once,
    never by training."""
    from fedmpi.methods.datasets.fetch import fetch as download
    rank, _ = rank_and_size()
    # Under a launcher every rank runs this command: one download is enough.
    if rank == 0:
        download(name, data_dir)
        click.echo(f"{name} is in {data_dir}")
