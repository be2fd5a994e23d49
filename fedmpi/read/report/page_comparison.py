"""Set-ups held against one another on a report page: at equal cost, by the cost of an accuracy, and
seed by seed."""

from fedmpi.read.report.comparison import (WORDS, accuracy_text, comparison, difference_text,
                                           reach_text, spent_text)
from fedmpi.read.report.html import key, table


def compared(groups):
    """HTML of the tables of a ``comparison`` of Groups."""
    numbers = comparison(groups)
    if not numbers["equal"]:
        return "<p>No round has been evaluated yet.</p>"
    names = [key(number, group.label) for number, group in enumerate(groups)]
    at_equal_cost = _equal_table(numbers, names)
    to_reach = _reach_table(numbers, names)
    paired = _paired_table(numbers)
    tables = [at_equal_cost, to_reach, paired]
    return "".join(tables)


def _word(numbers):
    """The name of the compared metric, in words."""
    return numbers["headline"].replace("_", " ")


def _equal_table(numbers, names):
    rows = []
    for axis, at in numbers["equal"].items():
        metric = numbers["headline"]
        for budget, values in zip(at["budgets"], at[metric]):
            cost = spent_text(axis, budget)
            texts = map(accuracy_text, values)
            rows.append([cost, *texts])
    word = _word(numbers)
    caption = (f"Test {word} at equal cost: after a quarter, half and all of what the "
               "cheapest spent")
    end = len(names) + 1
    right = range(1, end)
    heads = ["spent", *names]
    return table(caption, heads, rows, numbers=right, wide=True)


def _reach_table(numbers, names):
    metric = numbers["headline"]
    target = numbers["reach"].get(metric)
    if target is None:
        return ""
    rows = []
    for axis, column in numbers["reach"].items():
        # Under the metric's name stands the target itself.
        if axis != metric:
            texts = [reach_text(axis, values) for values in column]
            rows.append([WORDS[axis], *texts])
    word = _word(numbers)
    caption = (f"What it took to reach a test {word} of {target:.2f}, which all have "
               "reached")
    end = len(names) + 1
    right = range(1, end)
    heads = ["", *names]
    return table(caption, heads, rows, numbers=right, wide=True)


def _paired_table(numbers):
    if not numbers["paired"]:
        return ""
    labels = {group["tag"]: group["label"] for group in numbers["groups"]}
    rows = []
    for pair in numbers["paired"]:
        label = labels[pair["group"]]
        reference = labels[pair["against"]]
        name = f"{label} - {reference}"
        place = spent_text(pair["axis"], pair["budget"])
        num_seeds = len(pair["seeds"])
        difference = difference_text(pair["interval"])
        rows.append([name, place, num_seeds, difference])
    word = _word(numbers)
    caption = (f"Differences of test {word} at equal cost, seed by seed: mean and 95 % "
               "interval")
    heads = ["difference of", "at", "seeds", "mean [95 %]"]
    return table(caption, heads, rows, numbers=(2, 3), wide=True)
