"""The worker's side of the server's own compute: answers to its jobs, see ``fedmpi.server.lab``.

The models of a job are rows of the server's last shared message; a training's model comes with the
job. No job leaves traces for another one.
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
    """``(meta, arrays)`` of a job; the meta says ``again`` if the rank ran out of GPU memory."""
    try:
        return {}, JOBS[job["lab"]](worker, job, arrays)
    except torch.cuda.OutOfMemoryError:
        pass
    # Outside the handler, as the attempt's tensors live on inside.
    worker.free_memory()
    return {"again": True}, {}


def _evaluate(worker, job, arrays):
    """The sums of each model's losses and headlines over the job's samples."""
    models = _models(worker, job)
    loss, headline, _ = scored(
        worker.samples, worker.ensemble(), models, job["on"], *job["rows"])
    return {"loss": loss.numpy(), "headline": headline.numpy()}


def _outputs(worker, job, arrays):
    """Outputs for the job's samples, of the model or of one of its modules."""
    model, inputs, _ = _ready(worker, job)
    results = []
    module = model.get_submodule(job["of"]) if job["of"] else model
    hook = module.register_forward_hook(lambda module, inputs, result: results.append(result))
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        hook.remove()
    return {"outputs": results[-1].float().cpu().numpy()}


def _gradient(worker, job, arrays):
    """(R,): the gradient of the summed loss of the job's samples."""
    model, inputs, labels = _ready(worker, job)
    loss = worker.parts.objective.loss
    gradient = summed_gradient(model, worker.layout, inputs, labels, loss)
    return {"gradient": gradient.cpu().numpy()}


def _train(worker, job, arrays):
    """Train the job's model as clients train; returns its values on the support."""
    home, strategy = worker.home, worker.parts.strategy
    task, support = _task(worker, job, arrays)
    task = _set(task, job)
    done = train(strategy.local, task)
    on_device = gathered(task.x, support.to(home.device))
    values = home.stage.down(on_device)
    # All four numbers travel as float64; the optimiser's state stays.
    numbers = [done.loss, done.steps, done.samples, done.travelled]
    trained = torch.tensor(numbers, dtype=torch.float64)
    return {"values": values.numpy(), "trained": trained.numpy()}


def _task(worker, job, arrays):
    """``(Task, support (K,))`` of the server's shard that the job names."""
    home, parts, layout = worker.home, worker.parts, worker.layout
    mask = positions.decode(job["mask"], arrays["mask"], layout.Q)
    mask = torch.from_numpy(mask)
    support = layout.support(mask)
    # Copy: torch warns about arrays that are read-only.
    values = torch.from_numpy(arrays["values"].copy())
    base = home.stage.up(values, support)
    model = placed(home, mask, support, 0, base)
    t, number = job["t"], job["number"]
    shard = shards.of_server(worker.samples, job["on"])
    order = {"t": t, "client": shard}
    task = task_of(parts, home, worker.samples, order, model, base)
    # The first training of a round is keyed by round and shard alone, others also by their number.
    if number:
        key = parts.seed, Purpose.TRAIN, t, shard, number
        seed(home.device, torch_seed(*key))
        task = task._replace(gen=stream(*key))
    return task, support


def _set(task, job):
    """The task with the job's own settings; 0 stands for the run's."""
    names = ("epochs", "batch_size", "lr")
    settings = {name: job[name] for name in names if job[name]}
    if "epochs" in settings:
        settings["steps"] = 0
    return task._replace(**settings)


def _models(worker, job):
    """(m, P) on the device: the job's rows of the models that the server shared last."""
    start, stop = job["models"]
    return worker.models[start:stop].to(worker.device)


def _ready(worker, job):
    """``(model, inputs, labels)`` of a job of one model, in evaluation mode."""
    home, samples = worker.home, worker.samples
    [vector] = _models(worker, job)
    home.x.copy_(vector)
    home.model.eval()
    shard = shards.of_server(samples, job["on"])
    rows = slice(*job["rows"])
    inputs, labels, _ = shards.raw(samples, shard, rows)
    return home.model, laid(inputs), labels


JOBS = {"evaluate": _evaluate, "outputs": _outputs, "gradient": _gradient, "train": _train}
