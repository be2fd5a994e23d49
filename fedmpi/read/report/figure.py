"""Common to all pictures: the kinds of file, colours and lines, and the same bytes for the same
numbers."""

import io
import os

from fedmpi.core.errors import UserError

# From the palette of Okabe and Ito: the colour-blind tell them apart, and so do readers in grey.
BLUE, ORANGE = "#0072B2", "#D55E00"
INK, QUIET, GRID = "#1b1f24", "#59636e", "#d1d6dc"
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
# Dashes and gaps of each line, in line widths.
STYLES = (
    (), (4, 1.5), (1, 1.2), (6, 1.5, 1, 1.5), (3, 1, 1, 1, 1, 1), (8, 2), (2, 2))
MARKERS = "o^sDvPX"
# Of one column of a page with two columns, and of both together.
WIDTHS_CM = {"column": 8.5, "text": 17.5}
# The size of the type in files, and on pages of HTML.
PRINT_PT, PAGE_PT = 8, 12
# From one name over a picture to the next, in font sizes.
LEADING = 1.2
# Both come with matplotlib.
FONTS = {"sans": "DejaVu Sans", "serif": "STIXGeneral"}
# Settings of matplotlib for every picture.
SETTINGS = {
    # The salt makes the ids in SVG the same every time; 42 embeds fonts in PDF as outlines.
    "svg.hashsalt": "fedmpi",
    "pdf.fonttype": 42,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.titlesize": "medium",
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
    "hatch.linewidth": 0.6,
    "hatch.color": "#ffffff",
}


def inches_high(kind, numbers, width, font_size):
    """The height of a Picture of its ``numbers``, if that is ``width`` inches wide."""
    drawing = kind.size(numbers) * width
    names = kind.names(numbers) * LEADING * font_size / 72
    return drawing + names


def style(number):
    """Keyword arguments of the line of series ``number``.

    Colour, dashes and marker all differ, so any one of them tells lines apart."""
    place = number % len(COLOURS)
    # From the eighth line on, colours come again, with other dashes and markers.
    turn = number // len(COLOURS)
    shifted = (place + turn) % len(STYLES)
    dashes = STYLES[shifted]
    linestyle = (0, dashes) if dashes else "-"
    return {"color": COLOURS[place], "linestyle": linestyle, "marker": MARKERS[shifted]}


def picture_kind(path):
    """``png``, ``svg`` or ``pdf`` by the extension of ``path``; UserError for another, or a missing
    folder."""
    kind = os.path.splitext(path)[1].lower().lstrip(".")
    if kind not in ("png", "svg", "pdf"):
        raise UserError(f"{path}: a picture must be .png, .svg or .pdf")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UserError(f"{path}: there is no folder {folder}")
    return kind


def save_figure(path, size, draw, font="sans"):
    """Writes a picture: ``draw(figure)`` draws it on an empty figure.

    ``size``: (width, height) in inches. The kind follows the extension of ``path``. Fonts are part
    of the file: in PDF embedded, in SVG as outlines."""
    kind = picture_kind(path)
    # Without a date, the same numbers give the same bytes.
    dateless = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    settings = {
        "font.size": PRINT_PT,
        "font.family": FONTS[font],
        "mathtext.fontset": "stix",
    }
    _write(path, size, draw, settings, format=kind, dpi=300, metadata=dateless)


def svg_text(size, draw):
    """The figure as an SVG document with text as text, for a page with fonts of its own.

    72 units an inch, text of 12 units. Series, ink and grid have the colours above; the background
    is transparent."""
    output = io.StringIO()
    settings = {"font.size": PAGE_PT, "svg.fonttype": "none", "savefig.transparent": True}
    _write(output, size, draw, settings, format="svg", metadata={"Date": None})
    return output.getvalue()


def _write(target, size, draw, settings, **saving):
    """Draws a figure of ``size`` inches and saves it to ``target``, a path or an open file."""
    import matplotlib
    # This class has its own canvas: pyplot would open windows and keep global state.
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS | settings):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.savefig(target, **saving)


def plain_axes(ax, axis="both"):
    """Takes two spines away, and draws a light grid across ``axis``."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=axis, linewidth=0.5)
