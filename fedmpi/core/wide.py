"""Text that fits the terminal: tables, labelled lines and paragraphs of at most so many columns."""

import re
import shutil
import textwrap

GAP = 2                       # columns between two columns of a table
NARROW = 16                   # columns that a cell may be cut down to, by wrapping
USUAL = (80, 24)              # of a pipe, which is no terminal
LEAST = 40                    # columns that are used of a narrower terminal


def terminal_width():
    """Columns of the terminal; 80 where there is none. The variable COLUMNS wins, as everywhere."""
    return max(LEAST, shutil.get_terminal_size(USUAL).columns)


def aligned(head, rows, left=(0,), width=None):
    """The lines of a table: the heads, then the rows, all of texts; the columns ``left`` to the
    left, others right.

    Where that is more than ``width`` columns wide, long cells go on below; where this does not
    suffice, the columns stand below one another, group by group, each beside the first column.
    None: as wide as it needs."""
    columns = list(zip(*[head, *rows]))
    if width is None or not columns:
        return _table(columns, [max(map(len, column)) for column in columns], left)
    lines = []
    for group in _groups(columns, width):
        chosen = [columns[number] for number in group]
        to_the_left = [place for place, number in enumerate(group) if number in left]
        lines += [""] * bool(lines) + _table(chosen, _widths(chosen, width), to_the_left)
    return lines


def _groups(columns, width):
    """Lists of numbers of columns that fit beside one another, the first column in each."""
    least = [_least(column) for column in columns]
    groups, used = [[0]], least[0]
    for number in range(1, len(columns)):
        if used + GAP + least[number] > width and len(groups[-1]) > 1:
            groups.append([0])
            used = least[0]
        groups[-1].append(number)
        used += GAP + least[number]
    return groups


def _least(column):
    """The columns that a column of texts takes at least: long texts can be wrapped, but not within
    a piece."""
    longest = max(map(len, column))
    pieces = [len(piece) for text in column for piece in _pieces(text)]
    return min(longest, max([NARROW, *(size for size in pieces if size <= 2 * NARROW)]))


def _widths(columns, width):
    """The width of each column: what it wants, or what is left for it where all together want too
    much."""
    wanted = [max(map(len, column)) for column in columns]
    widths = [_least(column) for column in columns]
    spare = max(0, width - sum(widths) - GAP * (len(columns) - 1))
    lacking = sorted(range(len(columns)), key=lambda number: wanted[number] - widths[number])
    for place, number in enumerate(lacking):
        more = min(wanted[number] - widths[number], spare // (len(lacking) - place))
        widths[number] += more
        spare -= more
    return widths


def _table(columns, widths, left):
    """The lines of ``columns``, each a tuple of texts, of these widths."""
    lines = []
    for row in zip(*columns):
        cells = [_cell(text, width) for text, width in zip(row, widths)]
        for number in range(max(map(len, cells))):
            parts = [cell[number] if number < len(cell) else "" for cell in cells]
            placed = [part.ljust(width) if place in left else part.rjust(width)
                      for place, (part, width) in enumerate(zip(parts, widths))]
            lines.append((" " * GAP).join(placed).rstrip())
    return lines


def _cell(text, width):
    """The lines of one cell; it is broken between pieces, and within one only where that is too
    long."""
    if len(text) <= width:
        return [text]
    lines = [""]
    for piece in _pieces(text):
        if len(lines[-1]) + len(piece.rstrip()) > width and lines[-1]:
            lines.append("")
        lines[-1] += piece
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return [line.rstrip() for line in lines]


def _pieces(text):
    """The text in pieces between which it may be broken: after spaces, and after what separates
    options or folders."""
    return re.findall(r"[^ ,/_]*[ ,/_]+|[^ ,/_]+", text)


def wrapped(text, width, indent=""):
    """The lines of a paragraph, broken at words; those behind the first begin with ``indent``."""
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False) or [""]


def labelled(rows, width=None):
    """Lines of ``(label, text)``: the labels in a column of their own, and the texts beside it,
    wrapped at words."""
    rows = list(rows)
    space = max((len(label) for label, _ in rows), default=0) + GAP
    lines = []
    for label, text in rows:
        whole = f"{label:<{space}}{text}".rstrip()
        fits = width is None or len(whole) <= width
        lines += [whole] if fits else wrapped(whole, width, " " * space)
    return lines


def reflowed(text, width):
    """A text whose paragraphs, and items of lists, are wrapped anew. Other indented lines, such as
    formulas, stay as they are, unless they are too long."""
    return "\n\n".join("\n".join(_block(block.split("\n"), width)) for block in text.split("\n\n"))


def _block(lines, width):
    """The lines of what stands between two empty lines."""
    if any(line.startswith("* ") for line in lines):
        for item in " ".join(line.strip() for line in lines).split(" * "):
            yield from wrapped("* " + item.removeprefix("* "), width, "  ")
    elif any(line.startswith(" ") for line in lines):
        for line in lines:
            yield from _kept(line, width)
    else:
        yield from wrapped(" ".join(lines), width)


def _kept(line, width):
    """A line that stays as it is, but where it is too long; a formula, which has a wide indent,
    goes on behind it."""
    indent = " " * (len(line) - len(line.lstrip()))
    further = indent + "    " if len(indent) > 2 else indent
    return [line] if len(line) <= width else wrapped(line, width, further)
