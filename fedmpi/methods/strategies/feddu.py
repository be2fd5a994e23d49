"""FedDU: after each merge the server trains on samples of its own (FedDUAP, arXiv 2204.11536).

    x <- x + k (s - x)                      s: the merged model x after training on the server

It goes as far towards s as its samples are worth (Zhang et al.):

    k = (1 - accuracy) n0 D(clients) / (n0 D(clients) + n1 D(server)) decay^t

with the accuracy of x on the server's n0 labelled samples, the n1 samples of the cohort, and D the
distance between the labels of the cohort, or of the server, and those of all clients together: the
Jensen-Shannon divergence in bits, of shares rounded to 3 digits. So the server counts for little
if its labels are odd, if the clients' labels are not, or if its samples have nothing left to
teach.

Departures: the paper takes a number of steps instead of k; this is the rule of the published code.
Clients' diverged updates are rejected as everywhere else, not by a bound of their own. Cost a
round: a training on the server's samples and two evaluations of them.
"""

import math

import torch

from fedmpi.core.parts import Strategy, Training
from fedmpi.core.reduce import average, moved
from fedmpi.core.support import gathered, mask_of
from fedmpi.methods.strategies.fedavg import stateless

# To so many digits shares of labels are rounded.
DIGITS = 3
# With k below this the server does not train.
LEAST = 1e-3
# The server's work is undone where its loss grows by more than this factor.
GROWTH = 3.0


def feddu(decay: float = 0.99):
    """FedAvg, then training on the server's own labelled samples, as far as they are worth it.

    Paper: Zhang et al. 2022, "FedDUAP: Federated Learning with Dynamic Update and Adaptive Pruning
        Using Shared Data on the Server", arXiv 2204.11536.
    Up: the kept values of the update, as FedAvg; once, before round 1, its samples of each label,
        which are not billed.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy feddu --server-data 0.05
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must be in [0, 1], got {decay}")

    def after(state, x, updates, lab):
        mask = mask_of(updates.support, len(lab.mask))
        loss, accuracy = evaluated(x, mask, lab)
        clients, server = _sides(updates, lab)
        worth = share(accuracy, clients, server)
        k = worth * decay ** lab.round.t
        # So small a step is not worth a training.
        if not k > LEAST:
            return state, x
        further = trained_further(x, updates.support, mask, k, lab)
        new_loss, _ = evaluated(further, mask, lab)
        if math.isfinite(new_loss) and new_loss <= GROWTH * loss:
            return state, further
        return state, x

    return Strategy(
        stateless,
        average,
        linear=True,
        additive=True,
        # It compares label counts.
        classes=True,
        server_data="labelled",
        after=after,
        refuses=wants_accuracy,
    )


def wants_accuracy(facts):
    """``refuses``: a task whose models are not compared by accuracy, of which k is made."""
    if facts.headline != "accuracy":
        yield (f"the server goes as far as 1 - accuracy says, and {facts.named['task']} measures "
               f"{facts.headline}; take --task classification")


def evaluated(x, mask, lab):
    """``(loss, accuracy)`` of the model ``x (P,)`` on the server's samples."""
    losses, accuracies = lab.evaluate(x[None], "server", mask)
    return float(losses), float(accuracies)


def trained_further(x, support, mask, k, lab):
    """float32 (P,): ``x + k (s - x)`` on the support, s being x trained on the server's samples."""
    # Off the support s is x: no need to look there.
    [(s, _)] = lab.train([Training(x, mask)])
    step = gathered(s, support) - gathered(x, support)
    return moved(x, support, k * step)


def share(accuracy, clients, server):
    """k without its decay: how far the server goes; 0 where both divergences are 0.

    ``clients`` and ``server`` are pairs of a number of samples and the divergence of their labels.
    """
    n_clients, d_clients = clients
    n_server, d_server = server
    ours = n_server * d_clients
    theirs = n_clients * d_server
    whole = ours + theirs
    if not whole > 0:
        return 0.0
    return (1 - accuracy) * ours / whole


def _sides(updates, lab):
    """The pairs that ``share`` takes, of the cohort and of the server."""
    of_clients = lab.labels["clients"]
    everybody = of_clients.sum(dim=0)
    cohort = of_clients[updates.clients].sum(dim=0)
    cohort_divergence = divergence(cohort, everybody)
    server_divergence = divergence(lab.labels["server"], everybody)
    n_cohort = float(updates.n.sum())
    n_server = float(lab.sizes["server"])
    return (n_cohort, cohort_divergence), (n_server, server_divergence)


def divergence(a, b):
    """The Jensen-Shannon divergence, in bits, of label counts ``a`` and ``b (L,)``."""
    p = _shares(a)
    q = _shares(b)
    middle = (p + q) / 2
    both = _relative(p, middle) + _relative(q, middle)
    return float(both / 2)


def _shares(counts):
    """float64 (L,): the counts as shares of DIGITS digits."""
    shares = counts.double() / counts.sum()
    return shares.round(decimals=DIGITS)


def _relative(p, q):
    """The sum of p log2(p / q) where p is not 0."""
    terms = p * (p / q).log2()
    return torch.where(p > 0, terms, 0.0).sum()
