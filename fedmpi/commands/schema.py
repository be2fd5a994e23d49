"""``fedmpi schema``: the contents of a run file, and their places."""

import click

from fedmpi.commands.reading import one_run
from fedmpi.core.wide import aligned, labelled, reflowed, terminal_width, wrapped


@click.command()
@click.argument("run", required=False, metavar="[RUN.h5]")
def schema(run):
    """The schema of run files: every place, attribute and column with its dtype, unit and meaning; of RUN.h5, what that
    file has."""
    from fedmpi.store.schema import ATTRIBUTES, NETCDF, PLACES, SCHEMA, TEXT
    from fedmpi.store.texts import with_texts
    width = terminal_width()
    if run:
        from fedmpi.store import read_run
        run = one_run(run)
        found = read_run(run, patience_s=1.0)
        tables = {table: [column for name, column in found.columns.items() if name.startswith(f"{table}/")]
                  for table in ("rounds", "clients", "own", "population")}
        if found.attrs["schema"] >= NETCDF:
            tables = {table: with_texts(columns) for table, columns in tables.items()}
        about = f"{run}: schema {found.attrs['schema']}, {len(found.ends)} rounds"
        click.echo("\n".join([*wrapped(about, width, "  "), ""]))
        known = [(name, ATTRIBUTES.get(name, "")) for name in found.attrs]
    else:
        from fedmpi.catalog import TASKS
        from fedmpi.plugins.spec import make
        from fedmpi.server import own_accuracy, record
        usual = make(TASKS, "classification")
        # NAME stands for that of each estimator.
        rounds = record.round_columns(True, 0, ["NAME"], usual, own=True, working=True)
        tables = {"rounds": with_texts(rounds), "clients": with_texts(record.client_columns(["NAME", "OTHER"])),
                  "own": own_accuracy.table_columns()}
        text = reflowed(TEXT.format(number=SCHEMA), width)
        click.echo("\n".join([text, "", *labelled(PLACES.items(), width), ""]))
        known = ATTRIBUTES.items()
    click.echo("\n".join(aligned(("attribute", ""), known, (0, 1), width)))
    for table, columns in tables.items():
        if not columns:
            continue
        rows = [(column.name, _kind(column), column.unit, "yes" * column.machine, column.description)
                for column in columns]
        lines = aligned((f"/{table}", "dtype", "unit", "machine", ""), rows, (0, 1, 2, 3, 4), width)
        click.echo("\n" + "\n".join(lines))


def _kind(column):
    if column.names:
        return f"enum {column.dtype}"
    return column.dtype
