"""Clients' own test parts (``--client-test``): samples that their clients never train on.

Each client's samples are split once, by the seed and the client alone, after partition and before
noise and faults:

    round(share n) of n samples, at random, are its test part;   at least one stays for training

Test parts keep true labels, and no fault touches them. The client's feature skew does: it belongs
to the client's own distribution. A client with a ``duplicate`` fault trains on a copy of its
source's training part. Its test part and its skew stay its own: nobody trains on anybody's test
part.
"""

import math
from typing import NamedTuple

import numpy as np

from fedmpi.compute.evaluate import in_cache
from fedmpi.core.errors import UserError
from fedmpi.core.rng import Purpose, stream
from fedmpi.core.words import plural
from fedmpi.server.own_accuracy import OwnTests

# A training pass costs as much as so many forward passes.
PASSES = 3
# Evaluating all test parts costs at most this share of the training, by default.
MOST = 0.1


class HeldOut(NamedTuple):
    """The test parts of N clients."""

    # (N + 1,) int64: client n's part is indices[offsets[n]:offsets[n + 1]].
    offsets: np.ndarray
    # int64 indices into x_train.
    indices: np.ndarray
    # (N,) level of feature skew of its inputs.
    features: np.ndarray

    @property
    def sizes(self):
        return np.diff(self.offsets)


def parted(shards, share, seed):
    """``(shards without test parts, test parts)``, two lists of index arrays, one a client."""
    training = []
    tests = []
    for client, shard in enumerate(shards):
        gen = stream(seed, Purpose.OWN_TEST, client)
        trained, tested = _split(shard, share, gen)
        training.append(trained)
        tests.append(tested)
    return training, tests


def _split(shard, share, gen):
    """``(training part, test part)`` of one client's samples, both in the order of ``shard``.

    All copies of a sample go to the same part.
    """
    distinct = np.unique(shard)
    n = len(distinct)
    rounded = math.floor(share * n + 0.5)
    count = max(min(rounded, n - 1), 0)
    drawn = gen.permutation(distinct)[:count]
    # By value, so that copies stay together.
    tested = np.isin(shard, drawn)
    return shard[~tested], shard[tested]


def held_out(parts, features, share):
    """The ``HeldOut`` of test ``parts``; None for a share of 0. UserError if all are empty."""
    if not share:
        return None
    ends = np.cumsum([len(part) for part in parts])
    offsets = np.concatenate([[0], ends]).astype(np.int64)
    if not offsets[-1]:
        raise UserError(f"--client-test {share:g}: no client holds enough samples for a test part "
                        "of its own; give a larger share, or fewer --clients")
    indices = np.concatenate(parts).astype(np.int64)
    return HeldOut(offsets, indices, features)


def own_tests(options, fed_data, trained, network, sample):
    """The ``OwnTests`` of a run with ``trained`` clients a round; None without test parts.

    ``sample (1, ...)`` goes through the ``network``, to find how many samples fit into the cache.
    """
    if fed_data.held_out is None:
        return None
    sizes = fed_data.held_out.sizes
    clients = np.flatnonzero(sizes)
    test_every = options["client_test_every"] or _period(options, fed_data, trained)
    return OwnTests(clients, sizes[clients], test_every, in_cache(network, sample))


def _period(options, fed_data, trained):
    """Rounds between evaluations of all test parts: a multiple of --evaluate-every, at a cost of at
    most MOST.

    It follows from numbers of samples, hence it is the same on every machine.
    """
    of_client = fed_data.sizes.mean() * options["local_epochs"]
    # One of the two is 0.
    of_client += options["local_steps"] * options["batch_size"]
    trained_samples = of_client * trained
    affordable = MOST * PASSES * trained_samples
    tested_samples = fed_data.held_out.sizes.sum()
    rounds = tested_samples / affordable
    between = options["evaluate_every"]
    periods = math.ceil(rounds / between)
    return between * max(1, periods)


def shared(test_parts):
    """``{name: array}`` of the test parts, for every rank of a node; empty without test parts."""
    if test_parts is None:
        return {}
    return {
        "test_offsets": test_parts.offsets,
        "test_indices": test_parts.indices,
        "test_features": test_parts.features
    }


def remarks(options, fed_data):
    """Lines about clients without test parts."""
    test_parts = fed_data.held_out
    test_every = options["client_test_every"]
    if test_parts is None:
        if test_every:
            yield (f"--client-test-every {test_every} has no effect: clients have no test parts; "
                   "give --client-test 0.2, say")
        return
    without = int((test_parts.sizes == 0).sum())
    if without:
        share = options["client_test"]
        yield (f"--client-test {share:g}: {without} of {plural(len(test_parts.sizes), 'client')} "
               "hold too few samples for a test part of their own, and count in no own_ column")
