"""One function that holds a part of any kind to all of its laws."""

from fedmpi import catalog
from fedmpi.build.options import SEVERAL
from fedmpi.laws import data, merging, pruning, scoring, time, training, wire
from fedmpi.laws.engine import TRANSFORMER, assembled, run_rounds
from fedmpi.laws.hold import hold_all, hold_equal, twice
from fedmpi.plugins.spec import make

LAWS = {
    "strategy": merging.strategy,
    "pruner": pruning.pruner,
    "contribution": scoring.contribution,
    "weighting": scoring.weighting,
    "codec": wire.codec,
    "optimiser": training.optimiser,
    "schedule": training.schedule,
    "augment": training.augment,
    "model": training.model,
    "adapters": training.adapters,
    "task": training.task,
    "dataset": data.dataset,
    "partition": data.partition,
    "noise": data.noise,
    "features": data.features,
    "fault": data.fault,
    "devices": time.devices,
    "sampler": time.sampler,
    "timing": time.timing,
}
ROUNDS = 3
# The other options of a run, without which it would never ask the part for anything.
BESIDE = {
    "dataset": {"model": "logistic", "train_samples": 120},
    "weighting": {"contribution": "cosine"},
    "adapters": TRANSFORMER,
    "sampler": {"cohort": 2},
    "timing": {"devices": "drawn", "cohort": 2},
}
# Second options for contributions and models.
SECOND_OPTIONS = ("observe", "also_model")
# The usual parts of a strategy are its own, where nobody names others.
OWN_PARTS = {"strategy": {"pruner": None, "contribution": None}}


def check(kind, spec):
    """AssertionError, in words, at the first broken law of its kind.

    ``spec`` is written as on the command line: a name of the catalogue or ``module:factory``,
    with options. After the laws the part plays three rounds, twice: they must agree in every
    bit.
    """
    LAWS[kind](spec)
    # Last: a run would break with a less telling message.
    played(kind, spec)


def played(kind, spec):
    """The last model of a small run with the part: finite, and the same each time."""
    model, again = twice(lambda: _last_model(kind, spec))
    is_finite = model.isfinite()
    hold_all(is_finite, "after three rounds a weight is not finite")
    hold_equal(model, again, "two runs of the same options differ")
    return model


# A run on tokens.
TOKENS = {
    "dataset": "markov:tokens=1000,test=200,context=8",
    "model": "gpt:depth=1,width=8,heads=2",
    "task": "lm",
    "lr": 0.01,
}


def _beside(kind, spec):
    """The other options of a run with the part."""
    on_tokens = TOKENS if _is_of_tokens(kind, spec) else {}
    # A task takes one sort of targets, so the data depend on it.
    if kind != "task":
        return BESIDE.get(kind, {}) | on_tokens
    if on_tokens:
        return on_tokens
    targets = training.targets_of(spec)
    dataset = f"synthetic:samples=120,size=4,classes=4,targets={targets}"
    return {"dataset": dataset, "model": "logistic", "lr": 0.01}


def _is_of_tokens(kind, spec):
    """Whether a data set, model or task is one of tokens."""
    if kind == "dataset":
        return make(catalog.DATASETS, spec, "data").stream is not None
    if kind == "model":
        return training.takes_tokens(spec)
    return kind == "task" and training.targets_of(spec) == "tokens"


def _last_model(kind, spec):
    own_parts = OWN_PARTS.get(kind, {})
    others = _beside(kind, spec)
    part = _named(kind, spec)
    # The part comes last: it is the one on trial.
    options = own_parts | others | part
    run, state = assembled(**options)
    states, _ = run_rounds(run, state, ROUNDS)
    last = states[-1]
    return last["x"]


def _named(kind, spec):
    """The part's option: a list for a kind of several parts a run."""
    several = {}
    for option, part_kind in SEVERAL.items():
        if option not in SECOND_OPTIONS:
            several[part_kind] = option
    if kind in several:
        return {several[kind]: [spec]}
    return {kind: spec}
