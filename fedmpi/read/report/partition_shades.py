"""A partition in shades, for the terminal: a line a client, a column a class; no colour needed."""

import math
from typing import NamedTuple

from fedmpi.core.wide import wrapped
from fedmpi.read.report.partition_text import shown, with_gap
from fedmpi.read.report.statistics import proportions

# Characters in a line.
WIDTH = 100
# Characters of the longest bar.
BAR = 20
# The most characters of a class.
WIDEST = 3
BARS = "samples: = right, x wrong"
# (least share of a client's samples, its shade)
SHADES = ((0.0, "·"), (0.05, "░"), (0.15, "▒"), (0.3, "▓"), (0.6, "█"))


class Widths(NamedTuple):
    """The characters of each part of a line, and the classes a column."""

    label: int
    samples: int
    cell: int
    classes_a_column: int


def partition_picture(federation, width=WIDTH):
    """The text of a picture of a partition as ``described`` returns it, at most ``width`` wide.

    Clients by classes, if there are any, as shades. Beside them a bar of samples a client, with an
    end for wrong labels."""
    clients = federation["clients"]
    rows, left_out = shown(len(clients["samples"]))
    most = max(int(clients["samples"].max()), 1)
    widths = _widths(federation["classes"], rows[-1], most, width)
    lines = [_heads(federation["classes"], widths)]
    share = proportions(clients["labels"])
    for client in rows:
        shades = _shades(share[client], widths)
        lines.append(_line(clients, client, shades, most, widths))
    legend = []
    for line in _legend(federation, widths.classes_a_column):
        legend += wrapped(line, width, "  ")
    lines = with_gap(lines, left_out, head=1)
    return "\n".join([*legend, *lines])


def _widths(classes, last_client, most, width):
    """The ``Widths`` of lines of at most ``width`` characters; ``most``: samples of a client."""
    label = max(len("client"), len(f"{last_client}*"))
    samples = len(f"{most:,}")
    bar = max(samples + 1 + BAR, len(BARS))
    room = width - label - bar - len("   ")
    K = max(classes, 1)
    cell = max(1, min(WIDEST, room // K))
    # With more classes than room, some share a column.
    classes_a_column = -(-K // room)
    return Widths(label, samples, cell, classes_a_column)


def _heads(classes, widths):
    numbers = _class_numbers(classes, widths.classes_a_column, widths.cell)
    return f"{'client':>{widths.label}} {numbers}  {BARS}"


def _line(clients, client, shades, most, widths):
    mark = "*" if clients["faulty"][client].any() else " "
    label = f"{client}{mark}"
    samples = clients["samples"][client]
    bar = _bar(samples, clients["noise"][client], most)
    line = f"{label:>{widths.label}} {shades}  {samples:>{widths.samples},} {bar}"
    return line.rstrip()


def _legend(federation, classes_a_column):
    if federation["classes"]:
        yield f"share of a client's samples (%) by label:  {_shades_text()}, blank: none"
    notes = []
    if federation["summary"]["faulty"]:
        notes.append("* faulty")
    if classes_a_column > 1:
        notes.append(f"each column is {classes_a_column} classes")
    if notes:
        yield ", ".join(notes)


def _shades_text():
    """Each shade with its largest share."""
    ends = [least for least, _ in SHADES[1:]]
    ends.append(1.0)
    texts = []
    for (_, shade), end in zip(SHADES, ends):
        texts.append(f"{shade} to {100 * end:.0f}")
    return "  ".join(texts)


def _class_numbers(classes, classes_a_column, cell_width):
    """The numbers of classes above their columns, as many as fit: all, or every fifth column."""
    num_columns = -(-classes // classes_a_column)
    line_width = num_columns * cell_width
    # A number and a blank behind it.
    all_fit = cell_width > len(str(classes - 1))
    step = 1 if all_fit else 5
    line = ""
    for column in range(0, num_columns, step):
        number = str(column * classes_a_column)
        start = column * cell_width
        if start + len(number) <= line_width:
            line += number.ljust(step * cell_width)
    return line[:line_width].ljust(line_width)


def _shades(share, widths):
    """The shades of a client's ``share`` (K,), classes of a column together."""
    step = widths.classes_a_column
    cells = []
    for start in range(0, len(share), step):
        part = share[start:start + step].sum()
        cells.append(_shade(part) * widths.cell)
    return "".join(cells)


def _shade(part):
    """The shade of a share; a blank for none at all."""
    if part <= 0:
        return " "
    return [shade for least, shade in SHADES if part >= least][-1]


def _bar(samples, noise, most):
    """A bar of samples, of which ``most`` take BAR characters; its end stands for wrong labels."""
    length = math.ceil(BAR * samples / most)
    wrong = 0
    # Rounded, half a character down.
    if noise > 0:
        wrong = min(length, math.ceil(length * noise - 0.5))
    return "=" * (length - wrong) + "x" * wrong
