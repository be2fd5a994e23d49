"""A partition in shades, for the terminal: a line a client, a column a class; no colour needed."""

import math

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


def partition_picture(federation, width=WIDTH):
    """The text of a picture of a partition as ``described`` returns it, at most ``width`` wide.

    Clients by classes, if there are any, as shades. Beside them a bar of samples a client, whose
    end stands for wrong labels."""
    clients = federation["clients"]
    rows, left_out = shown(len(clients["samples"]))
    most = max(int(clients["samples"].max()), 1)
    num_digits = len(f"{most:,}")
    label_width = max(len("client"), len(f"{rows[-1]}*"))
    bar_width = max(num_digits + 1 + BAR, len(BARS))
    room = width - label_width - bar_width - len("   ")
    K = max(federation["classes"], 1)
    # With more classes than room, some share a column.
    classes_a_column = -(-K // room)
    cell_width = max(1, min(WIDEST, room // K))
    share = proportions(clients["labels"])
    numbers = _class_numbers(federation["classes"], classes_a_column, cell_width)
    lines = [f"{'client':>{label_width}} {numbers}  {BARS}"]
    for client in rows:
        label = f"{client}*" if clients["faulty"][client].any() else f"{client} "
        shades = _shades(share[client], classes_a_column, cell_width)
        samples = clients["samples"][client]
        bar = _bar(samples, clients["noise"][client], most)
        line = f"{label:>{label_width}} {shades}  {samples:>{num_digits},} {bar}"
        lines.append(line.rstrip())
    head = []
    for line in _legend(federation, classes_a_column):
        head += wrapped(line, width, "  ")
    return "\n".join([*head, *with_gap(lines, left_out, head=1)])


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
    """Each shade with the largest share that it stands for."""
    ends = [f"{100 * least:.0f}" for least, _ in SHADES[1:]]
    ends.append("100")
    shades = [shade for _, shade in SHADES]
    return "  ".join(f"{shade} to {end}" for shade, end in zip(shades, ends))


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


def _shades(share, classes_a_column, cell_width):
    """The shades of a client's ``share`` (K,), classes of a column together."""
    cells = []
    for start in range(0, len(share), classes_a_column):
        part = share[start:start + classes_a_column].sum()
        cells.append(_shade(part) * cell_width)
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
