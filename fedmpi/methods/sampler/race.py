"""Drawing without replacement, one after the other, in proportion to weights.

    P(next = n) = p_n / sum of p over those not drawn yet           (successive sampling)

It is run as a race (Efraimidis and Spirakis 2006): n arrives at ``e_n / p_n`` with ``e_n ~
Exp(1)``, and the first ``count`` win. A client of twice the weight is twice as likely to be
first, but less than twice as likely to be among several: inclusion is not proportional to p,
unless one is drawn. Clients of weight 0 come last, in random order.
"""

import numpy as np
import torch


def race(gen, weights, count):
    """int64 (min(count, n),): places in ``weights (n,)`` >= 0, in the order of the draw."""
    weights = np.asarray(weights, np.float64)
    e = gen.standard_exponential(len(weights))
    # A weight of 0 arrives at infinity, which is meant.
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        arrival = e / weights
    # By arrival, then by e: clients of weight 0 all arrive at infinity.
    order = np.lexsort((e, arrival))
    return torch.from_numpy(order[:count])


def drawn_by(weights, clients, count, gen):
    """int64, sorted: ``count`` of ``clients (n,)``, drawn by ``weights (n,)``."""
    winners = race(gen, weights, count)
    return clients[winners].sort().values


def available_clients(records):
    """int64: the clients that can be asked, sorted."""
    return torch.nonzero(records.available).flatten()
