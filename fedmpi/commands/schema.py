"""``fedmpi schema``: the contents of a run file, and their places."""

import click

from fedmpi.commands.reading import one_run
from fedmpi.core.wide import aligned, labelled, reflowed, terminal_width, wrapped
from fedmpi.core.words import plural

TABLES = ("rounds", "clients", "own", "population")


@click.command(short_help="The schema of run files, or of one of them.")
@click.argument("run", required=False, metavar="[RUN.h5]")
def schema(run):
    """The schema of run files: every place, attribute and column with its dtype, unit and meaning;
    of RUN.h5, what that file has."""
    if run:
        _of_file(one_run(run))
    else:
        _of_all_files()


def _of_file(path):
    """Print what the run file has."""
    from fedmpi.store import read_run
    from fedmpi.store.schema import ATTRIBUTES, NETCDF
    from fedmpi.store.texts import with_texts
    run = read_run(path, patience_s=1.0)
    number = run.attrs["schema"]
    tables = {}
    for table in TABLES:
        columns = [column for name, column in run.columns.items() if name.startswith(f"{table}/")]
        # Since then, files have texts beside columns of uint64.
        if number >= NETCDF:
            columns = with_texts(columns)
        tables[table] = columns
    about = f"{path}: schema {number}, {plural(len(run.ends), 'round')}"
    lines = wrapped(about, terminal_width(), "  ")
    click.echo("\n".join([*lines, ""]))
    attributes = [(name, ATTRIBUTES.get(name, "")) for name in run.attrs]
    _show_tables(attributes, tables)


def _of_all_files():
    """Print all that a run file of this version may have."""
    from fedmpi.catalog import TASKS
    from fedmpi.plugins.spec import make
    from fedmpi.server import own_accuracy, record
    from fedmpi.store.schema import ATTRIBUTES, PLACES, SCHEMA, TEXT
    from fedmpi.store.texts import with_texts
    # Columns of a task's metrics are shown for the usual one.
    usual = make(TASKS, "classification")
    # NAME stands for that of each estimator.
    rounds = record.round_columns(True, 0, ["NAME"], usual, own=True, working=True)
    clients = record.client_columns(["NAME", "OTHER"])
    tables = {
        "rounds": with_texts(rounds),
        "clients": with_texts(clients),
        "own": own_accuracy.table_columns(),
    }
    width = terminal_width()
    text = reflowed(TEXT.format(number=SCHEMA), width)
    places = labelled(PLACES.items(), width)
    click.echo("\n".join([text, "", *places, ""]))
    _show_tables(ATTRIBUTES.items(), tables)


def _show_tables(attributes, tables):
    """Print the attributes, ``(name, meaning)``, then the columns of each table."""
    width = terminal_width()
    lines = aligned(("attribute", ""), attributes, (0, 1), width)
    click.echo("\n".join(lines))
    for table, columns in tables.items():
        if not columns:
            continue
        rows = [_row(column) for column in columns]
        head = (f"/{table}", "dtype", "unit", "machine", "")
        lines = aligned(head, rows, (0, 1, 2, 3, 4), width)
        click.echo("\n" + "\n".join(lines))


def _row(column):
    machine = "yes" if column.machine else ""
    return column.name, _kind(column), column.unit, machine, column.description


def _kind(column):
    if column.names:
        return f"enum {column.dtype}"
    return column.dtype
