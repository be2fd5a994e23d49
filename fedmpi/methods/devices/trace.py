"""Devices from a file of comma-separated values, without quotes.

    client,time_s,gflops,down_mbit,up_mbit,latency_ms,dropout,available          the header

A row gives a client's device from ``time_s`` on, until the client's next row. Clients are
numbered from 0 without gaps; with more clients in the run than in the file, client n is client
n modulo their number. Columns come in any order; all but ``client`` may be missing, and a
missing column or an empty cell is

    time_s 0      gflops inf   down_mbit inf   up_mbit inf
    latency_ms 0  dropout 0    available 1

``available`` is 0 or 1, ``inf`` takes no time. Rows may be in any order; empty lines and lines
that begin with # are skipped. Before its first row a client is not available, with the other
values of that row. With ``period_s`` time starts again after so many seconds, and a client's
last row holds until its first one comes round. ``file`` is absolute or relative to the working
directory; it is read once, when the devices are made.
"""

import hashlib
import math

import numpy as np

from fedmpi.core.parts import Devices
from fedmpi.methods.devices.fleet import check, fleet

USUAL = {
    "time_s": 0.0,
    "gflops": math.inf,
    "down_mbit": math.inf,
    "up_mbit": math.inf,
    "latency_ms": 0.0,
    "dropout": 0.0,
    "available": 1.0,
}
# The argument of ``fleet.check`` for each column.
RANGES = {
    "time_s": "spreads",
    "gflops": "rates",
    "down_mbit": "rates",
    "up_mbit": "rates",
    "latency_ms": "spreads",
    "dropout": "shares",
    "available": "shares",
}
VALUES = [name for name in USUAL if name not in ("time_s", "available")]
MOST_CLIENTS = 1 << 31


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
    columns = _columns(_text(content, file), file, period_s)
    first_rows = np.flatnonzero(np.diff(columns["client"], prepend=-1))
    num_clients = len(first_rows)
    last_rows = np.append(first_rows[1:], len(columns["client"])) - 1
    repeats = period_s > 0
    # The row that holds before a client's first one.
    rows_before = last_rows if repeats else first_rows

    def at(seconds, N, draw):
        now = seconds % period_s if repeats else seconds
        has_begun = columns["time_s"] <= now
        # Rows are sorted by client, so that one sum a client counts its rows up to now.
        num_begun = np.add.reduceat(has_begun.astype(np.int64), first_rows)
        latest = first_rows + num_begun - 1
        rows = np.where(num_begun > 0, latest, rows_before)
        has_row = (num_begun > 0) | repeats
        says_available = columns["available"][rows] == 1
        available = says_available & has_row
        # A run may have more clients than the file.
        client = np.arange(N) % num_clients
        values = {name: columns[name][rows][client] for name in VALUES}
        return fleet(N, **values, available=available[client])

    return Devices(at, hashlib.sha256(content).hexdigest())


def _content(file):
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except OSError as error:
        raise ValueError(f"file {file!r} cannot be read: {error.strerror}") from error


def _text(content, file):
    try:
        # Spreadsheets write a byte order mark.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"file {file!r} must be UTF-8 text: {error}") from error


def _columns(text, file, period_s):
    """Columns (rows,) as a dict, ``client`` int64 and the others float64.

    Rows are sorted by client, then time. ValueError at the first line that is none.
    """
    rows = _rows(text, file, period_s)
    rows.sort(key=_client_and_time)
    columns = {}
    for name in ("client", *USUAL):
        columns[name] = np.array([row[name] for row in rows])
    _check_numbers(columns["client"], file)
    return columns


def _client_and_time(row):
    return row["client"], row["time_s"]


def _rows(text, file, period_s):
    """A dict of all columns for each row, in the order of the file."""
    header = None
    rows = []
    line_of = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        place = f"file {file!r}, line {number}"
        cells = [cell.strip() for cell in line.split(",")]
        if header is None:
            _check_header(cells, place)
            header = cells
            continue
        row = _row(header, cells, place)
        if period_s and row["time_s"] >= period_s:
            raise ValueError(f"{place}: time_s must be below period_s={period_s}, "
                             f"got {row['time_s']}")
        key = client, time_s = _client_and_time(row)
        if key in line_of:
            raise ValueError(f"{place}: client {client} has a row at {time_s} s already, "
                             f"in line {line_of[key]}")
        line_of[key] = number
        rows.append(row)
    if not rows:
        raise ValueError(f"file {file!r} must hold a header and a row, got no row")
    return rows


def _check_numbers(client, file):
    """ValueError unless the clients are numbered from 0 without gaps."""
    numbers = np.unique(client)
    expected = np.arange(len(numbers))
    gaps = np.flatnonzero(numbers != expected)
    if len(gaps):
        missing = int(gaps[0])
        raise ValueError(f"file {file!r}: clients must be numbered from 0 without gaps, "
                         f"got no client {missing}")


def _check_header(cells, place):
    unknown = [name for name in cells if name not in USUAL and name != "client"]
    if unknown:
        raise ValueError(f"{place}: columns must be among client, {', '.join(USUAL)}, "
                         f"got {unknown[0]!r}")
    has_twins = len(set(cells)) < len(cells)
    if "client" not in cells or has_twins:
        raise ValueError(f"{place}: the header must name client, and no column twice, "
                         f"got {','.join(cells)!r}")


def _row(header, cells, place):
    """A row as a dict of all columns, in range."""
    if len(cells) != len(header):
        raise ValueError(f"{place}: expected {len(header)} values, got {len(cells)}")
    # An empty cell stands for the usual value.
    row = dict(USUAL)
    for name, cell in zip(header, cells):
        if cell or name == "client":
            row[name] = _number(name, cell, place)
    for name, kind in RANGES.items():
        try:
            check(**{kind: ((name, row[name]),)})
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
    if row["available"] not in (0, 1):
        raise ValueError(f"{place}: available must be 0 or 1, got {row['available']}")
    return row


def _number(name, cell, place):
    """The cell as a number: an int >= 0 for ``client``, else a float."""
    try:
        if name != "client":
            return float(cell)
        number = int(cell)
    except ValueError:
        number = -1
    if 0 <= number < MOST_CLIENTS:
        return number
    wanted = "a whole number >= 0" if name == "client" else "a number"
    raise ValueError(f"{place}: {name} must be {wanted}, got {cell!r}")
