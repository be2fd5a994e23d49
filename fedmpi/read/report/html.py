"""Bits of HTML: text made harmless, tables that fold up on a phone, pictures with captions."""

import re
from html import escape

from fedmpi.read.report.figure import (COLOURS, GRID, INK, PAGE_PT, QUIET, inches_high, style,
                                       svg_text)

WIDTH_IN = 4.6                    # 331 units of SVG, of which a phone shows about as many pixels
MANY = 7                          # columns that fit on a tablet
VARIABLES = {INK: "--ink", QUIET: "--quiet", GRID: "--grid", "#ffffff": "--paper"} | {
    colour: f"--c{number}" for number, colour in enumerate(COLOURS) if colour != INK}


def text(value):
    """``value`` as text between tags or in an attribute."""
    return escape(str(value), quote=True)


class Cell(str):
    """HTML in a table, put there as it is."""


def cell(value):
    return value if isinstance(value, Cell) else text(value)


def table(caption, head, rows, *, numbers=(), wide=False, quiet=()):
    """A table with a row a list; the first cell of each row is its head. Columns ``numbers`` are
    set to the right, ``quiet`` ones in grey; a ``wide`` one becomes a list of cards where it does
    not fit."""
    def classes(number):
        found = " ".join(["n"] * (number in numbers) + ["q"] * (number in quiet))
        return f' class="{found}"' if found else ""

    heads = "".join(f'<th scope="col"{classes(number)}>{cell(each)}</th>' for number, each in enumerate(head))
    body = "".join("<tr>" + f'<th scope="row">{cell(row[0])}</th>' + "".join(
        f'<td{classes(number)} data-head="{text(re.sub("<[^>]*>", "", head[number]))}"><span>{cell(each)}</span></td>'
        for number, each in enumerate(row[1:], 1)) + "</tr>" for row in rows)
    kind = f' class="wide{" wider" * (len(head) > MANY)}"' if wide else ""
    named = f' aria-label="{text(caption)}"' if caption else ""        # a caption would be as narrow as its table
    return (f"<h3>{text(caption)}</h3>" * bool(caption)
            + f"<table{kind}{named}><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>")


def fold(title, inside, more="", *, opened=False, kind=""):
    """What a click opens, and a printer where ``kind`` has ``printed``."""
    said = f' <span class="q">{text(more)}</span>' if more else ""
    return (f'<details{f" class={chr(34)}{kind}{chr(34)}" if kind else ""}{" open" * opened}>'
            f"<summary>{cell(title)}{said}</summary>{inside}</details>")


def picture(number, title, kind, found):
    """A figure of what ``kind`` found, with its title; its caption is its name for those who
    listen."""
    size = (WIDTH_IN, inches_high(kind, found, WIDTH_IN, PAGE_PT))
    svg = _inlined(svg_text(size, lambda figure: kind.draw(figure, found)), number)
    return (f"<figure><h3>{text(title)}</h3>{svg}<figcaption id=\"c{number}\">{text(kind.say(found))}</figcaption>"
            "</figure>")


def _inlined(svg, number):
    """The drawing alone, as small as it may be, in the colours and the font of the page."""
    view = re.search(r'viewBox="([^"]+)"', svg)[1]
    body = svg[svg.index("<g id="):svg.rindex("</svg>")]
    body = re.sub(r"<!--.*?-->", "", body, flags=re.S)
    body = re.sub(r'base64,[^"]*', lambda found: "".join(found[0].split()), body)
    body = re.sub(r' transform="rotate\(-0 [^"]*"', "", body)
    body = re.sub(r'<g id="[^"]*"(/?)>', r"<g\1>", body)                # ids that every figure has
    body = re.sub(r'\bid="(\w+)"', rf'id="p{number}\1"', body)
    body = re.sub(r'(url\(#|href="#)(\w+)', rf"\1p{number}\2", body)
    body = re.sub(r"font: ?(?:\w+ )*([\d.]+)px [^;\"]*", r"font-size:\1px", body)
    body = re.sub(r"font-family: ?[^;\"]*;?", "", body)
    body = re.sub(r'( d| x| y)="([^"]*)"', lambda m: f'{m[1]}="{_rounded(m[2])}"', body)
    for colour, variable in VARIABLES.items():
        body = re.sub(f"{colour}\\b", f"var({variable})", body, flags=re.I)
    body = re.sub(r"\s*\n\s*", " ", body).replace("> <", "><").replace(": ", ":").replace("; ", ";")
    return (f'<svg viewBox="{view}" role="img" aria-labelledby="c{number}" '
            f'fill="currentColor">{body}</svg>')


def _rounded(path):
    return " ".join(re.sub(r"-?\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), path).split())


def key(number, label):
    """A group's letter and name with a sample of its line."""
    look = style(number)
    dashes = look["linestyle"][1] if look["linestyle"] != "-" else ()
    stroke = f"var({VARIABLES[look['color']]})"
    dash = f' stroke-dasharray="{" ".join(f"{2 * each:g}" for each in dashes)}"' if dashes else ""
    return Cell(f'<span class="key"><svg viewBox="0 0 38 14" aria-hidden="true"><path d="M0 7H38" stroke="{stroke}" '
                f'stroke-width="2.4"{dash}/>{_marker(look["marker"], stroke)}</svg><span>{text(label)}</span></span>')


def _marker(marker, fill):
    paths = {"^": "M19 2 24.5 12H13.5Z", "s": "M14 2H24V12H14Z", "D": "M19 1 25 7 19 13 13 7Z",
             "v": "M19 12 24.5 2H13.5Z", "P": "M16.5 1h5v4h4v5h-4v4h-5v-4h-4V5h4Z",
             "X": "M14 2h3l2 2.5L21 2h3v3l-2.5 2L24 9v3h-3l-2-2.5L17 12h-3V9l2.5-2L14 5Z"}
    return (f'<circle cx="19" cy="7" r="4.6" fill="{fill}"/>' if marker == "o" else
            f'<path d="{paths[marker]}" fill="{fill}"/>')
