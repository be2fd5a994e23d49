"""Clients' models on clients' own test parts, of runs that hold some out (``--client-test``)."""

from typing import NamedTuple

import numpy as np

from fedmpi.read.report.metrics import OWN


class Last(NamedTuple):
    """The last evaluation of clients on their own test parts; a client that has one a row."""

    round: int
    clients: np.ndarray       # (M,) int64
    samples: np.ndarray       # (M,) int64
    accuracy: np.ndarray      # (M,) float64


def last(run):
    """The ``Last`` of a run; None where its clients were never evaluated."""
    if not len(run.own.get("round", ())):
        return None
    rows = run.own["round"] == run.own["round"][-1]
    return Last(int(run.own["round"][-1]), *(run.own[name][rows] for name in ("client", "samples", "accuracy")))


def own_text(found):
    """What ``final_metrics`` found about own test parts, in words; empty where there is nothing."""
    if f"final_{OWN[0]}" not in found:
        return ""
    mean, weighted, worst = (found[f"final_{name}"] for name in OWN)
    return f"mean of clients {mean:.4f}, by samples {weighted:.4f}, worst tenth {worst:.4f}"
