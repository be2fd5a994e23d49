"""Pages of Markdown as plain text of a terminal's width.

The pages of ``fedmpi/docs`` use a part of Markdown: headings, paragraphs, lists without levels, tables, pictures, and
code, which is indented or fenced.
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
UNDERLINES = {1: "=", 2: "-"}
# Programs whose command lines may be broken by a backslash.
PROGRAMS = ("fedmpi", "mpirun", "srun")


def as_text(page, width):
    """A page of Markdown as a text whose lines have at most ``width`` columns."""
    parts = [_block(kind, lines, width) for kind, lines in blocks(page)]
    return "\n\n".join("\n".join(lines) for lines in parts)


def blocks(page):
    """``(kind, lines)`` of each block; the kinds are heading, paragraph, list, table and code."""
    lines = page.splitlines()
    kinds = iter(_kinds(lines))
    for kind, group in itertools.groupby(lines, key=lambda line: next(kinds)):
        if kind is not None:
            yield kind, [line for line in group if not line.startswith(FENCE)]


def _kinds(lines):
    """The kind of each line; None for an empty line between blocks."""
    fenced, kind = False, None
    for line in lines:
        if line.startswith(FENCE):
            fenced, kind = not fenced, "code"
        elif not fenced:
            kind = _kind(line, kind)
        yield kind


def _kind(line, before):
    """The kind of a line that no fence encloses, by its beginning and the kind of the line before."""
    if not line.strip():
        return None
    if before == "list" and line.startswith("  "):
        return "list"
    beginnings = {"#": "heading", "|": "table", "* ": "list", INDENT: "code"}
    return next((kind for start, kind in beginnings.items() if line.startswith(start)), "paragraph")


def _block(kind, lines, width):
    """The lines of one block as they are shown."""
    if kind == "heading":
        return heading(lines[0])
    if kind == "table":
        return table(lines, width)
    if kind == "code":
        return code(lines, width)
    if kind == "list":
        return items(lines, width)
    return wrapped(plain(" ".join(lines)), width)


def heading(line):
    """A heading, underlined."""
    level = len(line) - len(line.lstrip("#"))
    title = plain(line.lstrip("# "))
    return [title, UNDERLINES.get(level, "") * len(title)]


def items(lines, width):
    """The items of a list, each wrapped beside its mark."""
    texts = " ".join(line.strip() for line in lines).removeprefix("* ").split(" * ")
    shown = [wrapped("* " + plain(text), width, "  ") for text in texts]
    return list(itertools.chain(*shown))


def table(lines, width):
    """A table in columns. Where a cell takes several lines, an empty line parts the rows."""
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
    inner = line.strip().strip("|")
    return [plain(cell.strip()) for cell in inner.split("|")]


def code(lines, width):
    """Lines of code as they stand. Where one is too long, comments move to the left, or above their line."""
    whole = _whole(lines)
    if max(map(len, whole)) > width:
        whole = _squeezed(whole)
    shown = [_code_line(line, width) for line in whole]
    return list(itertools.chain(*shown))


def _whole(lines):
    """The lines of code; a command that goes on after a backslash is one line."""
    text = "\n".join(lines)
    return re.sub(r" \\\n +", " ", text).split("\n")


def _squeezed(lines):
    """The lines, whose comments behind code stand as far to the left as all of them can."""
    gaps = [match for match in map(COMMENT.search, lines) if match]
    spare = min((len(match[1]) - GAP for match in gaps), default=0)
    return [COMMENT.sub(lambda match: match[1][spare:] + "# ", line) for line in lines]


def _code_line(line, width):
    """The lines of one line of code; where it is too long its comment stands above it."""
    if len(line) <= width:
        return [line]
    command, mark, comment = line.partition("  # ")
    indent = " " * (len(line) - len(line.lstrip()))
    above = wrapped(f"{indent}# {comment}", width, f"{indent}# ") if mark else []
    below = _broken(command.rstrip(), indent, width) if command.strip() else []
    return above + below


def _broken(command, indent, width):
    """The lines of a long command; its options go on below, after a backslash."""
    further = indent + INDENT
    if command.split()[0] not in PROGRAMS:
        return wrapped(command, width, further)
    first, *options = command.split(" -")
    lines = [first]
    for option in options:
        longer = f"{lines[-1]} -{option}"
        if len(longer) <= width - 2:
            lines[-1] = longer
        else:
            lines.append(f"{further}-{option}")
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]


def plain(text):
    """A text without the marks of Markdown that a terminal cannot show; code keeps its backticks."""
    text = PICTURE.sub(r"(picture: \1)", text)
    pieces = LINK.sub(_linked, text).split("`")
    # Every second piece stands between backticks.
    pieces[::2] = [BOLD.sub(r"\1", piece) for piece in pieces[::2]]
    return "`".join(pieces)


def _linked(match):
    """What stands in the place of a link: another page is named by the command that shows it."""
    words, target = match.groups()
    page = re.match(r"([\w-]+)\.md", target)
    return f"{words} (`fedmpi help {page[1]}`)" if page else words
