"""The worker's side of the server's own compute: the answers to its jobs, see ``fedmpi.server.lab``.

A job's samples are a shard of the shared data, behind those of the clients, and its models the rows of what the server
shared last, but for a training, whose model comes with the job. Nothing that a job leaves behind changes another one.
"""

import numpy as np
import torch

from fedmpi.compute.derivatives import summed_gradient
from fedmpi.core.rng import Purpose, stream, torch_seed
from fedmpi.core.support import gathered
from fedmpi.core.tensors import seed_torch
from fedmpi.methods.datasets.dataset import laid
from fedmpi.wire import positions

CHUNK = 500      # samples that a model sees at once
SHARDS = ("validation", "server")        # what the server holds, in the order of the shards behind the clients'


def answer(worker, job, arrays):
    """``(meta, arrays)``; the meta says whether the rank was ``crowded``: out of GPU memory, wholly or in part."""
    try:
        return JOBS[job["lab"]](worker, job, arrays)
    except torch.cuda.OutOfMemoryError:
        failed = {"crowded": True, "again": True}
    torch.cuda.empty_cache()
    return failed, {}


def shard_of(worker, on):
    """The number of the shard of samples ``on``."""
    return len(worker.data["features"]) + SHARDS.index(on)


def num_samples(worker, on):
    """How many samples the server holds under a name."""
    offsets, shard = worker.data["offsets"], shard_of(worker, on)
    return int(offsets[shard + 1] - offsets[shard])


def scored(worker, models, on, rows):
    """``(loss (M,) float64, right (M,), whether memory was short)``: sums over the samples ``rows``, a pair (start,
    stop), of ``models (M, P)``."""
    try:
        return *_scored(worker, models, on, rows), False
    except torch.cuda.OutOfMemoryError:
        pass
    # Out of the handler, where the attempt's tensors are gone.
    torch.cuda.empty_cache()
    one_by_one = [_scored(worker, model[None], on, rows) for model in models]
    return *map(torch.cat, zip(*one_by_one)), True


def _scored(worker, models, on, rows):
    start, stop = rows
    shard = shard_of(worker, on)
    loss = torch.zeros(len(models), dtype=torch.float64)
    right = torch.zeros(len(models), dtype=torch.int64)
    for first in range(start, stop, CHUNK):
        x, labels, _ = worker._shard(shard, slice(first, min(first + CHUNK, stop)))
        summed, hits = worker.ensemble()(models, x, labels)
        loss += summed.cpu()
        right += hits.cpu()
    return loss, right


def _evaluate(worker, job, arrays):
    models = _models(worker, job)
    loss, right, crowded = scored(worker, models, job["on"], job["rows"])
    return {"crowded": crowded}, {"loss": loss.numpy(), "right": right.numpy()}


def _outputs(worker, job, arrays):
    """The outputs of the model, or of one of its modules, for the job's samples."""
    model, inputs, _ = _ready(worker, job)
    caught = []
    module = model.get_submodule(job["of"]) if job["of"] else model
    handle = module.register_forward_hook(lambda module, given, made: caught.append(made))
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        handle.remove()
    return {"crowded": False}, {"outputs": caught[-1].float().cpu().numpy()}


def _gradient(worker, job, arrays):
    """(R,): the gradient of the summed loss of the job's samples."""
    model, inputs, labels = _ready(worker, job)
    found = summed_gradient(model, worker.layout, inputs, labels)
    return {"crowded": False}, {"gradient": found.cpu().numpy()}


def _train(worker, job, arrays):
    """Train the model that came along; back go its values on the support."""
    shard, t, number = shard_of(worker, job["on"]), job["t"], job["number"]
    kept = torch.from_numpy(positions.decode(job["mask"], arrays["mask"], worker.layout.Q))
    support = worker.layout.support(kept)
    base = worker.stage.up(torch.from_numpy(arrays["values"].copy()), support)
    model = worker.placed(kept, support, 0, base)
    task = worker._task(shard, model, t, None)
    if number:
        # The first training of a round is keyed by round and shard alone, others also by their number.
        key = t, shard, number
        seed_torch(worker.device, torch_seed(worker.parts.seed, Purpose.TRAIN, *key))
        task = task._replace(gen=stream(worker.parts.seed, Purpose.TRAIN, *key))
    settings = {name: job[name] for name in ("epochs", "batch_size", "lr") if job[name]}
    task = task._replace(**settings)
    loss = worker.parts.strategy.local(task)
    values = worker.stage.down(gathered(task.x, _there(support, task.x)))
    seen = task.epochs * len(task.labels)
    steps = task.epochs * -(-len(task.labels) // task.batch_size)
    return {"crowded": False, "seen": seen, "steps": steps, "loss": float(loss)}, {"values": values.numpy()}


def _models(worker, job):
    """(m, P) on the device: the job's rows of the models that the server shared last."""
    start, stop = job["models"]
    return worker.models[start:stop].to(worker.device)


def _ready(worker, job):
    """``(model, inputs, labels)`` of a job of one model, bound to it, in evaluation mode."""
    start, stop = job["rows"]
    worker.x.copy_(_models(worker, job)[0])
    worker.parts.model.eval()
    inputs, labels, _ = worker._shard(shard_of(worker, job["on"]), slice(start, stop))
    return worker.parts.model, laid(inputs), labels


def _there(support, x):
    return support if x.device.type == "cpu" else support.to(x.device)


JOBS = {"evaluate": _evaluate, "outputs": _outputs, "gradient": _gradient, "train": _train}
