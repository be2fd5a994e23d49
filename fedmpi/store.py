"""Run files and checkpoints: what a run leaves on disk, and how it is read again. The only importer of h5py.

    run.h5                attrs: filetype, schema, run_id, status, options (JSON text) ...
      /rounds/<name>      one row a round, (T,) or (T, width)
      /clients/<name>     a long table, one row for each participant of each round
      /ends               (T,) rows of /clients that are committed after each round
      /committed          [rounds, client rows] that are valid; what lies beyond is room for the next rounds
      /population/<name>  facts about all clients; /partition/{offsets, indices}; /sessions/<name>
    run.ckpt/000123.h5    the state after a round, beside the run file

A process that dies must not take the file with it, so there are two ways to write and no third:

* A *row* goes into room that is already allocated, then ``committed`` is set. No metadata of the file changes, but
  for HDF5's mark that the file is open, which a file of the default format may keep (one by libver="latest" may not).
* *Everything else* (create, more room, truncate, attributes, sessions) is done on a copy that is renamed into place.

A reader therefore never meets a half-written file, whatever moment it comes or the writer is killed at.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import struct
import sys
import time
import uuid
import warnings
from typing import NamedTuple
from urllib.parse import quote

import h5py
import numpy as np

from fedmpi.errors import CheckpointError, DataError, FedError, UserError

FILETYPE, SCHEMA = "fedmpi-run", 1
ROUND_ROOM, CLIENT_ROOM = 1024, 4096  # rows a new file has room for, if they fit into ROOM_BYTES
ROOM_BYTES, CHUNK_BYTES = 8 << 20, 64 << 10
ENDED = ("finished", "failed")  # a file with such a status is trimmed to its committed rows


class Column(NamedTuple):
    """What one column of /rounds or /clients holds; ``width`` 0 is a scalar. ``machine``: not compared between runs."""

    name: str
    dtype: str
    unit: str
    description: str
    machine: bool = False
    width: int = 0


class Run(NamedTuple):
    """A run as it was read: committed rows only, everything decoded, no open file."""

    attrs: dict  # name -> str, int, float, bool, dict or list
    rounds: dict  # name -> (T,) or (T, width)
    clients: dict  # name -> (R,) or (R, width)
    population: dict  # name -> (N, ...)
    partition: tuple  # offsets (N + 1,), indices
    sessions: list  # one dict for each start or resume
    columns: dict  # "rounds/accuracy" -> Column, also for clients and population
    ends: np.ndarray  # (T,) client rows committed after each round


# ---------------------------------------------------------------- rows


def checked_columns(columns):
    """The columns as a tuple, dtypes by their usual names; ValueError for a name twice or a dtype of no fixed size."""
    columns = tuple(columns)
    names = [c.name for c in columns]
    if len(set(names)) != len(names):
        raise ValueError(f"column names must differ, got {names}")
    for c in columns:
        dtype = np.dtype(c.dtype)
        if dtype.kind not in "biufS" or dtype.itemsize == 0 or (dtype.kind == "f" and dtype.itemsize > 8):
            raise ValueError(f"column {c.name}: dtype must be bool, int, float or S<bytes>, got {c.dtype}")
        if not c.name or "/" in c.name or c.name == "." or c.width < 0:
            raise ValueError(f"column {c.name!r}: needs a name without '/' and a width of at least 0")
    return tuple(c._replace(dtype=_dtype_name(np.dtype(c.dtype))) for c in columns)


def _dtype_name(dtype):
    return dtype.name if dtype.kind in "biuf" else dtype.str.lstrip("|")


def checked_round(columns, row, client_rows):
    """``(row, client_rows, C)`` with every value an array of its column's dtype and shape, or ValueError."""
    _check_names("rounds", columns["rounds"], row)
    _check_names("clients", columns["clients"], client_rows)
    num = len(np.atleast_1d(np.asarray(next(iter(client_rows.values()), ()))))
    return (
        {c.name: _fitted(f"rounds/{c.name}", c, row[c.name], ()) for c in columns["rounds"]},
        {c.name: _fitted(f"clients/{c.name}", c, client_rows[c.name], (num,)) for c in columns["clients"]},
        num,
    )


def _check_names(table, columns, values):
    names = {c.name for c in columns}
    if names != set(values):
        missing, extra = sorted(names - set(values)), sorted(set(values) - names)
        raise ValueError(f"{table}: the row must have every column and no other; missing {missing}, extra {extra}")


def _fitted(label, column, value, lead):
    """``value`` as the column holds it; no number is rounded to an integer, wrapped or cut without a word."""
    got, dtype = np.asarray(value), np.dtype(column.dtype)
    shape = lead + ((column.width,) if column.width else ())
    if got.shape != shape:
        raise ValueError(f"{label}: shape must be {shape}, got {got.shape}")
    if got.dtype.kind == "U" and dtype.kind == "S":
        got = np.char.encode(got, "utf-8")
    if got.dtype.kind not in {"b": "b", "i": "biu", "u": "biu", "f": "biuf", "S": "S"}[dtype.kind] and got.size:
        raise ValueError(f"{label}: must be {column.dtype}, got {got.dtype}")
    with np.errstate(over="ignore"):
        fitted = got.astype(dtype)
    whole = np.array_equal(np.isfinite(fitted), np.isfinite(got)) if dtype.kind == "f" else np.array_equal(fitted, got)
    if not whole:
        raise ValueError(f"{label}: {value!r} does not fit into {column.dtype}")
    return fitted


# ---------------------------------------------------------------- the store in memory


class MemoryStore:
    """A run that is held in memory, for notebooks and tests; the same interface and bits as RunFile."""

    def __init__(self, attrs, rounds, clients, population, partition):
        self.columns = dict(rounds=checked_columns(rounds), clients=checked_columns(clients))
        self.run_id = attrs.get("run_id") or uuid.uuid4().hex
        self._attrs = _plain_attrs({**attrs, **_own_attrs(self.run_id)})
        self._population = {k: (np.array(v), u, d) for k, (v, u, d) in population.items()}
        self._partition = tuple(np.array(a) for a in partition)
        self._rows, self._client_rows, self._sessions, self._saved = [], [], [], {}

    @classmethod
    def create(cls, path, attrs, rounds, clients, population, partition, *, overwrite=False):
        """A new store; ``path`` and ``overwrite`` have no meaning here, RunFile takes the same arguments."""
        return cls(attrs, rounds, clients, population, partition)

    @property
    def rounds(self):
        """Number of committed rounds."""
        return len(self._rows)

    def append(self, row, client_rows):
        """Adds one round: a row of /rounds, C rows of /clients; ValueError, and no change, if a value does not fit."""
        row, client_rows, num = checked_round(self.columns, row, client_rows)
        self._rows.append(row)
        self._client_rows.append((client_rows, num))

    def truncate(self, rounds):
        """Forgets every round but the first ``rounds``."""
        _check_truncate(rounds, self.rounds)
        del self._rows[rounds:], self._client_rows[rounds:]

    def update(self, attrs):
        """Sets root attributes, such as ``status`` and ``ended``."""
        self._attrs.update(_plain_attrs(attrs))

    def add_session(self, session):
        """Adds one row to /sessions: ISO time, ranks, hosts, git commit, command line."""
        self._sessions = _same_keys([*self._sessions, json.loads(_json(session))])

    def save(self, state, round, keep=2):
        """Keeps a copy of the state after ``round``, and of the newest ``keep`` only."""
        _check_save(round, keep)
        entries, arrays = flattened(state)
        self._saved[round] = entries, [None if a is None else a.copy() for a in arrays]
        for old in [r for r in self._saved if r > round] + sorted(r for r in self._saved if r <= round)[:-keep]:
            del self._saved[old]

    def load(self, warn=warnings.warn):
        """``(state, round)`` of the newest save."""
        if not self._saved:
            raise CheckpointError("this run has no checkpoint yet")
        entries, arrays = self._saved[max(self._saved)]
        return unflattened(entries, [None if a is None else a.copy() for a in arrays]), max(self._saved)

    def run(self):
        """The run so far, as ``read_run`` gives it."""
        tables = self.columns
        return Run(
            attrs=json.loads(_json(self._attrs)),
            rounds={c.name: _stacked(c, [[row[c.name]] for row in self._rows]) for c in tables["rounds"]},
            clients={c.name: _stacked(c, [rows[c.name] for rows, _ in self._client_rows]) for c in tables["clients"]},
            population={k: v.copy() for k, (v, _, _) in self._population.items()},
            partition=tuple(a.copy() for a in self._partition),
            sessions=json.loads(_json(self._sessions)),
            columns={f"{table}/{c.name}": c for table, cs in tables.items() for c in cs}
            | {f"population/{k}": _fact_column(k, *fact) for k, fact in self._population.items()},
            ends=np.cumsum([num for _, num in self._client_rows], dtype=np.int64),
        )


def _fact_column(name, values, unit, description):
    return Column(name, _dtype_name(values.dtype), unit, description, width=values.shape[1] if values.ndim > 1 else 0)


def _stacked(column, rows):
    empty = np.empty((0, column.width) if column.width else (0,), column.dtype)
    return np.concatenate([empty, *(np.asarray(r, column.dtype) for r in rows)])


def _check_truncate(rounds, have):
    if not 0 <= rounds <= have:
        raise ValueError(f"cannot truncate to {rounds} rounds: the run has {have}")


# ---------------------------------------------------------------- the store in a file


class RunFile:
    """An existing run file, opened for each append and closed again. Rank 0 only, one writer a file."""

    def __init__(self, path, *, patience_s=10.0):
        with _open_run(path) as f:
            self.columns = {t: tuple(_column(f[t][k]) for k in f[t]) for t in ("rounds", "clients")}
            self.run_id = f.attrs["run_id"]
            self._committed = tuple(f["committed"][...].tolist())
            self._room = _room(f)
        self.path, self.patience_s = os.path.realpath(path), patience_s
        self.folder = os.path.splitext(self.path)[0] + ".ckpt"

    @classmethod
    def create(cls, path, attrs, rounds, clients, population, partition, *, overwrite=False):
        """A new run file. ``attrs`` may hold str, int, float, bool, and anything JSON can say; ``population`` maps a
        name to ``(array, unit, description)``; ``partition`` is ``(offsets (N + 1,), indices)``.
        With ``overwrite`` an old file of that name goes, and its checkpoints too."""
        columns = dict(rounds=checked_columns(rounds), clients=checked_columns(clients))
        path = os.path.realpath(path)
        _check_target(path, overwrite)
        attrs = {**attrs, **_own_attrs(attrs.get("run_id") or uuid.uuid4().hex)}
        with _replacing(path) as temporary, h5py.File(temporary, "w") as f:
            _set_attrs(f, attrs)
            _create_tables(f, columns)
            for name, (values, unit, description) in population.items():
                _describe(f.create_dataset(f"population/{name}", data=np.asarray(values)), unit, description)
            _create_partition(f, *partition)
        store = cls(path)
        if overwrite:
            _remove(store.folder, [name for _, name in _checkpoints(store.folder)])
        return store

    @property
    def rounds(self):
        """Number of committed rounds."""
        return self._committed[0]

    def append(self, row, client_rows):
        """Adds one round: a row of /rounds, C rows of /clients; ValueError, and no change, if a value does not fit."""
        row, client_rows, num = checked_round(self.columns, row, client_rows)
        t, r = self._committed
        self._make_room(t + 1, r + num)
        with self._open() as f:
            self._check_alone(f)
            for name, value in row.items():
                f["rounds"][name][t] = value
            for name, values in client_rows.items():
                f["clients"][name][r : r + num] = values
            f["ends"][t] = r + num
            f.flush()  # the rows must be in the file before it says that they are
            f["committed"][...] = (t + 1, r + num)
        self._committed = t + 1, r + num

    def truncate(self, rounds):
        """Forgets every round but the first ``rounds``."""
        _check_truncate(rounds, self.rounds)
        if rounds == self.rounds:
            return
        with self._rewritten() as f:
            client_rows = int(f["ends"][rounds - 1]) if rounds else 0
            _resize(f, rounds, client_rows)
            _resize(f, *self._room)
            f["committed"][...] = self._committed = (rounds, client_rows)

    def update(self, attrs):
        """Sets root attributes, such as ``status`` and ``ended``; a status that ends the run trims the room."""
        with self._rewritten() as f:
            _set_attrs(f, attrs)
            if attrs.get("status") in ENDED:
                _resize(f, *self._committed)
            self._room = _room(f)

    def add_session(self, session):
        """Adds one row to /sessions: ISO time, ranks, hosts, git commit, command line."""
        with self._rewritten() as f:
            _set_sessions(f, _same_keys([*_sessions(f), json.loads(_json(session))]))

    def save(self, state, round, keep=2):
        """Writes the state after ``round`` beside the run file and removes all but the newest ``keep``."""
        _sync(self.path)  # a power cut must not leave a state without the rows that led to it
        save_checkpoint(self.folder, state, round, run_id=self.run_id, keep=keep)

    def load(self, warn=warnings.warn):
        """``(state, round)`` of the newest checkpoint that is sound; ``warn`` hears of every one that is not."""
        return load_checkpoint(self.folder, run_id=self.run_id, warn=warn)

    def run(self):
        """The run so far."""
        return read_run(self.path)

    def _open(self):
        """The file, open for rows. Somebody else's lock is waited for: a notebook that holds the file, say."""
        give_up = time.monotonic() + self.patience_s
        while True:
            try:
                return h5py.File(self.path, "r+", locking="best-effort")
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise UserError(
                        f"{self.path} is locked by another program for more than {self.patience_s:g} s: close it "
                        "there, or let it open the file with h5py.File(path, 'r', locking=False)"
                    ) from None
                time.sleep(0.02)

    @contextlib.contextmanager
    def _rewritten(self):
        """A copy of the file, open; it takes the file's place when the block ends well."""
        with _replacing(self.path) as temporary:
            shutil.copy(self.path, temporary)
            with h5py.File(temporary, "r+", locking="best-effort") as f:
                self._check_alone(f)
                yield f

    def _make_room(self, rounds, client_rows):
        """Doubles the room that does not suffice: seldom, and cheap beside what fills it."""
        if rounds <= self._room[0] and client_rows <= self._room[1]:
            return
        start = _start_room(self.columns)
        need = zip((rounds, client_rows), self._room, start)
        room = [have if n <= have else max(2 * n, first) for n, have, first in need]
        with self._rewritten() as f:
            _resize(f, *room)
            self._room = _room(f)

    def _check_alone(self, f):
        found = tuple(f["committed"][...].tolist())
        if found != self._committed or f.attrs["run_id"] != self.run_id:
            raise FedError(f"{self.path} was changed by another process: {found} rows, expected {self._committed}")


def _own_attrs(run_id):
    return dict(filetype=FILETYPE, schema=SCHEMA, run_id=run_id)


def _check_target(path, overwrite):
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise UserError(f"cannot create {path}: there is no folder {folder}")
    if os.path.isdir(path):
        raise UserError(f"cannot create {path}: it is a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"cannot create {path}: the folder {folder} is not writable")
    if os.path.exists(path) and not overwrite:
        raise UserError(f"{path} exists: resume it, choose another name, or ask for it to be overwritten")


@contextlib.contextmanager
def _replacing(path):
    """A temporary name beside ``path``; what was written there takes its place when the block ends well."""
    temporary = path + ".tmp"
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    except PermissionError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    _sync(os.path.dirname(path))


def _sync(path):
    """Puts a file or a folder onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ---------------------------------------------------------------- tables


def _create_tables(f, columns):
    room = dict(zip(("rounds", "clients"), _start_room(columns)))
    for table, cs in columns.items():
        group = f.create_group(table, track_order=True)
        for c in cs:
            _describe(_create_column(group, c, room[table]), c.unit, c.description, c.machine)
    ends = Column("ends", "int64", "1", "rows of /clients that are committed after each round")
    _describe(_create_column(f, ends, room["rounds"]), ends.unit, ends.description)
    committed = f.create_dataset("committed", data=np.zeros(2, np.int64))
    _describe(committed, "1", "[rounds, client rows] that are valid; what lies beyond is room for the next rounds")


def _create_column(group, column, room):
    """A data set with room for ``room`` rows that is allocated now, so that a row later moves nothing else."""
    dtype, tail = np.dtype(column.dtype), (column.width,) if column.width else ()
    chunk = max(1, min(room, CHUNK_BYTES // (dtype.itemsize * max(column.width, 1))))
    data = group.create_dataset(
        column.name, (room, *tail), dtype, maxshape=(None, *tail), chunks=(chunk, *tail), fillvalue=_nothing(dtype)
    )
    data[...] = _nothing(dtype)
    return data


def _nothing(dtype):
    return np.array({"f": np.nan, "S": b""}.get(dtype.kind, 0)).astype(dtype)[()]


def _start_room(columns):
    """(rounds, client rows) a new file has room for."""

    def fitting(cs, most):
        row_bytes = sum(np.dtype(c.dtype).itemsize * max(c.width, 1) for c in cs)
        return max(16, min(most, ROOM_BYTES // max(row_bytes, 1)))

    return fitting(columns["rounds"], ROUND_ROOM), fitting(columns["clients"], CLIENT_ROOM)


def _room(f):
    return len(f["ends"]), min((len(d) for d in f["clients"].values()), default=sys.maxsize)


def _resize(f, rounds, client_rows):
    """Gives the tables of a file that nobody else sees exactly so many rows; new ones are empty, and allocated."""
    sizes = [(f["ends"], rounds), *((d, rounds) for d in f["rounds"].values())]
    for data, size in sizes + [(d, client_rows) for d in f["clients"].values()]:
        old = len(data)
        data.resize(size, axis=0)
        if size > old:
            data[old:] = _nothing(data.dtype)


def _describe(data, unit, description, machine=False):
    data.attrs.update(unit=unit, description=description, machine=machine)


def _column(data):
    attrs, width, name = data.attrs, data.shape[1] if data.ndim > 1 else 0, data.name.rsplit("/", 1)[-1]
    return Column(name, _dtype_name(data.dtype), attrs["unit"], attrs["description"], bool(attrs["machine"]), width)


def _create_partition(f, offsets, indices):
    data = f.create_dataset("partition/offsets", data=np.asarray(offsets))
    _describe(data, "1", "client i has the samples indices[offsets[i]:offsets[i + 1]]")
    data = f.create_dataset("partition/indices", data=np.asarray(indices))
    _describe(data, "1", "training samples, client after client")


# ---------------------------------------------------------------- attributes and sessions


def _json(value):
    return json.dumps(value, default=_jsonable)


def _jsonable(value):
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise ValueError(f"an attribute must be a number, a text or something JSON can say, got {type(value).__name__}")


def _plain_attrs(attrs):
    return json.loads(_json(attrs))


def _is_native(value):
    return isinstance(value, (str, bool, float)) or (isinstance(value, int) and -(2**63) <= value < 2**63)


def _set_attrs(f, attrs):
    """Numbers and texts as they are, the rest as JSON text; the attribute ``json_text`` names those."""
    as_json = set(json.loads(f.attrs.get("json_text", "[]")))
    for name, value in _plain_attrs(attrs).items():
        native = _is_native(value)
        as_json = as_json - {name} if native else as_json | {name}
        f.attrs[name] = value if native else json.dumps(value)
    f.attrs["json_text"] = json.dumps(sorted(as_json))


def _attrs(f):
    as_json = set(json.loads(f.attrs.get("json_text", "[]")))
    plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in f.attrs.items() if k != "json_text"}
    return {k: json.loads(v) if k in as_json else v for k, v in plain.items()}


def _same_keys(sessions):
    """The sessions, each with every key; what one did not have is None."""
    keys = list(dict.fromkeys(k for s in sessions for k in s))
    return [{k: s.get(k) for k in keys} for s in sessions]


def _set_sessions(f, sessions):
    """One data set a key: int64, float64 or text, and JSON text where the values are of several kinds."""
    if "sessions" in f:
        del f["sessions"]
    group = f.create_group("sessions", track_order=True)
    for key in sessions[0]:
        values = [s[key] for s in sessions]
        kind = type(values[0]) if all(type(v) is type(values[0]) and _is_native(v) for v in values) else None
        dtype = {int: np.int64, float: np.float64, str: h5py.string_dtype()}.get(kind)
        texts = values if dtype else [json.dumps(v) for v in values]
        data = group.create_dataset(key, data=texts, dtype=dtype or h5py.string_dtype())
        _describe(data, "", f"{key} of each start or resume" + ("" if dtype else ", as JSON"), machine=True)
        data.attrs["json_text"] = dtype is None


def _sessions(f):
    group = f.get("sessions", {})
    columns = {k: _cells(group[k]) for k in group}
    return [dict(zip(columns, row)) for row in zip(*columns.values())]


def _cells(data):
    if data.dtype.kind in "if":
        return data[...].tolist()
    texts = data.asstr()[...].tolist()
    return [json.loads(t) for t in texts] if data.attrs["json_text"] else texts


# ---------------------------------------------------------------- reading


@contextlib.contextmanager
def _opened(path, error):
    """An HDF5 file for reading, without a lock: a look must never make the writer wait. Raises ``error`` in one line."""
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise error(f"{path}: it is a folder, not a file" if os.path.isdir(path) else f"{path}: there is no such file")
    try:
        f = h5py.File(path, "r", locking=False)
    except OSError as reason:
        denied = reason.errno in (errno.EACCES, errno.EPERM)
        why = "permission denied" if denied else "not an HDF5 file" if not h5py.is_hdf5(path) else _line(reason)
        raise error(f"{path}: {why}") from None
    with f:
        yield f


@contextlib.contextmanager
def _open_run(path):
    with _opened(path, UserError) as f:
        try:
            _check_schema(path, f.attrs)
            yield f
        except (OSError, KeyError, RuntimeError) as reason:
            raise UserError(f"{path}: damaged ({_line(reason)})") from reason


def _check_schema(path, attrs):
    if attrs.get("filetype") != FILETYPE:
        raise UserError(f"{path}: an HDF5 file, but not a run of fedmpi")
    if attrs["schema"] > SCHEMA:
        raise UserError(f"{path}: written by a newer fedmpi (schema {attrs['schema']}, this one reads {SCHEMA})")


def read_run(path):
    """The committed part of a run file, also while it is being written; UserError in one line if it is none."""
    with _open_run(path) as f:
        t, r = f["committed"][...].tolist()
        population = f.get("population", {})
        tables = [f[name] for name in ("rounds", "clients")] + [population]
        return Run(
            attrs=_attrs(f),
            rounds={k: f["rounds"][k][:t] for k in f["rounds"]},
            clients={k: f["clients"][k][:r] for k in f["clients"]},
            population={k: population[k][...] for k in population},
            partition=(f["partition/offsets"][...], f["partition/indices"][...]),
            sessions=_sessions(f),
            columns={d.name[1:]: _column(d) for table in tables for d in table.values()},
            ends=f["ends"][:t],
        )


def read_arrays(path, names):
    """``{name: array}`` of the data sets ``names`` of a user's own HDF5 file, or DataError in one line."""
    with _opened(path, DataError) as f:
        missing = [n for n in names if not isinstance(f.get(n), h5py.Dataset)]
        if missing:
            raise DataError(f"{path}: has no data set {', '.join(missing)}; it has {', '.join(_names(f)) or 'none'}")
        try:
            return {n: np.asarray(f[n][()]) for n in names}
        except (OSError, RuntimeError) as reason:
            raise DataError(f"{path}: damaged ({_line(reason)})") from reason


def _names(f):
    found = []
    f.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return found


def _line(reason):
    return " ".join(str(reason).split()) or type(reason).__name__


# ---------------------------------------------------------------- comparing


def verify(a_path, b_path):
    """Lines that say where two runs differ in a number that does not depend on the machine; empty if nowhere."""
    return differences(read_run(a_path), read_run(b_path))


def differences(a, b):
    """As ``verify``, for two Runs: the population first, then one line a column, the earliest round first."""
    lines = [*_different_facts(a, b), *_different_rows(a, b)]
    num_a, num_b = len(a.ends), len(b.ends)
    if num_a != num_b:
        lines.append(f"rounds: {num_a} against {num_b}")
    return lines + _different_options(a, b) if lines else []


def _different_facts(a, b):
    named = [("population/" + k, a.population.get(k), b.population.get(k)) for k in {**a.population, **b.population}]
    named += [("partition/" + k, *pair) for k, *pair in zip(("offsets", "indices"), a.partition, b.partition)]
    for name, x, y in named:
        if x is None or y is None:
            yield f"{name}: only in the {'second' if x is None else 'first'} run"
        elif x.shape != y.shape or x.dtype != y.dtype:
            yield f"{name}: {x.dtype} {x.shape} against {y.dtype} {y.shape}"
        elif (i := first_difference(x, y)) is not None:
            yield f"{name}: differs first at {i}: {_show(x[i])} against {_show(y[i])}"


def _different_rows(a, b):
    """Lines, the earliest round first; rows of /clients are compared as far as both have the same number a round."""
    num = min(len(a.ends), len(b.ends))
    apart = first_difference(a.ends[:num], b.ends[:num])
    found = []
    if apart is not None:
        sizes = [np.diff(r.ends[:num], prepend=0)[apart] for r in (a, b)]
        found.append((apart, f"clients: round {_label(a, apart)} has {sizes[0]} against {sizes[1]} participants"))
    common = num if apart is None else apart
    size = int(a.ends[common - 1]) if common else 0
    for name in _compared(a, b):
        table, key = name.split("/", 1)
        limit = num if table == "rounds" else size
        found.append(_different_column(a, b, name, getattr(a, table).get(key), getattr(b, table).get(key), limit))
    return [line for _, line in sorted((f for f in found if f), key=lambda f: f[0])]


def _compared(a, b):
    both = {**a.columns, **b.columns}
    machine = {k for r in (a, b) for k, c in r.columns.items() if c.machine}
    return [k for k in both if k not in machine and k.startswith(("rounds/", "clients/"))]


def _different_column(a, b, name, x, y, limit):
    """(round index, line) of the first difference of one column, or None."""
    if x is None or y is None:
        return 0, f"{name}: only in the {'second' if x is None else 'first'} run"
    if x.dtype != y.dtype or x.shape[1:] != y.shape[1:]:
        return 0, f"{name}: {x.dtype} {x.shape[1:]} against {y.dtype} {y.shape[1:]}"
    i = first_difference(x[:limit], y[:limit])
    if i is None:
        return None
    t = i if name.startswith("rounds/") else int(np.searchsorted(a.ends, i, side="right"))
    client = ""
    if name.startswith("clients/") and "client" in a.clients:
        client = f", client {a.clients['client'][i]}"
    return t, f"{name}: differs first in round {_label(a, t)}{client}: {_show(x[i])} against {_show(y[i])}"


def _label(run, t):
    return run.rounds["round"][t] if "round" in run.rounds else t


def _show(value):
    return repr(np.asarray(value).tolist())


def _different_options(a, b):
    x, y = (r.attrs.get("options") for r in (a, b))
    if not (isinstance(x, dict) and isinstance(y, dict)):
        return []
    return [f"option {k}: {x.get(k)!r} against {y.get(k)!r}" for k in {**x, **y} if x.get(k) != y.get(k)]


def first_difference(x, y):
    """Index of the first row in which two arrays of one dtype and shape differ in a bit, or None; NaN equals NaN."""
    if x.dtype.kind == "f":
        bits = f"u{x.dtype.itemsize}"
        same = (x.view(bits) == y.view(bits)) | (np.isnan(x) & np.isnan(y))
    else:
        same = x == y
    rows = np.flatnonzero(~same.reshape(len(x), -1).all(axis=1)) if x.size else ()
    return int(rows[0]) if len(rows) else None


# ---------------------------------------------------------------- checkpoints


def save_checkpoint(folder, state, round, *, run_id, keep=2):
    """Writes ``state`` to ``folder/<round>.h5``: under another name, onto the disk, then renamed.

    Leaves may be numpy arrays, torch tensors, int, float, bool, str and None; keys str or int. A tensor comes back on
    the CPU. Of the older ones the newest ``keep - 1`` stay; later ones belong to a future that was given up, and go."""
    _check_save(round, keep)
    entries, arrays = flattened(state)
    os.makedirs(folder, exist_ok=True)
    _remove(folder, [n for n in os.listdir(folder) if n.endswith(".tmp")])  # left by a process that was killed
    with _replacing(os.path.join(folder, f"{round:06d}.h5")) as temporary, h5py.File(temporary, "w") as f:
        manifest = json.dumps(dict(run_id=run_id, round=round, entries=entries)).encode()
        f.attrs.update(filetype="fedmpi-checkpoint", schema=SCHEMA, run_id=run_id, round=round)
        f.attrs["sha256"] = _digest(manifest, arrays)
        f["manifest"] = np.frombuffer(manifest, np.uint8)
        for entry, array in zip(entries, arrays):
            if array is not None:
                f[_dataset_name(entry["path"])] = array
    found = _checkpoints(folder)
    _remove(folder, [n for r, n in found if r > round] + [n for r, n in found if r <= round][keep:])


def load_checkpoint(folder, *, run_id, warn=warnings.warn):
    """``(state, round)`` of the newest checkpoint that is sound and of this run; CheckpointError if there is none.

    ``warn(line)`` is called for every newer one that had to be refused."""
    refused = []
    for _, name in _checkpoints(folder):
        path = os.path.join(folder, name)
        try:
            round, entries, arrays = _verified(path, run_id)
        except Exception as reason:  # a damaged file makes h5py raise almost anything; every reason is reported
            refused.append(f"checkpoint {path} is refused: {_line(reason)}")
            continue
        for line in refused:
            warn(f"{line}; {name} is used instead")
        return unflattened(entries, arrays), round
    raise CheckpointError("; ".join(refused) or f"there is no checkpoint in {folder}")


def _check_save(round, keep):
    if round < 0 or keep < 1:
        raise ValueError(f"a checkpoint needs round >= 0 and keep >= 1, got round {round} and keep {keep}")


def _checkpoints(folder):
    """[(round, file name)], the newest first."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    matches = [re.fullmatch(r"(\d{6,})\.h5", n) for n in names]
    return sorted(((int(m[1]), m[0]) for m in matches if m), reverse=True)


def _remove(folder, names):
    for name in names:
        os.unlink(os.path.join(folder, name))


def _verified(path, run_id):
    """(round, entries, arrays) of a checkpoint whose content is what was written, and of this run."""
    with h5py.File(path, "r", locking=False) as f:
        manifest = f["manifest"][...].tobytes()
        parts = json.loads(manifest)
        arrays = [f[_dataset_name(e["path"])][...] if "dtype" in e else None for e in parts["entries"]]
        if _digest(manifest, arrays) != f.attrs["sha256"]:
            raise CheckpointError("its content does not fit its sha256")
    if parts["run_id"] != run_id:
        raise CheckpointError(f"it is of another run ({parts['run_id']}, this one is {run_id})")
    return parts["round"], parts["entries"], arrays


def _digest(manifest, arrays):
    """sha256 of names, dtypes, shapes and plain values (all in the manifest) and of every array's bytes."""
    digest = hashlib.sha256(manifest)
    for array in arrays:
        if array is not None:
            digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()


def _dataset_name(path):
    """``state/strategy/v``; a key that HDF5 could not have as a name is escaped, an int key has a ``#``."""

    def part(key):
        text = f"#{key}" if isinstance(key, int) else quote(key, safe="", errors="surrogatepass")
        return {"": "%", ".": "%2E"}.get(text, text)

    return "/".join(["state", *map(part, path)])


def flattened(state):
    """``(entries, arrays)``: what each leaf is, in a form JSON can hold, and its numbers (None for a plain value).

    The arrays may share memory with the leaves."""
    if not isinstance(state, dict):
        raise ValueError(f"a state must be a dict, got {type(state).__name__}")
    pairs = [_entry(path, leaf) for path, leaf in _leaves(state, ())]
    return [e for e, _ in pairs], [a for _, a in pairs]


def _leaves(tree, path):
    for key, leaf in tree.items():
        if type(key) not in (str, int):
            raise ValueError(f"a key of a state must be a str or an int, got {key!r} at {_at(path)}")
        if isinstance(leaf, dict) and leaf:
            yield from _leaves(leaf, (*path, key))
        else:
            yield (*path, key), leaf


def _at(path):
    return "/".join(map(str, path)) or "the top"


def _entry(path, leaf):
    entry = dict(path=list(path))
    torch = sys.modules.get("torch")  # a tensor cannot exist without it, and nothing else here needs it
    if torch and isinstance(leaf, torch.Tensor):
        return _tensor_entry(entry, leaf, torch)
    if isinstance(leaf, (np.ndarray, np.generic)):
        return _array_entry(entry, leaf)
    if isinstance(leaf, float):
        return {**entry, "kind": "float", "value": struct.pack("<d", leaf).hex()}, None
    if leaf is None or isinstance(leaf, (bool, int, str)):
        return {**entry, "kind": "plain", "value": leaf}, None
    if leaf == {} and isinstance(leaf, dict):
        return {**entry, "kind": "plain", "value": {}}, None
    raise ValueError(f"a state cannot hold a {type(leaf).__name__} (at {_at(path)})")


def _tensor_entry(entry, tensor, torch):
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise ValueError(f"a state can hold dense tensors only (at {_at(entry['path'])})")
    flat = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    entry |= dict(kind="tensor", dtype=str(tensor.dtype).removeprefix("torch."), shape=list(tensor.shape))
    return entry, _stored(flat.view(torch.uint8).numpy(), entry["dtype"], entry["shape"])


def _array_entry(entry, leaf):
    array = np.asarray(leaf)
    if array.dtype.hasobject or array.dtype.fields or not array.dtype.itemsize:
        raise ValueError(f"a state cannot hold an array of dtype {array.dtype} (at {_at(entry['path'])})")
    kind = "array" if isinstance(leaf, np.ndarray) else "scalar"
    entry |= dict(kind=kind, dtype=array.dtype.str, shape=list(array.shape))
    return entry, _stored(np.ravel(array).view(np.uint8), entry["dtype"], entry["shape"])


def _stored(raw, dtype, shape):
    """Bytes (n,) uint8 as HDF5 shall show them: with dtype and shape where HDF5 has that dtype, else as they are."""
    if dtype == "bfloat16":
        return raw.view(np.uint16).reshape(shape or 1)
    if re.fullmatch(r"[<>|][iuf][1248]|u?int\d+|float(16|32|64)", dtype):
        return raw.view(dtype).reshape(shape or 1)
    return raw


def unflattened(entries, arrays):
    """The state that ``flattened`` took apart; it may share memory with ``arrays``."""
    state = {}
    for entry, array in zip(entries, arrays):
        *folders, name = entry["path"]
        here = state
        for folder in folders:
            here = here.setdefault(folder, {})
        here[name] = _leaf(entry, array)
    return state


def _leaf(entry, array):
    if entry["kind"] == "plain":
        return entry["value"]
    if entry["kind"] == "float":
        return struct.unpack("<d", bytes.fromhex(entry["value"]))[0]
    raw = array.reshape(-1).view(np.uint8)
    if entry["kind"] == "tensor":
        import torch

        return torch.from_numpy(raw).view(getattr(torch, entry["dtype"])).reshape(entry["shape"])
    leaf = raw.view(entry["dtype"]).reshape(entry["shape"])
    return leaf[()] if entry["kind"] == "scalar" else leaf
