"""Clients' models on clients' own test parts, of runs with ``--client-test``."""

from typing import NamedTuple

import numpy as np

from fedmpi.read.headline import headline
from fedmpi.read.report.text import measure_text


class Last(NamedTuple):
    """The last evaluation of clients on their own test parts: a row a client with such a part."""

    round: int
    # (M,) int64.
    clients: np.ndarray
    # (M,) int64.
    samples: np.ndarray
    # (M,) float64, of the headline.
    values: np.ndarray
    # The headline's name.
    metric: str


def last(run):
    """The ``Last`` of a run; None if its clients were never evaluated."""
    rounds = run.own.get("round", ())
    if not len(rounds):
        return None
    leading = headline(run)
    # All rows of a round belong to one evaluation.
    rows = rounds == rounds[-1]
    clients = run.own["client"][rows]
    samples = run.own["samples"][rows]
    values = run.own[leading.name][rows]
    return Last(
        round=int(rounds[-1]),
        clients=clients,
        samples=samples,
        values=values,
        metric=leading.word)


def own_text(metrics, leading):
    """The ``final_metrics`` of own test parts in words, for the ``Headline`` leading; empty without
    any."""
    mean, weighted, worst = (metrics.get(f"final_{name}") for name in leading.own)
    if mean is None:
        return ""
    by_samples = f"by samples {measure_text(weighted)}"
    tenth = f"worst tenth {measure_text(worst)}"
    return f"mean of clients {measure_text(mean)}, {by_samples}, {tenth}"
