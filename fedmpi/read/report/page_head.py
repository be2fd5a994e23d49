"""The head of a report page: title, a line about the runs, warnings, links to the sections."""

import os

from fedmpi.read.headline import task_lines
from fedmpi.read.report.chance import stuck, stuck_text
from fedmpi.read.report.comparison import STATUS
from fedmpi.read.report.groups import option_text
from fedmpi.read.report.html import text
from fedmpi.read.report.series import runs_of
from fedmpi.read.report.truth import options

# A title that is longer, in characters, only counts the set-ups.
LONGEST_TITLE = 60
# An option with more values is left out of the line below the title.
MOST_VALUES = 3
# (option, its text in the line below the title)
LEADING_OPTIONS = (
    ("dataset", "{}"), ("clients", "{} clients"), ("partition", "{}"), ("model", "{}"))


def header(runs, groups, title, remarks, sections):
    """HTML of the head of the page about ``{path: Run}``; ``sections``: their names."""
    lead = text(_lead(groups))
    lines = [f'<p class="remark">{text(remark)}</p>' for remark in remarks]
    lines.append(_unfinished(runs))
    lines.append(_different_tasks(runs))
    lines.append(_never_left_chance(groups))
    links = [f'<li><a href="#{name.lower()}">{name}</a></li>' for name in sections]
    return (f'<header><h1>{text(title)}</h1><p class="lead">{lead}</p>{"".join(lines)}'
            f'<nav aria-label="Contents"><ul>{"".join(links)}</ul></nav></header>')


def default_title(groups):
    """A title from the names of the set-ups and of their data."""
    first_run = next(iter(groups[0].runs.values()))
    recorded = options(first_run)
    data = _data_name(recorded.get("dataset"))
    if len(groups) > 1:
        return _title_of_several(groups, data)
    if "strategy" not in recorded:
        return groups[0].label
    title = f"{option_text(recorded['strategy'])} on {data}"
    num_seeds = len(groups[0].runs)
    if num_seeds > 1:
        title += f", {num_seeds} seeds"
    return title


def _title_of_several(groups, data):
    *others, last = [group.label for group in groups]
    if len(others) == 1:
        title = f"{others[0]} against {last}"
    else:
        title = f"{', '.join(others)} and {last}"
    # Names of set-ups may tell the data already.
    if data not in title:
        title += f" on {data}"
    if len(title) > LONGEST_TITLE:
        return f"{len(groups)} set-ups on {data}"
    return title


def _data_name(spec):
    """The name of a data set; a file of the user's by its own name."""
    name, _, rest = option_text(spec).partition(":")
    part_options = dict(item.partition("=")[::2] for item in rest.split(","))
    file = part_options.get("file")
    if name != "hdf5" or not file:
        return name
    return os.path.splitext(os.path.basename(file))[0]


def _lead(groups):
    """Data, clients, model, rounds and dates in a line."""
    runs = runs_of(groups)
    parts = []
    for name, form in LEADING_OPTIONS:
        values = _values_of(name, runs)
        if 0 < len(values) <= MOST_VALUES:
            parts.append(form.format(" or ".join(values)))
    if len(runs) > 1:
        parts.append(f"{len(runs)} runs")
    else:
        parts.append(_rounds_text(runs[0]))
        parts.append(str(runs[0].attrs.get("status", "")))
    parts.append(_dates(runs))
    return ", ".join(filter(None, parts))


def _values_of(name, runs):
    """The different texts of an option, in the order of the runs."""
    values = []
    for run in runs:
        recorded = options(run)
        if name in recorded:
            values.append(option_text(recorded[name]))
    return list(dict.fromkeys(values))


def _rounds_text(run):
    planned = options(run).get("rounds")
    if planned:
        return f"{len(run.ends)} of {planned} rounds"
    return f"{len(run.ends)} rounds"


def _dates(runs):
    """The days of the first and the last start of the runs."""
    # A time begins with its day: 2026-01-31.
    days = {str(run.attrs.get("created", ""))[:10] for run in runs}
    days = sorted(days - {""})
    if len(days) > 1:
        return f"{days[0]} to {days[-1]}"
    return "".join(days)


def _never_left_chance(groups):
    """The set-ups that learned nothing, as ``fedmpi compare`` says it."""
    texts = []
    for group in groups:
        runs = stuck(group)
        if runs:
            texts.append(stuck_text(group.label, runs))
    if not texts:
        return ""
    line = f"Never left chance: {text('; '.join(texts))}."
    if len(groups) > 1:
        line += (" A difference from a set-up that did not learn says only that it did not "
                 "learn.")
    return f'<p class="note">{line}</p>'


def _different_tasks(runs):
    """A note if the runs' tasks differ, as ``fedmpi compare`` says it."""
    sentences = [line.strip() for line in task_lines(runs.values())]
    if not sentences:
        return ""
    words = " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)
    return f'<p class="note">{text(words)}</p>'


def _unfinished(runs):
    """A note for each status of unfinished runs: first of all, a reader must know of them."""
    by_status = {}
    for path, run in runs.items():
        status = str(run.attrs.get("status", ""))
        if status not in ("finished", ""):
            progress = f"{os.path.basename(path)} after {len(run.ends)} rounds"
            # Older files do not record the reason.
            if run.attrs.get("error"):
                progress += f" ({run.attrs['error']})"
            by_status.setdefault(status, []).append(progress)
    notes = []
    for status, names in by_status.items():
        words = text(STATUS.get(status, status))
        listed = text(", ".join(names))
        notes.append(f'<p class="note">Not the end: {words}, {listed}.</p>')
    return "".join(notes)
