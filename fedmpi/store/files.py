"""The store in a file: what a run writes, round by round."""

import contextlib
import errno
import fcntl
import glob
import json
import os
import threading
import time
import warnings
from concurrent.futures import Future


from fedmpi.core.errors import DiskError, FedError, UserError
from fedmpi.store.attrs import (own_attrs, plain, read_attrs, read_sessions, same_keys, set_attrs,
                                set_sessions)
from fedmpi.store.checkpoint import (checkpoint_folder, checkpoints, load_checkpoint,
                                     remove_checkpoints, write_checkpoint)
from fedmpi.store.client_files import Shelf, shelf_folder
from fedmpi.store.disk import refused_by, remove, rewriting, sync, writing
from fedmpi.store.places import get, place_of, put
from fedmpi.store.read import open_run, read_run
from fedmpi.store.relay import lay_out
from fedmpi.store.rows import check_truncate, checked_columns, checked_round
from fedmpi.store.schema import NETCDF
from fedmpi.store.tables import (ENDS, EXPECTED, ROW_DIMS, attach_scales, clear, column_of, committed,
                                 create_coordinates, create_partition, create_population,
                                 create_tables, dtypes_of, is_packed, room_of, start_room)
from fedmpi.store.texts import hexadecimal, text_names, with_texts
from fedmpi.store.writer import lives

HDF5_LOCKS = ("TRUE", "1", "BEST_EFFORT")        # values of HDF5_USE_FILE_LOCKING that overrule what a program asks for
ENDED = ("finished", "stopped", "interrupted", "failed")  # a file with such a status is trimmed to its committed rows


class RunFile:
    """An existing run file, opened for each append and closed again. Rank 0 only, one writer a file.

    Where its rows lie is remembered as long as the file is as it was left, by its inode, size and time."""

    def __init__(self, path, *, patience_s=10.0):
        with open_run(path) as f:
            groups = {table: f.get(table, {}) for table in ROW_DIMS}
            self._texts = {table: text_names(dtypes_of(group)) for table, group in groups.items()}
            self.columns = {table: tuple(column_of(data) for name, data in group.items()
                                         if name not in self._texts[table]) for table, group in groups.items()}
            self.run_id = f.attrs["run_id"]
            self._committed = committed(f)
            self._room = room_of(f)
        self._left, self._places, self._saving = None, {}, None
        self._expected = 0, 0, 0
        self.path, self.patience_s = os.path.realpath(path), patience_s
        self.folder = checkpoint_folder(self.path)
        self.shelf = Shelf(shelf_folder(self.path))

    @classmethod
    def create(cls, path, attrs, rounds, clients, population, partition, own=(), *, coordinates=None,
               expected=EXPECTED, overwrite=False):
        """A new run file, in place of one of which ``check_target`` says that it may go.

        ``attrs`` may hold str, int, float, bool, and anything JSON can say; ``population`` maps a name to ``(array,
        unit, description, dimension of each further axis)``; ``partition`` is ``(offsets (N + 1,), indices)``, and
        the same of clients' test parts where they have some, as ``own`` has columns of /own then. ``coordinates``
        maps a dimension to its coordinates; ``expected`` is how many (rounds, client rows, own rows) will come if all
        goes as planned, for which the file's chunks are made.
        """
        columns = dict(rounds=checked_columns(rounds), clients=checked_columns(clients), own=checked_columns(own))
        room = start_room(columns, expected)
        check_target(path, overwrite)
        path = os.path.realpath(path)
        replaced = _last_writer(path)[0]["run_id"] if os.path.exists(path) else None
        try:
            with writing(path) as f:
                set_attrs(f, own_attrs(attrs))
                create_coordinates(f, coordinates or {})
                create_tables(f, {table: with_texts(each) for table, each in columns.items()}, room)
                clear(f)
                create_population(f, population)
                create_partition(f, *partition)
                attach_scales(f)
        except DiskError as error:
            raise UserError(str(error)) from error         # before any work
        if replaced:
            # Only now: a kill in between leaves checkpoints that the new run refuses, as they are of another run.
            remove_checkpoints(checkpoint_folder(path), replaced)
            Shelf(shelf_folder(path)).sweep(set())
        store = cls(path)
        store._expected = expected
        return store

    @property
    def rounds(self):
        """Number of committed rounds."""
        return self._committed[0]

    def append(self, row, client_rows, own_rows=None):
        """Adds one round: a row of /rounds, C rows of /clients, and those of /own; ValueError, and no change, if a
        value does not fit."""
        row, many = checked_round(self.columns, row, client_rows, own_rows)
        rows = {"rounds": row} | {table: values for table, (values, _) in many.items()}
        for table, values in rows.items():
            values |= {name: hexadecimal(values[name.removesuffix("_text")]) for name in self._texts[table]}
        before = dict(zip(ROW_DIMS, self._committed))
        after = before | {"rounds": before["rounds"] + 1}
        after |= {table: before[table] + num for table, (_, num) in many.items()}
        self._make_room(*after.values())
        with refused_by(self.path), self._opened() as handle:
            for table, values in rows.items():
                for name, value in values.items():
                    put(handle, self._places[table, name], before[table], value)
            for table, ends in ENDS.items():
                if ends in self._places:
                    put(handle, self._places[ends], before["rounds"], after[table])
            # Last: now the rows are there.
            put(handle, self._places["committed"], 0, (after["rounds"], after["clients"]))
            self._left = _signature(os.fstat(handle))
        self._committed = tuple(after.values())

    def truncate(self, rounds):
        """Forgets every round but the first ``rounds``, and the checkpoints of those that are forgotten."""
        self.settle()
        check_truncate(rounds, self.rounds)
        if rounds == self.rounds:
            return
        # First: a kill in between leaves rows that are played again, and no checkpoint of a future that was given up.
        with refused_by(self.folder):
            remove(self.folder, [name for round, name in checkpoints(self.folder) if round > rounds])
        with open_run(self.path) as f:
            self._check_alone(f)
            client_rows, own_rows = (int(f[ends][rounds - 1]) if rounds and ends in f else 0
                                     for ends in ENDS.values())
        self._lay_out(self._room, rows=(rounds, client_rows, own_rows))

    def update(self, attrs):
        """Sets root attributes, such as ``status`` and ``ended``; a status that ends the run trims the room."""
        self.settle()
        if attrs.get("status") in ENDED and self._room != self._committed:
            self._lay_out(self._committed)
        with rewriting(self.path) as f:
            self._check_alone(f)
            set_attrs(f, attrs)

    def pack(self):
        """Makes the file of a run that has ended as small as it can be; where rows come later all the same, the first
        of them unpacks it. A file of an older schema stays as it is: the program that wrote it may go on with it."""
        self.settle()
        with open_run(self.path) as f:
            done = is_packed(f) or f.attrs["schema"] < NETCDF
        if not done:
            self._lay_out(self._committed, packed=True)

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
        handle = os.open(self.path, os.O_RDWR)
        try:
            self._lock(handle)
            as_left = self._left == _signature(os.fstat(handle))
            if not as_left or tuple(get(handle, self._places["committed"])) != self._committed[:2]:
                with self._with_hdf5(handle):
                    self._look(handle)
            yield handle
        finally:
            os.close(handle)                               # and unlocks it

    def _lock(self, handle):
        """Lock the file; UserError where somebody else has it for too long."""
        give_up = time.monotonic() + self.patience_s
        while not _locked(handle):
            if time.monotonic() > give_up:
                raise UserError(
                    f"{self.path} is locked by another program for more than {self.patience_s:g} s: close it "
                    "there, or let it open the file with h5py.File(path, 'r', locking=False)"
                )
            time.sleep(0.02)

    @contextlib.contextmanager
    def _with_hdf5(self, handle):
        """HDF5 can open the file that we have locked, also where HDF5_USE_FILE_LOCKING makes it lock for itself."""
        if os.environ.get("HDF5_USE_FILE_LOCKING") not in HDF5_LOCKS:
            yield
            return
        before = _signature(os.fstat(handle))
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
        self._lock(handle)
        if _signature(os.fstat(handle)) != before:
            raise FedError(f"{self.path} was changed by another process")

    def _look(self, handle):
        """Learn where the rows lie, in a file that nobody else has changed."""
        with open_run(self.path) as f:
            self._check_alone(f)
            if not os.path.samestat(os.stat(self.path), os.fstat(handle)):
                raise FedError(f"{self.path} was replaced by another process")
            self._places = {(table, name): place_of(data)
                            for table in ROW_DIMS for name, data in f.get(table, {}).items()}
            self._places |= {name: place_of(f[name]) for name in (*ENDS.values(), "committed") if name in f}

    def _make_room(self, rounds, client_rows, own_rows):
        """Doubles the room that does not suffice, but for no more than is expected: seldom, and cheap beside what fills
        it. A packed file has no room."""
        need = rounds, client_rows, own_rows
        if all(n <= have for n, have in zip(need, self._room)):
            return
        first = start_room(self.columns, self._expected)
        room = [have if n <= have else _more_room(n, wanted, least)
                for n, have, wanted, least in zip(need, self._room, self._expected, first)]
        self._lay_out(tuple(room))

    def _lay_out(self, room, rows=None, packed=False):
        """Replaces the file by one of the same rows, or of the first ``rows``, with ``room``."""
        self.settle()                                      # the file is about to be another one
        rows = rows or self._committed
        with open_run(self.path, rdcc_nbytes=0) as f:      # each chunk is read once
            self._check_alone(f)
            lay_out(f, self.path, rows, room, packed)
        self._committed, self._room = rows, room

    def _check_alone(self, f):
        if f.attrs["run_id"] != self.run_id:
            raise FedError(f"{self.path} was replaced by another process, with another run")
        found = committed(f)
        if found != self._committed:
            raise FedError(f"{self.path} was changed by another process: {found} rows, expected {self._committed}")


def _more_room(need, expected, least):
    """The rows to have room for, where ``need`` are needed."""
    doubled = 2 * need
    if need <= expected:
        doubled = min(doubled, expected)
    return max(doubled, least)


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


def check_target(path, overwrite=False):
    """UserError where a run file cannot be created at ``path``. A run that has no committed round is in nobody's way;
    any other one only where ``overwrite`` says so, and never one that is being written."""
    if os.fspath(path).endswith(os.sep):
        raise UserError(f"cannot create {path}: a name that ends with {os.sep} is a folder's; add the file's name")
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        tilde = " (no shell has put your home folder for ~ here: write it out)" * ("~" in folder.split(os.sep))
        raise UserError(f"cannot create {path}: there is no folder {folder}{tilde}")
    if os.path.isdir(path):
        raise UserError(f"cannot create {path}: it is a folder")
    check_folder(path)
    if os.path.exists(path):
        check_replaceable(path, overwrite)
    _check_name(path)
    stem = os.path.splitext(path)[0]
    for other in sorted(glob.glob(glob.escape(stem) + "*")):
        if other != path and os.path.splitext(other)[0] == stem and _is_run(other):
            raise UserError(f"cannot create {path}: its checkpoints would lie in {checkpoint_folder(path)}, as those "
                            f"of {other} do; choose another name")


def check_replaceable(path, overwrite):
    """UserError where the file at ``path`` is no run of fedmpi, is being written, or has rounds that ``overwrite`` does
    not give up."""
    try:
        attrs, rounds, writer = _last_writer(path)
    except UserError as error:
        raise UserError(f"{path} exists, and is not replaced, as it cannot be read as a run of fedmpi ({error}): "
                        "remove it, or choose another name") from None
    goes_on = attrs.get("status") not in ENDED
    alive = lives(writer) if goes_on else False
    if alive:
        raise UserError(f"{path} exists, and is being written by process {json.loads(writer)['pid']}: stop that run "
                        "first, or choose another name")
    if alive is None:
        hosts = ", ".join(attrs.get("hosts") or ["another machine"])
        raise UserError(f"{path} exists, and is marked as running on {hosts}: it cannot be seen from here whether that "
                        "run lives; resume it, choose another name, or remove it by hand once nobody writes it")
    if rounds and not overwrite:
        raise UserError(f"{path} exists, with {rounds} rounds: resume it, give --overwrite, or choose another name")


def _last_writer(path):
    """``(attributes, committed rounds, the process that wrote last or None)`` of the run file ``path``."""
    with open_run(path) as f:
        attrs, rounds, sessions = read_attrs(f), int(f["committed"][0]), read_sessions(f)
    return attrs, rounds, sessions[-1].get("process") if sessions else None


def remove_run(path):
    """Remove the run file ``path``, which ``check_replaceable`` lets go, and then its checkpoints."""
    path = os.path.realpath(path)
    run_id = _last_writer(path)[0]["run_id"]
    os.unlink(path)
    remove_checkpoints(checkpoint_folder(path), run_id)
    Shelf(shelf_folder(path)).sweep(set())


def _check_name(path):
    """UserError where the names of the files that lie beside a run file would be too long, or its own."""
    folder, name = os.path.split(path)
    beside = checkpoint_folder(path)
    if beside == path:
        raise UserError(f"cannot create {path}: that is the name of its own folder of checkpoints; end it on .h5")
    longest = max(len(os.fsencode(each)) for each in (f"{name}.tmp", os.path.basename(beside),
                                                     os.path.basename(shelf_folder(path))))
    room = os.pathconf(folder, "PC_NAME_MAX")
    if longest > room:
        raise UserError(f"cannot create {path}: with its ending .tmp or .ckpt the name has {longest} bytes, {room} are "
                        "allowed here; choose a shorter one")


def _is_run(path):
    with contextlib.suppress(UserError), open_run(path):
        return True
    return False


def check_folder(path):
    """UserError where the folder of the run file ``path`` takes no files."""
    folder = os.path.dirname(os.path.realpath(path))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {path}: the folder {folder} is not writable")
