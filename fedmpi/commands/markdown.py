"""Pages of Markdown as plain text of a terminal's width.

The pages of ``fedmpi/docs`` use a part of Markdown: headings, paragraphs, lists without levels,
tables, pictures, and code, which is indented or fenced.
"""

import itertools
import re

from fedmpi.core.wide import GAP, aligned, wrapped

INDENT = "    "
FENCE = "```"
LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")
PICTURE = re.compile(r"!\[([^\]]+)\]\(([^)]+)\)")
# A comment behind code, and the spaces before it.
COMMENT = re.compile(r"(?<=\S)( {2,})# ")
BOLD = re.compile(r"\*\*(.+?)\*\*")
# By level; deeper headings have no line below.
UNDERLINES = {1: "=", 2: "-"}
BEGINNINGS = {"#": "heading", "|": "table", "* ": "list", INDENT: "code"}
# Programs whose command lines may be broken by a backslash.
PROGRAMS = ("fedmpi", "mpirun", "srun")


def as_text(page, width):
    """A page of Markdown as a text with lines of at most ``width`` columns."""
    texts = []
    for kind, lines in blocks(page):
        shown = _block(kind, lines, width)
        texts.append("\n".join(shown))
    return "\n\n".join(texts)


def blocks(page):
    """``(kind, lines)`` of each block; the kinds are heading, paragraph, list, table and code."""
    lines = page.splitlines()
    # Neighbours of one kind are a block.
    pairs = zip(_kinds(lines), lines)
    for kind, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
        if kind is None:
            continue
        yield kind, [line for _, line in group if not line.startswith(FENCE)]


def _kinds(lines):
    """The kind of each line; None for an empty line between blocks."""
    is_fenced = False
    kind = None
    for line in lines:
        if line.startswith(FENCE):
            is_fenced = not is_fenced
            kind = "code"
        elif not is_fenced:
            kind = _kind(line, kind)
        yield kind


def _kind(line, before):
    """The kind of a line outside fences, by its beginning and the kind of the line before."""
    if not line.strip():
        return None
    # An item goes on below its mark.
    if before == "list" and line.startswith("  "):
        return "list"
    for start, kind in BEGINNINGS.items():
        if line.startswith(start):
            return kind
    return "paragraph"


def _block(kind, lines, width):
    """The lines of one block for the terminal."""
    if kind == "heading":
        return heading(lines[0])
    if kind == "table":
        return table(lines, width)
    if kind == "code":
        return code(lines, width)
    if kind == "list":
        return items(lines, width)
    text = plain(" ".join(lines))
    return wrapped(text, width)


def heading(line):
    """A heading, underlined."""
    marked = line.lstrip("#")
    level = len(line) - len(marked)
    title = plain(marked.lstrip())
    mark = UNDERLINES.get(level, "")
    return [title, mark * len(title)]


def items(lines, width):
    """The items of a list, each wrapped beside its mark."""
    joined = " ".join(line.strip() for line in lines)
    texts = joined.removeprefix("* ").split(" * ")
    shown = []
    for text in texts:
        item = f"* {plain(text)}"
        shown += wrapped(item, width, "  ")
    return shown


def table(lines, width):
    """A table in columns. If a cell takes several lines, an empty line parts the rows."""
    # The second line is the rule below the head.
    head, _, *body = map(_cells, lines)
    left = range(len(head))
    shown = aligned(head, body, left, width)
    if len(shown) == 1 + len(body):
        return shown
    empty = [""] * len(head)
    parted = []
    for row in body:
        parted += [row, empty]
    return aligned(head, parted[:-1], left, width)


def _cells(line):
    """The cells of one row of a table."""
    # Bars at both ends enclose no cell.
    inner = line.strip().strip("|")
    cells = inner.split("|")
    return [plain(cell.strip()) for cell in cells]


def code(lines, width):
    """Lines of code as they stand. If one is too long, comments move to the left, or above their
    line."""
    whole = _whole(lines)
    longest = max(map(len, whole))
    if longest > width:
        whole = _squeezed(whole)
    shown = []
    for line in whole:
        shown += _code_line(line, width)
    return shown


def _whole(lines):
    """The lines of code, without the backslashes within commands."""
    text = "\n".join(lines)
    return re.sub(r" \\\n +", " ", text).split("\n")


def _squeezed(lines):
    """The lines, with the comments behind code as far to the left as all of them can be."""
    spare = []
    for line in lines:
        match = COMMENT.search(line)
        if match:
            spaces = match[1]
            spare.append(len(spaces) - GAP)
    # All move alike, so that they still stand below one another.
    num_removed = min(spare, default=0)

    def moved(match):
        spaces = match[1]
        return spaces[num_removed:] + "# "

    return [COMMENT.sub(moved, line) for line in lines]


def _code_line(line, width):
    """The lines of one line of code; the comment of a too long one stands above it."""
    if len(line) <= width:
        return [line]
    command, mark, comment = line.partition("  # ")
    num_spaces = len(line) - len(line.lstrip())
    indent = " " * num_spaces
    shown = []
    if mark:
        shown += wrapped(f"{indent}# {comment}", width, f"{indent}# ")
    if command.strip():
        shown += _broken(command.rstrip(), indent, width)
    return shown


def _broken(command, indent, width):
    """The lines of a long command; its options go on below, after a backslash."""
    further = indent + INDENT
    program = command.split()[0]
    if program not in PROGRAMS:
        return wrapped(command, width, further)
    first, *options = command.split(" -")
    lines = [first]
    for option in options:
        longer = f"{lines[-1]} -{option}"
        # Two columns are for the backslash.
        if len(longer) <= width - 2:
            lines[-1] = longer
        else:
            lines.append(f"{further}-{option}")
    *earlier, last = lines
    return [*(f"{line} \\" for line in earlier), last]


def plain(text):
    """A text without Markdown's marks; code keeps its backticks."""
    text = PICTURE.sub(r"(picture: \1)", text)
    text = LINK.sub(_linked, text)
    pieces = text.split("`")
    # Every second piece stands between backticks.
    for number in range(0, len(pieces), 2):
        pieces[number] = BOLD.sub(r"\1", pieces[number])
    return "`".join(pieces)


def _linked(match):
    """The words of a link; another page is named by the command for it."""
    words, target = match.groups()
    page = re.match(r"([\w-]+)\.md", target)
    if page:
        return f"{words} (`fedmpi help {page[1]}`)"
    return words
