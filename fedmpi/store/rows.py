"""The parts of a run: columns, rows fitting them, and the run as it is read."""

from typing import NamedTuple

import numpy as np


class Column(NamedTuple):
    """The description of one column of /rounds, /clients or /own."""

    name: str
    dtype: str
    unit: str
    description: str
    # Not compared between runs.
    machine: bool = False
    # 0: a scalar.
    width: int = 0
    # The dimension of the width.
    dim: str = ""
    # Of the values 0, 1 ... of an enumeration.
    names: tuple = ()


class Run(NamedTuple):
    """A run as it was read: committed rows only, everything decoded, no open file."""

    # {name: str, int, float, bool, dict or list}
    attrs: dict
    # {name: (T,) or (T, width)}
    rounds: dict
    # {name: (R,) or (R, width)}
    clients: dict
    # {name: (N, ...)}
    population: dict
    # offsets (N + 1,) and indices; the same of clients' test parts, if there are some
    partition: tuple
    # one dict for each start or resume
    sessions: list
    # {"rounds/accuracy": Column}, also of clients, own and population
    columns: dict
    # (T,) client rows committed after each round
    ends: np.ndarray
    # {name: (S,)}: clients' models on their own test parts; empty without such parts
    own: dict = {}
    # (T,) rows of own committed after each round
    own_ends: np.ndarray = np.zeros(0, np.int64)


def checked_columns(columns):
    """The columns as a tuple, dtypes by their usual names.

    ValueError for a name twice or a dtype of no fixed size.
    """
    columns = tuple(columns)
    names = [column.name for column in columns]
    if len(set(names)) != len(names):
        raise ValueError(f"column names must differ, got {names}")
    for column in columns:
        _check_column(column)
    return tuple(_usual(column) for column in columns)


def _check_column(column):
    name = column.name
    dtype = np.dtype(column.dtype)
    kind = dtype.kind
    is_fixed = kind in "biufS" and dtype.itemsize > 0
    # Their size depends on the machine.
    is_long_float = kind == "f" and dtype.itemsize > 8
    if not is_fixed or is_long_float:
        raise ValueError(f"column {name}: dtype must be bool, int, float or S<bytes>, "
                         f"got {column.dtype}")
    # HDF5 takes "/" as a path, and "." as the group itself.
    is_name = name not in ("", ".") and "/" not in name
    if not is_name or column.width < 0:
        raise ValueError(f"column {name!r}: needs a name without '/' and a width of at least 0")
    if column.names and kind != "i":
        raise ValueError(f"column {name}: an enumeration must be of signed integers, "
                         f"got {column.dtype}")


def _usual(column):
    """The column with its dtype's usual name, and a dimension for its width."""
    dim = ""
    if column.width:
        dim = column.dim or own_dims(column.name, 2)[0]
    dtype = dtype_name(np.dtype(column.dtype))
    return column._replace(dtype=dtype, dim=dim, names=tuple(column.names))


def own_dims(name, ndim):
    """Default names of all dimensions but the first."""
    first = [f"{name}_item"]
    further = [f"{name}_item_{axis}" for axis in range(2, ndim)]
    return (first + further)[: max(ndim - 1, 0)]


def dtype_name(dtype):
    if dtype.kind in "OU":
        return "str"
    if dtype.kind in "biuf":
        return dtype.name
    return dtype.str.lstrip("|")


def checked_round(columns, row, client_rows, own_rows=None):
    """``(row, {table: (rows, number of rows)})``: a round's additions to the tables.

    The row is for /rounds, the others for /clients and /own. Every value is an array of its
    column's dtype and shape, or ValueError. ``own_rows`` None: no rows.
    """
    of_rounds = columns["rounds"]
    _check_names("rounds", of_rounds, row)
    if own_rows is None:
        own_rows = {}
        for column in columns["own"]:
            own_rows[column.name] = np.empty(0, column.dtype)
    many = {
        "clients": _checked_rows("clients", columns, client_rows),
        "own": _checked_rows("own", columns, own_rows),
    }
    fitted_row = _fitted_columns("rounds", of_rounds, row, ())
    return fitted_row, many


def _fitted_columns(table, columns, values, lead):
    """``{name: array}`` of ``values``, with the axes ``lead`` before a column's own."""
    fitted = {}
    for column in columns:
        label = f"{table}/{column.name}"
        fitted[column.name] = _fitted(label, column, values[column.name], lead)
    return fitted


def _checked_rows(table, columns, rows):
    """``(rows, number of rows)`` of a table with several rows a round."""
    own_columns = columns[table]
    _check_names(table, own_columns, rows)
    first = next(iter(rows.values()), ())
    # A scalar counts as one row; its shape is refused below.
    values = np.atleast_1d(np.asarray(first))
    num = len(values)
    fitted = _fitted_columns(table, own_columns, rows, (num,))
    return fitted, num


def _check_names(table, columns, values):
    expected = {column.name for column in columns}
    got = set(values)
    if got != expected:
        missing = sorted(expected - got)
        extra = sorted(got - expected)
        raise ValueError(f"{table}: the row must have every column and no other; "
                         f"missing {missing}, extra {extra}")


# The kinds of values accepted for a column's kind of dtype: no number becomes a text, nor a float
# an integer.
ACCEPTED = {"b": "b", "i": "biu", "u": "biu", "f": "biuf", "S": "S"}


def _fitted(label, column, value, lead):
    """``value`` in the column's dtype and shape, behind the axes ``lead``.

    ValueError rather than a number rounded to an integer, wrapped or cut.
    """
    got = np.asarray(value)
    dtype = np.dtype(column.dtype)
    shape = lead
    if column.width:
        shape = (*lead, column.width)
    if got.shape != shape:
        raise ValueError(f"{label}: shape must be {shape}, got {got.shape}")
    # HDF5 holds texts of fixed size as bytes.
    if got.dtype.kind == "U" and dtype.kind == "S":
        got = np.char.encode(got, "utf-8")
    if got.size and got.dtype.kind not in ACCEPTED[dtype.kind]:
        raise ValueError(f"{label}: must be {column.dtype}, got {got.dtype}")
    # An overflow is an error below, not a warning.
    with np.errstate(over="ignore"):
        fitted = got.astype(dtype)
    if not _is_kept(fitted, got):
        raise ValueError(f"{label}: {value!r} does not fit into {column.dtype}")
    if column.names and fitted.size:
        _check_range(label, column, fitted, value)
    return fitted


def _is_kept(fitted, got):
    """Whether a conversion kept the values; floats may be rounded, but not overflow."""
    if fitted.dtype.kind == "f":
        return np.array_equal(np.isfinite(fitted), np.isfinite(got))
    return np.array_equal(fitted, got)


def _check_range(label, column, fitted, value):
    last = len(column.names) - 1
    lowest = fitted.min()
    highest = fitted.max()
    if lowest < 0 or highest > last:
        names = ", ".join(column.names)
        raise ValueError(f"{label}: must be 0 to {last} ({names}), got {value!r}")


def check_truncate(rounds, have):
    if not 0 <= rounds <= have:
        raise ValueError(f"cannot truncate to {rounds} rounds: the run has {have}")
