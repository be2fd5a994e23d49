"""Gain alone: the worth of a client's update to the received model by itself.

    phi_n = v({n}) - v(nobody)

v is the accuracy, or the headline of another task (accuracy-gain), or minus the loss (loss-gain)
on the server's validation samples. Costs C + 1 utilities a round. Blind to the other clients'
updates: duplicates are all paid in full, and a client of rare classes looks bad alone. Accuracy
moves in steps of one validation sample. Sees: the updates, the server's own samples.
"""

import torch

from fedmpi.methods.contribution.game import contribution


def accuracy_gain():
    """Validation accuracy gained by the client's update alone.

    Paper: none of its own: the marginal gain to nobody, the first step of any order in Song, Tong
        and Wei 2019, "Profit Allocation for Federated Learning", IEEE Big Data 2019.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    """
    return contribution("headline", alone)


def loss_gain():
    """Validation loss lost by the client's update alone.

    Paper: none of its own: the marginal gain to nobody, the first step of any order in Song, Tong
        and Wei 2019, "Profit Allocation for Federated Learning", IEEE Big Data 2019.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    """
    return contribution("loss", alone)


def alone(v, C, gen):
    """``(phi (C,) float64, None)`` of the game v."""
    nobody = torch.zeros(1, C, dtype=torch.bool)
    single = torch.eye(C, dtype=torch.bool)
    utilities = v(torch.cat([nobody, single]))
    gains = utilities[1:] - utilities[0]
    return gains, None
