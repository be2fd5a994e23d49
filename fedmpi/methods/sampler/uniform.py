"""Uniform: every available client is as likely as any other, without replacement."""

import torch

from fedmpi.core.parts import Sampler, nothing
from fedmpi.methods.sampler.race import available_clients


def uniform():
    """All available clients alike.

    Paper: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from
        Decentralized Data", arXiv 1602.05629.
    Up: nothing more.
    Down: nothing more.
    Example: fedmpi train --sampler uniform --cohort 4
    """

    def draw(gen, count, records):
        clients = available_clients(records)
        # Nothing to choose: nothing is drawn either.
        if count >= len(clients):
            return clients
        places = gen.choice(len(clients), count, replace=False)
        places.sort()
        return clients[torch.from_numpy(places)]

    return Sampler(draw, notes=nothing)
