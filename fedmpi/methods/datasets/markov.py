"""Synthetic text with a known best loss: a Markov chain of tokens.

    P[i] ~ Dir(concentration 1_V);   tokens follow P from a token of its stationary distribution
    entropy rate = - sum_i pi_i sum_j P_ij log P_ij,   with pi = pi P

No model has a smaller loss than the entropy rate, beyond chance; a table of two tokens reaches it.
"""

import numpy as np

from fedmpi.core.rng import Purpose, stream
from fedmpi.methods.datasets.stream import dataset_of


def markov(data_dir, vocab: int = 16, tokens: int = 20000, test: int = 4000, context: int = 32,
           concentration: float = 0.3, seed: int = 0):
    """A chain of ``tokens`` and one of ``test`` tokens; the entropy rate is told.

    ``data_dir`` is not read. The smaller the ``concentration``, the surer the next token. ``seed``
    belongs to the task and not to the run, so that runs of several seeds share one task.

    Paper: Shannon 1948, "A Mathematical Theory of Communication", for the entropy rate.
    Example: fedmpi train --task lm --dataset markov:tokens=4000,context=16 --lr 0.01
        --model gpt:depth=1,width=16,heads=2
    """
    for name, value, least in (("vocab", vocab, 2), ("tokens", tokens, 2), ("test", test, 2)):
        if value < least:
            raise ValueError(f"{name} must be >= {least}, got {value}")
    if not concentration > 0:
        raise ValueError(f"concentration must be > 0, got {concentration}")
    gen = stream(seed, Purpose.DATA)
    table = _table(vocab, concentration, gen)
    rate = entropy_rate(table)
    train = _chain(table, tokens, gen)
    held = _chain(table, test, gen)
    line = f"entropy rate: {rate:.6f} nats a token, the least loss of any model"
    return dataset_of(train, held, context, vocab, remarks=(line,), token_bytes=(1.0, 1.0),
                      whose="markov")


def _table(vocab, concentration, gen):
    """(V, V) float64: the probabilities of the next token; none of them is 0."""
    drawn = gen.standard_gamma(concentration, (vocab, vocab)) + 1e-6
    return drawn / drawn.sum(axis=1, keepdims=True)


def stationary(table):
    """(V,) float64: the share of each token in a long chain."""
    V = len(table)
    # pi (P - 1) = 0, and the shares add up to 1.
    equations = np.concatenate([table.T - np.eye(V), np.ones((1, V))])
    values = np.zeros(V + 1)
    values[-1] = 1
    shares, *_ = np.linalg.lstsq(equations, values)
    return shares


def entropy_rate(table):
    """Nats a token of the chain."""
    of_rows = -(table * np.log(table)).sum(axis=1)
    return float(stationary(table) @ of_rows)


def _chain(table, count, gen):
    """(count,) uint16 tokens."""
    luck = gen.random(count)
    sums = np.cumsum(table, axis=1)
    shares = np.cumsum(stationary(table))
    last = len(table) - 1
    tokens = np.empty(count, np.uint16)
    token = min(int(np.searchsorted(shares, luck[0])), last)
    tokens[0] = token
    for place in range(1, count):
        token = min(int(np.searchsorted(sums[token], luck[place])), last)
        tokens[place] = token
    return tokens
