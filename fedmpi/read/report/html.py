"""Bits of HTML: text made harmless, tables that fold up on a phone, pictures with captions."""

import re
from html import escape

from fedmpi.read.report.figure import (COLOURS, GRID, INK, PAGE_PT, QUIET, inches_high, style,
                                       svg_text)

# 331 units of SVG: about the width of a phone in pixels.
WIDTH_IN = 4.6
# So many columns fit on a tablet.
MANY = 7
# {colour of a picture: the page's variable for it}, so that pictures follow light and dark pages.
VARIABLES = {
    INK: "--ink", QUIET: "--quiet", GRID: "--grid", "#ffffff": "--paper",
    **{colour: f"--c{number}" for number, colour in enumerate(COLOURS) if colour != INK},
}
# Markers as paths in a box of 38 x 14, as samples of lines have them.
MARKER_PATHS = {
    "^": "M19 2 24.5 12H13.5Z",
    "s": "M14 2H24V12H14Z",
    "D": "M19 1 25 7 19 13 13 7Z",
    "v": "M19 12 24.5 2H13.5Z",
    "P": "M16.5 1h5v4h4v5h-4v4h-5v-4h-4V5h4Z",
    "X": "M14 2h3l2 2.5L21 2h3v3l-2.5 2L24 9v3h-3l-2-2.5L17 12h-3V9l2.5-2L14 5Z",
}


def text(value):
    """``value`` as text between tags or in an attribute."""
    return escape(str(value), quote=True)


class Cell(str):
    """HTML in a table, put there as it is."""


def cell(value):
    """The HTML of a table's cell: a ``Cell`` as it is, all else as text."""
    if isinstance(value, Cell):
        return value
    return text(value)


def table(caption, head, rows, *, numbers=(), wide=False, quiet=()):
    """A table; the first cell of each row is the row's head.

    Columns ``numbers`` are set to the right, ``quiet`` ones in grey. A ``wide`` table becomes a
    list of cards on a narrow window."""
    classes = [_column_class(number in numbers, number in quiet) for number in range(len(head))]
    heads = ""
    for name, column_class in zip(head, classes):
        heads += f'<th scope="col"{column_class}>{cell(name)}</th>'
    # On cards each value has the name of its column beside it, in plain text.
    plain_names = [text(re.sub("<[^>]*>", "", name)) for name in head]
    body = "".join(_row(row, classes, plain_names) for row in rows)
    table_class = ""
    if wide:
        table_class = ' class="wide wider"' if len(head) > MANY else ' class="wide"'
    title, label = "", ""
    # A <caption> would be as narrow as its table, hence a heading and a label.
    if caption:
        title = f"<h3>{text(caption)}</h3>"
        label = f' aria-label="{text(caption)}"'
    return (f"{title}<table{table_class}{label}>"
            f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>")


def _column_class(is_number, is_quiet):
    """The attribute of a column's cells, empty for a plain column."""
    names = []
    if is_number:
        names.append("n")
    if is_quiet:
        names.append("q")
    if not names:
        return ""
    return f' class="{" ".join(names)}"'


def _row(row, classes, plain_names):
    head, *values = row
    cells = [f'<th scope="row">{cell(head)}</th>']
    for value, column_class, name in zip(values, classes[1:], plain_names[1:]):
        cells.append(f'<td{column_class} data-head="{name}"><span>{cell(value)}</span></td>')
    return f"<tr>{''.join(cells)}</tr>"


def fold(title, inside, more="", *, opened=False, kind=""):
    """A part of a page, opened by a click. A printer opens it if ``kind`` has ``printed``."""
    aside = f' <span class="q">{text(more)}</span>' if more else ""
    attributes = ""
    if kind:
        attributes += f' class="{kind}"'
    # Without a script, a browser opens and closes it by itself.
    if opened:
        attributes += " open"
    return f"<details{attributes}><summary>{cell(title)}{aside}</summary>{inside}</details>"


def picture(number, title, kind, numbers):
    """A figure of the ``numbers`` of a Picture, with its title and a caption.

    The caption also names the drawing for screen readers."""
    size = (WIDTH_IN, inches_high(kind, numbers, WIDTH_IN, PAGE_PT))
    document = svg_text(size, lambda figure: kind.draw(figure, numbers))
    svg = _inlined(document, number)
    caption = text(kind.say(numbers))
    return (f'<figure><h3>{text(title)}</h3>{svg}<figcaption id="c{number}">{caption}</figcaption>'
            "</figure>")


def _inlined(svg, number):
    """The drawing of an SVG document as an element of picture ``number``.

    It is as small as it may be, in the colours and the font of the page."""
    view = re.search(r'viewBox="([^"]+)"', svg)[1]
    # Without the head of the document, which has a doctype and metadata.
    start, end = svg.index("<g id="), svg.rindex("</svg>")
    body = svg[start:end]
    body = _without_ballast(body)
    body = _with_own_ids(body, number)
    body = _in_style_of_page(body)
    body = _shortened(body)
    return (f'<svg viewBox="{view}" role="img" aria-labelledby="c{number}" '
            f'fill="currentColor">{body}</svg>')


def _without_ballast(body):
    body = re.sub(r"<!--.*?-->", "", body, flags=re.S)
    # matplotlib breaks the lines of images.
    body = re.sub(r'base64,[^"]*', lambda match: "".join(match[0].split()), body)
    # A turn by 0 degrees.
    body = re.sub(r' transform="rotate\(-0 [^"]*"', "", body)
    # Groups have the same ids in every figure, and nothing refers to them.
    return re.sub(r'<g id="[^"]*"(/?)>', r"<g\1>", body)


def _with_own_ids(body, number):
    """Ids, and references to them, begin with ``p`` and the number: they differ from picture to
    picture."""
    body = re.sub(r'\bid="(\w+)"', rf'id="p{number}\1"', body)
    return re.sub(r'(url\(#|href="#)(\w+)', rf"\1p{number}\2", body)


def _in_style_of_page(body):
    body = re.sub(r"font: ?(?:\w+ )*([\d.]+)px [^;\"]*", r"font-size:\1px", body)
    body = re.sub(r"font-family: ?[^;\"]*;?", "", body)
    body = re.sub(r'( d| x| y)="([^"]*)"', _with_rounded_path, body)
    for colour, variable in VARIABLES.items():
        body = re.sub(f"{colour}\\b", f"var({variable})", body, flags=re.I)
    return body


def _with_rounded_path(match):
    attribute, path = match[1], match[2]
    rounded = re.sub(r"-?\d+\.\d{3,}", _rounded, path)
    words = " ".join(rounded.split())
    return f'{attribute}="{words}"'


def _rounded(match):
    """A number with two decimals at most: a hundredth of a unit is finer than any screen."""
    return f"{float(match[0]):.2f}".rstrip("0").rstrip(".")


def _shortened(body):
    body = re.sub(r"\s*\n\s*", " ", body)
    return body.replace("> <", "><").replace(": ", ":").replace("; ", ";")


def key(number, label):
    """A group's letter and name with a sample of its line."""
    look = style(number)
    stroke = f"var({VARIABLES[look['color']]})"
    dashes = _dash_attribute(look["linestyle"])
    marker = _marker(look["marker"], stroke)
    return Cell('<span class="key"><svg viewBox="0 0 38 14" aria-hidden="true">'
                f'<path d="M0 7H38" stroke="{stroke}" stroke-width="2.4"{dashes}/>{marker}</svg>'
                f"<span>{text(label)}</span></span>")


def _dash_attribute(linestyle):
    """The attribute for a line style of matplotlib, "-" or ``(offset, dashes in line widths)``."""
    if linestyle == "-":
        return ""
    _, dashes = linestyle
    lengths = " ".join(f"{2 * dash:g}" for dash in dashes)
    return f' stroke-dasharray="{lengths}"'


def _marker(marker, fill):
    if marker == "o":
        return f'<circle cx="19" cy="7" r="4.6" fill="{fill}"/>'
    return f'<path d="{MARKER_PATHS[marker]}" fill="{fill}"/>'
