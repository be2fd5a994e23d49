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
    all_sections = _sections(groups)
    sections = {name: inside for name, inside in all_sections if inside}
    names = list(sections)
    top = header(runs, groups, title, remarks, names)
    parts = sections.items()
    body = "".join(_section(name, inside) for name, inside in parts)
    head = _head(title)
    numbers = key_numbers(groups)
    footer = _footer(runs)
    return (f'<!doctype html>\n<html lang="en">{head}'
            f"<body>{top}<main>{numbers}{body}</main>{footer}</body></html>\n")


def _section(name, inside):
    return f'<section id="{name.lower()}"><h2>{name}</h2>{inside}</section>'


def _sections(groups):
    """(name, HTML) of each section, empty HTML if there is nothing to show."""
    # Pictures have numbers, which are unique on the page.
    count = itertools.count(1)
    yield "Options", options_of(groups)
    if len(groups) > 1:
        yield "Comparison", compared(groups)
    learning = pictures(LEARNING, groups, count)
    yield "Learning", learning
    pruning = pictures(PRUNING, groups, count)
    runs = runs_of(groups)
    if len(runs) == 1:
        yield from of_run(runs[0], count, pruning)
    else:
        yield "Pruning", pruning
        parts = _parts_of_runs(groups, count)
        yield "Runs", parts


def _head(title):
    return ('<head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
            f'<meta name="color-scheme" content="light dark"><title>{text(title)}: fedmpi</title>'
            f"<style>{CSS}</style></head>")


def _footer(runs):
    names = map(os.path.basename, runs)
    files = ", ".join(names)
    escaped = text(files)
    return (f"<footer>fedmpi {text(__version__)}, from {escaped}. Rounds count from 1; bytes "
            "are counted from the buffers that were sent; sparsity is the fraction of zeros."
            "</footer>")


def _parts_of_runs(groups, count):
    """Each run's own part of a page about several.

    Of at most PRINTED set-ups the first run is printed, and a line on paper says so."""
    parts = []
    for number, group in enumerate(groups):
        runs = group.runs.items()
        for place, (path, run) in enumerate(runs):
            title = key(number, group.label)
            file = os.path.basename(path)
            is_open = len(parts) < OPENED
            is_printed = place == 0 and number < PRINTED
            kind = "run printed" if is_printed else "run unprinted"
            part = _part_of_run(run, count)
            inside = f'<div class="inside">{part}</div>'
            parts.append(fold(title, inside, file, opened=is_open, kind=kind))
    remark = _unprinted_text(groups)
    joined_parts = "".join(parts)
    return remark + joined_parts


def _part_of_run(run, count):
    sections = [inside for _, inside in of_run(run, count)]
    facts = record(run, kind="numbers")
    return joined(*sections, facts)


def _unprinted_text(groups):
    """A line, on paper only, on the runs without a printed part."""
    num_runs = len(runs_of(groups))
    num_printed = min(PRINTED, len(groups))
    if num_runs == num_printed:
        return ""
    num_others = num_runs - num_printed
    return (f'<p class="paper">On paper: one run of each of {num_printed} set-ups; the parts of '
            f"the other {num_others} runs are in the file that this was printed from."
            "</p>")
