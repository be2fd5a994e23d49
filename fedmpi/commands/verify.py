"""``fedmpi verify``."""

import click

from fedmpi.commands import completion
from fedmpi.commands.say import write_out


@click.command()
@click.argument("a", type=click.Path(dir_okay=False), shell_complete=completion.files(".h5"))
@click.argument("b", type=click.Path(dir_okay=False), shell_complete=completion.files(".h5"))
def verify(a, b):
    """Whether runs A and B agree in every bit that does not depend on the machine; exit code 1 where they differ."""
    from fedmpi.store import verify as compare
    lines = compare(a, b)
    write_out("\n".join(lines) if lines else "the runs agree in every recorded number that is not a time")
    return 1 if lines else 0
