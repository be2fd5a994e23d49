"""Lines to the terminal."""

import sys

import click

from fedmpi.launcher import rank_and_size


def say(line):
    """One line to the terminal, at once, from rank 0."""
    if rank_and_size()[0] == 0:
        click.echo(line, err=True)
        sys.stderr.flush()
