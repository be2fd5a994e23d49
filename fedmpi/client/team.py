"""Clients that train side by side on one rank."""

from fedmpi.client import samples as shards
from fedmpi.client.train import key_of, seed
from fedmpi.compute.stacked import stacked
from fedmpi.core.parts import Descent
from fedmpi.core.rng import Purpose, torch_seed


def side_by_side(worker, jobs, arrays):
    """``{row: (Prepared, Trained)}`` of the ``jobs`` whose training is plain descent.

    Empty if they are fewer than two.
    """
    parts, home = worker.parts, worker.home
    local = parts.strategy.local
    if not isinstance(local, Descent) or local.arrives is not None:
        return {}
    ready = _ready(worker, jobs, arrays)
    if len(ready) < 2:
        return {}
    # Dropout draws for all of them from the first one's key.
    first = {"t": worker.t} | jobs[min(ready)]
    key = key_of(first["t"], first["client"], first.get("number"))
    number = torch_seed(parts.seed, Purpose.TRAIN, *key)
    seed(home.device, number)
    if worker.wide is None:
        worker.wide = stacked(home.model, home.layout, home.recorder)
    tasks = [client.task for client in ready.values()]
    results = worker.wide(tasks, parts.strategy.local)
    done = {}
    for row, (x, trained) in zip(ready, results):
        client = ready[row]
        # The resident vector holds none of them.
        task = client.task._replace(x=x)
        done[row] = client._replace(task=task), trained
    return done


def _ready(worker, jobs, arrays):
    """``{row: Prepared}`` of the clients that can train side by side."""
    ready = {}
    for row, (job, part) in enumerate(zip(jobs, arrays)):
        if _trains_alone(worker, job, part):
            continue
        client = worker.prepare(job, part)
        probe = client.task.probe
        is_watched = probe.step is not None or probe.epoch is not None
        if not is_watched:
            # No probe changes it, so that all clients share one.
            task = client.task._replace(trainable=client.received.trainable)
            ready[row] = client._replace(task=task)
    return ready


def _trains_alone(worker, job, arrays):
    """Whether a client cannot be stacked: its network has another size, or it trains otherwise."""
    if "units" in arrays or "network" in job:
        return True
    return shards.trains_otherwise(worker.samples, job["client"])
