"""The worker's side of the server's own compute: the answers to its jobs, see ``fedmpi.server.lab``.

A job's models are rows of what the server shared last, but for a training, whose model comes with the job. What a job
leaves behind changes no other one.
"""

import torch

from fedmpi.client import samples as shards
from fedmpi.client.evaluate import scored
from fedmpi.client.received import placed
from fedmpi.client.train import seed, task_of
from fedmpi.compute.derivatives import summed_gradient
from fedmpi.compute.sgd import train
from fedmpi.core.rng import Purpose, stream, torch_seed
from fedmpi.core.support import gathered
from fedmpi.methods.datasets.dataset import laid
from fedmpi.wire import positions


def answer(worker, job, arrays):
    """``(meta, arrays)`` of a job; the meta says ``again`` where the rank ran out of GPU memory."""
    try:
        return {}, JOBS[job["lab"]](worker, job, arrays)
    except torch.cuda.OutOfMemoryError:
        pass
    worker.free_memory()
    return {"again": True}, {}


def _evaluate(worker, job, arrays):
    """The sums of each model's losses and headlines over the job's samples."""
    loss, headline, _ = scored(worker.samples, worker.ensemble(), _models(worker, job), job["on"], *job["rows"])
    return {"loss": loss.numpy(), "headline": headline.numpy()}


def _outputs(worker, job, arrays):
    """What the model puts out for the job's samples, or one of its modules."""
    model, inputs, _ = _ready(worker, job)
    made = []
    module = model.get_submodule(job["of"]) if job["of"] else model
    hook = module.register_forward_hook(lambda module, given, result: made.append(result))
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        hook.remove()
    return {"outputs": made[-1].float().cpu().numpy()}


def _gradient(worker, job, arrays):
    """(R,): the gradient of the summed loss of the job's samples."""
    found = summed_gradient(worker.home.model, worker.layout, *_ready(worker, job)[1:], worker.parts.objective.loss)
    return {"gradient": found.cpu().numpy()}


def _train(worker, job, arrays):
    """Train the model that came along as clients train; back go its values on the support."""
    home, parts = worker.home, worker.parts
    mask = torch.from_numpy(positions.decode(job["mask"], arrays["mask"], worker.layout.Q))
    support = worker.layout.support(mask)
    base = home.stage.up(torch.from_numpy(arrays["values"].copy()), support)
    model = placed(home, mask, support, 0, base)
    t, shard = job["t"], shards.of_server(worker.samples, job["on"])
    task = task_of(parts, home, worker.samples, {"t": t, "client": shard}, model, base)
    # The first training of a round is keyed by round and shard alone, others also by their number.
    if job["number"]:
        key = t, shard, job["number"]
        seed(home.device, torch_seed(parts.seed, Purpose.TRAIN, *key))
        task = task._replace(gen=stream(parts.seed, Purpose.TRAIN, *key))
    done = train(parts.strategy.local, _set(task, job))
    values = home.stage.down(gathered(task.x, support.to(home.device)))
    trained = torch.tensor(done, dtype=torch.float64)
    return {"values": values.numpy(), "trained": trained.numpy()}


def _set(task, job):
    """The task with the settings that the job has of its own: those that are not 0."""
    settings = {name: job[name] for name in ("epochs", "batch_size", "lr") if job[name]}
    if "epochs" in settings:
        settings["steps"] = 0
    return task._replace(**settings)


def _models(worker, job):
    """(m, P) on the device: the job's rows of the models that the server shared last."""
    start, stop = job["models"]
    return worker.models[start:stop].to(worker.device)


def _ready(worker, job):
    """``(model, inputs, labels)`` of a job of one model, bound to it, in evaluation mode."""
    home = worker.home
    home.x.copy_(_models(worker, job)[0])
    home.model.eval()
    shard = shards.of_server(worker.samples, job["on"])
    inputs, labels, _ = shards.raw(worker.samples, shard, slice(*job["rows"]))
    return home.model, laid(inputs), labels


JOBS = {"evaluate": _evaluate, "outputs": _outputs, "gradient": _gradient, "train": _train}
