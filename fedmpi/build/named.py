"""What every rank builds from the options: the network, the objective, and a worker's parts."""

import torch

from fedmpi import catalog
from fedmpi.plugins import fit
from fedmpi.client.worker import WorkerParts
from fedmpi.compute.augment import joined
from fedmpi.core.errors import UserError
from fedmpi.core.rng import Purpose, torch_seed


def worker_parts(options, shape, outputs):
    """A worker's ``WorkerParts``, its model freshly initialised from the seed."""
    found = estimators(options)
    reports = {label: part.report for label, part in found.items() if part.report is not None}
    return WorkerParts(model(options, shape, outputs), catalog.make(catalog.STRATEGIES, options["strategy"]),
                       catalog.make(catalog.PRUNERS, options["pruner"]), catalog.make(catalog.CODECS, options["codec"]),
                       reports, next(iter(found)), catalog.make(catalog.FEATURES, options["features"]), faults(options),
                       options["local_epochs"], options["batch_size"], options["lr"], options["seed"],
                       options["rounds"], objective(options), catalog.make(catalog.OPTIMISERS, options["optimiser"]),
                       catalog.make(catalog.SCHEDULES, options["schedule"]), options["clip_norm"],
                       options["local_steps"], augmentation(options))


def estimators(options):
    """``{label: Contribution}``: the one that weighs first, then those that only observe; labels are their names."""
    found = {}
    for spec in [options["contribution"], *options["observe"]]:
        name = label = catalog.split(spec)[0].rpartition(":")[2]
        number = 1
        while label in found:
            number += 1
            label = f"{name}-{number}"
        found[label] = catalog.make(catalog.CONTRIBUTIONS, spec)
    return found


def faults(options):
    """The faults that clients are given, in the order that the options name them."""
    return tuple(catalog.make(catalog.FAULTS, spec) for spec in options["fault"])


def objective(options):
    """What the run's model is trained for and measured by."""
    return catalog.make(catalog.TASKS, options["task"])


def augmentation(options):
    """The ``Augmentation`` of all that the options name, one after the other; None where they name none."""
    return joined([catalog.make(catalog.AUGMENTATIONS, spec) for spec in options["augment"]])


def model(options, shape, outputs):
    """The network for samples of ``shape``, with so many outputs, initialised from the seed."""
    torch.manual_seed(torch_seed(options["seed"], Purpose.MODEL))
    spec, option = options["model"], f"--model {options['model']}"
    try:
        made = catalog.make(catalog.MODELS, spec, tuple(shape), outputs)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"{option} on inputs of shape {tuple(shape)}: {error}") from error
    return fit.network(made, option, tuple(shape))
