"""Where two runs differ, bit for bit, in what does not depend on the machine."""

import numpy as np

from fedmpi.store.read import read_run
from fedmpi.store.tables import PARTITION


def verify(a_path, b_path):
    """Lines that say where two runs differ in a number that does not depend on the machine; empty if nowhere."""
    return differences(read_run(a_path), read_run(b_path))


def differences(a, b):
    """As ``verify``, for two Runs: the population first, then one line a column, the earliest round first."""
    lines = [*_different_facts(a, b), *_different_rows(a, b)]
    num_a, num_b = len(a.ends), len(b.ends)
    if num_a != num_b:
        lines.append(f"rounds: {num_a} against {num_b}")
    return lines + _different_options(a, b) if lines else []


def _different_facts(a, b):
    named = [("population/" + k, a.population.get(k), b.population.get(k)) for k in {**a.population, **b.population}]
    named += [("partition/" + k, *pair) for k, *pair in zip(PARTITION, a.partition, b.partition)]
    for name, x, y in named:
        if x is None or y is None:
            yield f"{name}: only in the {'second' if x is None else 'first'} run"
        elif x.shape != y.shape or x.dtype != y.dtype:
            yield f"{name}: {x.dtype} {x.shape} against {y.dtype} {y.shape}"
        elif (i := first_difference(x, y)) is not None:
            yield f"{name}: differs first at {i}: {_show(x[i])} against {_show(y[i])}"


def _different_rows(a, b):
    """Lines, the earliest round first; rows of /clients and of /own are compared as far as both have the same number a
    round."""
    num = min(len(a.ends), len(b.ends))
    limits, found = {"rounds": num}, []
    for table, what in (("clients", "participants"), ("own", "clients tested")):
        limits[table], line = _common_rows(a, b, table, what, num)
        found.append(line)
    for name in _compared(a, b):
        table, key = name.split("/", 1)
        pair = getattr(a, table).get(key), getattr(b, table).get(key)
        found.append(_different_column(a, b, name, *pair, limits[table]))
    return [line for _, line in sorted((f for f in found if f), key=lambda f: f[0])]


def _common_rows(a, b, table, what, num):
    """``(rows of a table until the two differ in how many a round has, (round index, line) of that or None)``."""
    ends = [_ends(run, table)[:num] for run in (a, b)]
    common = min(map(len, ends))
    apart = first_difference(*(each[:common] for each in ends))
    if apart is None:
        return int(ends[0][common - 1]) if common else 0, None
    sizes = [np.diff(each, prepend=0)[apart] for each in ends]
    line = f"{table}: round {_label(a, apart)} has {sizes[0]} against {sizes[1]} {what}"
    return int(ends[0][apart - 1]) if apart else 0, (apart, line)


def _ends(run, table):
    """(T,) rows of a table after each round."""
    return run.ends if table == "clients" else run.own_ends


def _compared(a, b):
    both = {**a.columns, **b.columns}
    machine = {k for r in (a, b) for k, c in r.columns.items() if c.machine}
    return [k for k in both if k not in machine and k.startswith(("rounds/", "clients/", "own/"))]


def _different_column(a, b, name, x, y, limit):
    """(round index, line) of the first difference of one column, or None."""
    if x is None or y is None:
        return 0, f"{name}: only in the {'second' if x is None else 'first'} run"
    integers = x.dtype.kind == y.dtype.kind == "i"         # of any size: what they count is the same
    if not (integers or x.dtype == y.dtype) or x.shape[1:] != y.shape[1:]:
        return 0, f"{name}: {x.dtype} {x.shape[1:]} against {y.dtype} {y.shape[1:]}"
    i = first_difference(x[:limit], y[:limit])
    if i is None:
        return None
    table = name.partition("/")[0]
    t = i if table == "rounds" else int(np.searchsorted(_ends(a, table), i, side="right"))
    client = ""
    if table != "rounds" and "client" in getattr(a, table):
        client = f", client {getattr(a, table)['client'][i]}"
    return t, f"{name}: differs first in round {_label(a, t)}{client}: {_show(x[i])} against {_show(y[i])}"


def _label(run, t):
    return run.rounds["round"][t] if "round" in run.rounds else t


def _show(value):
    return repr(np.asarray(value).tolist())


def _different_options(a, b):
    x, y = (r.attrs.get("options") for r in (a, b))
    if not (isinstance(x, dict) and isinstance(y, dict)):
        return []
    return [f"option {k}: {x.get(k)!r} against {y.get(k)!r}" for k in {**x, **y} if x.get(k) != y.get(k)]


def first_difference(x, y):
    """Index of the first row in which two arrays of one dtype and shape differ in a bit, or None; NaN equals NaN."""
    if x.dtype.kind == "f":
        bits = f"u{x.dtype.itemsize}"
        same = (x.view(bits) == y.view(bits)) | (np.isnan(x) & np.isnan(y))
    else:
        same = x == y
    rows = np.flatnonzero(~same.reshape(len(x), -1).all(axis=1)) if x.size else ()
    return int(rows[0]) if len(rows) else None
