"""FedMP's sub-models: each client trains a smaller network, without some filters (ICDE 2022).

    of each layer  floor(rate_n units)  units go, those of least sum |w|, or |gamma| of batch norm
    rate_n         ``rate``; or by speed  min(most, 1 - sqrt(speed_n / fastest))

FLOPs fall with the square of the kept share: by speed, all clients need the same time for a
sample. Norms and the layers behind follow their filters. Filters are chosen anew each round, from
the server's whole model: a filter cut today may be back tomorrow. A client gets
and sends the values of its own network alone, and its time and FLOPs are those of the smaller one.
The merge is R2SP, ``fedmpi.methods.strategies.fedmp``.

The paper learns each client's rate by a bandit, E-UCB, from the loss and the time of a rate.
The bandit is not played: here rates are fixed, or follow from the devices' speeds.
"""

from typing import Literal

import torch

from fedmpi.core.effect import needs
from fedmpi.core.parts import Pruner
from fedmpi.core.units import choose, l1, norm_scale
from fedmpi.methods.pruning.dense import unmoved

SCORES = {"l1": l1, "norm": norm_scale}


@needs(rate="by=fixed", most="by=speed")
def fedmp(rate: float = 0.3, by: Literal["fixed", "speed"] = "fixed", most: float = 0.8,
          score: Literal["l1", "norm"] = "l1"):
    """A smaller network for each client: filters and neurons of least norm are cut.

    Paper: Jiang et al. 2022, "FedMP: Federated Learning through Adaptive Model Pruning in
        Heterogeneous Edge Computing", ICDE 2022, pp. 767-779; without its bandit, see the module.
    Up: the values of the client's own network: about (1 - rate)^2 of a dense update.
    Down: as many, and a bit a unit, every round.
    Example: fedmpi train --model small-cnn --strategy fedmp --pruner fedmp:rate=0.5
    """
    for name, value in (("rate", rate), ("most", most)):
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be in [0, 1), got {value}")
    if score not in SCORES:
        raise ValueError(f"score must be one of {', '.join(SCORES)}, got {score!r}")
    if by not in ("fixed", "speed"):
        raise ValueError(f"by must be fixed or speed, got {by!r}")

    def start(layout, x, now, gen):
        return {}, layout.full_mask()

    def units(state, x, structure, clients, fleet, gen):
        """C dicts {layer: (n,) bool}: the units that each client trains."""
        if by == "speed":
            rates = by_speed(fleet.speed[clients], fleet.speed, most)
        else:
            rates = [rate] * len(clients)
        scores = SCORES[score](structure, x)
        # Clients with the same rate get the same object.
        distinct = set(rates)
        chosen = {share: choose(scores, share) for share in distinct}
        return [chosen[share] for share in rates]

    # Without units, models of whole networks travel as FedAvg's.
    cuts = rate > 0 or by == "speed"
    return Pruner(start, unmoved, units=units if cuts else None)


def by_speed(speeds, of_all, most):
    """The rates, a list, at which clients of ``speeds (C,)`` need as long as the fastest of all.

    The fastest of ``of_all (N,)`` has the whole network. Rates are at most ``most``."""
    relative = speeds / of_all.max()
    # An infinite speed takes no time: nothing is cut.
    share = torch.where(speeds.isinf(), 1.0, relative)
    rates = 1 - share.sqrt()
    return rates.clamp(0, most).tolist()
