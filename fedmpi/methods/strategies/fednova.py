"""FedNova: updates are divided by the length of the way that clients went, so that those that take more steps do not
pull the model to their own optimum (arXiv 2007.07481).

    x <- x + sum_n w_n (a_eff / a_n) U_n            a_eff = sum_n w_n a_n

a_n is how far a constant gradient would have travelled in the client's steps: their number for plain SGD, more with
momentum. It is FedAvg with weights that need not sum to 1. Where all clients went as far, it is FedAvg to the bit.
Steps are counted, not computed: the last batch of an epoch may be smaller or missing, and --local-epochs differ by a
client's samples. Running statistics are averaged by the weights alone. The optimiser must be linear in the gradients
(SGD): Adam's way has no such length.

A client of few samples that took one step may get a large weight where others took hundreds: that is the method's.
Cost: FedAvg's, and updates travel one by one: how far a client went is known only once it has trained.
"""

import torch

from fedmpi.core.errors import UserError
from fedmpi.core.parts import Strategy
from fedmpi.core.reduce import mean, moved


def fednova():
    """Averaging normalised by the clients' local work.

    Paper: Wang et al. 2020, "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization",
        arXiv 2007.07481.
    Up: the kept values of the update, as FedAvg, and 16 bytes of how far it went; one by one.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy fednova --partition quantity
    """

    def merge(state, x, updates, weights):
        way = updates.travelled
        if bool(way.isnan().any()):
            raise UserError("--strategy fednova divides by how far clients went, which the optimiser does "
                            "not say; take --optimiser sgd")
        step = mean(updates, weights)
        if bool((way != way[0]).any()):
            step[..., : updates.trained] = mean(updates, normalised(weights, way))[..., : updates.trained]
        return state, moved(x, updates.support, step)

    return Strategy(lambda layout: {}, merge, linear=True, steps=True)


def normalised(weights, way):
    """float64 of the shape of ``weights``, (C,) or (M, C): those of updates of clients that went ``way (C,)`` far; a
    client that took no step has none."""
    effective = (weights * way).sum(-1, keepdim=True)
    return torch.where(way > 0, weights * effective / way.clamp(min=1e-300), 0.0)
