"""Reading HDF5 files, also while they are written; what is wrong with one is said in one line."""

import contextlib
import errno
import os
import time

import h5py
import numpy as np

from fedmpi.errors import DataError, UserError
from fedmpi.store.attrs import read_attrs, read_sessions
from fedmpi.store.rows import Run
from fedmpi.store.schema import FILETYPE, RENAMED, SCHEMA
from fedmpi.store.tables import column_of


DAMAGE = (OSError, AttributeError, KeyError, RuntimeError, TypeError, ValueError)     # what h5py and JSON raise on it


class Unsettled(UserError):
    """A run file that is damaged, or, over a network file system, not all there yet."""


def read_run(path, only=None, patience_s=0.0):
    """The committed part of a run file, also while it is being written; UserError in one line if it is none.

    ``only`` names what is wanted of the tables, as ``rounds`` or ``clients/outcome``; the rest is left empty. What
    looks damaged is read again for ``patience_s`` seconds: over a network file system rows may come after what counts
    them."""
    give_up = time.monotonic() + patience_s
    while True:
        try:
            return _read(path, only)
        except Unsettled:
            if time.monotonic() >= give_up:
                raise
        time.sleep(0.05)


def _read(path, only):
    with open_run(path) as f:
        t, r = f["committed"][...].tolist()
        wanted = {table: {RENAMED.get(f"{table}/{name}", name): data for name, data in group.items()
                          if only is None or {table, f"{table}/{name}"} & set(only)}
                  for table, group in (("rounds", f["rounds"]), ("clients", f["clients"]),
                                       ("partition", f["partition"]), ("population", f.get("population", {})))}
        ends = f["ends"][:t]
        if t and ends[-1] != r:
            raise Unsettled(f"{path}: damaged, or its last rows are not there yet ({r} client rows, expected "
                            f"{ends[-1]})")
        return Run(
            attrs=read_attrs(f),
            rounds={name: data[:t] for name, data in wanted["rounds"].items()},
            clients={name: data[:r] for name, data in wanted["clients"].items()},
            population={name: data[...] for name, data in wanted["population"].items()},
            partition=tuple(wanted["partition"][name][...] for name in ("offsets", "indices") if wanted["partition"]),
            sessions=read_sessions(f),
            columns={f"{table}/{name}": column_of(data)._replace(name=name)
                     for table in ("rounds", "clients", "population") for name, data in wanted[table].items()},
            ends=ends,
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
            raise DataError(f"{path}: damaged ({one_line(reason)})") from reason


def _names(f):
    found = []
    f.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return found


@contextlib.contextmanager
def open_run(path):
    """A run file for reading; UserError in one line if it is none, or damaged."""
    with _opened(path, UserError, Unsettled) as f:
        try:
            _check_schema(path, f.attrs)
            yield f
        except DAMAGE as reason:
            raise Unsettled(f"{path}: damaged ({one_line(reason)})") from reason


def why_no_run(path):
    """A line on why the file ``path`` is no run that can be read, empty where it is one. A run that is damaged is
    one: whoever reads it says so."""
    try:
        with open_run(path):
            return ""
    except Unsettled:
        return ""
    except UserError as error:
        return str(error)


def _check_schema(path, attrs):
    if attrs.get("filetype") != FILETYPE:
        raise UserError(f"{path}: an HDF5 file, but not a run of fedmpi")
    if attrs["schema"] > SCHEMA:
        raise UserError(f"{path}: written by a newer fedmpi (schema {attrs['schema']}, this one reads {SCHEMA}): "
                        "update fedmpi")


@contextlib.contextmanager
def _opened(path, error, unsettled=None):
    """An HDF5 file for reading, without a lock: a look must never make the writer wait. Raises ``error``, one line."""
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise error(f"{path}: it is a folder, not a file" if os.path.isdir(path) else f"{path}: there is no such file")
    try:
        f = _unlocked(path)
    except OSError as reason:
        denied = reason.errno in (errno.EACCES, errno.EPERM)
        alien = not denied and not h5py.is_hdf5(path)
        why = "permission denied" if denied else "not an HDF5 file" if alien else one_line(reason)
        raise (error if denied or alien else unsettled or error)(f"{path}: {why}") from None
    with f:
        yield f


def _unlocked(path):
    """The file, without a lock; where this process has it open already, a notebook say, with the lock that it has."""
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as reason:
        if "locking flag" not in str(reason):
            raise
    return h5py.File(path, "r")


def one_line(reason):
    """An exception's text without line breaks, or its type if it says nothing."""
    return " ".join(str(reason).split()) or type(reason).__name__
