"""The metric by which a run's models are compared and selected, as its file tells it.

Files from before there were tasks have no ``objective``: they are of classification.
"""

from typing import NamedTuple

import numpy as np

from fedmpi.core.errors import UserError
from fedmpi.plugins.spec import split


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


def task_lines(runs):
    """Lines for a reader of several runs with one headline whose tasks are not the same; else none.

    Two tasks may measure by one name what are two functions: the pinball loss of two quantiles.
    """
    runs = list(runs)
    # Older files record the spec alone: beside one of them, specs are compared.
    in_full = all(run.attrs.get("parts") for run in runs)
    specs = {}
    for run in runs:
        spec = _task_spec(run)
        specs.setdefault(_task(run, spec, in_full), spec)
    if len(specs) < 2:
        return []
    word = headline(runs[0]).word
    texts = [f"--task {_task_text(task, specs)}" for task in specs]
    return [f"different tasks: {', '.join(texts)}",
            f"   their losses are different functions, and their {word} may be, too: a difference "
            "may be one of the measure"]


def _task_spec(run):
    """The spec of a run's task; the oldest files do not record it."""
    options = run.attrs.get("options") or {}
    return options.get("task") or "classification"


def _task(run, spec, in_full):
    """``(name, options, digest of a user's own source)`` of a run's task, all of them texts.

    ``in_full``: all options count as they were resolved, not the named ones alone.
    """
    name, named_options = split(spec)
    if not in_full:
        return name, named_options, ""
    [part] = [part for part in run.attrs["parts"] if part["kind"] == "task"]
    options = [f"{option}={value}" for option, value in part["options"].items()]
    return name, ",".join(options), part.get("source", "")


def _task_text(task, specs):
    """The task's spec; with its options or its source if another task has the same spec."""
    name, options, source = task
    same_spec = [other for other, spec in specs.items() if spec == specs[task]]
    if len(same_spec) == 1:
        return specs[task]
    same_options = [other for other in same_spec if other[1] == options]
    if len(same_options) == 1:
        return f"{specs[task]} ({options})"
    return f"{specs[task]} (source {source[:8] or 'of the catalogue'})"
