"""Attributes and sessions: as plain values, and as HDF5 holds them."""

import json
import os
import uuid

import h5py
import numpy as np

from fedmpi.store.schema import FILETYPE, SCHEMA
from fedmpi.store.tables import describe


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


def set_attrs(f, attrs):
    """Numbers and texts as they are, the rest as JSON text; the attribute ``json_text`` names those."""
    as_json = set(json.loads(f.attrs.get("json_text", "[]")))
    for name, value in plain(attrs).items():
        native = _is_native(value)
        as_json = as_json - {name} if native else as_json | {name}
        f.attrs[name] = value if native else json.dumps(value)
    f.attrs["json_text"] = json.dumps(sorted(as_json))


def read_attrs(f):
    """What ``set_attrs`` wrote, decoded."""
    as_json = set(json.loads(f.attrs.get("json_text", "[]")))
    values = {k: v.item() if isinstance(v, np.generic) else v for k, v in f.attrs.items() if k != "json_text"}
    return {k: json.loads(v) if k in as_json else v for k, v in values.items()}


def same_keys(sessions):
    """The sessions, each with every key; what one did not have is None."""
    keys = list(dict.fromkeys(k for s in sessions for k in s))
    return [{k: s.get(k) for k in keys} for s in sessions]


def set_sessions(f, sessions):
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
        describe(data, "", f"{key} of each start or resume" + ("" if dtype else ", as JSON"), machine=True)
        data.attrs["json_text"] = dtype is None


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
