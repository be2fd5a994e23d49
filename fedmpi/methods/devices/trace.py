"""Devices from a file of comma-separated values, without quotes.

    client,time_s,gflops,down_mbit,up_mbit,latency_ms,dropout,available          the header

A row says what a client's device is from ``time_s`` on, until the client's next row. Clients
are numbered from 0 without gaps; with more clients in the run than in the file, client n is
client n modulo their number. Columns come in any order; all but ``client`` may be missing, and
a missing column or an empty cell is

    time_s 0    gflops inf    down_mbit inf    up_mbit inf    latency_ms 0    dropout 0    available 1

``available`` is 0 or 1, ``inf`` takes no time. Rows may be in any order; empty lines and those
that begin with # are skipped. Before its first row a client is not available, with the other
values of that row. With ``period_s`` time starts again after so many seconds, and a client's
last row holds until its first one comes round. ``file`` is absolute or relative to the working
directory; it is read once, when the devices are made.
"""

import hashlib
import math

import numpy as np

from fedmpi.methods.devices.fleet import check, fleet
from fedmpi.core.parts import Devices

USUAL = {"time_s": 0.0, "gflops": math.inf, "down_mbit": math.inf, "up_mbit": math.inf, "latency_ms": 0.0,
         "dropout": 0.0, "available": 1.0}
RANGES = {"time_s": "spreads", "gflops": "rates", "down_mbit": "rates", "up_mbit": "rates", "latency_ms": "spreads",
          "dropout": "shares", "available": "shares"}


def trace(file: str = "", period_s: float = 0.0):
    """Rows of a CSV file, each from its time on; ``period_s`` 0: no repetition.

    Paper: Lai et al. 2022, "FedScale: Benchmarking Model and System Performance of Federated
        Learning at Scale", arXiv 2105.11367, which takes measured devices likewise.
    Example: fedmpi train --devices trace:file=fleet.csv
    """
    check(spreads=(("period_s", period_s),))
    if not file:
        raise ValueError("file must name a CSV file, got ''")
    content = _content(file)
    rows = _rows(_text(content, file), file, period_s)
    starts = np.flatnonzero(np.diff(rows["client"], prepend=-1))          # each client's first row
    ends = np.append(starts[1:], len(rows["client"]))

    def at(seconds, N, draw):
        now = seconds % period_s if period_s else seconds
        begun = np.add.reduceat((rows["time_s"] <= now).astype(np.int64), starts)
        row = np.where(begun > 0, starts + begun - 1, ends - 1 if period_s else starts)
        who = np.arange(N) % len(starts)
        values = {name: rows[name][row][who] for name in USUAL if name not in ("time_s", "available")}
        there = (rows["available"][row] == 1) & ((begun > 0) | (period_s > 0))
        return fleet(N, **values, available=there[who])

    return Devices(at, hashlib.sha256(content).hexdigest())


def _content(file):
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except OSError as error:
        raise ValueError(f"file {file!r} cannot be read: {error.strerror}") from error


def _text(content, file):
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"file {file!r} must be UTF-8 text: {error}") from error


def _rows(text, file, period_s):
    """Columns (rows,) as a dict, ``client`` int64 and the others float64, sorted by client,
    then time."""
    header, found, seen = None, [], {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        place, cells = f"file {file!r}, line {number}", [cell.strip() for cell in line.split(",")]
        if header is None:
            header = _header(cells, place)
            continue
        row = _row(header, cells, place)
        if period_s and row["time_s"] >= period_s:
            raise ValueError(f"{place}: time_s must be below period_s={period_s}, got {row['time_s']}")
        key = row["client"], row["time_s"]
        if key in seen:
            raise ValueError(f"{place}: client {key[0]} has a row at {key[1]} s already, in line {seen[key]}")
        seen[key] = number
        found.append(row)
    if not found:
        raise ValueError(f"file {file!r} must hold a header and a row, got no row")
    found.sort(key=lambda row: (row["client"], row["time_s"]))
    rows = {name: np.array([row[name] for row in found]) for name in ("client", *USUAL)}
    numbers = np.unique(rows["client"])
    if numbers[-1] != len(numbers) - 1:
        missing = int(np.flatnonzero(numbers != np.arange(len(numbers)))[0])
        raise ValueError(f"file {file!r}: clients must be numbered from 0 without gaps, got no client {missing}")
    return rows


def _header(cells, place):
    unknown = [name for name in cells if name not in USUAL and name != "client"]
    if unknown:
        raise ValueError(f"{place}: columns must be among client, {', '.join(USUAL)}, got {unknown[0]!r}")
    if "client" not in cells or len(set(cells)) < len(cells):
        raise ValueError(f"{place}: the header must name client, and no column twice, got {','.join(cells)!r}")
    return cells


def _row(header, cells, place):
    """A row as a dict of all columns, in range."""
    if len(cells) != len(header):
        raise ValueError(f"{place}: expected {len(header)} values, got {len(cells)}")
    row = USUAL | {name: _number(name, cell, place) for name, cell in zip(header, cells) if cell or name == "client"}
    for name, kind in RANGES.items():
        try:
            check(**{kind: ((name, row[name]),)})
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
    if row["available"] not in (0, 1):
        raise ValueError(f"{place}: available must be 0 or 1, got {row['available']}")
    return row


def _number(name, cell, place):
    """The cell as a number: an int64 >= 0 for ``client``, else a float."""
    try:
        if name != "client":
            return float(cell)
        if 0 <= int(cell) < 1 << 31:
            return int(cell)
    except ValueError:
        pass
    wanted = "a whole number >= 0" if name == "client" else "a number"
    raise ValueError(f"{place}: {name} must be {wanted}, got {cell!r}")
