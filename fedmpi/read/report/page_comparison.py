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
    tables = [_equal_table(numbers, names), _reach_table(numbers, names), _paired_table(numbers)]
    return "".join(tables)


def _word(numbers):
    """The name of the compared metric, in words."""
    return numbers["headline"].replace("_", " ")


def _equal_table(numbers, names):
    rows = []
    for axis, at in numbers["equal"].items():
        for budget, values in zip(at["budgets"], at[numbers["headline"]]):
            rows.append([spent_text(axis, budget), *map(accuracy_text, values)])
    caption = (f"Test {_word(numbers)} at equal cost: after a quarter, half and all of what the "
               "cheapest spent")
    right = range(1, len(names) + 1)
    return table(caption, ["spent", *names], rows, numbers=right, wide=True)


def _reach_table(numbers, names):
    metric = numbers["headline"]
    target = numbers["reach"].get(metric)
    if target is None:
        return ""
    rows = []
    for axis, column in numbers["reach"].items():
        if axis != metric:
            texts = [reach_text(axis, values) for values in column]
            rows.append([WORDS[axis], *texts])
    caption = (f"What it took to reach a test {_word(numbers)} of {target:.2f}, which all have "
               "reached")
    right = range(1, len(names) + 1)
    return table(caption, ["", *names], rows, numbers=right, wide=True)


def _paired_table(numbers):
    if not numbers["paired"]:
        return ""
    labels = {group["tag"]: group["label"] for group in numbers["groups"]}
    rows = []
    for pair in numbers["paired"]:
        name = f"{labels[pair['group']]} - {labels[pair['against']]}"
        place = spent_text(pair["axis"], pair["budget"])
        rows.append([name, place, len(pair["seeds"]), difference_text(pair["interval"])])
    caption = (f"Differences of test {_word(numbers)} at equal cost, seed by seed: mean and 95 % "
               "interval")
    heads = ["difference of", "at", "seeds", "mean [95 %]"]
    return table(caption, heads, rows, numbers=(2, 3), wide=True)
