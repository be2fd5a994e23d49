"""The metric by which a run's models are compared and selected, as its file tells it.

Files from before there were tasks have no ``objective``: they are of classification.
"""

from typing import NamedTuple

import numpy as np

from fedmpi.core.errors import UserError


class Headline(NamedTuple):
    """A metric: its column of /rounds, and how to read its values.

    ``higher``: whether more is better. ``unit``: the unit of losses."""

    name: str = "accuracy"
    higher: bool = True
    unit: str = "nat"
    metrics: tuple = ("accuracy",)

    @property
    def word(self):
        """The name as text says it."""
        return self.name.replace("_", " ")

    @property
    def validation(self):
        """The column of the validation set."""
        return f"val_{self.name}"

    @property
    def own(self):
        """The columns of clients' models on their own test parts: mean, mean by samples, worst
        tenth."""
        return f"own_{self.name}", f"own_{self.name}_weighted", f"own_{self.name}_worst"

    @property
    def share(self):
        """Whether the metric is a share of correct answers, so that it reads as a percentage."""
        return self.name == "accuracy"

    def best(self, values):
        """The index of the best of some numbers, the first of equals."""
        index = np.argmax(values) if self.higher else np.argmin(values)
        return int(index)

    def reached(self, values, target):
        """Whether each of the values is as good as ``target``."""
        if self.higher:
            return values >= target
        return values <= target

    def loss_text(self):
        """The loss with its unit."""
        if self.unit in ("", "1"):
            return "loss"
        return f"loss ({self.unit})"


def headline_of(attrs):
    """The ``Headline`` of a run file's attributes."""
    objective = attrs.get("objective")
    if not objective:
        return Headline()
    return Headline(
        name=objective["headline"],
        higher=bool(objective["higher"]),
        unit=objective["unit"],
        metrics=tuple(objective["metrics"]))


def headline(run):
    """The ``Headline`` of a run."""
    return headline_of(run.attrs)


def common_headline(runs):
    """The ``Headline`` of several runs; UserError if they have different ones."""
    headlines = [headline(run) for run in runs]
    if not headlines:
        return Headline()
    # The lists of other metrics may differ.
    different = list(dict.fromkeys(one[:3] for one in headlines))
    if len(different) > 1:
        names = ", ".join(_direction_text(*fields) for fields in different)
        raise UserError(
            f"these runs have different tasks, which cannot be compared: {names}; name runs of one "
            "task")
    return headlines[0]


def _direction_text(name, higher, _unit):
    better = "more" if higher else "less"
    return f"{name} ({better} is better)"
