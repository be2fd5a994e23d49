"""Groups of runs held against one another: their options, then their outcomes, at equal cost."""

import itertools
import math
from typing import NamedTuple

import numpy as np

from fedmpi.core.errors import UserError
from fedmpi.read.headline import Headline, common_headline, headline, task_lines
from fedmpi.read.report.chance import stuck, stuck_text
from fedmpi.read.report.groups import differing, option_text
from fedmpi.read.report.metrics import final_metrics
from fedmpi.read.report.series import evaluated, runs_of, spent, to_reach, within
from fedmpi.read.report.statistics import interval, paired_difference
from fedmpi.read.report.text import human_bytes, human_flops, human_seconds
from fedmpi.read.report.truth import options
from fedmpi.core.wide import aligned, wrapped

AXES = ("rounds", "bytes", "flops", "virtual")
# Runs are compared at these shares of the cost of the cheapest run.
PARTS = (0.25, 0.5, 1.0)
SPENT = ("rounds", "bytes", "flops", "virtual", "seconds")
# {axis: its words}
WORDS = {
    "rounds": "rounds",
    "bytes": "bytes sent",
    "flops": "training FLOPs",
    "virtual": "virtual time",
}
# {axis: the words behind a number}
OF = {"rounds": "rounds", "bytes": "sent", "flops": "of training", "virtual": "of virtual time"}
STATUS = {"running": "still running, or killed"}
# {outcome that every task has: its words}
OUTCOMES = {
    "final_loss": "final loss",
    "sparsity": "sparsity",
    "rounds": "rounds",
    "bytes": "sent, up and down",
    "flops": "training FLOPs",
    "virtual": "virtual time",
    "seconds": "time of the rounds",
}


def outcome_words(leading):
    """``{name: words}`` of the outcomes of runs with this ``Headline``."""
    name, word = leading.name, leading.word
    return {
        f"final_{name}": f"final {word}",
        f"chosen_{name}": f"{word} at best validation",
        f"final_own_{name}": "own tests, mean of clients",
        f"final_own_{name}_worst": "own tests, worst tenth",
    } | OUTCOMES


def refuse_other_data(runs):
    """UserError if the recorded data sets of ``{path: Run}`` differ: their accuracies cannot be
    compared.

    Partitions, noise and faults may differ."""
    first_with = {}
    for path, run in runs.items():
        recorded = options(run)
        if "dataset" in recorded:
            name = option_text(recorded["dataset"])
            first_with.setdefault(name, path)
    if len(first_with) > 1:
        listed = ", ".join(f"{path} has {name}" for name, path in first_with.items())
        raise UserError(
            "these runs have other data, their accuracies say nothing beside one another: "
            f"{listed}; --other-data compares them all the same")


def comparison(groups, target=None, against=0, every_pair=False):
    """Dict of the numbers of ``fedmpi compare``; each list has an entry a Group, in their order.

    * ``differ``: texts of the options that differ.
    * ``outcomes``: Intervals over seeds, None if a run lacks it.
    * ``headline``: the name of the compared metric, the key of its values below.
    * ``tasks``: lines for the reader if the runs' tasks differ.
    * ``equal``: by axis, ``budgets`` and, for each, the test headlines of each group's runs within
      it.
    * ``reach``: under the headline's name ``target``, or the best value of all runs (in percent for
      accuracy); by axis, each run's cost when it was first there, NaN if it never was.
    * ``paired``: Intervals of the differences to the group number ``against``, or of
      ``every_pair``, at equal cost, over common seeds.
    * ``chance``: the Stuck of each group, None if a run of it has learned something.
    """
    leading = common_headline(runs_of(groups))
    if target is not None and leading.share and target > 1:
        raise UserError(f"--accuracy must be in (0, 1], got {target}")
    axes = _common_axes(groups)
    if target is None and axes:
        target = _common(groups)
    equal = {axis: _equal(groups, axis) for axis in axes}
    reach = {leading.name: target}
    if target is not None:
        reach |= {axis: _reached(groups, axis, target) for axis in axes}
    pairs = _wanted_pairs(len(groups), against, every_pair)
    return {
        "groups": [_record(group) for group in groups],
        "headline": leading.name,
        "higher": leading.higher,
        "tasks": task_lines(runs_of(groups)),
        "differ": differing(groups),
        "outcomes": _outcomes(groups, leading),
        "equal": equal,
        "reach": reach,
        "chance": [stuck(group) for group in groups],
        "paired": _paired(groups, equal, pairs),
    }


def _common_axes(groups):
    """The axes whose cost all runs with an evaluated round have recorded; none without such
    runs."""
    runs = _evaluated_runs(groups)
    if not runs:
        return []
    axes = []
    for axis in AXES:
        costs = [spent(run, axis) for run in runs]
        if all(cost is not None for cost in costs):
            axes.append(axis)
    return axes


def _evaluated_runs(groups):
    """The runs with an evaluated round."""
    runs = runs_of(groups)
    return [run for run in runs if len(evaluated(run, headline(run).name))]


def _reached(groups, axis, target):
    costs = []
    for group in groups:
        costs.append([to_reach(run, axis, target) for run in group.runs.values()])
    return costs


def _record(group):
    runs = group.runs.values()
    return {
        "tag": group.tag,
        "label": group.label,
        "runs": list(group.runs),
        "seeds": [options(run).get("seed") for run in runs],
        "status": [str(run.attrs.get("status", "")) for run in runs],
        "error": [str(run.attrs.get("error", "")) for run in runs],
        "played": [len(run.ends) for run in runs],
    }


def _outcomes(groups, leading):
    """``{name: [Interval or None a group]}`` of the outcomes of any group, over its runs that
    recorded them."""
    rows_of = []
    for group in groups:
        rows_of.append([final_metrics(run) | _costs(run) for run in group.runs.values()])
    outcomes = {}
    for name in outcome_words(leading):
        column = [_over_runs(rows, name) for rows in rows_of]
        if any(column):
            outcomes[name] = column
    return outcomes


def _over_runs(rows, name):
    """The Interval of an outcome over the runs with this outcome, or None."""
    values = [row[name] for row in rows if name in row]
    return interval(values) if values else None


def _costs(run):
    """``{axis: cost of all rounds}``, as far as recorded."""
    costs = {}
    for axis in ("bytes", "flops", "virtual", "seconds"):
        cost = spent(run, axis)
        if cost is not None and len(cost):
            costs[axis] = float(cost[-1])
    return costs


def _equal(groups, axis):
    """The headlines at ``PARTS`` of a common cost: all evaluated runs had reached it by their last
    evaluation."""
    runs = _evaluated_runs(groups)
    name = headline(runs[0]).name
    common = min(_cost_of_last(run, axis) for run in runs)
    budgets = [part * common for part in PARTS]
    if axis == "rounds":
        # Whole rounds, of which a short run has fewer than PARTS.
        whole = {max(1.0, math.floor(budget)) for budget in budgets}
        budgets = sorted(whole)
    values = [_at_budget(groups, axis, budget) for budget in budgets]
    return {"budgets": budgets, name: values}


def _cost_of_last(run, axis):
    last = evaluated(run, headline(run).name)[-1]
    cost = spent(run, axis)
    return float(cost[last])


def _at_budget(groups, axis, budget):
    values = []
    for group in groups:
        values.append([within(run, axis, budget) for run in group.runs.values()])
    return values


def _common(groups):
    """The best headline reached by every evaluated run; of accuracy in whole percents, as a
    fraction.

    None if an accuracy is less than one percent."""
    runs = _evaluated_runs(groups)
    leading = headline(runs[0])
    columns = [run.rounds[leading.name] for run in runs]
    if not leading.higher:
        return max(float(np.nanmin(column)) for column in columns)
    best = min(float(np.nanmax(column)) for column in columns)
    if not leading.share:
        return best
    percent = math.floor(100 * best + 1e-9)
    return percent / 100 or None


def _wanted_pairs(num, against, every_pair):
    """[(number of a group, number of its reference)]."""
    if every_pair:
        return [(other, first) for first, other in itertools.combinations(range(num), 2)]
    return [(number, against) for number in range(num) if number != against]


def _paired(groups, equal, pairs):
    """``[{group, against, axis, budget, seeds, interval}]`` of the ``pairs``, at the whole of the
    common budget.

    Seeds without an evaluation within it are left out; fewer than two have no interval."""
    differences = []
    if not equal:
        return differences
    name = headline(_evaluated_runs(groups)[0]).name
    for number, against in pairs:
        group, reference = groups[number], groups[against]
        for axis, at in equal.items():
            # The last budget is the whole one.
            values = at[name][-1]
            by_seed = _both_values(reference, values[against], group, values[number])
            if len(by_seed) < 2:
                continue
            base, own = zip(*by_seed.values())
            differences.append({
                "group": group.tag,
                "against": reference.tag,
                "axis": axis,
                "budget": at["budgets"][-1],
                "seeds": list(by_seed),
                "interval": paired_difference(own, base),
            })
    return differences


def _both_values(first, first_values, second, second_values):
    """``{seed: (value in first, in second)}`` of the seeds with a finite value in both Groups."""
    seeds = [options(run).get("seed") for run in first.runs.values()]
    others = [options(run).get("seed") for run in second.runs.values()]
    by_seed = {}
    for seed in seeds:
        if seed is None or seed not in others:
            continue
        a = first_values[seeds.index(seed)]
        b = second_values[others.index(seed)]
        if math.isfinite(a + b):
            by_seed[seed] = (a, b)
    return by_seed


# ---------------------------------------------------------------- in words


def amount(axis, value):
    """A cost on an axis, for people."""
    if axis == "rounds":
        digits = 0 if value == round(value) else 1
        return f"{value:.{digits}f}"
    if axis == "bytes":
        return human_bytes(value)
    if axis == "flops":
        return human_flops(value)
    return human_seconds(value)


def spent_text(axis, value):
    """A cost with a word for its axis."""
    if (axis, value) == ("rounds", 1):
        return "1 round"
    return f"{amount(axis, value)} {OF[axis]}"


def outcome_text(name, over_seeds, of=None):
    """An Interval over seeds: its mean, and the standard deviation if it is at least half a percent
    of the mean.

    The number of seeds is told if it is less than ``of``."""
    if over_seeds is None or not over_seeds.n:
        return "-"
    n, mean, std = over_seeds[:3]
    # Less spread than half a percent would only take room.
    is_spread = n > 1 and std > 0.005 * abs(mean)
    digits = 3 if is_spread else 4

    def show(value):
        if name in SPENT:
            return amount(name, value)
        return f"{value:.{digits}f}"

    text = show(mean)
    if is_spread:
        text += f" ± {show(std)}"
    if n < (of or 0):
        text += f" ({n} of {of} seeds)"
    return text


def accuracy_text(values):
    """Test headlines of a group's runs: the mean of the finite ones, and the standard deviation of
    several."""
    return outcome_text("accuracy", _of_finite(values), len(values))


def reach_text(axis, values):
    """The cost of a group's runs when they first reached the target: a mean over the runs that ever
    did."""
    over_seeds = _of_finite(values)
    if not over_seeds.n:
        return "never"
    return outcome_text(axis, over_seeds, len(values))


def _of_finite(values):
    finite = [value for value in values if not math.isnan(value)]
    return interval(finite)


def difference_text(difference):
    """``+0.0213 [+0.0101, +0.0325]``: mean and 95 % interval."""
    return f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"


def comparison_text(numbers, width=None):
    """A ``comparison`` for the terminal, at most ``width`` wide."""
    metric = numbers["headline"]
    word = metric.replace("_", " ")
    spread = ""
    if any(len(record["runs"]) > 1 for record in numbers["groups"]):
        spread = ", mean ± standard deviation over seeds"
    sections = [
        _differ_section(numbers),
        _outcome_section(numbers, f"what came of it{spread}"),
        _equal_section(numbers, f"test {word} at equal cost{spread}"),
    ]
    # Without a target that all have reached, there is nothing to tell.
    if numbers["reach"][metric] is not None:
        sections.append(_reach_section(numbers))
    if numbers["paired"]:
        title = f"differences of test {word} at equal cost, seed by seed: mean and 95 % interval"
        sections.append(_paired_section(numbers, title))
    lines = []
    for record in numbers["groups"]:
        lines += _group_lines(record)
    lines += numbers["tasks"]
    lines += chance_lines(numbers)
    for section in sections:
        lines += ["", *section]
    return "\n".join(_fitted(lines, width))


def _tags(numbers):
    return [record["tag"] for record in numbers["groups"]]


def _differ_section(numbers):
    rows = [[key, *texts] for key, texts in numbers["differ"].items()]
    otherwise = "their options differ in nothing that says what is run"
    return _section("what differs", ["option", *_tags(numbers)], rows, otherwise)


def _outcome_section(numbers, title):
    words = outcome_words(Headline(numbers["headline"]))
    num_runs = [len(record["runs"]) for record in numbers["groups"]]
    heads = ["", *_tags(numbers)]
    rows = []
    for name, column in numbers["outcomes"].items():
        texts = [outcome_text(name, over_seeds, of) for over_seeds, of in zip(column, num_runs)]
        rows.append([words[name], *texts])
    return _section(title, heads, rows)


def _equal_section(numbers, title):
    heads = ["spent", *_tags(numbers)]
    rows = []
    for axis, at in numbers["equal"].items():
        values_of_groups = at[numbers["headline"]]
        for budget, values in zip(at["budgets"], values_of_groups):
            texts = [accuracy_text(of_group) for of_group in values]
            rows.append([spent_text(axis, budget), *texts])
    return _section(title, heads, rows, "no round has been evaluated yet")


def _reach_section(numbers):
    name, reach = numbers["headline"], numbers["reach"]
    heads = ["", *_tags(numbers)]
    rows = []
    for axis, column in reach.items():
        if axis != name:
            texts = [reach_text(axis, values) for values in column]
            rows.append([WORDS[axis], *texts])
    title = f"to reach a test {name.replace('_', ' ')} of {reach[name]:.4g}"
    return _section(title, heads, rows)


def _paired_section(numbers, title):
    rows = []
    for pair in numbers["paired"]:
        name = f"{pair['group']} - {pair['against']}"
        place = spent_text(pair["axis"], pair["budget"])
        num_seeds = str(len(pair["seeds"]))
        rows.append([name, place, num_seeds, difference_text(pair["interval"])])
    return _section(title, ["", "at", "seeds", "difference"], rows, left=(0, 1))


def _fitted(lines, width):
    """The lines, at most ``width`` wide; a ``Table`` among them becomes its own lines."""
    for line in lines:
        if isinstance(line, Table):
            room = None if width is None else width - 2
            yield from (f"  {row}" for row in aligned(*line, room))
        elif width is None or len(line) <= width:
            yield line
        else:
            yield from wrapped(line, width, "   ")


class Table(NamedTuple):
    """A table whose width is decided later."""

    head: list
    rows: list
    left: tuple


def chance_lines(numbers):
    """The stuck set-ups of a ``comparison``, and the meaning of this; nothing if all have
    learned."""
    texts = []
    for record, runs in zip(numbers["groups"], numbers["chance"]):
        if runs:
            texts.append(stuck_text(record["label"], runs))
    if not texts:
        return []
    return [f"never left chance: {'; '.join(texts)}",
            "   a difference from a set-up that did not learn says only that it did not learn"]


def _group_lines(record):
    """The group's name and files, then each unfinished run."""
    paths = record["runs"]
    several = len(paths) > 1
    head = f"{record['tag']}  {record['label']}: {paths[0]}"
    if several:
        seeds = ", ".join(map(str, record["seeds"]))
        head += f" and {len(paths) - 1} more, seeds {seeds}"
    yield head
    states = zip(paths, record["status"], record["played"], record["error"])
    for path, status, played, error in states:
        if status in ("", "finished"):
            continue
        name = f"{path} " if several else ""
        reason = f" ({error})" if error else ""
        yield f"   not the end: {STATUS.get(status, status)}, {name}after {played} rounds{reason}"


def _section(title, head, rows, otherwise="", left=(0,)):
    """A title with its table, or with the text ``otherwise`` if there are no rows."""
    if rows:
        return [title, Table(head, rows, left)]
    return [f"{title}: {otherwise}"]


def without_tuples(value):
    """``comparison`` as JSON takes it: Intervals as dicts."""
    if hasattr(value, "_asdict"):
        return value._asdict()
    if isinstance(value, dict):
        return {key: without_tuples(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_tuples(item) for item in value]
    return value
