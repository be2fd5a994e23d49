"""``fedmpi report``: one HTML page about one run or several, with everything in it: no script, no
font, no request."""

import itertools
import os

from fedmpi import __version__
from fedmpi.read.report.groups import grouped
from fedmpi.read.report.html import fold, key, text
from fedmpi.read.report.page_comparison import compared
from fedmpi.read.report.page_head import default_title, header
from fedmpi.read.report.page_numbers import key_numbers
from fedmpi.read.report.page_options import options_of, record
from fedmpi.read.report.page_pictures import pictures
from fedmpi.read.report.page_run import joined, of_run
from fedmpi.read.report.page_style import CSS
from fedmpi.read.report.series import runs_of

LEARNING = ("accuracy", "accuracy-bytes", "accuracy-flops", "accuracy-virtual", "loss", "own")
PRUNING = ("sparsity", "churn")
# On a page about several runs, the parts of so many stand open.
OPENED = 3
# On paper, one run of so many set-ups has its part.
PRINTED = 4
# A browser loads nothing from elsewhere and runs nothing, whatever texts a run file holds.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(runs, title=None, remarks=()):
    """The HTML document about ``{path: Run}``, str. Nothing in it depends on the time of writing.

    ``title``: by default it names the set-ups and their data. ``remarks``: texts of the author,
    below the title."""
    groups = grouped(runs)
    if not title:
        title = default_title(groups)
    sections = {name: inside for name, inside in _sections(groups) if inside}
    top = header(runs, groups, title, remarks, list(sections))
    body = "".join(_section(name, inside) for name, inside in sections.items())
    return (f'<!doctype html>\n<html lang="en">{_head(title)}'
            f"<body>{top}<main>{key_numbers(groups)}{body}</main>{_footer(runs)}</body></html>\n")


def _section(name, inside):
    return f'<section id="{name.lower()}"><h2>{name}</h2>{inside}</section>'


def _sections(groups):
    """(name, HTML) of each section, empty HTML if there is nothing to show."""
    # Pictures have numbers, which are unique on the page.
    count = itertools.count(1)
    yield "Options", options_of(groups)
    if len(groups) > 1:
        yield "Comparison", compared(groups)
    yield "Learning", pictures(LEARNING, groups, count)
    pruning = pictures(PRUNING, groups, count)
    runs = runs_of(groups)
    if len(runs) == 1:
        yield from of_run(runs[0], count, pruning)
    else:
        yield "Pruning", pruning
        yield "Runs", _parts_of_runs(groups, count)


def _head(title):
    return ('<head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
            f'<meta name="color-scheme" content="light dark"><title>{text(title)}: fedmpi</title>'
            f"<style>{CSS}</style></head>")


def _footer(runs):
    files = ", ".join(map(os.path.basename, runs))
    return (f"<footer>fedmpi {text(__version__)}, from {text(files)}. Rounds count from 1; bytes "
            "are counted from the buffers that were sent; sparsity is the fraction of zeros."
            "</footer>")


def _parts_of_runs(groups, count):
    """Each run's own part of a page about several.

    Of at most PRINTED set-ups the first run is printed, and a line on paper says so."""
    parts = []
    for number, group in enumerate(groups):
        for place, (path, run) in enumerate(group.runs.items()):
            title = key(number, group.label)
            file = os.path.basename(path)
            is_open = len(parts) < OPENED
            is_printed = place == 0 and number < PRINTED
            kind = "run printed" if is_printed else "run unprinted"
            inside = f'<div class="inside">{_part_of_run(run, count)}</div>'
            parts.append(fold(title, inside, file, opened=is_open, kind=kind))
    return _unprinted_text(groups) + "".join(parts)


def _part_of_run(run, count):
    sections = [inside for _, inside in of_run(run, count)]
    return joined(*sections, record(run, kind="numbers"))


def _unprinted_text(groups):
    """A line, on paper only, on the runs without a printed part."""
    num_runs = len(runs_of(groups))
    num_printed = min(PRINTED, len(groups))
    if num_runs == num_printed:
        return ""
    return (f'<p class="paper">On paper: one run of each of {num_printed} set-ups; the parts of '
            f"the other {num_runs - num_printed} runs are in the file that this was printed from."
            "</p>")
