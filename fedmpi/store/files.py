"""The store in a file: a run, written round by round."""

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
from fedmpi.core.words import plural
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
                                 create_tables, dtypes_of, is_packed, room_of, row_data,
                                 start_room)
from fedmpi.store.texts import hexadecimal, text_names, with_texts
from fedmpi.store.writer import lives

# Values of HDF5_USE_FILE_LOCKING overruling the program's own choice.
HDF5_LOCKS = ("TRUE", "1", "BEST_EFFORT")
# A file with such a status is trimmed to its committed rows.
ENDED = ("finished", "stopped", "interrupted", "failed")
# Of these, the ends that a run was made for: its file is packed at once, not laid out twice.
MEANT = ("finished", "stopped")
# Between two attempts to lock a file.
LOCK_PAUSE_S = 0.02


class RunFile:
    """An existing run file, opened for each append and closed again. Rank 0 only, one writer a file.

    The places of its rows are remembered as long as the file is unchanged, by its inode, size and time."""

    def __init__(self, path, *, patience_s=10.0):
        with open_run(path) as f:
            groups = {table: f.get(table, {}) for table in ROW_DIMS}
            # Texts of large integers are written here, and are no columns of the run.
            self._texts = {}
            self.columns = {}
            for table, group in groups.items():
                texts = text_names(dtypes_of(group))
                self._texts[table] = texts
                self.columns[table] = _columns(group, texts)
            self.run_id = f.attrs["run_id"]
            self._committed = committed(f)
            self._room = room_of(f)
        # The file's signature after the last append, and the places of its data sets.
        self._signature, self._places = None, {}
        # The Future of the last save.
        self._saving = None
        self._expected = 0, 0, 0
        self.path = os.path.realpath(path)
        self.patience_s = patience_s
        self.folder = checkpoint_folder(self.path)
        self.shelf = Shelf(shelf_folder(self.path))

    @classmethod
    def create(cls, path, attrs, rounds, clients, population, partition, own=(), *, coordinates=None,
               expected=EXPECTED, overwrite=False):
        """A new run file; it replaces an existing one if ``check_target`` allows it.

        ``attrs`` may hold str, int, float, bool, and anything JSON can say; ``population`` maps a name to ``(array,
        unit, description, dimension of each further axis)``. ``partition`` is ``(offsets (N + 1,), indices)``, with the
        same of clients' test parts behind it if there are some; only then ``own`` has columns of /own. ``coordinates``
        maps a dimension to its coordinates. ``expected`` is (rounds, client rows, own rows) of a run without
        incidents; the file's chunks are made for it.
        """
        columns = dict(rounds=checked_columns(rounds), clients=checked_columns(clients), own=checked_columns(own))
        room = start_room(columns, expected)
        check_target(path, overwrite)
        path = os.path.realpath(path)
        replaced_id = _run_id(path) if os.path.exists(path) else None
        try:
            with writing(path) as f:
                set_attrs(f, own_attrs(attrs))
                create_coordinates(f, coordinates or {})
                stored = {table: with_texts(group) for table, group in columns.items()}
                create_tables(f, stored, room)
                clear(row_data(f))
                create_population(f, population)
                create_partition(f, *partition)
                attach_scales(f)
        # The user's mistake, since no work is lost yet.
        except DiskError as error:
            raise UserError(str(error)) from error
        if replaced_id:
            # Only now: a kill in between leaves another run's checkpoints, and the new run refuses those.
            _remove_beside(path, replaced_id)
        store = cls(path)
        store._expected = expected
        return store

    @property
    def rounds(self):
        """Number of committed rounds."""
        return self._committed[0]

    def append(self, row, client_rows, own_rows=None):
        """Adds one round: a row of /rounds, C rows of /clients, and those of /own. ValueError, and no change, if a
        value does not fit."""
        row, many = checked_round(self.columns, row, client_rows, own_rows)
        before = dict(zip(ROW_DIMS, self._committed))
        rows = {"rounds": row}
        after = {"rounds": before["rounds"] + 1}
        for table, (values, num_rows) in many.items():
            rows[table] = values
            after[table] = before[table] + num_rows
        for table, values in rows.items():
            for name in self._texts[table]:
                numbers = values[name.removesuffix("_text")]
                values[name] = hexadecimal(numbers)
        self._make_room(*after.values())
        with refused_by(self.path), self._opened() as handle:
            places = self._places
            for table, values in rows.items():
                first = before[table]
                for name, value in values.items():
                    put(handle, places[table, name], first, value)
            for table, ends in ENDS.items():
                if ends in places:
                    put(handle, places[ends], before["rounds"], after[table])
            # Last: a reader that sees the new numbers finds the rows.
            valid = after["rounds"], after["clients"]
            put(handle, places["committed"], 0, valid)
            self._signature = _signature(os.fstat(handle))
        self._committed = tuple(after.values())

    def truncate(self, rounds):
        """Forgets all but the first ``rounds`` rounds, and the checkpoints after them."""
        self.settle()
        check_truncate(rounds, self.rounds)
        if rounds == self.rounds:
            return
        # First: a kill in between leaves some rows to be played again, but no checkpoint of an abandoned future.
        with refused_by(self.folder):
            later = [name for round, name in checkpoints(self.folder) if round > rounds]
            remove(self.folder, later)
        with open_run(self.path) as f:
            self._check_alone(f)
            client_rows, own_rows = (_rows_before(f, ends, rounds) for ends in ENDS.values())
        self._lay_out(self._room, rows=(rounds, client_rows, own_rows))

    def update(self, attrs):
        """Sets root attributes, such as ``status`` and ``ended``; with a status of ENDED, trims the room, and with one
        of MEANT packs the file."""
        self.settle()
        status = attrs.get("status")
        if status in MEANT:
            self.pack()
        # Otherwise the run soon goes on.
        if status in ENDED and self._room != self._committed:
            self._lay_out(self._committed)
        with rewriting(self.path) as f:
            self._check_alone(f)
            set_attrs(f, attrs)

    def pack(self):
        """Makes the file of an ended run as small as possible; a later append unpacks it."""
        self.settle()
        with open_run(self.path) as f:
            # Its own, older program may go on with it.
            is_older = f.attrs["schema"] < NETCDF
            stays = is_packed(f) or is_older
        if not stays:
            self._lay_out(self._committed, packed=True)

    def add_session(self, session):
        """Adds one row to /sessions: ISO time, ranks, hosts, git commit, command line."""
        self.settle()
        with rewriting(self.path) as f:
            self._check_alone(f)
            set_sessions(f, same_keys([*read_sessions(f), plain(session)]))

    def save(self, state, round, keep=2):
        """Writes the state after ``round`` beside the run file and removes all but the newest ``keep``.

        A thread waits for the disk, without using the processor. Until it is done, or if the process is killed, the
        checkpoint before stays the newest. Everything but appending into existing room waits for it."""
        self.settle()
        settle_checkpoint = write_checkpoint(self.folder, state, round, run_id=self.run_id, keep=keep)

        def onto_the_disk():
            # The rows first: a power cut must not leave a state without the rows before it.
            sync(self.path)
            settle_checkpoint()

        self._saving = _later(onto_the_disk)

    def settle(self):
        """Waits until the last ``save`` is on the disk under its name. DiskError if the disk refused it."""
        saving = self._saving
        self._saving = None
        if saving is not None:
            saving.result()

    def load(self, warn=warnings.warn, round=None):
        """``(state, round)`` of the newest sound checkpoint, or of the one after ``round``; ``warn(line)`` is called
        for every unsound one."""
        self.settle()
        return load_checkpoint(self.folder, run_id=self.run_id, warn=warn, round=round)

    def run(self):
        """The run so far."""
        self.settle()
        return read_run(self.path)

    @contextlib.contextmanager
    def _opened(self):
        """The file's descriptor, locked, for rows."""
        handle = os.open(self.path, os.O_RDWR)
        try:
            self._lock(handle)
            if not self._is_as_left(handle):
                with self._with_hdf5(handle):
                    self._look(handle)
            yield handle
        finally:
            # This unlocks it, too.
            os.close(handle)

    def _is_as_left(self, handle):
        """Whether the file is unchanged since the last append, so that the places still hold."""
        if self._signature != _signature(os.fstat(handle)):
            return False
        valid = get(handle, self._places["committed"])
        return tuple(valid) == self._committed[:2]

    def _lock(self, handle):
        """Lock the file. Waits for another program's lock, a notebook's perhaps; UserError if it takes too long."""
        give_up = time.monotonic() + self.patience_s
        while not _locked(handle):
            if time.monotonic() > give_up:
                raise UserError(
                    f"{self.path} is locked by another program for more than {self.patience_s:g} s: close it "
                    "there, or let it open the file with h5py.File(path, 'r', locking=False)"
                )
            time.sleep(LOCK_PAUSE_S)

    @contextlib.contextmanager
    def _with_hdf5(self, handle):
        """Inside the block, HDF5 can open the file locked by us, also if HDF5_USE_FILE_LOCKING makes it lock itself."""
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
        """Learn the places of all rows. FedError if another process changed the file."""
        with open_run(self.path) as f:
            self._check_alone(f)
            if not os.path.samestat(os.stat(self.path), os.fstat(handle)):
                raise FedError(f"{self.path} was replaced by another process")
            self._places = _all_places(f)

    def _make_room(self, rounds, client_rows, own_rows):
        """Doubles a table's room if it is too small, up to the expected rows. A packed file has no room."""
        # Doubling is rare, and cheap beside the rows that fill it.
        needed = rounds, client_rows, own_rows
        if all(need <= have for need, have in zip(needed, self._room)):
            return
        least = start_room(self.columns, self._expected)
        room = tuple(map(_more_room, needed, self._room, self._expected, least))
        self._lay_out(room)

    def _lay_out(self, room, rows=None, packed=False):
        """Replaces the file by one of the same rows, or of the first ``rows``, with ``room``."""
        # A save must not put another file's rows onto the disk.
        self.settle()
        rows = rows or self._committed
        # Without a cache: each chunk is read once.
        with open_run(self.path, rdcc_nbytes=0) as f:
            self._check_alone(f)
            lay_out(f, self.path, rows, room, packed)
        self._committed, self._room = rows, room

    def _check_alone(self, f):
        if f.attrs["run_id"] != self.run_id:
            raise FedError(f"{self.path} was replaced by another process, with another run")
        rows = committed(f)
        if rows != self._committed:
            raise FedError(f"{self.path} was changed by another process: {rows} rows, expected {self._committed}")


def _columns(group, texts):
    """The Columns of a group's data sets, without the ones named in ``texts``."""
    return tuple(column_of(data) for name, data in group.items() if name not in texts)


def _all_places(f):
    """``{(table, name of a column) or name of a data set: Place}``."""
    places = {}
    for name in (*ENDS.values(), "committed"):
        if name in f:
            places[name] = place_of(f[name])
    for table in ROW_DIMS:
        for name, data in f.get(table, {}).items():
            places[table, name] = place_of(data)
    return places


def _rows_before(f, ends, rounds):
    """The rows of a table after the first ``rounds`` rounds; ``ends`` names its data set of ends."""
    if rounds == 0 or ends not in f:
        return 0
    return int(f[ends][rounds - 1])


def _more_room(need, have, expected, least):
    """The rows to have room for: ``have`` if they suffice, else twice the needed ones."""
    if need <= have:
        return have
    doubled = 2 * need
    if need <= expected:
        doubled = min(doubled, expected)
    return max(doubled, least)


def _signature(stat):
    """A value that changes with the file."""
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _locked(handle):
    """Whether the file is locked now, as HDF5 locks files for writing. True also without a lock, if the file system has
    none or HDF5 is told not to lock."""
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
    """The Future of ``work()``, done in a thread of its own."""
    future = Future()

    def run():
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="checkpoint").start()
    return future


def check_target(path, overwrite=False):
    """UserError if no run file can be created at ``path``. A run without committed rounds may be replaced, any other
    only with ``overwrite``, and a run being written never."""
    if os.fspath(path).endswith(os.sep):
        raise UserError(f"cannot create {path}: a name that ends with {os.sep} is a folder's; add the file's name")
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        tilde = ""
        if "~" in folder.split(os.sep):
            tilde = " (no shell has put your home folder for ~ here: write it out)"
        raise UserError(f"cannot create {path}: there is no folder {folder}{tilde}")
    if os.path.isdir(path):
        raise UserError(f"cannot create {path}: it is a folder")
    check_folder(path)
    if os.path.exists(path):
        check_replaceable(path, overwrite)
    _check_name(path)
    _check_neighbours(path)


def _check_neighbours(path):
    """UserError if another run's checkpoints lie where this run's would."""
    stem, _ = os.path.splitext(path)
    pattern = glob.escape(stem) + "*"
    for other in sorted(glob.glob(pattern)):
        other_stem, _ = os.path.splitext(other)
        has_same_stem = other != path and other_stem == stem
        if has_same_stem and _is_run(other):
            folder = checkpoint_folder(path)
            raise UserError(f"cannot create {path}: its checkpoints would lie in {folder}, "
                            f"as those of {other} do; choose another name")


def check_replaceable(path, overwrite):
    """UserError if the file at ``path`` is no run of fedmpi, is being written, or has rounds and no ``overwrite``."""
    try:
        attrs, rounds, writer = _last_writer(path)
    except UserError as error:
        raise UserError(f"{path} exists, and is not replaced, as it cannot be read as a run of fedmpi ({error}): "
                        "remove it, or choose another name") from None
    # None: it cannot be seen from here.
    alive = False
    if attrs.get("status") not in ENDED:
        alive = lives(writer)
    if alive:
        raise UserError(f"{path} exists, and is being written by process {json.loads(writer)['pid']}: stop that run "
                        "first, or choose another name")
    if alive is None:
        hosts = ", ".join(attrs.get("hosts") or ["another machine"])
        raise UserError(f"{path} exists, and is marked as running on {hosts}: it cannot be seen from here whether that "
                        "run lives; resume it, choose another name, or remove it by hand once nobody writes it")
    if rounds and not overwrite:
        raise UserError(f"{path} exists, with {plural(rounds, 'round')}: resume it, give --overwrite, "
                        "or choose another name")


def _last_writer(path):
    """``(attributes, number of committed rounds, its last process or None)`` of the run file ``path``."""
    with open_run(path) as f:
        attrs = read_attrs(f)
        rounds = int(f["committed"][0])
        sessions = read_sessions(f)
    writer = None
    if sessions:
        writer = sessions[-1].get("process")
    return attrs, rounds, writer


def _run_id(path):
    attrs, _, _ = _last_writer(path)
    return attrs["run_id"]


def remove_run(path):
    """Remove the run file ``path`` and then its checkpoints; ``check_replaceable`` is the caller's part."""
    path = os.path.realpath(path)
    run_id = _run_id(path)
    os.unlink(path)
    _remove_beside(path, run_id)


def _remove_beside(path, run_id):
    """Remove the checkpoints and the clients' files of a run."""
    remove_checkpoints(checkpoint_folder(path), run_id)
    Shelf(shelf_folder(path)).sweep(set())


def _check_name(path):
    """UserError if the names of the files beside a run file would be too long, or equal to its own."""
    folder, name = os.path.split(path)
    beside = checkpoint_folder(path)
    if beside == path:
        raise UserError(f"cannot create {path}: that is the name of its own folder of checkpoints; end it on .h5")
    shelf = shelf_folder(path)
    names = [f"{name}.tmp", os.path.basename(beside), os.path.basename(shelf)]
    longest = max(len(os.fsencode(text)) for text in names)
    most = os.pathconf(folder, "PC_NAME_MAX")
    if longest > most:
        raise UserError(f"cannot create {path}: with its ending .tmp or .ckpt the name has {longest} bytes, {most} are "
                        "allowed here; choose a shorter one")


def _is_run(path):
    with contextlib.suppress(UserError), open_run(path):
        return True
    return False


def check_folder(path):
    """UserError if the folder of the run file ``path`` is not writable."""
    folder = os.path.dirname(os.path.realpath(path))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {path}: the folder {folder} is not writable")
