"""Attributes and sessions: as plain values, and as HDF5 holds them."""

import json
import os
import uuid

import h5py
import numpy as np

from fedmpi.store.schema import FILETYPE, SCHEMA
from fedmpi.store.scales import attach, describe, label


def own_attrs(attrs):
    """The attributes of a new run, with those that every run has; a run_id among them stays."""
    return {**attrs, "filetype": FILETYPE, "schema": SCHEMA, "run_id": attrs.get("run_id") or uuid.uuid4().hex}


def plain(value):
    """A copy as JSON gives it back: arrays are lists, paths are texts; ValueError for what JSON cannot say."""
    return json.loads(json.dumps(value, default=_jsonable))


def _jsonable(value):
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise ValueError(f"an attribute must be a number, a text or something JSON can say, got {type(value).__name__}")


def _is_native(value):
    if isinstance(value, str):
        return _is_text(value)
    return isinstance(value, (bool, float)) or (isinstance(value, int) and -(2**63) <= value < 2**63)


def _is_text(value):
    """Whether HDF5 can hold it: not bytes of a file's name that are no text, nor a text with zeros. As JSON it can."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def _is_texts(value):
    """Whether it is a list of texts that HDF5 can hold; an empty list does not say of what."""
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(each, str) and _is_text(each) for each in value)


def set_attrs(f, attrs):
    """Numbers and texts as they are, lists of texts as arrays of them, the rest as JSON text; the attribute
    ``json_text`` names those."""
    as_json = set(_in_json(f))
    for name, value in plain(attrs).items():
        as_json.discard(name)
        if _is_texts(value):
            f.attrs[name] = _texts(value)
        elif _is_native(value):
            f.attrs[name] = value
        else:
            f.attrs[name] = json.dumps(value)
            as_json.add(name)
    f.attrs["json_text"] = _texts(sorted(as_json))


def _texts(values):
    return np.array(values, h5py.string_dtype())


def _in_json(f):
    """The names of the attributes that hold JSON; before schema 3 this list was JSON itself."""
    names = f.attrs.get("json_text", [])
    return json.loads(names) if isinstance(names, str) else list(names)


def read_attrs(f):
    """What ``set_attrs`` wrote, decoded."""
    as_json = set(_in_json(f))
    found = {}
    for name, value in f.attrs.items():
        if name in as_json:
            found[name] = json.loads(value)
        elif isinstance(value, (np.generic, np.ndarray)):
            found[name] = value.tolist()
        else:
            found[name] = value
    found.pop("json_text", None)
    return found


def same_keys(sessions):
    """The sessions, each with every key; what one did not have is None."""
    keys = list(dict.fromkeys(k for s in sessions for k in s))
    return [{k: s.get(k) for k in keys} for s in sessions]


def set_sessions(f, sessions):
    """One data set a key: int64, float64 or text, and JSON text where the values are of several kinds. The first key
    is the dimension of the others."""
    if "sessions" in f:
        del f["sessions"]
    group = f.create_group("sessions", track_order=True)
    dim = next(iter(sessions[0]))
    for key in sessions[0]:
        values = [session[key] for session in sessions]
        dtype = _session_dtype(values)
        texts = values if dtype else [json.dumps(value) for value in values]
        data = group.create_dataset(key, data=texts, dtype=dtype or h5py.string_dtype())
        describe(data, "", f"{key} of each start or resume" + ("" if dtype else ", as JSON"), machine=True)
        data.attrs["json_text"] = dtype is None
        label(data, dim)
    attach(f, group)


def _session_dtype(values):
    """What HDF5 holds these values as; None where they are of several kinds, or of one that only JSON can hold."""
    kind = type(values[0])
    if not all(type(value) is kind and _is_native(value) for value in values):
        return None
    return {int: np.int64, float: np.float64, str: h5py.string_dtype()}.get(kind)


def read_sessions(f):
    """One dict for each start or resume; an empty list before the first."""
    group = f.get("sessions", {})
    columns = {k: _cells(group[k]) for k in group}
    return [dict(zip(columns, row)) for row in zip(*columns.values())]


def _cells(data):
    if data.dtype.kind in "if":
        return data[...].tolist()
    texts = data.asstr()[...].tolist()
    return [json.loads(t) for t in texts] if data.attrs["json_text"] else texts
