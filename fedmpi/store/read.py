"""Reading HDF5 files, also while they are written; what is wrong with one is said in one line."""

import contextlib
import errno
import os
import time

import h5py
import numpy as np

from fedmpi.core.errors import DataError, UserError
from fedmpi.store.attrs import read_attrs, read_sessions
from fedmpi.store.rows import Run
from fedmpi.store.schema import FILETYPE, RENAMED, SCHEMA
from fedmpi.store.tables import (PARTITION, POPULATION_DIM, column_of, committed, dtypes_of,
                                 fact_values)
from fedmpi.store.texts import text_names


OWN_DATA = "; data of one's own are one HDF5 file with x_train, y_train, x_test and y_test"
LISTED = 12         # data sets of a user's file that a line names
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
        t, r, s = committed(f)
        wanted = {table: {RENAMED.get(f"{table}/{name}", name): data for name, data in f.get(table, {}).items()
                          if only is None or {table, f"{table}/{name}"} & set(only)}
                  for table in ("rounds", "clients", "own", "partition", "population")}
        wanted["population"].pop(POPULATION_DIM, None)     # 0, 1 ...: the coordinates of its dimension
        for table in ("rounds", "clients", "own"):
            for name in text_names(dtypes_of(wanted[table])):
                del wanted[table][name]
        ends = f["ends"][:t]
        if t and ends[-1] != r:
            raise Unsettled(f"{path}: damaged, or its last rows are not there yet ({r} client rows, expected "
                            f"{ends[-1]})")
        return Run(
            attrs=read_attrs(f),
            rounds={name: data[:t] for name, data in wanted["rounds"].items()},
            clients={name: data[:r] for name, data in wanted["clients"].items()},
            population={name: fact_values(data) for name, data in wanted["population"].items()},
            partition=tuple(wanted["partition"][name][...] for name in PARTITION if name in wanted["partition"]),
            sessions=read_sessions(f),
            columns={f"{table}/{name}": column_of(data)._replace(name=name)
                     for table in ("rounds", "clients", "own", "population")
                     for name, data in wanted[table].items()},
            ends=ends,
            own={name: data[:s] for name, data in wanted["own"].items()},
            own_ends=f["own_ends"][:t] if "own_ends" in f else np.zeros(0, np.int64),
        )


def read_arrays(path, names, optional=()):
    """``({name: array}, others)`` of a user's own HDF5 file, or DataError in one line.

    The arrays are those of the data sets ``names`` and of those ``optional`` ones that are there,
    texts as numpy's str; ``others`` tells of each other data set of the file. Capitals make no
    difference: X_train is x_train.
    """
    with _opened(path, DataError) as f:
        _refuse_run(path, f)
        held = _data_sets(f)
        places = {name: [place for place in held if place.lower() == name.lower()]
                  for name in (*names, *optional)}
        places = {name: found for name, found in places.items() if found}
        _refuse_names(path, held, names, places)
        for found in places.values():
            _refuse_filters(path, held[found[0]])
        used = {place for found in places.values() for place in found}
        others = _listed({place: data for place, data in held.items() if place not in used})
        try:
            return {name: _array(held[found[0]]) for name, found in places.items()}, others
        except (OSError, RuntimeError) as reason:
            raise DataError(f"{path}: damaged ({one_line(reason)})") from reason


def _refuse_run(path, f):
    """DataError where the file is one that this program has written."""
    if f.attrs.get("filetype") == FILETYPE:
        raise DataError(f"{path}: it is the run file of an earlier training, no data set; name the "
                        "data's own file")


def _data_sets(f):
    """``{name: h5py.Dataset}`` of all data sets of a file, those in groups by their whole path."""
    held = {}

    def look(name, item):
        if isinstance(item, h5py.Dataset):
            held[name] = item

    # A visit passes over links and over a second name of the same data set.
    for name in f:
        with contextlib.suppress(OSError):                 # a link to a file that is not there
            look(name, f.get(name))
    f.visititems(look)
    return held


def _refuse_names(path, held, names, places):
    """DataError where a data set is missing, or there are two that differ in capitals only."""
    missing = [name for name in names if name not in places]
    if missing:
        has = ", ".join(_listed(held)) or "none"
        raise DataError(f"{path}: has no data set {', '.join(missing)}; expected "
                        f"{', '.join(names)}, a row a sample, and found {has}; rename them: "
                        "h5py.File(path, 'a').move(old, new)")
    for found in places.values():
        if len(found) > 1:
            raise DataError(f"{path}: has both {' and '.join(found)}; remove or rename one of them")


def _refuse_filters(path, data):
    """DataError where the data set went through a filter, such as a compression, that is not
    installed."""
    plist = data.id.get_create_plist()
    for number in range(plist.get_nfilters()):
        code, _, _, name = plist.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            text = name.decode("utf-8", "replace") or "without a name"
            raise DataError(f"{path}: {data.name} is stored by HDF5 filter {code} ({text}), which "
                            "is not installed here; where it is, h5repack -f GZIP=4 OLD NEW makes "
                            "a file that everybody can read")


def _listed(held):
    """A text for each data set of ``held``, its name, shape and dtype; at most LISTED of them."""
    texts = []
    for name, data in list(held.items())[:LISTED]:
        kind = "text" if h5py.check_string_dtype(data.dtype) else data.dtype
        texts.append(f"{name} {data.shape} {kind}")
    more = len(held) - LISTED
    return texts + [f"{more} more"] * (more > 0)


def _array(data):
    """The values of a data set; texts as numpy's str, bytes that are no UTF-8 as backslashes and
    digits."""
    if not h5py.check_string_dtype(data.dtype):
        return np.asarray(data[()])
    texts = np.asarray(data.asstr("utf-8", "backslashreplace")[()])
    return texts.astype(str)


@contextlib.contextmanager
def open_run(path, **cache):
    """A run file for reading; UserError in one line if it is none, or damaged. ``cache`` goes to h5py."""
    with _opened(path, UserError, Unsettled, **cache) as f:
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
def _opened(path, error, unsettled=None, **cache):
    """An HDF5 file for reading, without a lock: a look must never make the writer wait. Raises ``error``, one line."""
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise error(f"{path}: {_why_no_file(path)}")
    try:
        f = _unlocked(path, cache)
    except OSError as reason:
        denied = reason.errno in (errno.EACCES, errno.EPERM)
        alien = not denied and not h5py.is_hdf5(path)
        why = _why_closed(reason, denied, alien) + OWN_DATA * (alien and error is DataError)
        raise (error if denied or alien else unsettled or error)(f"{path}: {why}") from None
    with f:
        yield f


def _why_no_file(path):
    """Half a line about a path that is no regular file, with the HDF5 files of a folder."""
    if os.path.exists(path) and not os.path.isdir(path):
        return "it is a pipe or a device, not a file"
    if not os.path.isdir(path):
        return "there is no such file"
    names = sorted(os.listdir(path)) if os.access(path, os.R_OK) else []
    held = [name for name in names if name.lower().endswith((".h5", ".hdf5"))]
    return "it is a folder, not a file" + f"; name one in it, such as {held[0]}" * bool(held)


def _why_closed(reason, denied, alien):
    """Half a line about why a file could not be opened, and the way out where there is one."""
    if denied:
        return "permission denied"
    if alien:
        return "not an HDF5 file"
    text = one_line(reason)
    if "already open for write" in text:
        return ("another program has it open for writing: close it there; if none has, one was "
                "killed, and h5clear -s FILE clears its mark")
    return text


def _unlocked(path, cache):
    """The file, without a lock; where this process has it open already, a notebook say, with the lock that it has."""
    try:
        return h5py.File(path, "r", locking=False, **cache)
    except OSError as reason:
        if "locking flag" not in str(reason):
            raise
    return h5py.File(path, "r", **cache)


def one_line(reason):
    """An exception's text without line breaks, or its type if it says nothing."""
    return " ".join(str(reason).split()) or type(reason).__name__
