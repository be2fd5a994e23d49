"""FedNova: updates are divided by how far their clients went (arXiv 2007.07481).

    x <- x + sum_n w_n (a_eff / a_n) U_n            a_eff = sum_n w_n a_n

a_n is the way of a constant gradient of 1 in client n's steps: their number times the rate for
plain SGD, more with momentum. More steps then pull the model no further to a client's own optimum.
It is FedAvg with weights that need not sum to 1; after equally long ways it is FedAvg to the bit.

Steps are counted, not computed: the last batch of an epoch may be smaller or missing, and
--local-epochs differ by a client's samples. Running statistics are averaged by the weights alone.
The optimiser must be linear in the gradients (SGD): Adam's way has no such length, and is refused
before the start.

A client of few samples and one step may get a large weight beside clients with hundreds of
steps. The paper's rule says so. Cost: FedAvg's, and updates travel one by one: how far a client
went is known only once it has trained.
"""

import torch

from fedmpi.core.errors import UserError
from fedmpi.core.parts import Strategy, wants_linear_steps
from fedmpi.core.reduce import mean, moved
from fedmpi.methods.strategies.fedavg import stateless


def fednova():
    """Averaging normalised by the clients' local work.

    Paper: Wang et al. 2020, "Tackling the Objective Inconsistency Problem in Heterogeneous
        Federated Optimization", arXiv 2007.07481.
    Up: the kept values of the update, as FedAvg, and 16 bytes of how far it went; one by one.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy fednova --partition quantity
    """
    return Strategy(
        stateless,
        merge,
        linear=True,
        # Clients answer with their ways a_n.
        steps=True,
        refuses=wants_linear_steps,
        notes=notes,
    )


def notes(facts):
    """Lines for the user where the ways are all the same, or not those of the steps."""
    if facts.same_steps:
        yield ("all clients take as many steps and go equally far: this is FedAvg; give "
               "--local-epochs to clients of unequal numbers of samples")
    elif facts.cohort == 1:
        yield "it compares the ways of clients, and one answer makes a merge: this is FedAvg"
    elif facts.clipped:
        yield ("--clip-norm shortens gradients: clients went less far than their steps and rates "
               "say")


def merge(state, x, updates, weights):
    """The state as it is, and ``x (P,)`` moved by the normalised mean; UserError without ways."""
    way = updates.travelled
    if bool(way.isnan().any()):
        raise UserError("--strategy fednova divides by how far clients went, and a training "
                        "does not say; give Trained its travelled")
    step = mean(updates, weights)
    # Equal ways would still change the last bits of the mean.
    if bool((way != way[0]).any()):
        normalised_step = mean(updates, normalised(weights, way))
        # Buffers keep the plain mean.
        trained = slice(updates.trained)
        step[..., trained] = normalised_step[..., trained]
    return state, moved(x, updates.support, step)


def normalised(weights, way):
    """float64: the weights times ``a_eff / a_n``, of the shape of ``weights``, (C,) or (M, C).

    ``way (C,)`` holds the a_n. A client that took no step has weight 0."""
    effective = (weights * way).sum(-1, keepdim=True)
    scaled = weights * effective / way.clamp(min=1e-300)
    return torch.where(way > 0, scaled, 0.0)
