"""A worker's part of evaluating clients on their own test parts."""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from fedmpi.client import samples as shards
from fedmpi.client.received import Received
from fedmpi.client.train import OWN, prepared, seed, with_own
from fedmpi.core.rng import Purpose, stream, torch_seed
from fedmpi.methods.datasets.dataset import laid
from fedmpi.transport.team import parted


class Tested(NamedTuple):
    """What clients are tested by after round ``t``."""

    t: int
    received: Received            # the model that the server would publish now
    known: np.ndarray             # (Q,) bool: its mask
    given: dict                   # what the strategy sends to all clients beside it


def tested(parts, home, samples, now, measure, job, arrays):
    """``(meta, arrays)``: the mean loss and the metric of each client of a ``job``; ``now`` is ``Tested``. Where models
    differ from client to client, ``arrays`` hold what goes to each of them ``alone``."""
    clients = job["own"]
    vector_of = partial(_received, now)
    if "alone" in job:
        alone = dict(zip(clients, parted(arrays, len(clients))))
        if parts.strategy.predict is not None:
            return {"block": job["block"]}, {"values": _predicted(parts, home, samples, now, alone, measure)}
        vector_of = partial(own_model, parts, home, samples, now, alone)
    values = measured(clients, partial(shards.own_test, samples), vector_of, measure)
    return {"block": job["block"]}, {"values": values}


def _received(now, client):
    """(P,): one model for all."""
    return now.received.base


def own_model(parts, home, samples, now, alone, client):
    """(P,): the model that a client has after the round: what the server would publish, with its personal tensors laid
    over it, or what the strategy makes of that. ``alone`` is ``{client: its arrays}``."""
    arrays = alone[client]
    if parts.strategy.own_model is None:
        kept = arrays.get(f"kept/{OWN}")
        return with_own(home, now.received, None if kept is None else torch.from_numpy(kept))
    return _made(parts.strategy, _task(parts, home, samples, now, arrays, client))


def _task(parts, home, samples, now, arrays, client):
    """The client's ``Task`` as it would train now; ``arrays`` are those that go to it alone."""
    # Nobody asks here what clients tell estimators, or a pruner.
    parts = parts._replace(reports={}, pruner=parts.pruner._replace(probe=None))
    given = sorted({name.split("/")[1] for name in arrays if name.startswith("given/")})
    ask = {"client": client, "t": now.t, "given": given}
    task = prepared(parts, home, samples, ask, arrays, now.received, now.known, now.given).task
    key = parts.seed, Purpose.OWN_TEST, client, now.t
    seed(home.device, torch_seed(*key))
    return task._replace(gen=stream(*key))


def _made(strategy, task):
    """(P,): what the strategy makes of the model that a client would train."""
    vector = strategy.own_model(task) if strategy.own_model is not None else None
    if vector is None:
        return task.base
    # What was trained in place is about to be written again.
    return vector.clone()


def _predicted(parts, home, samples, now, alone, measure):
    """(M, 2) float64, as ``measured``, of clients whose outputs are the strategy's ``predict``."""
    values = []
    for client, arrays in alone.items():
        task = _task(parts, home, samples, now, arrays, client)
        vector = _made(parts.strategy, task)
        inputs, targets = shards.own_test(samples, client)
        values.append(measure(vector, inputs, targets, partial(parts.strategy.predict, task)).mean(axis=0))
    return np.stack(values)


def measured(clients, samples_of, vector_of, measure):
    """(M, 2) float64: the mean loss and the metric of each of M clients, of its own model on its own test part.

    ``samples_of(client) -> (inputs, targets)``, at least one; ``vector_of(client) -> (P,)``. ``measure(vector, inputs,
    targets) -> (n, 2)`` float64, a row a sample. Neighbours that share a model, the same object, go through it
    together: a client with a few samples costs little more than these.
    """
    found, same, model = [], [], None
    for client in clients:
        vector = vector_of(client)
        if same and vector is not model:
            found.append(_together(same, samples_of, model, measure))
            same = []
        model = vector
        same.append(client)
    return np.concatenate([*found, _together(same, samples_of, model, measure)])


def _together(clients, samples_of, vector, measure):
    """(m, 2) float64: the means of clients that have the same model."""
    inputs, targets = zip(*map(samples_of, clients))
    sizes = np.array([len(each) for each in targets])
    values = measure(vector, laid(torch.cat(inputs)), torch.cat(targets))
    return np.add.reduceat(values, np.cumsum(sizes) - sizes, axis=0) / sizes[:, None]
