"""``fedmpi export``: run files for other programs."""

import click

from fedmpi.commands.reading import run_paths, runs_argument
from fedmpi.commands.target import check_new
from fedmpi.core.errors import UserError


@click.command()
@runs_argument
@click.option(
    "--to", "place", required=True, metavar="FOLDER|FILE",
    help="A folder, which gets one for each run; or a file .csv or .parquet for one table, of all "
         "runs.")
@click.option(
    "--format", "kind", type=click.Choice(["csv", "parquet", "tensorboard"]),
    help="Of a folder.  [default: csv]")
@click.option(
    "--table", type=click.Choice(["rounds", "clients", "layers", "events", "population"]),
    help="Which one, to a file.  [default: rounds]")
@click.option("--overwrite", is_flag=True, help="Replace what an earlier export has left there.")
def export(runs, place, kind, table, overwrite):
    """Runs as CSV, Parquet or TensorBoard's event files.

    \b
    fedmpi export a.h5 b.h5 --to table.csv
        rounds of both, with a column for the run
    fedmpi export a.h5 --to out --format parquet
        out/a/rounds.parquet, clients.parquet, ...
    fedmpi export runs/*.h5 --to logs --format tensorboard
        then: tensorboard --logdir logs
    """
    from fedmpi.read import export as writing
    runs = run_paths(runs)
    # A file is known by its ending.
    kind, is_file = writing.kind_of(place, kind)
    if table and not is_file:
        raise UserError(
            f"--table goes with a file .csv or .parquet; the folder {place} gets all tables")
    if is_file:
        check_new(place, overwrite)
        click.echo(writing.to_file(runs, place, table or "rounds"))
        return
    for line in writing.to_folder(runs, place, kind, overwrite):
        click.echo(line)
