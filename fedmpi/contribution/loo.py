"""Leave-one-out: what the merged model loses without a client, ``phi_n = v(all) - v(all but n)`` (methods 5.1).

v is minus the loss on the server's validation data, so it sees labels of the server's own samples only. Costs C + 1
utilities a round. Duplicated clients score about 0. Weights: ``size^p * s^q``, s the running mean of ``max(phi, 0)``.
"""

import torch

from fedmpi.parts import Contribution
from fedmpi.weighting import clean


def loo(memory: float = 0.9, size_power: float = 1.0, score_power: float = 1.0, floor: float = 1e-3):
    """Loss gained by leaving a client out."""

    def score(state, cohort, utility, gen):
        C = len(cohort.clients)
        without = ~torch.eye(C, dtype=torch.bool)
        v = utility(torch.cat([torch.ones(1, C, dtype=torch.bool), without]))
        return v[0] - v[1:]

    init, weigh = clean(memory, size_power, score_power, floor)
    return Contribution(init, score, weigh, validated=True)
