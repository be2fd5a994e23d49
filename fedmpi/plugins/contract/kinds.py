"""The contract of each kind of part: its factory's type, and its checks."""

from fedmpi.core.parts import (Adapters, Augmentation, Codec, Contribution, Dataset, Devices,
                               Fault, Features, Noise, Objective, Optimiser, Pruner, Sampler,
                               Schedule, Strategy, Timing, Weighting)
from fedmpi.plugins.contract import codecs, data, pruners, scores, strategies, time, training
from fedmpi.plugins.contract.require import check_type

# A partition is a plain function.
TYPES = {
    "adapters": Adapters,
    "strategy": Strategy,
    "optimiser": Optimiser,
    "schedule": Schedule,
    "augment": Augmentation,
    "pruner": Pruner,
    "contribution": Contribution,
    "weighting": Weighting,
    "codec": Codec,
    "dataset": Dataset,
    "task": Objective,
    "noise": Noise,
    "features": Features,
    "fault": Fault,
    "devices": Devices,
    "sampler": Sampler,
    "timing": Timing,
}
# ``fedmpi.plugins.fit`` checks models.
KEEPERS = {
    "adapters": training.adapters,
    "strategy": strategies.strategy,
    "optimiser": training.optimiser,
    "schedule": training.schedule,
    "augment": training.augment,
    "pruner": pruners.pruner,
    "contribution": scores.contribution,
    "weighting": scores.weighting,
    "codec": codecs.codec,
    "dataset": data.dataset,
    "task": training.task,
    "partition": data.partition,
    "noise": data.noise,
    "features": data.features,
    "fault": data.fault,
    "devices": time.devices,
    "sampler": time.sampler,
    "timing": time.timing,
}


def bound(kind, made, option):
    """The part, its functions checked; UserError for another type than its kind's."""
    if kind in TYPES:
        check_type(made, TYPES[kind], option)
    keep = KEEPERS.get(kind)
    if keep is None:
        return made
    return keep(made, option)
