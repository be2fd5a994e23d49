"""Clients that train side by side on one rank."""

from fedmpi.client import samples as shards
from fedmpi.client.train import key_of, seed
from fedmpi.compute.stacked import stacked
from fedmpi.core.parts import Descent
from fedmpi.core.rng import Purpose, torch_seed


def side_by_side(worker, jobs, arrays):
    """``{row: (Prepared, Trained)}`` of those jobs whose training is plain descent; of none where that is one alone."""
    parts, home, ready = worker.parts, worker.home, {}
    if not isinstance(parts.strategy.local, Descent):
        return ready
    for row, (job, part) in enumerate(zip(jobs, arrays)):
        # Networks of sizes of their own cannot be stacked.
        alone = "units" in part or "network" in job
        if alone or shards.trains_otherwise(worker.samples, job["client"]):
            continue
        client = worker.prepare(job, part)
        if client.task.probe.step is None and client.task.probe.epoch is None:
            ready[row] = client._replace(task=client.task._replace(live=client.received.live))
    if len(ready) < 2:
        return {}
    # Dropout draws for all of them from the first one's key.
    job = {"t": worker.t} | jobs[min(ready)]
    key = key_of(job["t"], job["client"], job.get("number"))
    seed(home.device, torch_seed(parts.seed, Purpose.TRAIN, *key))
    worker.wide = worker.wide or stacked(home.model, home.layout, home.recorder)
    results = worker.wide([client.task for client in ready.values()], parts.strategy.local)
    return {row: (client._replace(task=client.task._replace(x=x)), done)
            for (row, client), (x, done) in zip(ready.items(), results)}
