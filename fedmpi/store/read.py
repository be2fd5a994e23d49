"""Reads HDF5 files, also while they are written; a faulty file gives an error of one line."""

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
# Data sets of a user's file named in one line.
LISTED = 12
# The exceptions of h5py and JSON on a damaged file.
DAMAGE = (OSError, AttributeError, KeyError, RuntimeError, TypeError, ValueError)
TABLES = ("rounds", "clients", "own")
GROUPS = (*TABLES, "partition", "population")


class Unsettled(UserError):
    """A run file is damaged or, over a network file system, not complete yet."""


def read_run(path, only=None, patience_s=0.0):
    """The committed part of a run file, also while it is being written. UserError in one line if it is none.

    ``only`` names the tables or columns to read, as ``rounds`` or ``clients/outcome``; the rest is left empty. A file
    with signs of damage is read again for ``patience_s`` seconds: over a network file system, rows may come after
    their count."""
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
        num_rounds, client_rows, own_rows = committed(f)
        ends = _client_ends(path, f, num_rounds, client_rows)
        groups = {table: _wanted(f, table, only) for table in GROUPS}
        # 0, 1 ...: only the coordinates of its dimension.
        groups["population"].pop(POPULATION_DIM, None)
        for table in TABLES:
            for name in text_names(dtypes_of(groups[table])):
                del groups[table][name]
        own_ends = np.zeros(0, np.int64)
        if "own_ends" in f:
            own_ends = f["own_ends"][:num_rounds]
        return Run(
            attrs=read_attrs(f),
            rounds=_first_rows(groups["rounds"], num_rounds),
            clients=_first_rows(groups["clients"], client_rows),
            population={name: fact_values(data) for name, data in groups["population"].items()},
            partition=tuple(groups["partition"][name][...] for name in PARTITION if name in groups["partition"]),
            sessions=read_sessions(f),
            columns=_columns(groups),
            ends=ends,
            own=_first_rows(groups["own"], own_rows),
            own_ends=own_ends,
        )


def _wanted(f, table, only):
    """``{name: h5py.Dataset}`` of a group, by today's names; without ``only``, of all."""
    wanted = {}
    group = f.get(table, {})
    for stored_name in group:
        path = f"{table}/{stored_name}"
        if only is None or table in only or path in only:
            name = RENAMED.get(path, stored_name)
            wanted[name] = group[stored_name]
    return wanted


def _client_ends(path, f, num_rounds, client_rows):
    """(T,) client rows after each round. Unsettled if the last differs from the number of rows."""
    ends = f["ends"][:num_rounds]
    if num_rounds and ends[-1] != client_rows:
        raise Unsettled(f"{path}: damaged, or its last rows are not there yet ({client_rows} client rows, expected "
                        f"{ends[-1]})")
    return ends


def _first_rows(group, num_rows):
    return {name: data[:num_rows] for name, data in group.items()}


def _columns(groups):
    """``{table/name: Column}`` of tables and population."""
    columns = {}
    for table in (*TABLES, "population"):
        for name, data in groups[table].items():
            column = column_of(data)
            columns[f"{table}/{name}"] = column._replace(name=name)
    return columns


def read_arrays(path, names, optional=()):
    """``({name: array}, others)`` of a user's own HDF5 file, or DataError in one line.

    The arrays are the data sets ``names``, and the ``optional`` ones if present, texts as numpy's str. ``others`` is a
    list of texts, one for each other data set of the file. Capitals make no difference: X_train is x_train.
    """
    with _opened(path, DataError) as f:
        _refuse_run(path, f)
        data_sets = _data_sets(f)
        spellings = _spellings(data_sets, (*names, *optional))
        _refuse_names(path, data_sets, names, spellings)
        # Now each name has one spelling.
        used = {name: places[0] for name, places in spellings.items()}
        for place in used.values():
            _refuse_filters(path, data_sets[place])
        others = dict(data_sets)
        for place in used.values():
            del others[place]
        try:
            arrays = {name: _array(data_sets[place]) for name, place in used.items()}
        except (OSError, RuntimeError) as reason:
            raise DataError(f"{path}: damaged ({one_line(reason)})") from reason
        return arrays, _listed(others)


def read_clients(path, group, fields):
    """``{client: {field: array}}`` of an archive ``group/CLIENT/FIELD``, in the order of names.

    DataError in one line if the file has no such group, or a client lacks a field. Texts are
    numpy's str.
    """
    with _opened(path, DataError) as f:
        if group not in f:
            raise DataError(f"{path}: has no group {group}, but {', '.join(f) or 'nothing'}")
        clients = {}
        for name, client in f[group].items():
            lacking = [field for field in fields if field not in client]
            if lacking:
                raise DataError(f"{path}: {group}/{name} has no {', '.join(lacking)}, but "
                                f"{', '.join(client) or 'nothing'}")
            try:
                clients[name] = {field: _array(client[field]) for field in fields}
            except (OSError, RuntimeError) as reason:
                raise DataError(f"{path}: damaged ({one_line(reason)})") from reason
        return clients


def _spellings(data_sets, names):
    """``{name: data sets of this name in any capitals}``, without names absent from the file."""
    spellings = {}
    for name in names:
        places = [place for place in data_sets if place.lower() == name.lower()]
        if places:
            spellings[name] = places
    return spellings


def _refuse_run(path, f):
    """DataError if the file is a run file of this program."""
    if f.attrs.get("filetype") == FILETYPE:
        raise DataError(f"{path}: it is the run file of an earlier training, no data set; name the "
                        "data's own file")


def _data_sets(f):
    """``{name: h5py.Dataset}`` of all data sets of a file; inside groups, by the whole path."""
    data_sets = {}

    def look(name, item):
        if isinstance(item, h5py.Dataset):
            data_sets[name] = item

    # A visit passes over links and over a second name of the same data set.
    for name in f:
        # OSError: a link to an absent file.
        with contextlib.suppress(OSError):
            look(name, f.get(name))
    f.visititems(look)
    return data_sets


def _refuse_names(path, data_sets, names, spellings):
    """DataError if a data set is missing, or if two names differ in capitals only."""
    missing = [name for name in names if name not in spellings]
    if missing:
        present = ", ".join(_listed(data_sets)) or "none"
        raise DataError(f"{path}: has no data set {', '.join(missing)}; expected "
                        f"{', '.join(names)}, a row a sample, and found {present}; rename them: "
                        "h5py.File(path, 'a').move(old, new)")
    for places in spellings.values():
        if len(places) > 1:
            raise DataError(f"{path}: has both {' and '.join(places)}; remove or rename one of them")


def _refuse_filters(path, data):
    """DataError if reading the data set needs a filter, such as a compression, missing on this machine."""
    plist = data.id.get_create_plist()
    for number in range(plist.get_nfilters()):
        code, _, _, name = plist.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            text = name.decode("utf-8", "replace") or "without a name"
            raise DataError(f"{path}: {data.name} is stored by HDF5 filter {code} ({text}), which "
                            "is not installed here; where it is, h5repack -f GZIP=4 OLD NEW makes "
                            "a file that everybody can read")


def _listed(data_sets):
    """A text for each data set: its name, shape and dtype; at most LISTED of them, then their number."""
    texts = []
    for name, data in list(data_sets.items())[:LISTED]:
        dtype = data.dtype
        if h5py.check_string_dtype(dtype):
            dtype = "text"
        texts.append(f"{name} {data.shape} {dtype}")
    num_more = len(data_sets) - LISTED
    if num_more > 0:
        texts.append(f"{num_more} more")
    return texts


def _array(data):
    """The values of a data set; texts as numpy's str, with backslashes and digits for bytes outside UTF-8."""
    if not h5py.check_string_dtype(data.dtype):
        return np.asarray(data[()])
    texts = np.asarray(data.asstr("utf-8", "backslashreplace")[()])
    return texts.astype(str)


@contextlib.contextmanager
def open_run(path, **cache):
    """A run file for reading. UserError in one line if it is none, or damaged. ``cache`` goes to h5py."""
    with _opened(path, UserError, Unsettled, **cache) as f:
        try:
            _check_schema(path, f.attrs)
            yield f
        except DAMAGE as reason:
            raise Unsettled(f"{path}: damaged ({one_line(reason)})") from reason


def why_no_run(path):
    """A line on why the file ``path`` is no readable run, empty if it is one. A damaged run counts as one: its reader
    reports the damage."""
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
    """An HDF5 file for reading. Raises ``error`` in one line; ``unsettled``, if set, for signs of damage."""
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise error(f"{path}: {_why_no_file(path)}")
    try:
        f = _unlocked(path, cache)
    except OSError as reason:
        raise _not_opened(path, reason, error, unsettled or error) from None
    with f:
        yield f


def _not_opened(path, reason, error, unsettled):
    """The exception for a file h5py could not open."""
    if reason.errno in (errno.EACCES, errno.EPERM):
        return error(f"{path}: permission denied")
    if h5py.is_hdf5(path):
        return unsettled(f"{path}: {_why_closed(reason)}")
    why = "not an HDF5 file"
    if error is DataError:
        why += OWN_DATA
    return error(f"{path}: {why}")


def _why_closed(reason):
    """Half a line: why an HDF5 file could not be opened, and the way out if there is one."""
    text = one_line(reason)
    if "already open for write" in text:
        return ("another program has it open for writing: close it there; if none has, one was "
                "killed, and h5clear -s FILE clears its mark")
    return text


def _why_no_file(path):
    """Half a line about a path to no regular file; for a folder, with an HDF5 file inside."""
    if os.path.isdir(path):
        return "it is a folder, not a file" + _example_in(path)
    if os.path.exists(path):
        return "it is a pipe or a device, not a file"
    return "there is no such file"


def _example_in(folder):
    if not os.access(folder, os.R_OK):
        return ""
    for name in sorted(os.listdir(folder)):
        if name.lower().endswith((".h5", ".hdf5")):
            return f"; name one in it, such as {name}"
    return ""


def _unlocked(path, cache):
    """The file, without a lock, so that no reader makes the writer wait."""
    try:
        return h5py.File(path, "r", locking=False, **cache)
    except OSError as reason:
        if "locking flag" not in str(reason):
            raise
    # This process has it open already, in a notebook perhaps: HDF5 wants the same locking then.
    return h5py.File(path, "r", **cache)


def one_line(reason):
    """An exception's text without line breaks, or its type if the text is empty."""
    return " ".join(str(reason).split()) or type(reason).__name__
