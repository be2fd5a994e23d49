"""Runs with smaller networks on clients: the units to cut, and the methods that refuse them."""

from fedmpi.compute.structure import check
from fedmpi.compute.trace import trace
from fedmpi.core.errors import UserError


def structure(options, pruner, model, layout, x, sample):
    """The checked ``Structure`` of a model in ``x (P,)``, traced on ``sample (2, ...)``.

    None if clients train the whole model. UserError if nothing of it can be cut.
    """
    if pruner.units is None:
        return None
    try:
        traced = trace(model, layout, sample)
        check(model, traced, x, sample)
    except UserError as error:
        raise UserError(f"--pruner {options['pruner']} cuts filters and neurons, but "
                        f"--model {options['model']}: {error}") from error
    return traced


def check_run(options, parts, run):
    """UserError if a part of the run does not go with networks of several sizes."""
    if run.structure is None:
        return
    for why in _refusals(options, parts, run):
        raise UserError(f"--pruner {options['pruner']} gives clients networks of their own, "
                        f"but {why}")


def _refusals(options, parts, run):
    """Yield the reasons against networks of several sizes, each with a way out."""
    strategy, codec = run.strategy, run.codec
    keeps = strategy.keeps or run.inner or run.layout.personal
    if strategy.sends or strategy.answers or keeps:
        yield (f"--strategy {options['strategy']} sends, asks for or lets clients keep more than "
               "the model: take fedmp or fedavg")
    if codec.weights or codec.trained or codec.feedback:
        yield (f"--codec {options['codec']} codes weights apart from biases, or remembers what it "
               "lost: take float32 or float16")
    if run.sampler.candidates:
        yield f"--sampler {options['sampler']} asks clients for the loss of one common model"
    if run.timing.buffer:
        yield (f"--timing {options['timing']} merges as answers arrive, and clients "
               "train the network of their start: take sync")
    if any(fault.needs_previous_model for fault in parts.faults):
        yield ("a fault sends the whole model of the round before: leave out "
               "free-rider:kind=stale")
