"""A client's own test part (``--client-test``): samples of its own that it never trains on.

Each client's samples are split once, by the seed and the client alone, after they have been dealt out and before
anything is wrong with them:

    round(share n) of n samples, at random, are its test part;   at least one stays for training

Test parts keep true labels, and no fault touches them. The client's feature skew does: it is the client's own
distribution. A client with a ``duplicate`` fault trains on a copy of its source's training part, and is tested on its
own test part, by its own skew: nobody trains on anybody's test part.
"""

import math
from typing import NamedTuple

import numpy as np

from fedmpi.compute.evaluate import in_cache
from fedmpi.core.errors import UserError
from fedmpi.core.rng import Purpose, stream
from fedmpi.server.own_accuracy import OwnTests

PASSES = 3              # forward passes that a training pass costs
MOST = 0.1              # of the training that evaluating all test parts may cost, where nobody says how often


class HeldOut(NamedTuple):
    """The test parts of N clients."""

    offsets: np.ndarray       # (N + 1,) int64: client n's part is indices[offsets[n]:offsets[n + 1]]
    indices: np.ndarray       # int64 into x_train
    features: np.ndarray      # (N,) level of feature skew of its inputs

    @property
    def sizes(self):
        return np.diff(self.offsets)


def parted(shards, share, seed):
    """``(shards without test parts, test parts)``, two lists of index arrays, one a client."""
    split = [_split(shard, share, stream(seed, Purpose.OWN_TEST, client)) for client, shard in enumerate(shards)]
    return [training for training, _ in split], [test for _, test in split]


def _split(shard, share, gen):
    """``(training part, test part)`` of one client's samples, both in the order of ``shard``. A sample that it holds
    several times is in one of them only."""
    distinct = np.unique(shard)
    count = min(math.floor(share * len(distinct) + 0.5), len(distinct) - 1)
    drawn = gen.permutation(distinct)[: max(count, 0)]
    tested = np.isin(shard, drawn)
    return shard[~tested], shard[tested]


def held_out(parts, features, share):
    """The ``HeldOut`` of test ``parts``; None where no share is held out. UserError where all of them are empty."""
    if not share:
        return None
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    if not offsets[-1]:
        raise UserError(f"--client-test {share:g}: no client holds enough samples for a test part of its own; give a "
                        "larger share, or fewer --clients")
    return HeldOut(offsets, np.concatenate(parts).astype(np.int64), features)


def own_tests(options, fed_data, trained, network, sample):
    """The ``OwnTests`` of a run in which ``trained`` clients train a round; None where nobody has a test part. The
    ``network`` is what ``sample (1, ...)`` goes through."""
    if fed_data.held_out is None:
        return None
    sizes = fed_data.held_out.sizes
    clients = np.flatnonzero(sizes)
    every = options["client_test_every"] or _period(options, fed_data, trained)
    return OwnTests(clients, sizes[clients], every, in_cache(network, sample))


def _period(options, fed_data, trained):
    """Rounds from one evaluation of all test parts to the next, so that they cost MOST of the training at most: a
    multiple of --evaluate-every. It follows from numbers of samples, hence the same on every machine."""
    seen = fed_data.sizes.mean() * trained * options["local_epochs"]
    rounds = fed_data.held_out.sizes.sum() / (MOST * PASSES * max(seen, 1))
    between = options["evaluate_every"]
    return between * max(1, math.ceil(rounds / between))


def shared(held):
    """The arrays of test parts that every rank of a node shares; nothing where there are none."""
    if held is None:
        return {}
    return {"test_offsets": held.offsets, "test_indices": held.indices, "test_features": held.features}


def remarks(options, fed_data):
    """Lines about test parts that are not what the user may think."""
    held = fed_data.held_out
    if held is None:
        if options["client_test_every"]:
            yield (f"--client-test-every {options['client_test_every']} has no effect: clients have no test parts; "
                   "give --client-test 0.2, say")
        return
    without = int((held.sizes == 0).sum())
    if without:
        yield (f"--client-test {options['client_test']:g}: {without} of {len(held.sizes)} clients hold too few samples "
               "for a test part of their own, and count in no own_ column")
