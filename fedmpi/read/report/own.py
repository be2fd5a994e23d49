"""Clients' models on clients' own test parts, of runs with ``--client-test``."""

from typing import NamedTuple

import numpy as np

from fedmpi.read.headline import headline


class Last(NamedTuple):
    """The last evaluation of clients on their own test parts: a row a client that has such a
    part."""

    round: int
    clients: np.ndarray       # (M,) int64
    samples: np.ndarray       # (M,) int64
    values: np.ndarray        # (M,) float64, of the headline
    metric: str               # the headline's name


def last(run):
    """The ``Last`` of a run; None if its clients were never evaluated."""
    rounds = run.own.get("round", ())
    if not len(rounds):
        return None
    leading = headline(run)
    rows = rounds == rounds[-1]
    clients, samples = run.own["client"][rows], run.own["samples"][rows]
    values = run.own[leading.name][rows]
    return Last(int(rounds[-1]), clients, samples, values, leading.word)


def own_text(metrics, leading):
    """The ``final_metrics`` of own test parts in words, for the ``Headline`` leading; empty without
    any."""
    if f"final_{leading.own[0]}" not in metrics:
        return ""
    mean, weighted, worst = (metrics[f"final_{name}"] for name in leading.own)
    return f"mean of clients {mean:.4f}, by samples {weighted:.4f}, worst tenth {worst:.4f}"
