"""Runs whose clients train smaller networks: what can be cut, and what does not go with it."""

from fedmpi.compute.structure import check
from fedmpi.compute.trace import trace
from fedmpi.core.errors import UserError


def structure(options, pruner, model, layout, x, sample):
    """The checked ``Structure`` of a model that lives in ``x (P,)``, seen on ``sample (2, ...)``.

    None where clients train the whole one. UserError where nothing of it can be cut.
    """
    if pruner.units is None:
        return None
    try:
        found = trace(model, layout, sample)
        check(model, found, x, sample)
    except UserError as error:
        raise UserError(f"--pruner {options['pruner']} cuts filters and neurons, but "
                        f"--model {options['model']}: {error}") from error
    return found


def check_run(options, parts, fed):
    """UserError where a part of the run does not go with networks of several sizes."""
    if fed.structure is None:
        return
    strategy = fed.strategy
    more = strategy.sends or strategy.answers or strategy.keeps or fed.layout.personal
    refused = {
        f"--strategy {options['strategy']} sends, asks for or lets clients keep more than the "
        "model: take fedmp or fedavg": more,
        f"--codec {options['codec']} codes weights apart from biases, or remembers what it lost: "
        "take float32 or float16": fed.codec.weights or fed.codec.feedback,
        f"--sampler {options['sampler']} asks clients for the loss of one common model": (
            fed.sampler.candidates),
        f"--aggregation {options['aggregation']} merges as answers arrive, and clients train the "
        "network of their start: take sync": fed.aggregation.buffer,
        f"--together {options['together']} trains clients of one network side by side: take "
        "--together 1": options["together"] > 1,
        "a fault sends the whole model of the round before: leave out free-rider:kind=stale": any(
            fault.stale for fault in parts.faults),
    }
    for why, applies in refused.items():
        if applies:
            raise UserError(f"--pruner {options['pruner']} gives clients networks of their own, "
                            f"but {why}")
