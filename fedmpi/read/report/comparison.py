"""Groups of runs held against one another: what differs in their options, then what came of it, at equal cost."""

import itertools
import math
from typing import NamedTuple

import numpy as np

from fedmpi.core.errors import UserError
from fedmpi.read.headline import Headline, common_headline, headline
from fedmpi.read.report.chance import stuck, stuck_text
from fedmpi.read.report.groups import differing, option_text
from fedmpi.read.report.metrics import final_metrics
from fedmpi.read.report.series import evaluated, spent, to_reach, within
from fedmpi.read.report.statistics import interval, paired_difference
from fedmpi.read.report.text import human_bytes, human_flops, human_seconds
from fedmpi.read.report.truth import options
from fedmpi.core.wide import aligned, wrapped

AXES = ("rounds", "bytes", "flops", "virtual")
PARTS = (0.25, 0.5, 1.0)          # of what the cheapest run has spent: where runs are compared
SPENT = ("rounds", "bytes", "flops", "virtual", "seconds")
WORDS = {"rounds": "rounds", "bytes": "bytes sent", "flops": "training FLOPs", "virtual": "virtual time"}
OF = {"rounds": "rounds", "bytes": "sent", "flops": "of training", "virtual": "of virtual time"}
STATUS = {"running": "still running, or killed"}
OUTCOMES = {"final_loss": "final loss", "sparsity": "sparsity", "rounds": "rounds", "bytes": "sent, up and down",
            "flops": "training FLOPs", "virtual": "virtual time", "seconds": "time of the rounds"}


def outcome_words(leading):
    """``{name: words}`` of the outcomes of runs with this ``Headline``."""
    word = leading.word
    own = {f"final_own_{leading.name}": "own tests, mean of clients",
           f"final_own_{leading.name}_worst": "own tests, worst tenth"}
    return {f"final_{leading.name}": f"final {word}", f"chosen_{leading.name}": f"{word} at best validation"
            } | own | OUTCOMES


def refuse_other_data(runs):
    """UserError where ``{path: Run}`` were not tested on the same data set, as far as they tell: accuracies say nothing
    then. Who held which samples, and what was wrong with them, may differ."""
    told = {path: option_text(options(run)["dataset"]) for path, run in runs.items() if "dataset" in options(run)}
    names = list(dict.fromkeys(told.values()))
    if len(names) > 1:
        first = {name: next(path for path, other in told.items() if other == name) for name in names}
        raise UserError("these runs have other data, their accuracies say nothing beside one another: "
                        + ", ".join(f"{first[name]} has {name}" for name in names)
                        + "; --other-data compares them all the same")


def comparison(groups, target=None, against=0, every_pair=False):
    """Dict of all that ``fedmpi compare`` says of Groups; a list has an entry a group, in their order.

    ``differ``: texts of the options that differ. ``outcomes``: Intervals over seeds, None where a run lacks it.
    ``equal``: by axis, ``budgets`` and, for each, the test headlines of each group's runs when they had spent it.
    ``headline``: the name of the metric that is compared, under which its values stand. ``reach``: this name
    (``target``, or the best that all runs reach, in percent for accuracy) and, by axis, what each run had spent when it
    was first there, NaN where it never was. ``paired``: Intervals of the differences to the group number ``against``,
    or of ``every_pair``, at equal cost, over the seeds that both have. ``chance``: the Stuck of each group, None where
    all of its runs have learned something.
    """
    leading = common_headline([run for group in groups for run in group.runs.values()])
    if target is not None and leading.share and target > 1:
        raise UserError(f"--accuracy must be in (0, 1], got {target}")
    known, name = _known(groups), leading.name
    axes = [axis for axis in AXES if known and all(spent(run, axis) is not None for run in known)]
    equal = {axis: _equal(groups, axis) for axis in axes}
    target = _common(groups) if target is None and axes else target
    reach = {} if target is None else {axis: [[to_reach(run, axis, target) for run in group.runs.values()]
                                              for group in groups] for axis in axes}
    return {"groups": [_who(group) for group in groups], "headline": name, "higher": leading.higher,
            "differ": differing(groups), "outcomes": _outcomes(groups, leading),
            "equal": equal, "reach": {name: target} | reach, "chance": [stuck(group) for group in groups],
            "paired": _paired(groups, equal, _wanted_pairs(len(groups), against, every_pair))}


def _known(groups):
    """The runs of which a round has been evaluated."""
    return [run for group in groups for run in group.runs.values() if len(evaluated(run, headline(run).name))]


def _who(group):
    seeds = [options(run).get("seed") for run in group.runs.values()]
    return {"tag": group.tag, "label": group.label, "runs": list(group.runs), "seeds": seeds,
            "status": [str(run.attrs.get("status", "")) for run in group.runs.values()],
            "played": [len(run.ends) for run in group.runs.values()]}


def _outcomes(groups, leading):
    """``{name: [Interval or None a group]}`` of what any group has, over those of its runs that have it."""
    found = {name: [] for name in outcome_words(leading)}
    for group in groups:
        rows = [final_metrics(run) | {axis: float(cost[-1]) for axis in ("bytes", "flops", "virtual", "seconds")
                                      if (cost := spent(run, axis)) is not None and len(cost)}
                for run in group.runs.values()]
        for name, column in found.items():
            values = [row[name] for row in rows if name in row]
            column.append(interval(values) if values else None)
    return {name: column for name, column in found.items() if any(column)}


def _equal(groups, axis):
    """At parts of what all that have been evaluated had spent by their last evaluation."""
    common = min(float(spent(run, axis)[evaluated(run, headline(run).name)[-1]]) for run in _known(groups))
    budgets = [part * common for part in PARTS]
    if axis == "rounds":
        budgets = sorted({max(1.0, math.floor(budget)) for budget in budgets})
    name = headline(_known(groups)[0]).name
    return {"budgets": budgets, name: [[[within(run, axis, budget) for run in group.runs.values()]
                                        for group in groups] for budget in budgets]}


def _common(groups):
    """The best headline that every run that was evaluated has reached, of accuracy in whole percents, as a fraction;
    None where that is not one percent."""
    known = _known(groups)
    leading = headline(known[0])
    columns = [run.rounds[leading.name] for run in known]
    if not leading.higher:
        return max(float(np.nanmin(column)) for column in columns)
    best = min(float(np.nanmax(column)) for column in columns)
    return math.floor(100 * best + 1e-9) / 100 or None if leading.share else best


def _wanted_pairs(num, against, every_pair):
    """[(number of a group, of the one that it is held against)]."""
    if every_pair:
        return [(other, first) for first, other in itertools.combinations(range(num), 2)]
    return [(number, against) for number in range(num) if number != against]


def _paired(groups, equal, wanted):
    """``[{group, against, axis, budget, seeds, interval}]`` of the pairs ``wanted``, at the whole of the common budget,
    over the seeds that had been evaluated within it."""
    found = []
    for number, first in wanted:
        for axis, each in equal.items():
            values = each[headline(_known(groups)[0]).name][-1]
            base, other = values[first], values[number]
            pairs = [(seed, a, b) for seed, a, b in _pairs(groups[first], groups[number])
                     if math.isfinite(base[a] + other[b])]
            if len(pairs) < 2:
                continue
            spread = paired_difference([other[b] for _, _, b in pairs], [base[a] for _, a, _ in pairs])
            found.append({"group": groups[number].tag, "against": groups[first].tag, "axis": axis,
                          "budget": each["budgets"][-1], "seeds": [seed for seed, _, _ in pairs], "interval": spread})
    return found


def _pairs(first, second):
    """[(seed, its number in first, in second)] of the seeds that both have."""
    one, two = ([options(run).get("seed") for run in group.runs.values()] for group in (first, second))
    return [(seed, one.index(seed), two.index(seed)) for seed in one if seed is not None and seed in two]


# ---------------------------------------------------------------- in words


def amount(axis, value):
    """What was spent of an axis, for people."""
    if axis == "rounds":
        return f"{value:.0f}" if value == round(value) else f"{value:.1f}"
    return {"bytes": human_bytes, "flops": human_flops}.get(axis, human_seconds)(value)


def spent_text(axis, value):
    """The same, with a word on what it is of."""
    return "1 round" if (axis, value) == ("rounds", 1) else f"{amount(axis, value)} {OF[axis]}"


def outcome_text(name, found, of=None):
    """An Interval over seeds: mean, and standard deviation where it is half a percent of it at least; and how many they
    are where they are less than ``of``."""
    if found is None or not found.n:
        return "-"
    some = f" ({found.n} of {of} seeds)" if found.n < (of or 0) else ""
    spread = found.n > 1 and found.std > 0.005 * abs(found.mean)
    digits = 3 if spread else 4

    def show(value):
        return amount(name, value) if name in SPENT else f"{value:.{digits}f}"

    return (f"{show(found.mean)} ± {show(found.std)}" if spread else show(found.mean)) + some


def accuracy_text(values):
    """Test headlines of a group's runs: the mean of those that are known, and the standard deviation of several."""
    return outcome_text("accuracy", _of_known(values), len(values))


def reach_text(axis, values):
    """What a group's runs had spent when they first were there: the mean of those that ever were."""
    found = _of_known(values)
    return outcome_text(axis, found, len(values)) if found.n else "never"


def _of_known(values):
    return interval([value for value in values if not math.isnan(value)])


def difference_text(found):
    """``+0.0213 [+0.0101, +0.0325]``: mean and 95 % interval."""
    return f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def comparison_text(found, width=None):
    """All of it for the terminal, at most ``width`` wide, first what differs in the options."""
    tags, name = [each["tag"] for each in found["groups"]], found["headline"]
    word = name.replace("_", " ")
    known = outcome_words(Headline(name))
    lines = [line for each in found["groups"] for line in _who_text(each)]
    lines += chance_lines(found)
    lines += ["", *_section("what differs", ["option", *tags],
                            [[key, *texts] for key, texts in found["differ"].items()],
                            "their options differ in nothing that says what is run")]
    several = any(len(each["runs"]) > 1 for each in found["groups"])
    spread = ", mean ± standard deviation over seeds" * several
    lines += ["", *_section(f"what came of it{spread}", ["", *tags], [
        [known[each], *(outcome_text(each, value, len(who["runs"])) for value, who in zip(column, found["groups"]))]
        for each, column in found["outcomes"].items()])]
    lines += ["", *_section(f"test {word} at equal cost{spread}", ["spent", *tags], [
        [spent_text(axis, budget), *map(accuracy_text, row)] for axis, each in found["equal"].items()
        for budget, row in zip(each["budgets"], each[name])], "no round has been evaluated yet")]
    lines += ["", *_to_reach(found["reach"], tags, name)] if found["reach"][name] is not None else []
    if found["paired"]:
        lines += ["", *_section(f"differences of test {word} at equal cost, seed by seed: mean and 95 % interval",
                                ["", "at", "seeds", "difference"], [
            [f"{each['group']} - {each['against']}", spent_text(each["axis"], each["budget"]), str(len(each["seeds"])),
             difference_text(each["interval"])] for each in found["paired"]], left=(0, 1))]
    return "\n".join(_fitted(lines, width))


def _fitted(lines, width):
    """The lines, at most ``width`` wide; a ``Table`` among them becomes its own."""
    for line in lines:
        if isinstance(line, Table):
            room = None if width is None else width - 2
            yield from ("  " + each for each in aligned(*line, room))
        else:
            yield from [line] if width is None or len(line) <= width else wrapped(line, width, "   ")


class Table(NamedTuple):
    """A table whose width is not decided yet."""

    head: list
    rows: list
    left: tuple


def chance_lines(found):
    """Which set-ups of a ``comparison`` never left chance, and what that means; nothing where all have learned."""
    told = [stuck_text(who["label"], each) for who, each in zip(found["groups"], found["chance"]) if each]
    if not told:
        return []
    return [f"never left chance: {'; '.join(told)}",
            "   a difference from a set-up that did not learn says only that it did not learn"]


def _who_text(each):
    num = len(each["runs"])
    yield f"{each['tag']}  {each['label']}: {each['runs'][0]}" + (
        f" and {num - 1} more, seeds {', '.join(map(str, each['seeds']))}" if num > 1 else "")
    for path, status, played in zip(each["runs"], each["status"], each["played"]):
        if status not in ("", "finished"):
            yield f"   not the end: {STATUS.get(status, status)}, " + f"{path} " * (num > 1) + f"after {played} rounds"


def _section(title, head, rows, otherwise="", left=(0,)):
    return [title, Table(head, rows, left)] if rows else [f"{title}: {otherwise}"]


def _to_reach(reach, tags, name):
    word = name.replace("_", " ")
    return _section(f"to reach a test {word} of {reach[name]:.4g}", ["", *tags], [
        [WORDS[axis], *(reach_text(axis, values) for values in column)] for axis, column in reach.items()
        if axis != name])


def without_tuples(found):
    """``comparison`` as JSON takes it: Intervals as dicts."""
    if hasattr(found, "_asdict"):
        return found._asdict()
    if isinstance(found, dict):
        return {key: without_tuples(value) for key, value in found.items()}
    return [without_tuples(value) for value in found] if isinstance(found, list) else found
