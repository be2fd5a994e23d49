"""Lines to the terminal."""

import sys

import click

from fedmpi.launcher import rank_and_size


def naming(path):
    """A ``say`` whose first line is preceded by one that names the run file, so that it can be
    watched from the start."""
    named = []

    def tell(line):
        if not named:
            named.append(path)
            say(f"run file: {path}")
        say(line)

    return tell


def say(line):
    """One line to the terminal, at once, from rank 0."""
    if rank_and_size()[0] == 0:
        click.echo(line, err=True)
        sys.stderr.flush()
