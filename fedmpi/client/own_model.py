"""A worker's part of evaluating clients on their own test parts."""

from functools import partial
from typing import Callable, NamedTuple

import numpy as np
import torch

from fedmpi.client import samples as shards
from fedmpi.client.home import Home
from fedmpi.client.received import Received
from fedmpi.client.train import OWN, prepared, seed, with_own
from fedmpi.core.rng import Purpose, stream, torch_seed
from fedmpi.methods.datasets.dataset import laid
from fedmpi.transport.team import parted


class Tested(NamedTuple):
    """What clients are tested by after round ``t``."""

    t: int
    at_once: int                  # samples that go through a model in one pass on a CPU
    received: Received            # the model that the server would publish now
    known: np.ndarray             # (Q,) bool: its mask
    given: dict                   # what the strategy sends to all clients beside it


class Place(NamedTuple):
    """Where clients that train the same network are tested."""

    home: Home
    received: Received            # the network's part of what the server would publish now
    measure: Callable             # see ``fedmpi.compute.evaluate.by_sample``
    server: Callable | None       # (features) -> outputs of the server's own network


def tested(parts, samples, now, place_of, job, arrays):
    """``(meta, arrays)``: the mean loss and the metric of each client of a ``job``; ``now`` is ``Tested``.

    ``place_of(number)`` is the ``Place`` of a network; the job says which one each client trains, where there are
    several. Where models differ from client to client, ``arrays`` hold what goes to each of them ``alone``."""
    clients = job["own"]
    places = [place_of(number) for number in job.get("networks", [None] * len(clients))]
    own_part = partial(shards.own_test, samples)
    if "alone" not in job:
        models = [place.received.base for place in places]
        return {"block": job["block"]}, {"values": measured(clients, places, own_part, lambda row: models[row])}
    alone = parted(arrays, len(clients))
    tasks = (_task(parts, place, samples, now, own, client)
             for place, own, client in zip(places, alone, clients))
    if parts.strategy.predict is not None:
        values = [_predicted(parts.strategy, place, samples, client, task)
                  for place, client, task in zip(places, clients, tasks)]
        return {"block": job["block"]}, {"values": np.stack(values)}

    def model_of(row):
        return own_model(parts, places[row], samples, now, alone[row], clients[row])

    return {"block": job["block"]}, {"values": measured(clients, places, own_part, model_of)}


def own_model(parts, place, samples, now, arrays, client):
    """(P,): the model that a client has after the round: what the server would publish, with its personal tensors laid
    over it, or what the strategy makes of that. ``arrays`` are those that go to it alone."""
    if parts.strategy.own_model is None:
        kept = arrays.get(f"kept/{OWN}")
        return with_own(place.home, place.received, None if kept is None else torch.from_numpy(kept))
    return _made(parts.strategy, _task(parts, place, samples, now, arrays, client))


def _task(parts, place, samples, now, arrays, client):
    """The client's ``Task`` as it would train now; ``arrays`` are those that go to it alone."""
    # Nobody asks here what clients tell estimators, or a pruner.
    parts = parts._replace(reports={}, pruner=parts.pruner._replace(probe=None))
    given = sorted({name.split("/")[1] for name in arrays if name.startswith("given/")})
    ask = {"client": client, "t": now.t, "given": given}
    home = place.home
    task = prepared(parts, home, samples, ask, arrays, place.received, now.known, now.given).task
    key = parts.seed, Purpose.OWN_TEST, client, now.t
    seed(home.device, torch_seed(*key))
    return task._replace(gen=stream(*key), server=place.server)


def _made(strategy, task):
    """(P,): what the strategy makes of the model that a client would train."""
    vector = strategy.own_model(task) if strategy.own_model is not None else None
    if vector is None:
        return task.base
    # What was trained in place is about to be written again.
    return vector.clone()


def _predicted(strategy, place, samples, client, task):
    """(2,) float64, as a row of ``measured``, of a client whose outputs are the strategy's ``predict``."""
    vector = _made(strategy, task)
    inputs, targets = shards.own_test(samples, client)
    return place.measure(vector, inputs, targets, partial(strategy.predict, task)).mean(axis=0)


def measured(clients, places, samples_of, model_of):
    """(M, 2) float64: the mean loss and the metric of each of M clients, of its own model on its own test part.

    ``places`` are M of ``Place``; ``samples_of(client) -> (inputs, targets)``, at least one; ``model_of(row) -> (P,)``.
    Neighbours that share a model, the same object, go through it together: a client with a few samples costs little
    more than these.
    """
    rows, same, model = [], [], None
    for row, client in enumerate(clients):
        vector = model_of(row)
        if same and vector is not model:
            rows.append(_together(same, samples_of, model, places[row - 1].measure))
            same = []
        model = vector
        same.append(client)
    return np.concatenate([*rows, _together(same, samples_of, model, places[-1].measure)])


def _together(clients, samples_of, vector, measure):
    """(m, 2) float64: the means of clients that have the same model."""
    inputs, targets = zip(*map(samples_of, clients))
    sizes = np.array([len(each) for each in targets])
    values = measure(vector, laid(torch.cat(inputs)), torch.cat(targets))
    return np.add.reduceat(values, np.cumsum(sizes) - sizes, axis=0) / sizes[:, None]
