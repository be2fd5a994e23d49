"""What all pictures share: the kinds of file, colours and lines, and the same bytes for the same
numbers."""

import io
import os

from fedmpi.core.errors import UserError

BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito's, told apart by the colour-blind and in grey
INK, QUIET, GRID = "#1b1f24", "#59636e", "#d1d6dc"
COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
STYLES = ((), (4, 1.5), (1, 1.2), (6, 1.5, 1, 1.5), (3, 1, 1, 1, 1, 1), (8, 2), (2, 2))      # dashes, in line widths
MARKERS = "o^sDvPX"
WIDTHS_CM = {"column": 8.5, "text": 17.5}      # of one column of a two-column page, and of both
PRINT_PT, PAGE_PT = 8, 12         # size of the type in files and on pages
LEADING = 1.2                     # of names over a picture, from one to the next, in font sizes
FONTS = {"sans": "DejaVu Sans", "serif": "STIXGeneral"}                # those that come with matplotlib


def inches_high(kind, found, width, font_size):
    """The height of a picture of what a Kind found that is ``width`` inches wide."""
    return kind.size(found) * width + kind.names(found) * LEADING * font_size / 72


def style(number):
    """Keyword arguments of the line of series ``number``: colour, dashes and marker differ, so that
    any one of them tells lines apart."""
    each = number % len(COLOURS)
    turn = number // len(COLOURS)              # beyond seven, dashes and markers move on against the colours
    dashes = STYLES[(each + turn) % len(STYLES)]
    return {"color": COLOURS[each], "linestyle": (0, dashes) if dashes else "-",
            "marker": MARKERS[(each + turn) % len(MARKERS)]}


def picture_kind(path):
    """``png``, ``svg`` or ``pdf`` by the extension of ``path``; UserError for another, or a folder
    that is missing."""
    kind = os.path.splitext(path)[1].lower().lstrip(".")
    if kind not in ("png", "svg", "pdf"):
        raise UserError(f"{path}: a picture must be .png, .svg or .pdf")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UserError(f"{path}: there is no folder {folder}")
    return kind


def save_figure(path, size, draw, font="sans"):
    """Writes what ``draw(figure)`` draws on an empty figure of ``size`` inches (width, height);
    fonts are part of the file: in PDF embedded, in SVG as outlines."""
    kind = picture_kind(path)
    dateless = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    _written(path, size, draw, {"font.size": PRINT_PT, "font.family": FONTS[font], "mathtext.fontset": "stix"},
             format=kind, dpi=300, metadata=dateless)


def svg_text(size, draw):
    """The figure as an SVG document whose text stays text, for a page that brings fonts of its own;
    72 units an inch, text of 12 units. Series, ink and grid have the colours above and nothing is
    behind them."""
    output = io.StringIO()
    _written(output, size, draw, {"font.size": PAGE_PT, "svg.fonttype": "none", "savefig.transparent": True},
             format="svg", metadata={"Date": None})
    return output.getvalue()


def _written(target, size, draw, settings, **saving):
    import matplotlib
    from matplotlib.figure import Figure  # with its own canvas: no window, no global state

    common = {"svg.hashsalt": "fedmpi", "pdf.fonttype": 42, "axes.edgecolor": QUIET, "axes.labelcolor": INK,
              "text.color": INK, "xtick.color": QUIET, "ytick.color": QUIET, "xtick.labelcolor": INK,
              "ytick.labelcolor": INK, "grid.color": GRID, "axes.linewidth": 0.6, "xtick.major.width": 0.6,
              "ytick.major.width": 0.6, "axes.titlesize": "medium", "axes.titlelocation": "left",
              "axes.axisbelow": True, "legend.frameon": False, "legend.handlelength": 3.2, "hatch.linewidth": 0.6,
              "hatch.color": "#ffffff"}
    with matplotlib.rc_context(common | settings):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        figure.savefig(target, **saving)


def plain_axes(ax, axis="both"):
    """Two spines less, and a light grid across ``axis``."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=axis, linewidth=0.5)
