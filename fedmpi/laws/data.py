"""Laws of data sets, of partitions, and of the faults in clients' data."""

from functools import partial

import numpy as np
import torch

from fedmpi import catalog
from fedmpi.laws.hold import hold, hold_all, hold_equal, hold_type, twice
from fedmpi.methods.datasets.dataset import checked, digest
from fedmpi.plugins.spec import make

CLASSES = 4
CLIENTS = 5
LABELS = np.tile(np.arange(CLASSES), 30)


def _gen(seed=0):
    return np.random.default_rng(seed)


def _read_only_labels():
    labels = LABELS.copy()
    # A write raises at once.
    labels.flags.writeable = False
    return labels


def _random_images():
    gen = torch.Generator().manual_seed(0)
    return torch.randn(6, 1, 4, 4, generator=gen)


def dataset(spec, data_dir="data"):
    """Arrays that fit each other, the same ones each time."""
    one, other = twice(lambda: make(catalog.DATASETS, spec, data_dir))
    checked(one, spec)
    hold(digest(one) == digest(other), "the same options made other data")


def partition(spec):
    """Samples that exist, none of them twice and some for everybody, by the generator alone."""
    deal = make(catalog.PARTITIONS, spec)
    labels = _read_only_labels()
    parts, again = twice(lambda: deal(labels, CLIENTS, _gen()))
    num_parts = len(parts)
    hold(num_parts == CLIENTS, f"{num_parts} parts for {CLIENTS} clients")
    for part in parts:
        broken = "a part is not (n,) int64"
        hold(part.dtype == np.int64, broken)
        hold(part.ndim == 1, broken)
        hold(len(part) > 0, "a client has no sample")
    dealt = np.concatenate(parts)
    broken = "a sample that does not exist"
    hold_all(dealt >= 0, broken)
    hold_all(dealt < len(labels), broken)
    # Samples may be left over, but none may come twice.
    distinct = np.unique(dealt)
    hold(len(distinct) == len(dealt), "a sample was dealt twice")
    for one, other in zip(parts, again):
        hold_equal(one, other, "the same generator dealt otherwise")


def noise(spec):
    """A new array of labels in [0, classes), by the generator alone; a level for each client."""
    part = make(catalog.NOISES, spec)
    levels = part.rates(CLIENTS, _gen())
    _check_levels(levels)
    common = ()
    if part.shared is not None:
        common = (part.shared(CLASSES, _gen(1)),)

    def corrupted(level, labels, gen):
        return part.corrupt(labels, level, CLASSES, gen, *common)

    for level in levels:
        _check_labels(partial(corrupted, level))


def _check_levels(levels):
    hold(levels.shape == (CLIENTS,), f"levels {levels}")
    hold_all(np.isfinite(levels), f"levels {levels}")


def _check_labels(change):
    labels = _read_only_labels()
    changed, again = twice(lambda: change(labels, _gen(2)))
    broken = "labels are not integers (n,)"
    hold(changed.dtype.kind in "iu", broken)
    hold(changed.shape == labels.shape, broken)
    # A view of the labels would be changed with them later.
    is_view = np.shares_memory(changed, labels)
    hold(not is_view, "labels are not a copy")
    lowest = changed.min()
    highest = changed.max()
    hold(0 <= lowest and highest < CLASSES, f"labels {lowest} to {highest}")
    hold_equal(changed, again, "the same generator made other labels")


def features(spec):
    """New finite inputs of the same shape, by the generator alone; level 0 changes nothing."""
    part = make(catalog.FEATURES, spec)
    levels = part.levels(CLIENTS, _gen())
    _check_levels(levels)
    inputs = _random_images()
    labels = torch.arange(6) % CLASSES
    for level in levels:
        _check_inputs(inputs, partial(part.apply, inputs, labels, level, CLASSES))
    still = part.apply(inputs, labels, 0.0, CLASSES, _gen())
    hold_equal(still, inputs, "level 0 changed a value")


def _check_inputs(inputs, change):
    before = inputs.clone()
    changed, again = twice(lambda: change(_gen(2)))
    hold_equal(inputs, before, "inputs were written to")
    # A view of the inputs would be changed with them later.
    hold(changed.data_ptr() != inputs.data_ptr(), "inputs are not a new tensor")
    hold_type(changed, inputs.shape, inputs.dtype, "inputs changed their shape or dtype")
    hold_all(changed.isfinite(), "inputs are not finite")
    hold_equal(changed, again, "the same generator made other inputs")


def fault(spec):
    """Faulty clients, and changes of their data and labels, by the generator alone, on copies."""
    part = make(catalog.FAULTS, spec)
    hold(0 <= part.quality <= 1, f"a quality of {part.quality}, which must be in [0, 1]")
    who, again = twice(lambda: part.who(CLIENTS, _gen()))
    hold_type(who, (CLIENTS,), bool, "who is not (clients,) bool")
    hold_equal(who, again, "the same generator chose others")

    def change_labels(labels, gen):
        return part.labels(labels, CLASSES, gen)

    if part.labels is not None:
        _check_labels(change_labels)
    if part.inputs is not None:
        inputs = _random_images()
        change_inputs = partial(part.inputs, inputs)
        _check_inputs(inputs, change_inputs)
    if part.shards is not None:
        _check_shards(part, who)


def _check_shards(part, who):
    # No sample is held twice, so a copy shows.
    samples = np.arange(10 * CLIENTS)
    before = np.split(samples, CLIENTS)
    copies = [shard.copy() for shard in before]
    shards, source = part.shards(copies, who, _gen())
    broken = "shards or source are not one a client"
    hold(len(shards) == CLIENTS, broken)
    hold(source.shape == (CLIENTS,), broken)
    honest = np.flatnonzero(~who)
    for client in honest:
        hold_equal(shards[client], before[client], "an honest client has other samples")
        # -1 stands for no source.
        has_source = source[client] != -1
        hold(not has_source, "an honest client has a source")
