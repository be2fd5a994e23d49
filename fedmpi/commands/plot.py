"""``fedmpi plot``: the pictures of a report, for papers."""

import math
import os

import click

from fedmpi.commands.reading import read_all, runs_argument
from fedmpi.core.errors import UserError


def _kinds():
    from fedmpi.read.report import PICTURES
    return PICTURES


class WithPictures(click.Command):
    """A command with the kinds of pictures in its help. They are imported only then: this takes a
    while."""

    def format_epilog(self, context, formatter):
        rows = []
        for name, kind in _kinds().items():
            suffix = "; a panel a run" if kind.each else ""
            rows.append((name, kind.line + suffix))
        with formatter.section("Kinds"):
            formatter.write_dl(rows)


def _width(context, parameter, value):
    """Centimetres of a name, or of a number."""
    from fedmpi.read.report.figure import WIDTHS_CM
    if value in WIDTHS_CM:
        return WIDTHS_CM[value]
    try:
        width = float(value)
    # Refused below, like a number out of range.
    except ValueError:
        width = 0.0
    if not 3 <= width <= 100:
        listed = ", ".join(WIDTHS_CM)
        raise UserError(f"--width must be {listed} or centimetres from 3 to 100, got {value}")
    return width


def _limits(context, parameter, value):
    """Two finite numbers, the lower one first, or None."""
    if value is None:
        return None
    low, high = value
    are_finite = math.isfinite(low) and math.isfinite(high)
    if not are_finite or low >= high:
        raise UserError(
            f"--{parameter.name} must be two numbers, the lower one first, got {low:g} {high:g}")
    return value


def _baseline(text):
    """``(name, number or Run)`` of ``[NAME=]VALUE|RUN.h5``."""
    name, equals, value = text.partition("=")
    # A file's name may have an equals sign.
    if not equals or os.path.exists(text):
        name, value = "", text
    try:
        level = float(value)
    except ValueError:
        from fedmpi.store import read_run
        if not os.path.isfile(value):
            raise UserError(
                f"--baseline {text}: {value} is neither a number nor a run file") from None
        file_name = os.path.basename(value)
        stem, _ = os.path.splitext(file_name)
        return name or stem, read_run(value)
    if not math.isfinite(level):
        raise UserError(f"--baseline {text}: must be a finite number")
    return name or "baseline", level


def _labelled(groups, labels):
    """The Groups under the user's names. UserError unless each gets one of its own."""
    if not labels:
        return groups
    num_groups = len(groups)
    if len(labels) != num_groups:
        listed = "; ".join(group.label for group in groups)
        raise UserError(
            f"--label: {num_groups} set-ups need {num_groups} names, got {len(labels)}; in their "
            f"order they are {listed}")
    different = set(labels)
    if len(different) < len(labels):
        listed = ", ".join(labels)
        raise UserError(f"--label: two set-ups would have the same name among {listed}")
    return [group._replace(label=label) for group, label in zip(groups, labels)]


@click.command(cls=WithPictures)
@runs_argument
@click.option(
    "--kind", "chosen", multiple=True, metavar="KIND", default=("accuracy",), show_default=True,
    help="What to draw, see below. May be given several times: a panel each.")
@click.option(
    "-o", "--out", required=True, type=click.Path(dir_okay=False), metavar="FILE",
    help="Where to: .svg, .pdf or .png.")
@click.option(
    "--width", default="column", show_default=True, metavar="column|text|CM", callback=_width,
    help="Width of the picture: of one column (8.5 cm), of the text (17.5 cm), or in centimetres.")
@click.option(
    "--height", type=click.FloatRange(2, 100), metavar="CM",
    help="Its height.  [default: as the kind needs]")
@click.option("--font", type=click.Choice(["sans", "serif"]), default="sans", show_default=True)
@click.option(
    "--columns", type=click.IntRange(1),
    help="Panels a row.  [default: as many as are 5 cm wide]")
@click.option(
    "--label", "labels", multiple=True, metavar="NAME",
    help="What a set-up is called, one for each in their order.  [default: what differs between "
         "them]")
@click.option("--title", help="Over the whole picture.")
@click.option(
    "--xlim", nargs=2, type=float, callback=_limits, metavar="LOW HIGH",
    help="Ends of the axis, in its units.")
@click.option(
    "--ylim", nargs=2, type=float, callback=_limits, metavar="LOW HIGH",
    help="Ends of the axis, in its units.")
@click.option(
    "--baseline", "baselines", multiple=True, metavar="[NAME=]VALUE|RUN.h5",
    help="A level across curves: a number, or where that run ended. May be given several times.")
def plot(runs, chosen, out, width, height, font, columns, labels, title, xlim, ylim, baselines):
    """Pictures of runs for papers: 8-point type, fonts in the file, colours that the colour-blind
    tell apart, and lines that do without colours. Runs that differ in the seed only are one line,
    the mean, in a band from the lowest to the highest."""
    from fedmpi.read import report
    for name in chosen:
        if name not in report.PICTURES:
            listed = ", ".join(report.PICTURES)
            raise UserError(f"--kind {name}: there are {listed}")
    # An unknown ending is refused before the runs are read.
    report.picture_kind(out)
    levels = [_baseline(text) for text in baselines]
    # Runs that differ in their seed alone are one group.
    groups = report.grouped(read_all(runs))
    report.save_plot(
        _labelled(groups, labels),
        chosen,
        out,
        width,
        height,
        font,
        columns,
        title=title,
        xlim=xlim,
        ylim=ylim,
        baselines=levels)
    click.echo(out)
