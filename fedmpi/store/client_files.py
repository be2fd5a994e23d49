"""Files of clients' states: one a client and round, beside the run file, written once and read on demand.

A killed run loses no state named by a checkpoint: a file gets its name only once it is whole, and is removed only when
no remaining checkpoint names it."""

import os
import re

import numpy as np

from fedmpi.core.errors import CheckpointError
from fedmpi.store.disk import refused_by, remove

NAME = re.compile(r"(\d{6,})-(\d{6,})\.npz")


class Shelf:
    """The files in ``folder``; a state is ``{name: numpy array}``."""

    def __init__(self, folder):
        self.folder = folder

    def write(self, client, t, arrays):
        """Keep the state of a client after round ``t``. DiskError if the disk is full."""
        path = self.path_of(client, t)
        with refused_by(self.folder):
            os.makedirs(self.folder, exist_ok=True)
            with open(path + ".tmp", "wb") as file:
                np.savez(file, **arrays)
            os.replace(path + ".tmp", path)

    def read(self, client, t):
        """The state of a client after round ``t``. CheckpointError if its file is missing or damaged."""
        path = self.path_of(client, t)
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise CheckpointError(f"what client {client} kept in round {t} cannot be read: {error}") from error

    def sweep(self, live, after=None):
        """Remove all files except the pairs ``live`` of (client, round); with ``after``, only files of later
        rounds."""
        if not os.path.isdir(self.folder):
            return
        names = os.listdir(self.folder)
        unused = [name for name in names if _is_unused(name, live, after)]
        remove(self.folder, unused)
        if len(unused) == len(names):
            os.rmdir(self.folder)

    def path_of(self, client, t):
        """The file of a client's state of round ``t``."""
        name = f"{client:06d}-{t:06d}.npz"
        return os.path.join(self.folder, name)


def _is_unused(name, live, after):
    """Whether ``sweep`` removes the file ``name``. Files of others stay, half-written ones go."""
    match = NAME.fullmatch(name)
    if not match:
        return name.endswith(".tmp")
    client = int(match[1])
    t = int(match[2])
    if (client, t) in live:
        return False
    return after is None or t > after


def shelf_folder(path):
    """The folder for the clients' files of the run file ``path``."""
    return os.path.splitext(os.path.realpath(path))[0] + ".clients"
