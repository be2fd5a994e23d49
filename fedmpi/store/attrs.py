"""Attributes and sessions of a run: as plain values, and as HDF5 holds them."""

import json
import os
import uuid

import h5py
import numpy as np

from fedmpi.core import former
from fedmpi.store.scales import attach, describe, label
from fedmpi.store.schema import FILETYPE, SCHEMA


def own_attrs(attrs):
    """The attributes of a new run: ``attrs``, plus the ones every run has. A run_id in ``attrs`` stays."""
    run_id = attrs.get("run_id") or uuid.uuid4().hex
    return {**attrs, "filetype": FILETYPE, "schema": SCHEMA, "run_id": run_id}


def plain(value):
    """A copy as JSON gives it back: arrays are lists, paths are texts. ValueError if JSON cannot hold the value."""
    return json.loads(json.dumps(value, default=_jsonable))


def _jsonable(value):
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    kind = type(value).__name__
    raise ValueError(f"an attribute must be a number, a text or something JSON can say, got {kind}")


def _is_native(value):
    """Whether HDF5 has a scalar type for the value."""
    if isinstance(value, str):
        return _is_text(value)
    if isinstance(value, (bool, float)):
        return True
    if isinstance(value, int):
        # The range of int64.
        return -(2**63) <= value < 2**63
    return False


def _is_text(value):
    """Whether HDF5 can hold the text. JSON can hold the exceptions: zeros, and undecodable bytes of file names."""
    try:
        encoded = value.encode()
    except UnicodeEncodeError:
        return False
    return b"\0" not in encoded


def _is_texts(value):
    """Whether the value is a list of texts for HDF5. An empty list has no type, so it goes as JSON."""
    if not isinstance(value, list) or not value:
        return False
    for item in value:
        if not isinstance(item, str) or not _is_text(item):
            return False
    return True


def set_attrs(f, attrs):
    """Sets attributes of the file ``f``.

    Numbers and texts are stored as they are, lists of texts as arrays, everything else as JSON text. The attribute
    ``json_text`` lists the names of the latter."""
    json_names = set(_names_of_json(f))
    for name, value in plain(attrs).items():
        json_names.discard(name)
        if _is_texts(value):
            f.attrs[name] = _texts(value)
        elif _is_native(value):
            f.attrs[name] = value
        else:
            f.attrs[name] = json.dumps(value)
            json_names.add(name)
    f.attrs["json_text"] = _texts(sorted(json_names))


def _texts(values):
    return np.array(values, h5py.string_dtype())


def _names_of_json(f):
    """The names of the attributes holding JSON."""
    names = f.attrs.get("json_text", [])
    # Before schema 3 this list was JSON itself.
    if isinstance(names, str):
        return json.loads(names)
    return list(names)


def read_attrs(f):
    """The attributes written by ``set_attrs``, decoded."""
    json_names = set(_names_of_json(f))
    attrs = {}
    for name, value in f.attrs.items():
        if name in json_names:
            attrs[name] = json.loads(value)
        elif isinstance(value, (np.generic, np.ndarray)):
            attrs[name] = value.tolist()
        else:
            attrs[name] = value
    attrs.pop("json_text", None)
    return _with_present_names(attrs)


def _with_present_names(attrs):
    """The attributes of a run, its options and kinds of parts under the names of today."""
    renamed = dict(attrs)
    if isinstance(attrs.get("options"), dict):
        renamed["options"] = former.present_names(attrs["options"])
    if isinstance(attrs.get("parts"), list):
        renamed["parts"] = [_with_present_kind(part) for part in attrs["parts"]]
    return renamed


def _with_present_kind(part):
    kind = part["kind"]
    return part | {"kind": former.OPTIONS.get(kind, kind)}


def same_keys(sessions):
    """The sessions, each with the keys of all; a value missing in a session is None."""
    # A dict keeps the order of its first keys.
    keys = {}
    for session in sessions:
        keys |= session
    return [{key: session.get(key) for key in keys} for session in sessions]


def set_sessions(f, sessions):
    """Replaces /sessions by one data set a key: int64, float64 or text; JSON text where the values differ in kind.
    The first key is the dimension of the others."""
    if "sessions" in f:
        del f["sessions"]
    group = f.create_group("sessions", track_order=True)
    dim = next(iter(sessions[0]))
    for key in sessions[0]:
        values = [session[key] for session in sessions]
        label(_create_session_column(group, key, values), dim)
    attach(f, group)


def _create_session_column(group, key, values):
    description = f"{key} of each start or resume"
    dtype = _session_dtype(values)
    as_json = dtype is None
    if as_json:
        dtype = h5py.string_dtype()
        values = [json.dumps(value) for value in values]
        description += ", as JSON"
    data = group.create_dataset(key, data=values, dtype=dtype)
    describe(data, "", description, machine=True)
    data.attrs["json_text"] = as_json
    return data


def _session_dtype(values):
    """The HDF5 dtype of these values; None if they are of several kinds, or of a kind only JSON can hold."""
    kind = type(values[0])
    for value in values:
        if type(value) is not kind or not _is_native(value):
            return None
    dtypes = {int: np.int64, float: np.float64, str: h5py.string_dtype()}
    return dtypes.get(kind)


def read_sessions(f):
    """One dict for each start or resume; an empty list before the first."""
    group = f.get("sessions", {})
    columns = {}
    for key in group:
        columns[key] = _cells(group[key])
    sessions = []
    for row in zip(*columns.values()):
        session = dict(zip(columns, row))
        sessions.append(session)
    return sessions


def _cells(data):
    if data.dtype.kind in "if":
        return data[...].tolist()
    texts = data.asstr()[...].tolist()
    if not data.attrs["json_text"]:
        return texts
    return [json.loads(text) for text in texts]
