"""Clients' models on clients' own test parts, of runs that hold some out (``--client-test``)."""

from typing import NamedTuple

import numpy as np

from fedmpi.read.headline import headline


class Last(NamedTuple):
    """The last evaluation of clients on their own test parts; a client that has one a row."""

    round: int
    clients: np.ndarray       # (M,) int64
    samples: np.ndarray       # (M,) int64
    values: np.ndarray        # (M,) float64, of the headline
    metric: str               # its name


def last(run):
    """The ``Last`` of a run; None where its clients were never evaluated."""
    if not len(run.own.get("round", ())):
        return None
    rows = run.own["round"] == run.own["round"][-1]
    columns = (run.own[name][rows] for name in ("client", "samples", headline(run).name))
    return Last(int(run.own["round"][-1]), *columns, headline(run).word)


def own_text(found, leading):
    """What ``final_metrics`` found of the ``Headline`` on own test parts, in words; empty where there is nothing."""
    if f"final_{leading.own[0]}" not in found:
        return ""
    mean, weighted, worst = (found[f"final_{name}"] for name in leading.own)
    return f"mean of clients {mean:.4f}, by samples {weighted:.4f}, worst tenth {worst:.4f}"
