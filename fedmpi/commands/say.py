"""Lines to the terminal, and what comes out of a command."""

import contextlib
import sys

from fedmpi.commands.streams import write
from fedmpi.core.errors import DiskError
from fedmpi.run.launcher import speaks


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
    """One line about what goes on, at once, from rank 0. A line that cannot be written is lost, and nothing else: a
    run outlives the terminal, the reader and the room on the disk of its log."""
    if speaks():
        with contextlib.suppress(OSError):
            write(sys.stderr, f"{line}\n")


def write_out(text):
    """What a command was asked for; whether somebody can still read it. DiskError where it cannot be written."""
    try:
        return write(sys.stdout, f"{text}\n")
    except OSError as error:
        raise DiskError(f"cannot write what comes out: {error.strerror}") from error
