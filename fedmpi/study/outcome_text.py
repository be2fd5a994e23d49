"""The outcome of a study as Markdown, and its verdicts for the terminal."""

import math
from collections import Counter

from fedmpi.core.wide import aligned, wrapped
from fedmpi.core.words import plural
from fedmpi.study.measures import described
from fedmpi.study.outcome import VERDICTS

# Decimal places of measures; the others have four.
PLACES = {"up_mb": 2, "mb": 2, "mb_to": 2, "tflop": 3, "seconds": 0, "rounds_to": 1}


# ------------------------------------------------------------- numbers and intervals


def number(value, name="", sign=False):
    """``.8123``, ``-.02``, ``12.3``; a dash for a missing value."""
    if value is None or not math.isfinite(value):
        return "-"
    measure = name.partition(":")[0]
    places = PLACES.get(measure, 4)
    plus = "+" if sign else ""
    text = f"{value:{plus}.{places}f}"
    # As papers write shares: .8123.
    if abs(value) < 1:
        return text.replace("0.", ".", 1)
    return text


def spread(interval, name):
    """``mean ± standard deviation`` of an interval, a dict."""
    mean = number(interval["mean"], name)
    if interval["n"] < 2:
        return mean
    std = number(interval["std"], name)
    return f"{mean} ± {std}"


def span(interval, name, sign=True):
    """``mean [low, high]`` of an interval, with their signs if it is of a difference."""
    if not interval["n"]:
        return "-"
    mean = number(interval["mean"], name, sign)
    if interval["n"] < 2:
        return mean
    low = number(interval["low"], name, sign)
    high = number(interval["high"], name, sign)
    return f"{mean} [{low}, {high}]"


def some(interval, num_seeds):
    """`` (2 of 5 seeds)`` if not all seeds have an answer, such as the MB until an accuracy is
    reached.

    Seeds with an answer may be no fair sample of all."""
    num_answers = interval["n"]
    if 0 < num_answers < num_seeds:
        return f" ({num_answers} of {plural(num_seeds, 'seed')})"
    return ""


def _most_seeds(intervals):
    """The number of seeds of the measure with the most answers."""
    return max(interval["n"] for interval in intervals.values())


# ------------------------------------------------------------- places


def cell_words(cell, grid=None):
    """A cell in words: ``data noise, S 0.9``.

    With a ``grid``, factors with one level in it are left out, perhaps all."""
    texts = []
    for factor, level in cell.items():
        if grid is None or len(grid[factor]) > 1:
            texts.append(f"{factor} {level}")
    return ", ".join(texts)


def place_words(cell, grid):
    """The same for a table: ``all`` for the only cell."""
    return cell_words(cell, grid) or "all"


def constant(grid):
    """The factors with one level, in words."""
    fixed = {}
    for factor, levels in grid.items():
        if len(levels) == 1:
            fixed[factor] = levels[0]
    return cell_words(fixed)


# ------------------------------------------------------------- warnings


def _warnings(findings):
    lines = (
        unfinished(findings),
        stuck(findings),
    )
    return [line for line in lines if line]


def unfinished(findings):
    """The numbers of missing and of finished runs, in a line, or an empty text."""
    if findings["complete"]:
        return ""
    statuses = findings["status"].values()
    counts = Counter(statuses)
    listed = ", ".join(f"{num} {status}" for status, num in counts.items())
    return f"INCOMPLETE: of {plural(len(statuses), 'run')} {listed}."


def stuck(findings):
    """The number of runs that never left chance, in a line, or an empty text."""
    # Several places may share a run: it counts once.
    arm_of = {}
    for run in findings["runs"]:
        if run["measures"] and run["measures"]["learned"] == 0:
            arm_of[run["run"]] = run["arm"]
    if not arm_of:
        return ""
    counts = Counter(arm_of.values())
    listed = ", ".join(f"{counts[arm]} of {arm}" for arm in findings["arms"] if counts[arm])
    num_runs = len(findings["status"])
    return (
        f"{len(arm_of)} of {plural(num_runs, 'run')} never left chance ({listed}): a difference "
        "from a run "
        "that did not learn says only that it did not learn.")


# ------------------------------------------------------------- verdicts


def verdict_rows(findings):
    """``[(claim, cell, mean and interval, criterion, verdict, the thesis's own)]`` as texts."""
    rows = []
    for claim in findings["claims"]:
        asked = criterion(claim)
        thesis = claim.get("thesis", "")
        for judged in claim["judged"]:
            place = place_words(judged["cell"], findings["grid"])
            measured = _measured(claim, judged["interval"])
            verdict = judged["verdict"]
            if judged["reason"]:
                verdict += f": {judged['reason']}"
            rows.append((claim["says"], place, measured, asked, verdict, thesis))
    return rows


def _measured(claim, interval):
    if not interval:
        return "-"
    is_difference = "minus" in claim
    return span(interval._asdict(), claim["measure"], is_difference)


def criterion(claim):
    """``accuracy > 0, mean at least .03``."""
    measure = claim["measure"]
    if "above" in claim:
        text = f"{measure} > {claim['above']:g}"
        least = "least"
    else:
        text = f"{measure} < {claim['below']:g}"
        least = "most"
    if "reach" in claim:
        text += f", mean at {least} {claim['reach']:g}"
    return text


def counted(findings):
    """``5 verdicts: 3 confirmed, 2 refuted``."""
    counts = Counter()
    for claim in findings["claims"]:
        for judged in claim["judged"]:
            counts[judged["verdict"]] += 1
    listed = ", ".join(f"{counts[kind]} {kind}" for kind in VERDICTS if counts[kind])
    return f"{counts.total()} verdicts: {listed}"


# ------------------------------------------------------------- Markdown


def markdown(findings, figures):
    """The whole outcome; ``figures`` are ``(title, file)``."""
    lines = [
        *_head_lines(findings),
        *_verdict_lines(findings),
        *_table_lines(findings),
        *_pair_lines(findings),
        *_figure_lines(figures),
    ]
    return "\n".join(lines)


def _head_lines(findings):
    """The question, warnings, and the conditions of all runs."""
    lines = [f"# {_title(findings)}", "", findings["question"], ""]
    for warning in _warnings(findings):
        lines += [f"**{warning}**", ""]
    lines += [_reading(findings), ""]
    everywhere = constant(findings["grid"])
    if everywhere:
        lines += [f"Everywhere: {everywhere}.", ""]
    if findings["lacks"]:
        lacks = [f"* {text}" for text in findings["lacks"]]
        lines += ["Not in here:", "", *lacks, ""]
    return lines


def _title(findings):
    return f"{findings['name']}, {findings['size']}: {findings['title']}"


def _reading(findings):
    """The number of runs, and the meaning of the numbers in tables."""
    num_runs = len(findings["status"])
    seeds = ", ".join(map(str, findings["seeds"]))
    return (
        f"{plural(num_runs, 'run')}, seeds {seeds}. `±` is the standard deviation over seeds; "
        "brackets are "
        "95 % intervals (Student's, over seeds) of paired differences, each for itself. Whatever "
        "is selected is selected by the validation share of the training data.")


def _verdict_lines(findings):
    if not findings["claims"]:
        return []
    head = ("claim", "where", "measured", "criterion", "verdict", "the thesis has")
    table = _table(head, verdict_rows(findings))
    return ["## Verdicts", "", f"{counted(findings)}.", "", *table, ""]


def _table_lines(findings):
    """The measures, then a table a cell."""
    lines = ["## Tables", ""]
    lines += [f"* {name}: {described(name)}" for name in findings["measures"]]
    lines.append("")
    for cell in findings["cells"]:
        place = place_words(cell["cell"], findings["grid"])
        table = _cell(findings, cell["arms"])
        lines += [f"### {place}", "", *table, ""]
    return lines


def _cell(findings, arms):
    """The table of one cell: a row an arm, its measures, then the differences of accuracies to
    ``against``."""
    names = findings["measures"]
    compared = []
    if findings["against"]:
        # A table of all differences would be too wide.
        compared = [name for name in names if name.startswith("accuracy")]
    differences = [f"{name} - {findings['against']}" for name in compared]
    head = ("arm", "seeds", *names, *differences)
    rows = [_arm_row(arm, names, compared) for arm in arms]
    return _table(head, rows)


def _arm_row(arm, names, compared):
    measures = arm["measures"]
    most = _most_seeds(measures)
    row = [arm["arm"], str(most)]
    for name in names:
        mean = spread(measures[name], name)
        row.append(mean + some(measures[name], most))
    for name in compared:
        row.append(_difference_text(arm, name))
    return row


def _difference_text(arm, name):
    """The arm's difference to ``against``; empty for ``against`` itself."""
    if "difference" not in arm:
        return ""
    return span(arm["difference"][name], name)


def _pair_lines(findings):
    if not findings["pairs"]:
        return []
    rows = []
    for pair in findings["pairs"]:
        name = f"{pair['arm']} - {pair['against']}"
        place = place_words(pair["cell"], findings["grid"])
        rows.append((name, place, *_spans(pair["difference"])))
    head = ("difference", "where", *findings["measures"])
    return ["## Pairs", "", *_table(head, rows), ""]


def _spans(differences):
    most = _most_seeds(differences)
    texts = []
    for name, difference in differences.items():
        text = span(difference, name)
        texts.append(text + some(difference, most))
    return texts


def _figure_lines(figures):
    if not figures:
        return []
    lines = ["## Figures", ""]
    for title, file in figures:
        lines += [f"![{title}]({file})", ""]
    return lines


def _table(head, rows):
    rule = "|" + "---|" * len(head)
    lines = [_row(head), rule]
    lines += [_row(texts) for texts in rows]
    return lines


def _row(texts):
    # A bar within a text would end the cell.
    cells = [text.replace("|", "/") for text in texts]
    row = " | ".join(cells)
    return f"| {row} |"


# ------------------------------------------------------------- terminal


def terminal(findings, width):
    """The means of the first measure, and every verdict, in lines at most ``width`` wide."""
    lines = [_title(findings), *_warnings(findings), ""]
    lines += _means_table(findings, width)
    for row in verdict_rows(findings):
        lines += ["", *_verdict_text(*row)]
    # Of a long output a terminal shows the end.
    if findings["claims"]:
        lines += ["", counted(findings)]
    fitted = []
    for line in lines:
        fitted += _fitted(line, width)
    return "\n".join(fitted)


def _verdict_text(says, place, measured, asked, verdict, thesis):
    """A row of ``verdict_rows`` as three lines: the verdict, the claim, its numbers."""
    kind, colon, reason = verdict.partition(":")
    claim = f"  {says}"
    if place != "all":
        claim += f" ({place})"
    numbers = f"  {measured}; asked {asked}"
    if thesis:
        numbers += f"; the thesis has {thesis}"
    return f"{kind.upper()}{colon}{reason}", claim, numbers


def _means_table(findings, width):
    """A row a cell and arm, of the first measure."""
    first = findings["measures"][0]
    less = ""
    if findings["against"]:
        less = f"less {findings['against']}"
    rows = []
    for cell in findings["cells"]:
        place = place_words(cell["cell"], findings["grid"])
        for arm in cell["arms"]:
            mean = spread(arm["measures"][first], first)
            difference = _difference_text(arm, first)
            rows.append((place, arm["arm"], mean, difference))
    head = ("where", "arm", first, less)
    return aligned(head, rows, (0, 1, 2, 3), width)


def _fitted(line, width):
    """A line in lines at most ``width`` wide, the later ones behind two columns more than its own
    indent."""
    if len(line) <= width:
        return [line]
    own_indent = len(line) - len(line.lstrip())
    indent = " " * (own_indent + 2)
    return wrapped(line, width, indent)
