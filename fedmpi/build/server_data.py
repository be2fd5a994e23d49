"""``--server-data``: training samples for a strategy's own work on the server.

They are taken before clients get theirs, by a random stream of their own. They never overlap with
the validation samples, on which contributions are judged.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from fedmpi.core.errors import UserError
from fedmpi.core.rng import Purpose, stream
from fedmpi.server.lab import Holdings

FORM = ("give a share such as 0.05, or a number of samples such as 400, "
        "and labels=0+1 behind a colon for some labels")


class Wanted(NamedTuple):
    """The value of ``--server-data``: a share of the training samples, or else a number of them."""

    share: float
    count: int
    labels: tuple                 # the samples may have these labels; () for all


def wanted(text):
    """The ``Wanted`` of an option's text; UserError if it is written wrongly."""
    size, colon, rest = str(text).partition(":")
    name, _, labels = rest.partition("=")
    chosen = ()
    try:
        number = float(size)
        if colon:
            parts = labels.split("+")
            chosen = tuple(int(label) for label in parts)
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
    """``(server, pool)``: sorted indices of the server's samples, and of the rest of ``pool (n,)``.

    A share counts of ``total`` samples. ``spare(order (n,)) -> (n,) bool`` marks the samples of an
    order that the server may take; None allows all. UserError if too few may be taken.
    """
    text = options["server_data"]
    share, count, labels = wanted(text)
    size = count or round(share * total)
    if not size:
        if labels:
            raise _refused(text, "labels of no samples have no effect")
        return np.empty(0, np.int64), pool
    gen = stream(options["seed"], Purpose.SERVER)
    order = gen.permutation(pool)
    if spare is not None:
        may_take = spare(order)
        order = order[may_take]
    if labels:
        has_label = _of_labels(text, dataset, labels, order)
        order = order[has_label]
    if size > len(order) or size >= len(pool):
        raise UserError(f"--server-data {text}: {size} samples are asked for, but only "
                        f"{len(order)} of the {len(pool)} training samples may be taken, "
                        "and clients need some; take fewer")
    chosen = order[:size]
    server = np.sort(chosen)
    return server, np.setdiff1d(pool, server)


def _of_labels(text, dataset, labels, order):
    """(n,) bool: whether each sample of ``order (n,)`` has one of the ``labels``."""
    classes = dataset.classes
    unknown = [label for label in labels if not 0 <= label < classes]
    if unknown:
        first = unknown[0]
        raise _refused(text, f"there is no label {first} among {classes} classes")
    labels_of_order = dataset.y_train[order]
    return np.isin(labels_of_order, labels)


def check(options, strategy, size):
    """UserError if the strategy lacks samples of the server's own, or has no use for them."""
    name = options["strategy"]
    if strategy.server_data and not size:
        raise UserError(f"--strategy {name} works with samples of the server's own; "
                        "give --server-data 0.05, say, a share of the training samples")
    if size and not strategy.server_data:
        raise UserError(f"--server-data {options['server_data']} has no effect: --strategy {name} "
                        "does nothing with samples of the server's own; leave it out, or take "
                        "feddu, say")
    gflops = options["server_gflops"]
    computes = strategy.before or strategy.after
    if gflops and not computes:
        raise UserError(f"--server-gflops {gflops:g} has no effect: with --strategy {name} the "
                        "server computes nothing of its own; leave it out")


def recorded(strategy, dataset, server):
    """The run file's record of the server's samples: their number, the number of each label, and
    whether the strategy uses labels."""
    true_labels = dataset.y_train[server]
    return {
        "samples": len(server),
        "labels": counted(true_labels, dataset.classes),
        "labelled": strategy.server_data == "labelled"
    }


def holdings(options, strategy, fed_data):
    """The ``Holdings`` of a run: facts about the server's samples, for its strategy."""
    dataset = fed_data.dataset
    rows = {"validation": fed_data.validation, "server": fed_data.server}
    sizes = {name: len(indices) for name, indices in rows.items()}
    counts = {}
    for name, indices in rows.items():
        true_labels = dataset.y_train[indices]
        of_labels = counted(true_labels, dataset.classes)
        counts[name] = torch.from_numpy(of_labels)
    counts["clients"] = _of_clients(fed_data)
    flops = options["server_gflops"] * 1e9
    # 0 GFLOP/s stands for a server that takes no time.
    flops_a_second = flops or math.inf
    labelled = strategy.server_data != "unlabelled"
    return Holdings(sizes, counts, labelled, flops_a_second)


def _of_clients(fed_data):
    """int64 (N, classes): the number of each client's samples of each label, as the clients see
    them."""
    starts = fed_data.offsets[1:-1]
    labels_of_clients = np.split(fed_data.labels, starts)
    classes = fed_data.dataset.classes
    rows = [counted(labels, classes) for labels in labels_of_clients]
    table = np.stack(rows)
    return torch.from_numpy(table)


def counted(labels, classes):
    """int64 (classes,): the number of samples of each label; (0,) without classes."""
    if not classes:
        return np.empty(0, np.int64)
    counts = np.bincount(labels, minlength=classes)
    return counts.astype(np.int64)
