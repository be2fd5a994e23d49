"""Runs whose clients train on several ranks each: refusals, and their plan in words.

See ``fedmpi.compute.divided`` for the training, ``fedmpi.transport.groups`` for the ranks.
"""

from fedmpi.build.ranks import check_ranks
from fedmpi.core.errors import UserError
from fedmpi.core.parts import Descent

# Vectors of an optimiser's state and of gradients are float32.
FLOAT_BYTES = 4


def check(options, parts, network):
    """UserError if a client of this run cannot train on several ranks."""
    size = options["ranks_per_client"]
    if size == 1:
        return
    for why in _refusals(options, parts, network):
        raise UserError(f"--ranks-per-client {size}: {why}")


def _refusals(options, parts, network):
    """Reasons against several ranks a client, each with a way out."""
    size = options["ranks_per_client"]
    strategy, pruner = options["strategy"], options["pruner"]
    if not isinstance(parts.strategy.local, Descent):
        yield (f"--strategy {strategy} has a way of training of its own, which cannot be divided; "
               "take fedavg, fedprox or diloco, say")
    if parts.pruner.watches:
        yield (f"--pruner {pruner} watches the steps of a training, whose gradients are divided; "
               "take static, set or rigl, say")
    if parts.optimiser.grown is not None:
        yield (f"--optimiser {options['optimiser']} sets the state of weights that grow by their "
               "layer, which is divided; leave fresh out")
    if network.batch_norm:
        yield ("batch normalisation would see a part of each batch alone, which is another "
               "training; take a model without")
    if network.layout.buffers:
        name = network.layout.buffers[0].name
        yield (f"training moves {name} of the model, on each rank by other samples; take a model "
               "without such buffers")
    part_size = -(-options["batch_size"] // options["accumulate"])
    if part_size < size:
        accumulated = ""
        if options["accumulate"] > 1:
            accumulated = f" and --accumulate {options['accumulate']}"
        yield (f"--batch-size {options['batch_size']}{accumulated} leave no sample for some ranks; "
               "take a larger batch")
    if options["on_error"] != "fatal":
        yield (f"--on-error {options['on_error']} cannot leave out a client whose other ranks wait "
               "in the middle of a step; take fatal")


def rows(setup, ranks):
    """The row of a plan about the ranks of a client; none if each has one.

    ``ranks`` are those of the run.
    """
    size = setup.options["ranks_per_client"]
    if size == 1:
        return []
    state = setup.parts.optimiser.init(setup.network.first[:1])
    # Others are counts, of no size. 1: the gradients' sums.
    vectors = 1 + sum(tensor.ndim > 0 for tensor in state.values())
    whole_mb = FLOAT_BYTES * setup.network.layout.R * vectors / 1e6
    own_mb = whole_mb / size
    text = (f"{size}, each with the whole model and 1/{size} of each batch; of gradients' sums and "
            f"the optimiser's state a rank has {own_mb:.3g} of {whole_mb:.3g} MB")
    try:
        check_ranks(setup.options, ranks)
    except UserError as error:
        text += f"; {error}"
    return [("a client's ranks", text)]
