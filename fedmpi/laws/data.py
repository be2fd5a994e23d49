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
    one_digest = digest(one)
    other_digest = digest(other)
    hold(one_digest == other_digest, "the same options made other data")


def partition(spec):
    """Samples that exist, none of them twice and some for everybody, by the generator alone."""
    deal = make(catalog.PARTITIONS, spec)
    labels = _read_only_labels()
    parts, again = twice(lambda: deal(labels, CLIENTS, _gen()))
    num_parts = len(parts)
    is_one_each = num_parts == CLIENTS
    hold(is_one_each, f"{num_parts} parts for {CLIENTS} clients")
    for part in parts:
        broken = "a part is not (n,) int64"
        hold(part.dtype == np.int64, broken)
        hold(part.ndim == 1, broken)
        num_samples = len(part)
        hold(num_samples > 0, "a client has no sample")
    dealt = np.concatenate(parts)
    broken = "a sample that does not exist"
    is_low_enough = dealt >= 0
    hold_all(is_low_enough, broken)
    num_labels = len(labels)
    hold_all(dealt < num_labels, broken)
    # Samples may be left over, but none may come twice.
    distinct = np.unique(dealt)
    are_distinct = len(distinct) == len(dealt)
    hold(are_distinct, "a sample was dealt twice")
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
        change = partial(corrupted, level)
        _check_labels(change)


def _check_levels(levels):
    fits = levels.shape == (CLIENTS,)
    hold(fits, f"levels {levels}")
    is_finite = np.isfinite(levels)
    hold_all(is_finite, f"levels {levels}")


def _check_labels(change):
    labels = _read_only_labels()
    changed, again = twice(lambda: change(labels, _gen(2)))
    broken = "labels are not integers (n,)"
    are_integers = changed.dtype.kind in "iu"
    hold(are_integers, broken)
    same_shape = changed.shape == labels.shape
    hold(same_shape, broken)
    # A view of the labels would be changed with them later.
    is_view = np.shares_memory(changed, labels)
    hold(not is_view, "labels are not a copy")
    lowest = changed.min()
    highest = changed.max()
    are_classes = 0 <= lowest and highest < CLASSES
    hold(are_classes, f"labels {lowest} to {highest}")
    hold_equal(changed, again, "the same generator made other labels")


def features(spec):
    """New finite inputs of the same shape, by the generator alone; level 0 changes nothing."""
    part = make(catalog.FEATURES, spec)
    levels = part.levels(CLIENTS, _gen())
    _check_levels(levels)
    inputs = _random_images()
    labels = torch.arange(6) % CLASSES
    for level in levels:
        change = partial(part.apply, inputs, labels, level, CLASSES)
        _check_inputs(inputs, change)
    # Level 0 is that of a client without skew.
    still = part.apply(inputs, labels, 0.0, CLASSES, _gen())
    hold_equal(still, inputs, "level 0 changed a value")


def _check_inputs(inputs, change):
    before = inputs.clone()
    changed, again = twice(lambda: change(_gen(2)))
    hold_equal(inputs, before, "inputs were written to")
    place = changed.data_ptr()
    own_place = inputs.data_ptr()
    # A view of the inputs would be changed with them later.
    hold(place != own_place, "inputs are not a new tensor")
    hold_type(changed, inputs.shape, inputs.dtype, "inputs changed their shape or dtype")
    is_finite = changed.isfinite()
    hold_all(is_finite, "inputs are not finite")
    hold_equal(changed, again, "the same generator made other inputs")


def fault(spec):
    """Faulty clients, and changes of their data and labels, by the generator alone, on copies."""
    part = make(catalog.FAULTS, spec)
    is_share = 0 <= part.quality <= 1
    hold(is_share, f"a quality of {part.quality}, which must be in [0, 1]")
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
    if part.tokens is not None:
        _check_tokens(part.tokens)
    if part.shards is not None:
        _check_shards(part, who)


def _check_tokens(change):
    tokens = np.arange(100)
    changed, again = twice(lambda: change(tokens, _gen()))
    hold_type(changed, (100,), np.int64, "tokens are not (m,) int64")
    hold_equal(changed, again, "the same generator made other tokens")
    hold_equal(tokens, np.arange(100), "it wrote to the tokens")


def _check_shards(part, who):
    # No sample is held twice, so a copy shows.
    samples = np.arange(10 * CLIENTS)
    before = np.split(samples, CLIENTS)
    # shards may write to its lists.
    copies = [shard.copy() for shard in before]
    shards, source = part.shards(copies, who, _gen())
    broken = "shards or source are not one a client"
    is_one_each = len(shards) == CLIENTS
    hold(is_one_each, broken)
    has_sources = source.shape == (CLIENTS,)
    hold(has_sources, broken)
    honest = np.flatnonzero(~who)
    for client in honest:
        samples_now = shards[client]
        samples_before = before[client]
        hold_equal(samples_now, samples_before, "an honest client has other samples")
        own_source = source[client]
        # -1 stands for no source.
        has_source = own_source != -1
        hold(not has_source, "an honest client has a source")
