"""Random streams keyed by purpose, round and client; never by rank or order of arrival.

Therefore the bits of a run do not depend on how many ranks play it, and resuming needs no generator state:
a stream is a function of (seed, purpose, keys).
"""

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream is for. The numbers are part of a run's identity: append, never renumber."""

    MODEL = 1        # initial weights
    PARTITION = 2    # who holds which sample
    NOISE = 3        # which labels are wrong
    SPLIT = 4        # training / validation
    SAMPLE = 5       # the cohort of a round
    TRAIN = 6        # one client's local training in one round
    MASK = 7         # the first mask
    EVOLVE = 8       # prune and grow
    CONTRIBUTION = 9
    DATA = 11        # synthetic data, and fixed splits
    FEATURES = 12    # what is done to a client's inputs
    FAULT = 13       # which clients are faulty, and how
    DEVICES = 14     # what clients' devices can do, and when
    DROPOUT = 15     # who never answers
    SERVER = 16      # which samples the server holds for its own work
    OWN_TEST = 17    # which of its samples a client is tested on
    ENCODE = 18      # what chance decides in the encoding of a message
    KIND = 19        # which network a client trains, where there are several


def stream(seed, purpose, *key):
    """The numpy generator of ``(seed, purpose, *key)``; all keys are non-negative integers."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, int(purpose), *key))))


def torch_seed(seed, purpose, *key):
    """A 63-bit seed for ``torch.manual_seed``, from the same keys."""
    return int(np.random.SeedSequence((seed, int(purpose), *key)).generate_state(1, np.uint64)[0] >> 1)
