"""``--server-data``: the training samples that the server works with itself.

They are taken before anything is dealt out, by a stream of their own, and never overlap with the validation samples:
these are for all that selects, those for what a strategy does on the server.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from fedmpi.core.errors import UserError
from fedmpi.core.rng import Purpose, stream
from fedmpi.server.lab import Holdings

FORM = "give a share such as 0.05, or a number of samples such as 400, and labels=0+1 behind a colon for some labels"


class Wanted(NamedTuple):
    """What ``--server-data`` asks for: a ``share`` of the training samples, or a ``count`` of them, and the ``labels``
    that they may have, () for all."""

    share: float
    count: int
    labels: tuple


def wanted(text):
    """The ``Wanted`` of an option's text; UserError where it is none."""
    size, colon, rest = str(text).partition(":")
    name, _, labels = rest.partition("=")
    try:
        number = float(size)
        chosen = tuple(int(label) for label in labels.split("+")) if colon else ()
    except ValueError:
        raise _refused(text, "that is not how it is written") from None
    if colon and name != "labels":
        raise _refused(text, f"unknown {name or 'option'}")
    if not 0 <= number < np.inf:
        raise _refused(text, "it must be 0 or more")
    if number < 1:
        return Wanted(number, 0, chosen)
    if number != int(number):
        raise _refused(text, "a number of samples is a whole one")
    return Wanted(0.0, int(number), chosen)


def _refused(text, why):
    return UserError(f"--server-data {text}: {why}; {FORM}")


def taken(options, dataset, pool, total, spare=None):
    """``(server, pool)``, sorted indices into the training samples: those that the server takes of ``pool (n,)``, and
    those left to be dealt out. A share is one of ``total`` samples. ``spare(order (n,)) -> (n,) bool`` says which of
    the samples in an order may be taken; all may where it is None."""
    text = options["server_data"]
    asked = wanted(text)
    size = asked.count or round(asked.share * total)
    if not size:
        if asked.labels:
            raise _refused(text, "labels of no samples have no effect")
        return np.empty(0, np.int64), pool
    order = stream(options["seed"], Purpose.SERVER).permutation(pool)
    if spare is not None:
        order = order[spare(order)]
    if asked.labels:
        order = order[_of_labels(text, dataset, asked.labels, order)]
    if size > len(order) or size >= len(pool):
        raise UserError(f"--server-data {text}: {size} samples are asked for, but only {len(order)} of the {len(pool)} "
                        "training samples may be taken, and clients need some; take fewer")
    server = np.sort(order[:size])
    return server, np.setdiff1d(pool, server)


def _of_labels(text, dataset, labels, order):
    """(n,) bool: which samples of ``order (n,)`` have one of the ``labels``."""
    unknown = [label for label in labels if not 0 <= label < dataset.classes]
    if unknown:
        raise _refused(text, f"there is no label {unknown[0]} among {dataset.classes} classes")
    return np.isin(dataset.y_train[order], labels)


def check(options, strategy, size):
    """UserError where the strategy wants samples of the server's own and there are none, or the other way round."""
    name = options["strategy"]
    if strategy.server_data and not size:
        raise UserError(f"--strategy {name} works with samples of the server's own; give --server-data 0.05, say, a "
                        "share of the training samples")
    if size and not strategy.server_data:
        raise UserError(f"--server-data {options['server_data']} has no effect: --strategy {name} does nothing with "
                        "samples of the server's own; leave it out, or take feddu, say")
    if options["server_gflops"] and not (strategy.before or strategy.after):
        raise UserError(f"--server-gflops {options['server_gflops']:g} has no effect: with --strategy {name} the "
                        "server computes nothing of its own; leave it out")


def recorded(strategy, dataset, server):
    """What the run file says of the server's samples: how many, how many of each label, and whether the strategy
    works with their labels."""
    return {"samples": len(server), "labels": counted(dataset.y_train[server], dataset.classes),
            "labelled": strategy.server_data == "labelled"}


def holdings(options, strategy, fed_data):
    """The ``Holdings`` of a run: what the server has of its own."""
    dataset = fed_data.dataset
    kept = {"validation": fed_data.validation, "server": fed_data.server}
    of_clients = np.split(fed_data.labels, fed_data.offsets[1:-1])
    labels = {name: dataset.y_train[rows] for name, rows in kept.items()}
    counts = {name: torch.from_numpy(counted(seen, dataset.classes)) for name, seen in labels.items()}
    counts["clients"] = torch.from_numpy(np.stack([counted(seen, dataset.classes) for seen in of_clients]))
    speed = options["server_gflops"] * 1e9 or math.inf
    return Holdings({name: len(rows) for name, rows in kept.items()}, counts, strategy.server_data != "unlabelled",
                    speed)


def counted(labels, classes):
    """int64 (classes,): how many samples have each label; (0,) where there are no classes."""
    if not classes:
        return np.empty(0, np.int64)
    return np.bincount(labels, minlength=classes).astype(np.int64)
