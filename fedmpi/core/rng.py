"""Random streams keyed by purpose, round and client; never by rank or order of arrival.

Therefore the bits of a run do not depend on its number of ranks, and resuming needs no generator
state: a stream is a function of (seed, purpose, keys).
"""

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """The purposes of streams. Their numbers are part of a run's identity: only append new ones."""

    MODEL = 1        # initial weights
    PARTITION = 2    # the deal of samples to clients
    NOISE = 3        # wrong labels
    SPLIT = 4        # training / validation
    SAMPLE = 5       # the cohort of a round
    TRAIN = 6        # one client's local training in one round
    MASK = 7         # the first mask
    EVOLVE = 8       # prune and grow
    CONTRIBUTION = 9
    DATA = 11        # synthetic data, and fixed splits
    FEATURES = 12    # changes of a client's inputs
    FAULT = 13       # faulty clients, and their faults
    DEVICES = 14     # the devices' abilities over time
    DROPOUT = 15     # clients that never answer
    SERVER = 16      # the samples that the server holds for its own work
    OWN_TEST = 17    # the samples that a client is tested on
    ENCODE = 18      # random encodings of messages
    KIND = 19        # the network of each client, if there are several
    GENERATE = 20    # text from a trained model


def stream(seed, purpose, *key):
    """The numpy generator of ``(seed, purpose, *key)``; all keys are non-negative integers."""
    bits = np.random.PCG64(_sequence(seed, purpose, key))
    return np.random.Generator(bits)


def torch_seed(seed, purpose, *key):
    """A 63-bit seed for ``torch.manual_seed``, from the same keys."""
    state = _sequence(seed, purpose, key).generate_state(1, np.uint64)
    return int(state[0] >> 1)


def stream_and_torch_seed(seed, purpose, *key):
    """``stream`` and ``torch_seed`` of the same keys, in little more than half the time of both."""
    sequence = _sequence(seed, purpose, key)
    state = sequence.generate_state(1, np.uint64)
    return np.random.Generator(np.random.PCG64(sequence)), int(state[0] >> 1)


def _sequence(seed, purpose, key):
    return np.random.SeedSequence((seed, int(purpose), *key))
