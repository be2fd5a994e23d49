"""The outcome of a study as Markdown, and its verdicts for the terminal."""

import math

from fedmpi.core.wide import aligned, wrapped
from fedmpi.study.measures import described
from fedmpi.study.outcome import VERDICTS

PLACES = {"up_mb": 2, "mb": 2, "mb_to": 2, "tflop": 3, "seconds": 0, "rounds_to": 1}


def number(value, name="", sign=False):
    """``.8123``, ``-.02``, ``12.3``; a dash for what is not there."""
    if value is None or not math.isfinite(value):
        return "-"
    text = f"{value:{'+' if sign else ''}.{PLACES.get(name.partition(':')[0], 4)}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 and "0." in text else text


def spread(found, name):
    """``mean ± standard deviation`` of an interval."""
    return number(found["mean"], name) + (f" ± {number(found['std'], name)}" if found["n"] > 1 else "")


def span(found, name, sign=True):
    """``mean [low, high]`` of an interval, with their signs where it is of a difference."""
    if not found["n"]:
        return "-"
    ends = f" [{number(found['low'], name, sign)}, {number(found['high'], name, sign)}]" if found["n"] > 1 else ""
    return number(found["mean"], name, sign) + ends


def some(found, of):
    """`` (2 of 5 seeds)`` where not all of ``of`` seeds have an answer, such as the MB until an accuracy is reached:
    those that have one may be no fair sample of all."""
    return f" ({found['n']} of {of} seeds)" if 0 < found["n"] < of else ""


def told(cell, grid=None):
    """A cell in words: ``data noise, S 0.9``; with a ``grid``, only factors that have several levels in it, which may
    leave nothing to tell."""
    return ", ".join(f"{factor} {level}" for factor, level in cell.items() if grid is None or len(grid[factor]) > 1)


def where(cell, grid):
    """The same for a table: ``all`` where there is nothing to tell."""
    return told(cell, grid) or "all"


def constant(grid):
    """The factors that have one level, in words."""
    return told({factor: levels[0] for factor, levels in grid.items() if len(levels) == 1})


def unfinished(found):
    """What is missing, in a line, or an empty text."""
    counts = {}
    for status in found["status"].values():
        counts[status] = counts.get(status, 0) + 1
    if found["complete"]:
        return ""
    listed = ", ".join(f"{n} {status}" for status, n in counts.items())
    return f"INCOMPLETE: of {len(found['status'])} runs {listed}."


def stuck(found):
    """How many runs never left chance, in a line, or an empty text."""
    arms = {run["run"]: run["arm"] for run in found["runs"] if run["measures"] and run["measures"]["learned"] == 0}
    counts = {arm: list(arms.values()).count(arm) for arm in found["arms"]}
    told = ", ".join(f"{n} of {arm}" for arm, n in counts.items() if n)
    return (f"{len(arms)} of {len(found['status'])} runs never left chance ({told}): a difference from a run that "
            "did not learn says only that it did not learn.") if arms else ""


def verdict_rows(found):
    """``[(claim, cell, mean and interval, criterion, verdict, the thesis's own)]`` as texts."""
    rows = []
    for claim in found["claims"]:
        for each in claim["judged"]:
            interval = each["interval"]
            rows.append((claim["says"], where(each["cell"], found["grid"]),
                         span(interval._asdict(), claim["measure"], "minus" in claim) if interval else "-",
                         criterion(claim), each["verdict"] + (f": {each['reason']}" if each["reason"] else ""),
                         claim.get("thesis", "")))
    return rows


def criterion(claim):
    """``accuracy > 0, mean at least .03``."""
    bound = f"> {claim['above']:g}" if "above" in claim else f"< {claim['below']:g}"
    reach = f", mean at {'least' if 'above' in claim else 'most'} {claim['reach']:g}" if "reach" in claim else ""
    return f"{claim['measure']} {bound}{reach}"


def counted(found):
    """``5 verdicts: 3 confirmed, 2 refuted``."""
    verdicts = [each["verdict"] for claim in found["claims"] for each in claim["judged"]]
    return f"{len(verdicts)} verdicts: " + ", ".join(
        f"{verdicts.count(kind)} {kind}" for kind in VERDICTS if kind in verdicts)


def markdown(found, figures):
    """The whole outcome; ``figures`` are ``(title, file)``."""
    lines = [f"# {found['name']}, {found['size']}: {found['title']}", "", found["question"], ""]
    lines += [f"**{unfinished(found)}**", ""] if not found["complete"] else []
    lines += [f"**{stuck(found)}**", ""] if stuck(found) else []
    lines += [f"{len(found['status'])} runs, seeds {', '.join(map(str, found['seeds']))}. `±` is the standard "
              "deviation over seeds; brackets are 95 % intervals (Student's, over seeds) of paired differences, each "
              "for itself. Whatever is selected is selected by the validation share of the training data.", ""]
    lines += [f"Everywhere: {constant(found['grid'])}.", ""] if constant(found["grid"]) else []
    lines += ["Not in here:", "", *(f"* {each}" for each in found["lacks"]), ""] if found["lacks"] else []
    if found["claims"]:
        lines += ["## Verdicts", "", counted(found) + ".", "",
                  *_table(("claim", "where", "measured", "criterion", "verdict", "the thesis has"),
                          verdict_rows(found)), ""]
    lines += ["## Tables", "", *(f"* {name}: {described(name)}" for name in found["measures"]), ""]
    for cell in found["cells"]:
        lines += [f"### {where(cell['cell'], found['grid'])}", "", *_cell(found, cell["arms"]), ""]
    if found["pairs"]:
        lines += ["## Pairs", "", *_table(("difference", "where", *found["measures"]), [
            (f"{each['arm']} - {each['against']}", where(each["cell"], found["grid"]), *_spans(each["difference"]))
            for each in found["pairs"]]), ""]
    lines += ["## Figures", ""] * bool(figures)
    for title, file in figures:
        lines += [f"![{title}]({file})", ""]
    return "\n".join(lines)


def _spans(differences):
    most = max(each["n"] for each in differences.values())
    return [span(each, name) + some(each, most) for name, each in differences.items()]


def _cell(found, arms):
    head = ["arm", "seeds", *found["measures"]]
    differing = [name for name in found["measures"] if name.startswith("accuracy")] if found["against"] else []
    head += [f"{name} - {found['against']}" for name in differing]
    rows = []
    for arm in arms:
        measures = arm["measures"]
        most = max(each["n"] for each in measures.values())
        rows.append((arm["arm"], str(most),
                     *(spread(measures[name], name) + some(measures[name], most) for name in found["measures"]),
                     *(span(arm["difference"][name], name) if "difference" in arm else "" for name in differing)))
    return _table(head, rows)


def _table(head, rows):
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head),
            *("| " + " | ".join(text.replace("|", "/") for text in row) + " |" for row in rows)]


def terminal(found, width):
    """The means of the first measure, and every verdict, in lines at most ``width`` wide."""
    first = found["measures"][0]
    lines = [f"{found['name']}, {found['size']}: {found['title']}"]
    lines += [unfinished(found)] if not found["complete"] else []
    lines += [stuck(found)] if stuck(found) else []
    rows = [(where(cell["cell"], found["grid"]), arm["arm"], spread(arm["measures"][first], first),
             span(arm["difference"][first], first) if "difference" in arm else "")
            for cell in found["cells"] for arm in cell["arms"]]
    lines += ["", *aligned(("where", "arm", first, f"less {found['against']}" if found["against"] else ""), rows,
                           (0, 1, 2, 3), width)]
    for says, place, measured, asked, verdict, thesis in verdict_rows(found):
        lines += ["", f"{verdict.partition(':')[0].upper()}{verdict[len(verdict.partition(':')[0]):]}",
                  f"  {says}" + (f" ({place})" if place != "all" else ""),
                  f"  {measured}; asked {asked}" + (f"; the thesis has {thesis}" if thesis else "")]
    lines += ["", counted(found)] * bool(found["claims"])
    return "\n".join(part for line in lines for part in _fitted(line, width))


def _fitted(line, width):
    """A line in lines at most ``width`` wide, the later ones behind two columns more than its own indent."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return [line] if len(line) <= width else wrapped(line, width, indent)
