"""``fedmpi plot``: the pictures of a report, for papers."""

import click

from fedmpi.commands.reading import read_all, runs_argument
from fedmpi.errors import UserError


def _kinds():
    from fedmpi.report import KINDS
    return KINDS


class Kinds(click.Command):
    """A command whose help lists the kinds of pictures, imported only then: that takes a while."""

    def format_epilog(self, context, formatter):
        with formatter.section("Kinds"):
            formatter.write_dl([(name, kind.line + ("; a panel a run" if kind.each else ""))
                                for name, kind in _kinds().items()])


def _width(context, parameter, value):
    """Centimetres of a name, or of a number."""
    from fedmpi.report.figure import WIDTHS_CM
    try:
        width = WIDTHS_CM[value] if value in WIDTHS_CM else float(value)
    except ValueError:
        width = 0.0
    if not 3 <= width <= 100:
        raise UserError(f"--width must be {', '.join(WIDTHS_CM)} or centimetres from 3 to 100, got {value}")
    return width


@click.command(cls=Kinds)
@runs_argument
@click.option("--kind", "chosen", multiple=True, metavar="KIND", default=("accuracy",), show_default=True,
              help="What to draw, see below. May be given several times: a panel each.")
@click.option("-o", "--out", required=True, type=click.Path(dir_okay=False), metavar="FILE",
              help="Where to: .svg, .pdf or .png.")
@click.option("--width", default="column", show_default=True, metavar="column|text|CM", callback=_width,
              help="Width of the picture: of one column (8.5 cm), of the text (17.5 cm), or in centimetres.")
@click.option("--height", type=click.FloatRange(2, 100), metavar="CM", help="Its height.  [default: as the kind needs]")
@click.option("--font", type=click.Choice(["sans", "serif"]), default="sans", show_default=True)
@click.option("--columns", type=click.IntRange(1), help="Panels a row.  [default: as many as are 5 cm wide]")
def plot(runs, chosen, out, width, height, font, columns):
    """Pictures of runs for papers: 8-point type, fonts in the file, colours that the colour-blind tell apart, and lines
    that do without colours. Runs that differ in the seed only are one line, the mean, in a band from the lowest to the
    highest."""
    from fedmpi import report
    unknown = [name for name in chosen if name not in report.KINDS]
    if unknown:
        raise UserError(f"--kind {unknown[0]}: there are {', '.join(report.KINDS)}")
    report.picture_kind(out)
    report.save_plot(report.grouped(read_all(runs)), chosen, out, width, height, font, columns)
    click.echo(out)
