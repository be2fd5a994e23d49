"""The outcome of a study as Markdown, and its verdicts for the terminal."""

import math
from collections import Counter

from fedmpi.core.wide import aligned, wrapped
from fedmpi.study.measures import described
from fedmpi.study.outcome import VERDICTS

PLACES = {"up_mb": 2, "mb": 2, "mb_to": 2, "tflop": 3, "seconds": 0, "rounds_to": 1}


def number(value, name="", sign=False):
    """``.8123``, ``-.02``, ``12.3``; a dash for a missing value."""
    if value is None or not math.isfinite(value):
        return "-"
    places = PLACES.get(name.partition(":")[0], 4)
    plus = "+" if sign else ""
    text = f"{value:{plus}.{places}f}"
    if abs(value) < 1:
        return text.replace("0.", ".", 1)
    return text


def spread(found, name):
    """``mean ± standard deviation`` of an interval."""
    mean = number(found["mean"], name)
    if found["n"] < 2:
        return mean
    return f"{mean} ± {number(found['std'], name)}"


def span(found, name, sign=True):
    """``mean [low, high]`` of an interval, with their signs if it is of a difference."""
    if not found["n"]:
        return "-"
    mean = number(found["mean"], name, sign)
    if found["n"] < 2:
        return mean
    return f"{mean} [{number(found['low'], name, sign)}, {number(found['high'], name, sign)}]"


def some(found, of):
    """`` (2 of 5 seeds)`` if not all of ``of`` seeds have an answer, such as the MB until an
    accuracy is reached.

    Seeds with an answer may be no fair sample of all."""
    if 0 < found["n"] < of:
        return f" ({found['n']} of {of} seeds)"
    return ""


def told(cell, grid=None):
    """A cell in words: ``data noise, S 0.9``.

    With a ``grid``, factors with one level in it are left out, perhaps all."""
    factors = [factor for factor in cell if grid is None or len(grid[factor]) > 1]
    return ", ".join(f"{factor} {cell[factor]}" for factor in factors)


def where(cell, grid):
    """The same for a table: ``all`` where there is nothing to tell."""
    return told(cell, grid) or "all"


def constant(grid):
    """The factors that have one level, in words."""
    return told({factor: levels[0] for factor, levels in grid.items() if len(levels) == 1})


def unfinished(found):
    """The numbers of missing and of finished runs, in a line, or an empty text."""
    if found["complete"]:
        return ""
    counts = Counter(found["status"].values())
    listed = ", ".join(f"{num} {status}" for status, num in counts.items())
    return f"INCOMPLETE: of {len(found['status'])} runs {listed}."


def stuck(found):
    """How many runs never left chance, in a line, or an empty text."""
    arm_of = {}
    for run in found["runs"]:
        if run["measures"] and run["measures"]["learned"] == 0:
            arm_of[run["run"]] = run["arm"]
    if not arm_of:
        return ""
    counts = Counter(arm_of.values())
    listed = ", ".join(f"{counts[arm]} of {arm}" for arm in found["arms"] if counts[arm])
    return (f"{len(arm_of)} of {len(found['status'])} runs never left chance ({listed}): a difference from a run that "
            "did not learn says only that it did not learn.")


def verdict_rows(found):
    """``[(claim, cell, mean and interval, criterion, verdict, the thesis's own)]`` as texts."""
    rows = []
    for claim in found["claims"]:
        for judged in claim["judged"]:
            place = where(judged["cell"], found["grid"])
            verdict = judged["verdict"]
            if judged["reason"]:
                verdict += f": {judged['reason']}"
            measured = _measured(claim, judged["interval"])
            rows.append((claim["says"], place, measured, criterion(claim), verdict, claim.get("thesis", "")))
    return rows


def _measured(claim, interval):
    if not interval:
        return "-"
    is_difference = "minus" in claim
    return span(interval._asdict(), claim["measure"], is_difference)


def criterion(claim):
    """``accuracy > 0, mean at least .03``."""
    if "above" in claim:
        text, least = f"{claim['measure']} > {claim['above']:g}", "least"
    else:
        text, least = f"{claim['measure']} < {claim['below']:g}", "most"
    if "reach" in claim:
        text += f", mean at {least} {claim['reach']:g}"
    return text


def counted(found):
    """``5 verdicts: 3 confirmed, 2 refuted``."""
    verdicts = [judged["verdict"] for claim in found["claims"] for judged in claim["judged"]]
    counts = Counter(verdicts)
    listed = ", ".join(f"{counts[kind]} {kind}" for kind in VERDICTS if counts[kind])
    return f"{len(verdicts)} verdicts: {listed}"


def markdown(found, figures):
    """The whole outcome; ``figures`` are ``(title, file)``."""
    lines = [f"# {found['name']}, {found['size']}: {found['title']}", "", found["question"], ""]
    for warning in filter(None, (unfinished(found), stuck(found))):
        lines += [f"**{warning}**", ""]
    seeds = ", ".join(map(str, found["seeds"]))
    lines += [f"{len(found['status'])} runs, seeds {seeds}. `±` is the standard "
              "deviation over seeds; brackets are 95 % intervals (Student's, over seeds) of paired differences, each "
              "for itself. Whatever is selected is selected by the validation share of the training data.", ""]
    if constant(found["grid"]):
        lines += [f"Everywhere: {constant(found['grid'])}.", ""]
    if found["lacks"]:
        lines += ["Not in here:", "", *(f"* {text}" for text in found["lacks"]), ""]
    lines += [*_verdict_lines(found), *_table_lines(found), *_pair_lines(found)]
    if figures:
        lines += ["## Figures", ""]
    for title, file in figures:
        lines += [f"![{title}]({file})", ""]
    return "\n".join(lines)


def _verdict_lines(found):
    if not found["claims"]:
        return []
    head = ("claim", "where", "measured", "criterion", "verdict", "the thesis has")
    return ["## Verdicts", "", f"{counted(found)}.", "", *_table(head, verdict_rows(found)), ""]


def _table_lines(found):
    """The measures, then a table a cell."""
    lines = ["## Tables", "", *(f"* {name}: {described(name)}" for name in found["measures"]), ""]
    for cell in found["cells"]:
        lines += [f"### {where(cell['cell'], found['grid'])}", "", *_cell(found, cell["arms"]), ""]
    return lines


def _pair_lines(found):
    if not found["pairs"]:
        return []
    rows = []
    for pair in found["pairs"]:
        name = f"{pair['arm']} - {pair['against']}"
        rows.append((name, where(pair["cell"], found["grid"]), *_spans(pair["difference"])))
    return ["## Pairs", "", *_table(("difference", "where", *found["measures"]), rows), ""]


def _spans(differences):
    most = max(difference["n"] for difference in differences.values())
    return [span(difference, name) + some(difference, most) for name, difference in differences.items()]


def _cell(found, arms):
    """The table of one cell: a row an arm, its measures, then the differences of accuracies to
    ``against``."""
    names, compared = found["measures"], []
    if found["against"]:
        compared = [name for name in names if name.startswith("accuracy")]
    head = ["arm", "seeds", *names, *(f"{name} - {found['against']}" for name in compared)]
    rows = []
    for arm in arms:
        measures = arm["measures"]
        most = max(measure["n"] for measure in measures.values())
        means = [spread(measures[name], name) + some(measures[name], most) for name in names]
        differences = [_difference_text(arm, name) for name in compared]
        rows.append((arm["arm"], str(most), *means, *differences))
    return _table(head, rows)


def _difference_text(arm, name):
    """The arm's difference to ``against``; empty for ``against`` itself."""
    if "difference" not in arm:
        return ""
    return span(arm["difference"][name], name)


def _table(head, rows):
    return [_row(head), "|" + "---|" * len(head), *map(_row, rows)]


def _row(texts):
    # A bar within a text would end the cell.
    cells = " | ".join(text.replace("|", "/") for text in texts)
    return f"| {cells} |"


def terminal(found, width):
    """The means of the first measure, and every verdict, in lines at most ``width`` wide."""
    lines = [f"{found['name']}, {found['size']}: {found['title']}"]
    lines += filter(None, (unfinished(found), stuck(found)))
    lines += ["", *_means_table(found, width)]
    for says, place, measured, asked, verdict, thesis in verdict_rows(found):
        kind, colon, reason = verdict.partition(":")
        claim, numbers = f"  {says}", f"  {measured}; asked {asked}"
        if place != "all":
            claim += f" ({place})"
        if thesis:
            numbers += f"; the thesis has {thesis}"
        lines += ["", f"{kind.upper()}{colon}{reason}", claim, numbers]
    if found["claims"]:
        lines += ["", counted(found)]
    return "\n".join(part for line in lines for part in _fitted(line, width))


def _means_table(found, width):
    """A row a cell and arm, of the first measure."""
    first, less = found["measures"][0], ""
    if found["against"]:
        less = f"less {found['against']}"
    rows = []
    for cell in found["cells"]:
        place = where(cell["cell"], found["grid"])
        for arm in cell["arms"]:
            mean = spread(arm["measures"][first], first)
            rows.append((place, arm["arm"], mean, _difference_text(arm, first)))
    return aligned(("where", "arm", first, less), rows, (0, 1, 2, 3), width)


def _fitted(line, width):
    """A line in lines at most ``width`` wide, the later ones behind two columns more than its own
    indent."""
    if len(line) <= width:
        return [line]
    indent = len(line) - len(line.lstrip()) + 2
    return wrapped(line, width, " " * indent)
