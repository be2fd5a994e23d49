"""The store in a file: what a run writes, round by round."""

import contextlib
import errno
import fcntl
import glob
import os
import threading
import time
import warnings
from concurrent.futures import Future

import numpy as np

from fedmpi.errors import DiskError, FedError, UserError
from fedmpi.store.attrs import own_attrs, plain, read_sessions, same_keys, set_attrs, set_sessions
from fedmpi.store.checkpoint import checkpoint_folder, load_checkpoint, write_checkpoint
from fedmpi.store.disk import refused_by, rewriting, sync, writing
from fedmpi.store.places import get, place_of, put
from fedmpi.store.read import open_run, read_run
from fedmpi.store.rows import check_truncate, checked_columns, checked_round
from fedmpi.store.tables import (column_of, create_partition, create_tables, describe, growth, resize, room_of,
                                 start_room)

ENDED = ("finished", "stopped", "interrupted", "failed")  # a file with such a status is trimmed to its committed rows


class RunFile:
    """An existing run file, opened for each append and closed again. Rank 0 only, one writer a file.

    Where its rows lie is remembered as long as the file is as it was left, by its inode, size and time."""

    def __init__(self, path, *, patience_s=10.0):
        with open_run(path) as f:
            self.columns = {t: tuple(column_of(f[t][k]) for k in f[t]) for t in ("rounds", "clients")}
            self.run_id = f.attrs["run_id"]
            self._committed = tuple(f["committed"][...].tolist())
            self._room = room_of(f)
        self._left, self._places, self._saving = None, {}, None
        self.path, self.patience_s = os.path.realpath(path), patience_s
        self.folder = checkpoint_folder(self.path)

    @classmethod
    def create(cls, path, attrs, rounds, clients, population, partition):
        """A new run file. ``attrs`` may hold str, int, float, bool, and anything JSON can say; ``population`` maps a
        name to ``(array, unit, description)``; ``partition`` is ``(offsets (N + 1,), indices)``."""
        columns = dict(rounds=checked_columns(rounds), clients=checked_columns(clients))
        check_target(path)
        path = os.path.realpath(path)
        try:
            with writing(path) as f:
                set_attrs(f, own_attrs(attrs))
                create_tables(f, columns)
                for name, (values, unit, description) in population.items():
                    describe(f.create_dataset(f"population/{name}", data=np.asarray(values)), unit, description)
                create_partition(f, *partition)
        except DiskError as error:
            raise UserError(str(error)) from error         # before any work
        return cls(path)

    @property
    def rounds(self):
        """Number of committed rounds."""
        return self._committed[0]

    def append(self, row, client_rows):
        """Adds one round: a row of /rounds, C rows of /clients; ValueError, and no change, if a value does not fit."""
        row, client_rows, num = checked_round(self.columns, row, client_rows)
        t, r = self._committed
        self._make_room(t + 1, r + num)
        with refused_by(self.path), self._opened() as handle:
            for name, value in row.items():
                put(handle, self._places["rounds", name], t, value)
            for name, values in client_rows.items():
                put(handle, self._places["clients", name], r, values)
            put(handle, self._places["ends"], t, r + num)
            put(handle, self._places["committed"], 0, (t + 1, r + num))     # last: now they are there
            self._left = _signature(os.fstat(handle))
        self._committed = t + 1, r + num

    def truncate(self, rounds):
        """Forgets every round but the first ``rounds``."""
        self.settle()
        check_truncate(rounds, self.rounds)
        if rounds == self.rounds:
            return
        with rewriting(self.path) as f:
            self._check_alone(f)
            client_rows = int(f["ends"][rounds - 1]) if rounds else 0
            resize(f, rounds, client_rows)
            resize(f, *self._room)
            f["committed"][...] = self._committed = (rounds, client_rows)

    def update(self, attrs):
        """Sets root attributes, such as ``status`` and ``ended``; a status that ends the run trims the room."""
        self.settle()
        with rewriting(self.path) as f:
            self._check_alone(f)
            set_attrs(f, attrs)
            if attrs.get("status") in ENDED:
                resize(f, *self._committed)
            self._room = room_of(f)

    def add_session(self, session):
        """Adds one row to /sessions: ISO time, ranks, hosts, git commit, command line."""
        self.settle()
        with rewriting(self.path) as f:
            self._check_alone(f)
            set_sessions(f, same_keys([*read_sessions(f), plain(session)]))

    def save(self, state, round, keep=2):
        """Writes the state after ``round`` beside the run file and removes all but the newest ``keep``.

        For the disk a thread waits, which takes no processor: until it is done, or where the process is killed before,
        the checkpoint before is the newest. Whatever else is done with the run, but for appending into room that is
        there, waits for it."""
        self.settle()
        placed = write_checkpoint(self.folder, state, round, run_id=self.run_id, keep=keep)

        def onto_the_disk():
            sync(self.path)  # a power cut must not leave a state without the rows that led to it
            placed()

        self._saving = _later(onto_the_disk)

    def settle(self):
        """Waits until the last ``save`` is on the disk under its name; DiskError where it could not be."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    def load(self, warn=warnings.warn, round=None):
        """``(state, round)`` of the newest checkpoint that is sound, or of the one after ``round``; ``warn`` hears of
        every one that is not."""
        self.settle()
        return load_checkpoint(self.folder, run_id=self.run_id, warn=warn, round=round)

    def run(self):
        """The run so far."""
        self.settle()
        return read_run(self.path)

    @contextlib.contextmanager
    def _opened(self):
        """The file's descriptor, for rows. Somebody else's lock is waited for: a notebook that holds the file, say."""
        give_up = time.monotonic() + self.patience_s
        handle = os.open(self.path, os.O_RDWR)
        try:
            while not _locked(handle):
                if time.monotonic() > give_up:
                    raise UserError(
                        f"{self.path} is locked by another program for more than {self.patience_s:g} s: close it "
                        "there, or let it open the file with h5py.File(path, 'r', locking=False)"
                    )
                time.sleep(0.02)
            as_left = self._left == _signature(os.fstat(handle))
            if not as_left or tuple(get(handle, self._places["committed"])) != self._committed:
                self._look(handle)
            yield handle
        finally:
            os.close(handle)                               # and unlocks it

    def _look(self, handle):
        """Learn where the rows lie, in a file that nobody else has changed."""
        with open_run(self.path) as f:
            self._check_alone(f)
            if not os.path.samestat(os.stat(self.path), os.fstat(handle)):
                raise FedError(f"{self.path} was replaced by another process")
            self._places = {(table, c.name): place_of(f[table][c.name])
                            for table, columns in self.columns.items() for c in columns}
            self._places |= {name: place_of(f[name]) for name in ("ends", "committed")}

    def _make_room(self, rounds, client_rows):
        """Doubles the room that does not suffice: seldom, and cheap beside what fills it."""
        if rounds <= self._room[0] and client_rows <= self._room[1]:
            return
        start = start_room(self.columns)
        need = zip((rounds, client_rows), self._room, start)
        room = [have if n <= have else max(2 * n, first) for n, have, first in need]
        self.settle()                                      # the file is about to be another one
        with open_run(self.path) as f:
            more = growth(f, *room)
        with rewriting(self.path, more) as f:
            self._check_alone(f)
            resize(f, *room)
            self._room = room_of(f)

    def _check_alone(self, f):
        if f.attrs["run_id"] != self.run_id:
            raise FedError(f"{self.path} was replaced by another process, with another run")
        found = tuple(f["committed"][...].tolist())
        if found != self._committed:
            raise FedError(f"{self.path} was changed by another process: {found} rows, expected {self._committed}")


def _signature(stat):
    """What changes with the file."""
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _locked(handle):
    """Whether the file is locked as HDF5 locks what it writes: not where the file system cannot, or HDF5 shall not."""
    if os.environ.get("HDF5_USE_FILE_LOCKING", "").upper() in ("FALSE", "0"):
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            raise
    return True


def _later(work):
    """The Future of what ``work()`` returns in a thread of its own."""
    future = Future()

    def run():
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="checkpoint").start()
    return future


def check_target(path):
    """UserError where a run file cannot be created at ``path``."""
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise UserError(f"cannot create {path}: there is no folder {folder}")
    if os.path.isdir(path):
        raise UserError(f"cannot create {path}: it is a folder")
    check_folder(path)
    if os.path.exists(path):
        raise UserError(f"{path} exists: resume it, remove it, or choose another name")
    stem = os.path.splitext(path)[0]
    for other in sorted(glob.glob(glob.escape(stem) + "*")):
        if os.path.splitext(other)[0] == stem and _is_run(other):
            raise UserError(f"cannot create {path}: its checkpoints would lie in {checkpoint_folder(path)}, as those "
                            f"of {other} do; choose another name")


def _is_run(path):
    with contextlib.suppress(UserError), open_run(path):
        return True
    return False


def check_folder(path):
    """UserError where the folder of the run file ``path`` takes no files."""
    folder = os.path.dirname(os.path.realpath(path))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {path}: the folder {folder} is not writable")
