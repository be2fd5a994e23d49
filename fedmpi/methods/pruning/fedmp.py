"""FedMP's sub-models: each client trains a smaller network, without the filters of least L1 norm (ICDE 2022).

    kept units of a layer: all but floor(rate_n units) of least sum |w|, the same rate in every layer
    rate_n = rate, or by speed  1 - sqrt(speed_n / fastest), as FLOPs fall with the square; at most ``most``

Channels of norms and of the layers behind follow. Filters are chosen anew each round from the server's whole model, so
that one that is cut here may come back there. A client gets and sends the values of its own network only, and its time
and FLOPs are those of the smaller one. The merge is R2SP, ``fedmpi.methods.strategies.fedmp``.

The paper learns each rate by a bandit, E-UCB, from how loss and time of the clients answer to it. That is not played:
here rates are fixed, or follow from the devices' speeds.
"""

from typing import Literal

import torch

from fedmpi.core.effect import needs
from fedmpi.core.parts import Pruner
from fedmpi.core.units import choose, l1, norm_scale


@needs(rate="by=fixed", most="by=speed")
def fedmp(rate: float = 0.3, by: Literal["fixed", "speed"] = "fixed", most: float = 0.8,
          score: Literal["l1", "norm"] = "l1"):
    """A smaller network for each client: filters and neurons of least norm are cut.

    Paper: Jiang et al. 2022, "FedMP: Federated Learning through Adaptive Model Pruning in Heterogeneous Edge
        Computing", ICDE 2022, pp. 767-779; without its bandit, see the module.
    Up: the values of the client's own network: about (1 - rate)^2 of a dense update.
    Down: as many, and a bit a unit, every round.
    Example: fedmpi train --model small-cnn --strategy fedmp --pruner fedmp:rate=0.5
    """
    for name, value in (("rate", rate), ("most", most)):
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be in [0, 1), got {value}")
    scores_of = {"l1": l1, "norm": norm_scale}
    if score not in scores_of:
        raise ValueError(f"score must be one of {', '.join(scores_of)}, got {score!r}")
    if by not in ("fixed", "speed"):
        raise ValueError(f"by must be fixed or speed, got {by!r}")

    def init(layout, x, schedule, gen):
        return {}, layout.full_mask()

    def evolve(state, mask, x, replies, schedule, gen):
        return state, mask

    def units(state, x, structure, clients, fleet, gen):
        rates = [rate] * len(clients) if by == "fixed" else by_speed(fleet.speed[clients], fleet.speed, most)
        scores = scores_of[score](structure, x)
        kept = {each: choose(scores, each) for each in set(rates)}
        return [kept[each] for each in rates]

    cuts = rate > 0 or by == "speed"
    return Pruner(init, evolve, units=units if cuts else None)


def by_speed(speeds, of_all, most):
    """A list of rates by which clients of ``speeds (C,)`` need as long as the fastest ``of_all (N,)`` with its whole
    network, where FLOPs fall with the square of what is kept; at most ``most``."""
    share = torch.where(speeds.isinf(), 1.0, speeds / of_all.max())
    return (1 - share.sqrt()).clamp(0, most).tolist()
