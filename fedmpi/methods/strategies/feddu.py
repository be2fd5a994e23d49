"""FedDU: after each merge the server trains on labelled samples of its own, and goes as far towards that as its samples
are worth (Zhang et al., FedDUAP, arXiv 2204.11536).

``x <- x + k (s - x)``, s being what training from the merged model x comes to, with

    k = (1 - accuracy) n0 D(clients) / (n0 D(clients) + n1 D(server)) decay^t

where the accuracy is that of x on the server's n0 samples, n1 the samples of the cohort, and D how far the labels of
the cohort, or of the server, are from those of all clients together: the Jensen-Shannon divergence in bits, of shares
that are rounded to 3 digits. So the server counts for little where its labels are odd ones, where the clients' labels
are not, and where there is nothing left to learn from its samples.

Departures: the paper takes a number of steps instead of k; this is the rule of the published code. Clients' diverged
updates are rejected as everywhere else, not by a bound of their own. Cost a round: a training on the server's samples
and two evaluations of them.
"""

import math

import torch

from fedmpi.core.parts import Strategy, Training
from fedmpi.core.reduce import average, moved
from fedmpi.core.support import gathered, mask_of

DIGITS = 3                    # to which shares of labels are rounded
LEAST = 1e-3                  # k below which the server does not train
GROWTH = 3.0                  # times its loss beyond which the server's work is undone


def feddu(decay: float = 0.99):
    """FedAvg, then training on the server's own labelled samples, as far as they are worth it.

    Paper: Zhang et al. 2022, "FedDUAP: Federated Learning with Dynamic Update and Adaptive Pruning Using Shared Data on
        the Server", arXiv 2204.11536.
    Up: the kept values of the update, as FedAvg; once, before round 1, its samples of each label, which are not billed.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy feddu --server-data 0.05
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must be in [0, 1], got {decay}")

    def after(state, x, updates, lab):
        mask = mask_of(updates.support, len(lab.mask))
        loss, accuracy = (float(value) for value in lab.evaluate(x[None], "server", mask))
        k = share(accuracy, *_sides(updates, lab)) * decay ** lab.round.t
        if not k > LEAST:
            return state, x
        [(trained, _)] = lab.train([Training(x, mask)])
        step = gathered(trained, updates.support) - gathered(x, updates.support)
        further = moved(x, updates.support, k * step)
        grown = float(lab.evaluate(further[None], "server", mask)[0])
        undone = not (math.isfinite(grown) and grown <= GROWTH * loss)
        return state, x if undone else further

    return Strategy(lambda layout: {}, average, linear=True, additive=True, classes=True,
                    server_data="labelled", after=after)


def share(accuracy, clients, server):
    """k without its decay: how far the server goes. ``clients`` and ``server`` are pairs of a number of samples and the
    divergence of their labels; 0 where both divergences are."""
    (n_clients, d_clients), (n_server, d_server) = clients, server
    ours = n_server * d_clients
    whole = ours + n_clients * d_server
    return (1 - accuracy) * ours / whole if whole > 0 else 0.0


def _sides(updates, lab):
    """The pairs that ``share`` takes, of the cohort and of the server."""
    everybody, cohort = lab.labels["clients"].sum(dim=0), lab.labels["clients"][updates.clients].sum(dim=0)
    server = lab.labels["server"]
    return ((float(updates.n.sum()), divergence(cohort, everybody)),
            (float(lab.sizes["server"]), divergence(server, everybody)))


def divergence(a, b):
    """The Jensen-Shannon divergence, in bits, of label counts ``a`` and ``b (L,)`` as shares of DIGITS digits."""
    p, q = ((counts.double() / counts.sum()).round(decimals=DIGITS) for counts in (a, b))
    middle = (p + q) / 2
    return float((_relative(p, middle) + _relative(q, middle)) / 2)


def _relative(p, q):
    """The sum of p log2(p / q) where p is not 0."""
    return torch.where(p > 0, p * (p / q).log2(), 0.0).sum()
