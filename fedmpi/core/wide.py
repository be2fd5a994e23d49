"""Text that fits the terminal: tables, labelled lines and paragraphs of at most so many columns."""

import re
import shutil
import textwrap
from itertools import zip_longest

# Characters between two columns of a table.
GAP = 2
# Characters that a cell may be cut down to, by wrapping.
NARROW = 16
# The gap before the second text of a line, or before its sign.
SECOND = re.compile(r"\S( {2,}| (?=(=|<-) ))(?=\S)")
# The sign of a formula, at the beginning of its second text.
SIGN = re.compile("((=|<-) +)?")
# Gaps where a formula may be broken: a comment follows, or another formula.
GAPS = re.compile(r" {3,}(?=\S)(?!=|<-)")
# The size of a pipe, which is no terminal.
USUAL = (80, 24)
# Characters that are used of a narrower terminal.
LEAST = 40


def terminal_width():
    """Columns of the terminal; 80 without one. The variable COLUMNS wins, as everywhere."""
    return max(LEAST, shutil.get_terminal_size(USUAL).columns)


def aligned(head, rows, left=(0,), width=None):
    """The lines of a table: the heads, then the rows, all of texts.

    The columns numbered in ``left`` are set to the left, all others to the right. In a table
    wider than ``width`` characters long cells go on below. If this does not suffice, the columns
    stand below one another, group by group, each beside the first column. None: any width.
    """
    columns = list(zip(*[head, *rows]))
    if width is None or not columns:
        widths = [_longest(column) for column in columns]
        return _table(columns, widths, left)
    lines = []
    for group in _groups(columns, width):
        if lines:
            lines.append("")
        chosen = [columns[number] for number in group]
        to_the_left = [place for place, number in enumerate(group) if number in left]
        lines += _table(chosen, _widths(chosen, width), to_the_left)
    return lines


def _longest(texts):
    return max(map(len, texts))


def _groups(columns, width):
    """Lists of numbers of columns that fit beside one another, the first column in each."""
    least = [_narrowest(column) for column in columns]
    groups = [[0]]
    used = least[0]
    for number in range(1, len(columns)):
        needed = GAP + least[number]
        if used + needed > width and len(groups[-1]) > 1:
            groups.append([0])
            used = least[0]
        groups[-1].append(number)
        used += needed
    return groups


def _narrowest(column):
    """The characters that a column of texts takes at least.

    Long texts can be wrapped, but not within a piece, unless the piece is very long.
    """
    least = NARROW
    for text in column:
        for piece in _pieces(text):
            if len(piece) <= 2 * NARROW:
                least = max(least, len(piece))
    return min(least, _longest(column))


def _widths(columns, width):
    """The width of each column: its longest text, or less if the room is too little."""
    widths = [_narrowest(column) for column in columns]
    lacks = []
    for column, width_now in zip(columns, widths):
        lack = _longest(column) - width_now
        lacks.append(lack)
    gaps = GAP * (len(columns) - 1)
    spare = max(0, width - sum(widths) - gaps)
    # Columns that lack little come first, and leave more than their share to the others.
    order = sorted(range(len(columns)), key=lambda number: lacks[number])
    for place, number in enumerate(order):
        share = spare // (len(order) - place)
        more = min(lacks[number], share)
        widths[number] += more
        spare -= more
    return widths


def _table(columns, widths, left):
    """The lines of ``columns``, each a tuple of texts, of these widths."""
    lines = []
    for row in zip(*columns):
        cells = [_cell(text, width) for text, width in zip(row, widths)]
        for parts in zip_longest(*cells, fillvalue=""):
            lines.append(_table_line(parts, widths, left))
    return lines


def _table_line(parts, widths, left):
    """One line of a table, a text for each column."""
    placed = []
    for place, (part, width) in enumerate(zip(parts, widths)):
        if place in left:
            placed.append(part.ljust(width))
        else:
            placed.append(part.rjust(width))
    gap = " " * GAP
    return gap.join(placed).rstrip()


def _cell(text, width):
    """The lines of one cell, broken between pieces, and within a piece only if it is too long."""
    if len(text) <= width:
        return [text]
    lines = [""]
    for piece in _pieces(text):
        # Spaces at the end of a line are cut off.
        needed = len(lines[-1]) + len(piece.rstrip())
        if lines[-1] and needed > width:
            lines.append("")
        lines[-1] += piece
        while len(lines[-1].rstrip()) > width:
            too_long = lines.pop()
            lines += [too_long[:width], too_long[width:]]
    return [line.rstrip() for line in lines]


def _pieces(text):
    """The text in pieces: breaks may follow spaces, and separators of options or folders."""
    return re.findall(r"[^ ,/_]*[ ,/_]+|[^ ,/_]+", text)


def wrapped(text, width, indent=""):
    """The lines of a paragraph, broken at words; all but the first begin with ``indent``."""
    lines = textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)
    return lines or [""]


def labelled(rows, width=None):
    """Lines of ``(label, text)``: the labels in a column of their own, and the texts beside it,
    wrapped at words."""
    rows = list(rows)
    lengths = [len(label) for label, _ in rows]
    space = max(lengths, default=0) + GAP
    lines = []
    for label, text in rows:
        whole = f"{label:<{space}}{text}".rstrip()
        if width is None or len(whole) <= width:
            lines.append(whole)
        else:
            lines += wrapped(whole, width, " " * space)
    return lines


def single_quoted(text):
    """A docstring's text as pages of help have it: code in single backquotes, no ``::``."""
    text = text.replace("``", "`")
    return re.sub("::$", ":", text, flags=re.MULTILINE)


def reflowed(text, width):
    """A text with its paragraphs and items of lists wrapped anew.

    Other indented lines, such as formulas and tables, stay as they are, unless they are too long.
    """
    blocks = []
    for block in text.split("\n\n"):
        lines = _block(block.split("\n"), width)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _block(lines, width):
    """The wrapped lines of a block between two empty lines."""
    if any(line.startswith("* ") for line in lines):
        joined = " ".join(line.strip() for line in lines)
        for item in joined.split(" * "):
            yield from wrapped("* " + item.removeprefix("* "), width, "  ")
    elif any(line.startswith(" ") for line in lines):
        if lines[0].endswith(":"):
            # A title, such as "options:".
            yield lines[0]
            lines = lines[1:]
        yield from _laid_out(lines, width)
    else:
        yield from wrapped(" ".join(lines), width)


def _laid_out(lines, width):
    """Lines as they are, if they fit; else rows of a table, or formulas, broken."""
    if all(len(line) <= width for line in lines):
        return lines
    column = _second_column(lines)
    if column and width - column >= NARROW:
        return _rows(lines, column, width)
    return [part for line in lines for part in _formula(line, width)]


def _second_column(lines):
    """The column where all lines have their second text, or go on with it; 0 if they have none."""
    if len(lines) == 1:
        return 0
    column = 0
    for line in lines:
        goes_on = 0 < column <= _indent(line)
        if goes_on:
            continue
        second = SECOND.search(line)
        # Some line is of one text, or its second text stands elsewhere.
        if not second or column not in (0, second.end()):
            return 0
        column = second.end()
    return column


def _rows(lines, column, width):
    """The rows of a table of two columns, the second one wrapped anew where it is too long."""
    rows = []
    for line in lines:
        if column <= _indent(line):
            rows[-1].append(line)
        else:
            rows.append([line])
    shown = []
    for row in rows:
        if all(len(line) <= width for line in row):
            shown += row
        else:
            shown += _row(row, column, width)
    return shown


def _row(lines, column, width):
    """The wrapped lines of a row: its label, then its text, further in after a ``=`` or ``<-``."""
    first, *others = lines
    text = " ".join([first[column:], *(line.strip() for line in others)])
    further = len(SIGN.match(text)[0])
    parts = _at_gaps(text, width - column - further)
    indent = " " * (column + further)
    return [first[:column] + parts[0], *(indent + part for part in parts[1:])]


def _formula(line, width):
    """The lines of a formula, broken at its gaps, and at words only where they do not suffice."""
    if len(line) <= width:
        return [line]
    indent = " " * _indent(line)
    # A formula has a wide indent, and goes on behind it.
    further = indent + "    " if len(indent) > 2 else indent
    first, *others = _at_gaps(line.strip(), width - len(further))
    return [indent + first, *(further + part for part in others)]


def _at_gaps(text, width):
    """The parts of a text between gaps of three blanks or more, each wrapped at words."""
    if len(text) <= width:
        return [text]
    parts = GAPS.split(text)
    return [line for part in parts for line in wrapped(part, width)]


def _indent(line):
    return len(line) - len(line.lstrip())
