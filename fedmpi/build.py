"""What every rank builds from the options: the network, and a worker's parts."""

import torch

from fedmpi import catalog
from fedmpi.client import WorkerParts
from fedmpi.errors import UserError
from fedmpi.rng import Purpose, torch_seed


def worker_parts(options, shape, classes):
    """A worker's ``WorkerParts``, its model freshly initialised from the seed."""
    return WorkerParts(model(options, shape, classes), catalog.make(catalog.STRATEGIES, options["strategy"]),
                       catalog.make(catalog.PRUNERS, options["pruner"]), catalog.make(catalog.CODECS, options["codec"]),
                       options["local_epochs"], options["batch_size"], options["lr"], options["seed"], options["rounds"])


def model(options, shape, classes):
    """The network, initialised from the seed."""
    torch.manual_seed(torch_seed(options["seed"], Purpose.MODEL))
    try:
        return catalog.make(catalog.MODELS, options["model"], tuple(shape), classes)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"--model {options['model']} on inputs of shape {tuple(shape)}: {error}") from error
