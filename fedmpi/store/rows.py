"""What a run consists of: columns, rows that fit them, and the run as it is read."""

from typing import NamedTuple

import numpy as np


class Column(NamedTuple):
    """The description of one column of /rounds, /clients or /own; ``width`` 0 is a scalar. ``machine``: not compared
    between runs. ``dim`` names the dimension of a width; ``names`` are those of the values 0, 1 ... of an
    enumeration."""

    name: str
    dtype: str
    unit: str
    description: str
    machine: bool = False
    width: int = 0
    dim: str = ""
    names: tuple = ()


class Run(NamedTuple):
    """A run as it was read: committed rows only, everything decoded, no open file."""

    attrs: dict  # name -> str, int, float, bool, dict or list
    rounds: dict  # name -> (T,) or (T, width)
    clients: dict  # name -> (R,) or (R, width)
    population: dict  # name -> (N, ...)
    partition: tuple  # offsets (N + 1,), indices
    sessions: list  # one dict for each start or resume
    columns: dict  # "rounds/accuracy" -> Column, also for clients, own and population
    ends: np.ndarray  # (T,) client rows committed after each round
    own: dict = {}  # name -> (S,): clients' models on their own test parts; empty where there are none
    own_ends: np.ndarray = np.zeros(0, np.int64)  # (T,) rows of own committed after each round


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
        if c.names and dtype.kind != "i":
            raise ValueError(f"column {c.name}: an enumeration must be of signed integers, got {c.dtype}")
    return tuple(_usual(c) for c in columns)


def _usual(column):
    """The column with its dtype's usual name, and with a dimension where it has a width."""
    dim = column.dim or own_dims(column.name, 2)[0] if column.width else ""
    return column._replace(dtype=dtype_name(np.dtype(column.dtype)), dim=dim, names=tuple(column.names))


def own_dims(name, ndim):
    """The names of all dimensions but the first, where nobody has named them."""
    return [f"{name}_item" if axis == 1 else f"{name}_item_{axis}" for axis in range(1, ndim)]


def dtype_name(dtype):
    if dtype.kind in "OU":
        return "str"
    return dtype.name if dtype.kind in "biuf" else dtype.str.lstrip("|")


def checked_round(columns, row, client_rows, own_rows=None):
    """``(row, {table: (rows, how many)})`` of what a round adds to /rounds and to /clients and /own, with every value
    an array of its column's dtype and shape, or ValueError. No ``own_rows`` are none of them."""
    _check_names("rounds", columns["rounds"], row)
    if own_rows is None:
        own_rows = {column.name: np.empty(0, column.dtype) for column in columns["own"]}
    many = {"clients": _checked_rows("clients", columns, client_rows),
            "own": _checked_rows("own", columns, own_rows)}
    return {c.name: _fitted(f"rounds/{c.name}", c, row[c.name], ()) for c in columns["rounds"]}, many


def _checked_rows(table, columns, rows):
    """``(rows, how many)`` of a table that has several rows a round."""
    _check_names(table, columns[table], rows)
    num = len(np.atleast_1d(np.asarray(next(iter(rows.values()), ()))))
    return {c.name: _fitted(f"{table}/{c.name}", c, rows[c.name], (num,)) for c in columns[table]}, num


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
    if column.names and fitted.size and not 0 <= fitted.min() <= fitted.max() < len(column.names):
        raise ValueError(f"{label}: must be 0 to {len(column.names) - 1} ({', '.join(column.names)}), got {value!r}")
    return fitted


def check_truncate(rounds, have):
    if not 0 <= rounds <= have:
        raise ValueError(f"cannot truncate to {rounds} rounds: the run has {have}")
