"""Differences between two runs, bit for bit, in all numbers independent of the machine."""

import numpy as np

from fedmpi.store.read import read_run
from fedmpi.store.tables import PARTITION


def verify(a_path, b_path):
    """Lines saying where two runs differ in a number independent of the machine; empty if nowhere."""
    return differences(read_run(a_path), read_run(b_path))


def differences(a, b):
    """As ``verify``, for two Runs: the population first, then one line a column, the earliest round first."""
    lines = [*_different_facts(a, b), *_different_rows(a, b)]
    num_a = len(a.ends)
    num_b = len(b.ends)
    if num_a != num_b:
        lines.append(f"rounds: {num_a} against {num_b}")
    if not lines:
        return []
    # Options explain a difference, but are none by themselves.
    return lines + _different_options(a, b)


def _different_facts(a, b):
    for name in {**a.population, **b.population}:
        x = a.population.get(name)
        y = b.population.get(name)
        yield from _different_fact(f"population/{name}", x, y)
    for name, x, y in zip(PARTITION, a.partition, b.partition):
        yield from _different_fact(f"partition/{name}", x, y)


def _different_fact(name, x, y):
    """At most one line, about the arrays ``x`` and ``y`` of two runs; None for a missing one."""
    if x is None or y is None:
        yield _only_in(name, x)
        return
    if x.shape != y.shape or x.dtype != y.dtype:
        yield f"{name}: {x.dtype} {x.shape} against {y.dtype} {y.shape}"
        return
    i = first_difference(x, y)
    if i is not None:
        values = f"{_show(x[i])} against {_show(y[i])}"
        yield f"{name}: differs first at {i}: {values}"


def _only_in(name, first):
    """The line for a name present in one run only; ``first`` is None if the first run lacks it."""
    present = "first"
    if first is None:
        present = "second"
    return f"{name}: only in the {present} run"


def _different_rows(a, b):
    """Lines, the earliest round first. Rows of /clients and of /own are compared up to the first round with different
    numbers of rows."""
    num_rounds = min(len(a.ends), len(b.ends))
    limits = {"rounds": num_rounds}
    # Pairs of (round index, line).
    dated = []
    for table, noun in (("clients", "participants"), ("own", "clients tested")):
        limits[table], dated_line = _common_rows(a, b, table, noun, num_rounds)
        dated.append(dated_line)
    for name in _compared(a, b):
        table, key = name.split("/", 1)
        x = getattr(a, table).get(key)
        y = getattr(b, table).get(key)
        limit = limits[table]
        dated.append(_different_column(a, b, name, x, y, limit))
    present = [pair for pair in dated if pair]
    # Only by the round: lines of one round keep their order.
    present.sort(key=lambda pair: pair[0])
    return [line for _, line in present]


def _common_rows(a, b, table, noun, num_rounds):
    """``(rows to compare, (round index, line) or None)``: the line tells of the first round in which the table has
    different numbers of rows; the rows before it are compared."""
    ends_a = _ends(a, table)[:num_rounds]
    ends_b = _ends(b, table)[:num_rounds]
    common = min(len(ends_a), len(ends_b))
    apart = first_difference(ends_a[:common], ends_b[:common])
    if apart is None:
        return _rows_before(ends_a, common), None
    before = _rows_before(ends_a, apart)
    size_a = ends_a[apart] - before
    size_b = ends_b[apart] - before
    line = f"{table}: round {_label(a, apart)} has {size_a} against {size_b} {noun}"
    return before, (apart, line)


def _rows_before(ends, t):
    """The number of rows before the round of index ``t``."""
    if t == 0:
        return 0
    return int(ends[t - 1])


def _ends(run, table):
    """(T,) rows of a table after each round."""
    if table == "clients":
        return run.ends
    return run.own_ends


def _compared(a, b):
    """The names of the columns with rows and without dependence on the machine."""
    columns = {**a.columns, **b.columns}
    compared = []
    for name in columns:
        has_rows = name.startswith(("rounds/", "clients/", "own/"))
        if has_rows and not _is_machine(a, name) and not _is_machine(b, name):
            compared.append(name)
    return compared


def _is_machine(run, name):
    """Whether the column depends on the machine in this run."""
    return name in run.columns and run.columns[name].machine


def _different_column(a, b, name, x, y, limit):
    """(round index, line) of the first difference of one column, or None."""
    if x is None or y is None:
        return 0, _only_in(name, x)
    dtype_x, dtype_y = x.dtype, y.dtype
    # Integers of any size: their values are the same.
    integers = dtype_x.kind == dtype_y.kind == "i"
    comparable = integers or dtype_x == dtype_y
    width_x = x.shape[1:]
    width_y = y.shape[1:]
    if not comparable or width_x != width_y:
        return 0, f"{name}: {dtype_x} {width_x} against {dtype_y} {width_y}"
    i = first_difference(x[:limit], y[:limit])
    if i is None:
        return None
    table, _, _ = name.partition("/")
    t, place = _place(a, table, i)
    values = f"{_show(x[i])} against {_show(y[i])}"
    return t, f"{name}: differs first in {place}: {values}"


def _place(run, table, i):
    """``(round index, text)`` of the row ``i`` of a table; the text names the round and the client."""
    if table == "rounds":
        return i, f"round {_label(run, i)}"
    t = int(np.searchsorted(_ends(run, table), i, side="right"))
    place = f"round {_label(run, t)}"
    columns = getattr(run, table)
    if "client" in columns:
        place += f", client {columns['client'][i]}"
    return t, place


def _label(run, t):
    if "round" not in run.rounds:
        return t
    return run.rounds["round"][t]


def _show(value):
    return repr(np.asarray(value).tolist())


def _different_options(a, b):
    x = a.attrs.get("options")
    y = b.attrs.get("options")
    if not isinstance(x, dict) or not isinstance(y, dict):
        return []
    lines = []
    for name in {**x, **y}:
        first = x.get(name)
        second = y.get(name)
        if first != second:
            lines.append(f"option {name}: {first!r} against {second!r}")
    return lines


def first_difference(x, y):
    """Index of the first row with a different bit in two arrays of one dtype and shape, or None; NaN equals NaN."""
    if not x.size:
        return None
    same = _same(x, y).reshape(len(x), -1).all(axis=1)
    rows = np.flatnonzero(~same)
    if not len(rows):
        return None
    return int(rows[0])


def _same(x, y):
    """bool, in the shape of ``x`` and ``y``."""
    if x.dtype.kind != "f":
        return x == y
    # As integers, since 0.0 == -0.0.
    bits = f"u{x.dtype.itemsize}"
    same_bits = x.view(bits) == y.view(bits)
    both_nan = np.isnan(x) & np.isnan(y)
    return same_bits | both_nan
