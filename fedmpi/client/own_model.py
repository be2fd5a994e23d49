"""A worker's part in testing clients on their own test parts."""

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
    """The server's message for the tests after round ``t``."""

    t: int
    at_once: int                  # samples that go through a model in one pass on a CPU
    received: Received            # the model that the server would publish now
    last_mask: np.ndarray         # (Q,) bool: its mask
    message: dict                 # {name: tensor}: the strategy's message to all clients


class Place(NamedTuple):
    """The network in which clients of one kind are tested."""

    home: Home
    received: Received            # the network's part of the model that the server would publish
    measure: Callable             # see ``fedmpi.compute.evaluate.by_sample``
    server: Callable | None       # (features) -> outputs of the server's own network


def tested(parts, samples, now, place_of, job, arrays):
    """``(meta, arrays)``: the mean loss and the metric of each client of a ``job``.

    ``now`` is ``Tested``. ``place_of(number)`` is the ``Place`` of a network; the job names each
    client's network, if the run has several. If models differ from client to client, ``arrays``
    hold each client's own arrays.
    """
    clients = job["own"]
    only_network = [None] * len(clients)
    numbers = job.get("networks", only_network)
    places = [place_of(number) for number in numbers]
    if "alone" in job:
        alone = parted(arrays, len(clients))
        values = _alone(parts, samples, now, clients, places, alone)
    else:
        def published(row):
            return places[row].received.base

        values = _measured(samples, clients, places, published)
    meta = {"block": job["block"]}
    return meta, {"values": values}


def _measured(samples, clients, places, model_of):
    """``measured`` on the clients' own test parts."""
    samples_of = partial(shards.own_test, samples)
    return measured(clients, places, samples_of, model_of)


def _alone(parts, samples, now, clients, places, alone):
    """(M, 2) float64 of clients with models of their own, from the clients' arrays ``alone``."""
    def model_of(row):
        place, arrays = places[row], alone[row]
        return own_model(parts, place, samples, now, arrays, clients[row])

    if parts.strategy.predict is None:
        return _measured(samples, clients, places, model_of)
    values = []
    for place, arrays, client in zip(places, alone, clients):
        task = _task(parts, place, samples, now, arrays, client)
        means = _predicted(parts.strategy, place, samples, client, task)
        values.append(means)
    return np.stack(values)


def own_model(parts, place, samples, now, arrays, client):
    """(P,): a client's model after the round; ``arrays`` are the client's own.

    It is the model that the server would publish, with the client's personal tensors in it, or the
    strategy's ``own_model``.
    """
    if parts.strategy.own_model is not None:
        task = _task(parts, place, samples, now, arrays, client)
        return _made(parts.strategy, task)
    personal = None
    kept = arrays.get(f"kept/{OWN}")
    if kept is not None:
        personal = torch.from_numpy(kept)
    return with_own(place.home, place.received, personal)


def _task(parts, place, samples, now, arrays, client):
    """The client's ``Task``, as it would train now; ``arrays`` are the client's own."""
    # No estimator and no pruner listens to a test.
    silent_pruner = parts.pruner._replace(probe=None)
    parts = parts._replace(reports={}, pruner=silent_pruner)
    job = {"client": client, "t": now.t, "given": _names_of_message(arrays)}
    ready = prepared(
        parts=parts,
        home=place.home,
        samples=samples,
        job=job,
        arrays=arrays,
        received=place.received,
        last_mask=now.last_mask,
        message=now.message)
    # Tests have random numbers of their own: they change nothing in later trainings.
    key = parts.seed, Purpose.OWN_TEST, client, now.t
    seed(place.home.device, torch_seed(*key))
    gen = stream(*key)
    return ready.task._replace(gen=gen, server=place.server)


def _names_of_message(arrays):
    """Sorted names of the strategy's message to one client, from the arrays ``given/NAME/...``."""
    names = set()
    for path in arrays:
        kind, _, rest = path.partition("/")
        if kind == "given":
            name = rest.partition("/")[0]
            names.add(name)
    return sorted(names)


def _made(strategy, task):
    """(P,): the strategy's ``own_model`` of a client, by default the received one."""
    vector = None
    if strategy.own_model is not None:
        vector = strategy.own_model(task)
    if vector is None:
        return task.base
    # Copy: the next client trains in the same vector.
    return vector.clone()


def _predicted(strategy, place, samples, client, task):
    """(2,) float64: loss and metric of a client by the outputs of the strategy's ``predict``."""
    vector = _made(strategy, task)
    inputs, targets = shards.own_test(samples, client)
    predict = partial(strategy.predict, task)
    values = place.measure(vector, inputs, targets, predict)
    return values.mean(axis=0)


def measured(clients, places, samples_of, model_of):
    """(M, 2) float64: the mean loss and the metric of M clients' models on their own test parts.

    ``places`` are M of ``Place``; ``samples_of(client) -> (inputs, targets)``, at least one;
    ``model_of(row) -> (P,)``. Neighbours with the same model object go through it together: a
    client with a few samples costs little more than these samples.
    """
    values, same, model = [], [], None
    for row, client in enumerate(clients):
        vector = model_of(row)
        if same and vector is not model:
            # The network of the row before.
            measure = places[row - 1].measure
            means = _together(same, samples_of, model, measure)
            values.append(means)
            same = []
        model = vector
        same.append(client)
    measure = places[-1].measure
    means = _together(same, samples_of, model, measure)
    values.append(means)
    return np.concatenate(values)


def _together(clients, samples_of, vector, measure):
    """(m, 2) float64: the means of clients with the same model ``vector (P,)``."""
    parts = [samples_of(client) for client in clients]
    inputs, targets = zip(*parts)
    all_inputs = torch.cat(inputs)
    all_inputs = laid(all_inputs)
    all_targets = torch.cat(targets)
    values = measure(vector, all_inputs, all_targets)
    # Back to one row a client.
    sizes = [len(labels) for labels in targets]
    sizes = np.array(sizes)
    starts = np.cumsum(sizes) - sizes
    sums = np.add.reduceat(values, starts, axis=0)
    return sums / sizes[:, None]
