"""Files of what clients keep: one a client and round, beside the run file, written once and read when wanted.

A run that is killed loses none that a checkpoint names: a file has its name only once it is whole, and goes only when
no checkpoint that is kept names it any more."""

import os
import re

import numpy as np

from fedmpi.core.errors import CheckpointError
from fedmpi.store.disk import refused_by, remove

NAME = re.compile(r"(\d{6,})-(\d{6,})\.npz")


class Shelf:
    """The files in ``folder``, of states that arrays make up: ``{name: numpy array}``."""

    def __init__(self, folder):
        self.folder = folder

    def write(self, client, t, arrays):
        """Keep the state of a client after round ``t``. DiskError where there is no room."""
        path = self._path(client, t)
        with refused_by(self.folder):
            os.makedirs(self.folder, exist_ok=True)
            with open(path + ".tmp", "wb") as file:
                np.savez(file, **arrays)
            os.replace(path + ".tmp", path)

    def read(self, client, t):
        """The state of a client after round ``t``. CheckpointError where its file is missing or damaged."""
        path = self._path(client, t)
        try:
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise CheckpointError(f"what client {client} kept in round {t} cannot be read: {error}") from error

    def sweep(self, live, after=None):
        """Remove all files but those of the pairs ``live`` of (client, round); with ``after`` only those of later
        rounds."""
        if not os.path.isdir(self.folder):
            return
        gone, names = [], os.listdir(self.folder)
        for name in names:
            match = NAME.fullmatch(name)
            if not match:
                gone += [name] * name.endswith(".tmp")
                continue
            client, t = int(match[1]), int(match[2])
            if (client, t) not in live and (after is None or t > after):
                gone.append(name)
        remove(self.folder, gone)
        if len(gone) == len(names):
            os.rmdir(self.folder)

    def _path(self, client, t):
        return os.path.join(self.folder, f"{client:06d}-{t:06d}.npz")


def shelf_folder(path):
    """Where the files of the run file ``path`` lie."""
    return os.path.splitext(os.path.realpath(path))[0] + ".clients"
