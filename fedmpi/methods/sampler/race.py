"""Drawing without replacement, one after the other, in proportion to weights.

    P(next = n) = p_n / sum of p over those not drawn yet           (successive sampling)

It is run as a race (Efraimidis and Spirakis 2006): n arrives at ``e_n / p_n`` with ``e_n ~
Exp(1)``, and the first ``count`` win. A client of twice the weight is twice as likely to be
first, but less than twice as likely to be among several: inclusion is not proportional to p,
unless one is drawn. Who weighs nothing comes last, in random order.
"""

import numpy as np
import torch


def race(gen, weights, count):
    """int64 (min(count, n),): places in ``weights (n,)`` >= 0, in the order in which they are
    drawn."""
    weights = np.asarray(weights, np.float64)
    e = gen.standard_exponential(len(weights))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        arrival = e / weights
    return torch.from_numpy(np.lexsort((e, arrival))[:count])


def there(known):
    """int64: the clients that can be asked, sorted."""
    return torch.nonzero(known.available).flatten()
