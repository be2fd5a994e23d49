"""The batches of clients that train side by side: their samples in one table, step by step.

Clients stand in order of their number of steps, so that those still at work come first. A batch
smaller than the widest of its step is filled up with its first sample, at weight 0.

Sizes: G clients, S steps, B samples a step and client.
"""

from typing import NamedTuple

import numpy as np
import torch

from fedmpi.compute.sgd import deal, length_of


class Plan(NamedTuple):
    """The samples of each step; clients stand in ``order`` of falling number of steps."""

    # G positions in the tasks.
    order: list
    # (S, B, G) int64 into the samples of all clients, end to end.
    index: torch.Tensor
    # (S, B, G) float32: 1 / b in a batch of b samples, 0 for filling.
    shares: torch.Tensor
    # (S, G) float32: b, 0 for clients that have finished.
    counts: torch.Tensor
    # (S, B, G, k) int64: augmentation's draws for each sample.
    drawn: torch.Tensor | None
    # S times (clients at work, largest batch, whether all are as large).
    steps: list


def planned(tasks, shuffle):
    """The ``Plan`` of the tasks' batches, as ``deal`` deals them from each task's own generator."""
    dealt = [_dealt(task, shuffle) for task in tasks]
    batches, draws = zip(*dealt)
    order = _longest_first(batches)
    sizes = [_sizes(batches[position]) for position in order]
    table = _empty_table(sizes, draws[0])

    start = 0
    for column, position in enumerate(order):
        own_batches = batches[position]
        if own_batches:
            _fill(table, column, sizes[column], start, own_batches, draws[position])
        start += len(tasks[position].labels)

    device = tasks[0].labels.device
    return Plan(
        order=order,
        index=_on(device, table.index),
        shares=_on(device, table.shares),
        counts=_on(device, table.counts),
        drawn=_on(device, table.drawn),
        steps=_steps(table.counts))


def _dealt(task, shuffle):
    """``(batches, drawn (n, k))`` of a task's whole training.

    A batch is a tensor of sample numbers, a step each. ``drawn`` holds augmentation's draws for
    the samples in the order of the steps; None without augmentation.
    """
    epochs, steps, samples = length_of(task)
    batches, drawn = [], []
    for _ in range(epochs):
        order, draws = deal(task, shuffle)
        batches += order.split(task.batch_size)
        drawn.append(draws)
    # The last epoch may be cut short.
    batches = batches[:steps]
    if task.augment is None:
        return batches, None
    draws = torch.cat(drawn).numpy()
    return batches, draws[:samples]


def _longest_first(batches):
    """The positions of ``batches`` by falling number of steps."""
    lengths = [len(of_client) for of_client in batches]
    # Stable: clients with as many steps keep their order.
    return sorted(range(len(lengths)), key=lambda position: -lengths[position])


def _sizes(batches):
    """(steps,) int64: the number of samples of each batch."""
    sizes = [len(rows) for rows in batches]
    return np.array(sizes, np.int64)


class _Table(NamedTuple):
    """The arrays of a ``Plan``, numpy's."""

    index: np.ndarray
    shares: np.ndarray
    counts: np.ndarray
    drawn: np.ndarray | None


def _empty_table(sizes, draws):
    """A ``_Table`` of zeros for clients with batches of ``sizes``, the longest training first.

    ``draws`` are any client's draws (n, k), None without augmentation.
    """
    S, G = len(sizes[0]), len(sizes)
    largest = [client_sizes.max(initial=0) for client_sizes in sizes]
    B = int(max(largest))
    index = np.zeros((S, B, G), np.int64)
    shares = np.zeros((S, B, G), np.float32)
    counts = np.zeros((S, G), np.float32)
    drawn = None
    if draws is not None:
        k = draws.shape[1]
        drawn = np.zeros((S, B, G, k), np.int64)
    return _Table(index, shares, counts, drawn)


def _fill(table, column, sizes, start, batches, draws):
    """Write a client's batches to its ``column``; its samples begin at number ``start``."""
    steps = len(sizes)
    rows = start + torch.cat(batches).numpy()
    firsts = sizes.cumsum() - sizes
    # Of each sample its step, and its place in the batch.
    step = np.arange(steps).repeat(sizes)
    place = np.arange(len(rows)) - firsts.repeat(sizes)
    at = step, place, column
    everywhere = slice(steps), slice(None), column

    share = 1 / sizes
    table.shares[at] = share.repeat(sizes)
    table.counts[:steps, column] = sizes
    # The first sample of each batch everywhere, then all samples at their own places.
    table.index[everywhere] = rows[firsts][:, None]
    table.index[at] = rows
    if table.drawn is not None:
        table.drawn[everywhere] = draws[firsts][:, None]
        table.drawn[at] = draws


def _on(device, array):
    """The array as a tensor on the device; None stays None."""
    if array is None:
        return None
    return torch.from_numpy(array).to(device)


def _steps(counts):
    """``Plan.steps`` by ``counts (S, G)``."""
    steps = []
    for row in counts:
        sizes = row[row > 0]
        largest = int(sizes.max())
        even = bool(sizes.min() == largest)
        steps.append((len(sizes), largest, even))
    return steps
