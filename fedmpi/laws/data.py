"""Laws of data sets, partitions, and what is wrong with clients' data."""

import numpy as np
import torch

from fedmpi import catalog
from fedmpi.laws.hold import hold
from fedmpi.methods.datasets.dataset import checked, digest
from fedmpi.plugins.spec import make

CLASSES = 4
CLIENTS = 5
LABELS = np.tile(np.arange(CLASSES), 30)


def _gen(seed=0):
    return np.random.default_rng(seed)


def dataset(spec, data_dir="data"):
    """Arrays that fit each other, the same ones each time that they are made."""
    one, other = (make(catalog.DATASETS, spec, data_dir) for _ in range(2))
    checked(one, spec)
    hold(digest(one) == digest(other), "the same options made other data")


def partition(spec):
    """Samples that exist, none of them twice and some for everybody, by the generator alone."""
    deal = make(catalog.PARTITIONS, spec)
    labels = LABELS.copy()
    labels.flags.writeable = False
    parts, again = (deal(labels, CLIENTS, _gen()) for _ in range(2))
    hold(len(parts) == CLIENTS, f"{len(parts)} parts for {CLIENTS} clients")
    hold(all(part.dtype == np.int64 and part.ndim == 1 for part in parts), "a part is not (n,) int64")
    hold(min(map(len, parts)) > 0, "a client has no sample")
    dealt = np.concatenate(parts)
    hold(0 <= dealt.min() and dealt.max() < len(labels), "a sample that does not exist")
    hold(len(np.unique(dealt)) == len(dealt), "a sample was dealt twice")
    same = all(np.array_equal(one, other) for one, other in zip(parts, again))
    hold(same, "the same generator dealt otherwise")


def noise(spec):
    """A new array of labels in [0, classes), by the generator alone; a level for each client."""
    part = make(catalog.NOISES, spec)
    levels = part.rates(CLIENTS, _gen())
    hold(levels.shape == (CLIENTS,) and bool(np.isfinite(levels).all()), f"levels {levels}")
    common = () if part.shared is None else (part.shared(CLASSES, _gen(1)),)
    for level in levels:
        _check_labels(lambda labels, gen: part.corrupt(labels, level, CLASSES, gen, *common))


def _check_labels(change):
    labels = LABELS.copy()
    labels.flags.writeable = False
    changed, again = (change(labels, _gen(2)) for _ in range(2))
    hold(changed.shape == labels.shape and changed.dtype.kind in "iu", "labels are not integers (n,)")
    hold(not np.shares_memory(changed, labels), "labels are not a copy")
    hold(0 <= changed.min() and changed.max() < CLASSES, f"labels {changed.min()} to {changed.max()}")
    hold(np.array_equal(changed, again), "the same generator made other labels")


def features(spec):
    """New finite inputs of the same shape, by the generator alone; level 0 changes nothing."""
    part = make(catalog.FEATURES, spec)
    levels = part.levels(CLIENTS, _gen())
    hold(levels.shape == (CLIENTS,) and bool(np.isfinite(levels).all()), f"levels {levels}")
    inputs = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(6) % CLASSES
    for level in levels:
        _check_inputs(inputs, lambda gen: part.apply(inputs, labels, level, CLASSES, gen))
    still = part.apply(inputs, labels, 0.0, CLASSES, _gen())
    hold(torch.equal(still, inputs), "level 0 changed a value")


def _check_inputs(inputs, change):
    before = inputs.clone()
    changed, again = (change(_gen(2)) for _ in range(2))
    hold(torch.equal(inputs, before), "inputs were written to")
    hold(changed.data_ptr() != inputs.data_ptr(), "inputs are not a new tensor")
    hold(changed.shape == inputs.shape and changed.dtype == inputs.dtype, "inputs changed their shape or dtype")
    hold(bool(changed.isfinite().all()), "inputs are not finite")
    hold(torch.equal(changed, again), "the same generator made other inputs")


def fault(spec):
    """Who is at fault, and what such clients hold and see, by the generator alone, on copies."""
    part = make(catalog.FAULTS, spec)
    hold(0 <= part.quality <= 1, f"a quality of {part.quality}, which must be in [0, 1]")
    who, again = (part.who(CLIENTS, _gen()) for _ in range(2))
    hold(who.shape == (CLIENTS,) and who.dtype == bool, "who is not (clients,) bool")
    hold(np.array_equal(who, again), "the same generator chose others")
    if part.labels is not None:
        _check_labels(lambda labels, gen: part.labels(labels, CLASSES, gen))
    if part.inputs is not None:
        inputs = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        _check_inputs(inputs, lambda gen: part.inputs(inputs, gen))
    if part.shards is not None:
        _check_shards(part, who)


def _check_shards(part, who):
    given = [np.arange(10) + 10 * n for n in range(CLIENTS)]
    shards, source = part.shards([each.copy() for each in given], who, _gen())
    hold(len(shards) == CLIENTS and source.shape == (CLIENTS,), "shards or source are not one a client")
    for client in np.flatnonzero(~who):
        hold(np.array_equal(shards[client], given[client]), "an honest client has other samples")
        hold(source[client] == -1, "an honest client has a source")
