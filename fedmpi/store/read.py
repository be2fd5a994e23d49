"""Reading HDF5 files, also while they are written; what is wrong with one is said in one line."""

import contextlib
import errno
import os

import h5py
import numpy as np

from fedmpi.errors import DataError, UserError
from fedmpi.store.attrs import FILETYPE, SCHEMA, read_attrs, read_sessions
from fedmpi.store.rows import Run
from fedmpi.store.tables import column_of


def read_run(path):
    """The committed part of a run file, also while it is being written; UserError in one line if it is none."""
    with open_run(path) as f:
        t, r = f["committed"][...].tolist()
        population = f.get("population", {})
        tables = [f[name] for name in ("rounds", "clients")] + [population]
        return Run(
            attrs=read_attrs(f),
            rounds={k: f["rounds"][k][:t] for k in f["rounds"]},
            clients={k: f["clients"][k][:r] for k in f["clients"]},
            population={k: population[k][...] for k in population},
            partition=(f["partition/offsets"][...], f["partition/indices"][...]),
            sessions=read_sessions(f),
            columns={d.name[1:]: column_of(d) for table in tables for d in table.values()},
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
            raise DataError(f"{path}: damaged ({one_line(reason)})") from reason


def _names(f):
    found = []
    f.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return found


@contextlib.contextmanager
def open_run(path):
    """A run file for reading; UserError in one line if it is none, or damaged."""
    with _opened(path, UserError) as f:
        try:
            _check_schema(path, f.attrs)
            yield f
        except (OSError, KeyError, RuntimeError) as reason:
            raise UserError(f"{path}: damaged ({one_line(reason)})") from reason


def _check_schema(path, attrs):
    if attrs.get("filetype") != FILETYPE:
        raise UserError(f"{path}: an HDF5 file, but not a run of fedmpi")
    if attrs["schema"] > SCHEMA:
        raise UserError(f"{path}: written by a newer fedmpi (schema {attrs['schema']}, this one reads {SCHEMA})")


@contextlib.contextmanager
def _opened(path, error):
    """An HDF5 file for reading, without a lock: a look must never make the writer wait. Raises ``error``, one line."""
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise error(f"{path}: it is a folder, not a file" if os.path.isdir(path) else f"{path}: there is no such file")
    try:
        f = h5py.File(path, "r", locking=False)
    except OSError as reason:
        denied = reason.errno in (errno.EACCES, errno.EPERM)
        why = "permission denied" if denied else "not an HDF5 file" if not h5py.is_hdf5(path) else one_line(reason)
        raise error(f"{path}: {why}") from None
    with f:
        yield f


def one_line(reason):
    """An exception's text without line breaks, or its type if it says nothing."""
    return " ".join(str(reason).split()) or type(reason).__name__
