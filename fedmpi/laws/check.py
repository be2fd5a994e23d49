"""One function that holds a part of any kind to all of its laws."""

import torch

from fedmpi.build.options import SEVERAL
from fedmpi.laws import data, merging, pruning, scoring, time, training, wire
from fedmpi.laws.engine import assembled, play
from fedmpi.laws.hold import hold

LAWS = {"strategy": merging.strategy, "pruner": pruning.pruner,
        "contribution": scoring.contribution, "weighting": scoring.weighting,
        "codec": wire.codec, "optimiser": training.optimiser, "schedule": training.schedule,
        "augment": training.augment, "model": training.model, "task": training.task,
        "dataset": data.dataset, "partition": data.partition, "noise": data.noise,
        "features": data.features, "fault": data.fault,
        "devices": time.devices, "sampler": time.sampler, "aggregation": time.aggregation}
ROUNDS = 3
# What a run needs beside a part, for the part to be asked for anything.
BESIDE = {"dataset": {"model": "logistic", "train_samples": 120},
          "weighting": {"contribution": "cosine"},
          "sampler": {"cohort": 2},
          "aggregation": {"devices": "drawn", "cohort": 2}}
# The usual parts of a strategy are its own, where nobody names others.
OWN_PARTS = {"strategy": {"pruner": None, "contribution": None}}


def check(kind, spec):
    """AssertionError, in words, at the first law of its kind that a part does not keep.

    ``spec`` is what the command line takes: a name of the catalogue or ``module:factory``, with
    options. After the laws the part plays three rounds, twice, which must agree in every bit.
    """
    LAWS[kind](spec)
    played(kind, spec)


def played(kind, spec):
    """The last model of a small run with the part: finite, and the same each time."""
    models = [_last_model(kind, spec) for _ in range(2)]
    hold(bool(models[0].isfinite().all()), "after three rounds a weight is not finite")
    hold(torch.equal(*models), "two runs of the same options differ")
    return models[0]


def _beside(kind, spec):
    """The other options of a run with the part."""
    if kind != "task":
        return BESIDE.get(kind, {})
    targets = training.targets_of(spec)
    return {"dataset": f"synthetic:samples=120,size=4,classes=4,targets={targets}", "model": "logistic", "lr": 0.01}


def _last_model(kind, spec):
    several = {of: name for name, of in SEVERAL.items() if name not in ("observe", "also_model")}
    named = {several[kind]: [spec]} if kind in several else {kind: spec}
    options = OWN_PARTS.get(kind, {}) | _beside(kind, spec) | named
    fed, state = assembled(**options)
    states, _ = play(fed, state, ROUNDS)
    return states[-1]["x"]
