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
from fedmpi.core.logits import Logits
from fedmpi.core.rng import Purpose, stream, torch_seed
from fedmpi.core.support import gathered
from fedmpi.methods.datasets.dataset import laid
from fedmpi.wire import positions


def answer(worker, job, arrays):
    """``(meta, arrays)`` of a job; the meta says ``again`` if the rank ran out of GPU memory."""
    answer_to = JOBS[job["lab"]]
    try:
        return {}, answer_to(worker, job, arrays)
    except torch.cuda.OutOfMemoryError:
        pass
    # Outside the handler, as the attempt's tensors live on inside.
    worker.free_memory()
    return {"again": True}, {}


def _evaluate(worker, job, arrays):
    """The sums of each model's losses and headlines over the job's samples."""
    models = _models(worker, job)
    start, stop = job["rows"]
    many = worker.ensemble()
    loss, headline, _ = scored(worker.samples, many, models, job["on"], start, stop)
    return {"loss": loss.numpy(), "headline": headline.numpy()}


def _outputs(worker, job, arrays):
    """Outputs for the job's samples, of the model or of one of its modules."""
    model, inputs, _ = _ready(worker, job)
    results = []

    def keep(module, inputs, result):
        results.append(result)

    # The empty name is the model's own.
    module = model.get_submodule(job["of"])
    hook = module.register_forward_hook(keep)
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        hook.remove()
    outputs = results[-1]
    if isinstance(outputs, Logits):
        outputs = outputs.whole()
    outputs = outputs.float().cpu()
    return {"outputs": outputs.numpy()}


def _gradient(worker, job, arrays):
    """(R,): the gradient of the summed loss of the job's samples."""
    model, inputs, labels = _ready(worker, job)
    loss = worker.parts.objective.loss
    gradient = summed_gradient(model, worker.layout, inputs, labels, loss)
    gradient = gradient.cpu()
    return {"gradient": gradient.numpy()}


def _train(worker, job, arrays):
    """Train the job's model as clients train; returns its values on the support."""
    home, strategy = worker.home, worker.parts.strategy
    task, support = _task(worker, job, arrays)
    task = _set(task, job)
    done = train(strategy.local, task)
    positions_on_device = support.to(home.device)
    on_device = gathered(task.x, positions_on_device)
    values = home.stage.down(on_device)
    # All four numbers travel as float64; the optimiser's state stays.
    numbers = [done.loss, done.steps, done.samples, done.travelled]
    trained = torch.tensor(numbers, dtype=torch.float64)
    return {"values": values.numpy(), "trained": trained.numpy()}


def _task(worker, job, arrays):
    """``(Task, support (K,))`` of the server's shard that the job names."""
    home, parts, layout = worker.home, worker.parts, worker.layout
    bits = positions.decode(job["mask"], arrays["mask"], layout.Q)
    mask = torch.from_numpy(bits)
    support = layout.support(mask)
    # Copy: torch warns about arrays that are read-only.
    values = arrays["values"].copy()
    values = torch.from_numpy(values)
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
        gen = stream(*key)
        task = task._replace(gen=gen)
    return task, support


def _set(task, job):
    """The task with the job's own settings; 0 stands for the run's."""
    settings = {}
    for name in ("epochs", "batch_size", "lr"):
        if job[name]:
            settings[name] = job[name]
    if "epochs" in settings:
        settings["steps"] = 0
    return task._replace(**settings)


def _models(worker, job):
    """(m, P) on the device: the job's rows of the models that the server shared last."""
    start, stop = job["models"]
    models = worker.models[start:stop]
    return models.to(worker.device)


def _ready(worker, job):
    """``(model, inputs, labels)`` of a job of one model, in evaluation mode."""
    home, samples = worker.home, worker.samples
    [vector] = _models(worker, job)
    home.x.copy_(vector)
    home.model.eval()
    shard = shards.of_server(samples, job["on"])
    start, stop = job["rows"]
    rows = slice(start, stop)
    inputs, labels, _ = shards.raw(samples, shard, rows)
    inputs = laid(inputs)
    return home.model, inputs, labels


JOBS = {"evaluate": _evaluate, "outputs": _outputs, "gradient": _gradient, "train": _train}
