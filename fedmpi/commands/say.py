"""Lines to the terminal, and a command's output."""

import contextlib
import sys

from fedmpi.commands.streams import write
from fedmpi.core.errors import DiskError
from fedmpi.run.launcher import speaks


def naming(path):
    """A ``say`` that first names the run file, so that it can be watched from the start."""
    # Once, before the first line.
    named = []

    def tell(line):
        if not named:
            named.append(path)
            say(f"run file: {path}")
        say(line)

    return tell


def say(line):
    """Say one line about the progress, at once, from rank 0.

    An unwritable line is lost, and nothing else: a run outlives the terminal, the reader and the
    room on the disk of its log."""
    # Lines of 33 ranks would be the same ones.
    if speaks():
        with contextlib.suppress(OSError):
            write(sys.stderr, f"{line}\n")


def write_out(text):
    """Writes a command's output; whether somebody can still read it. DiskError if it cannot be
    written."""
    try:
        return write(sys.stdout, f"{text}\n")
    except OSError as error:
        raise DiskError(f"cannot write what comes out: {error.strerror}") from error
