"""Leave-one-out: what the merged model loses without a client, ``phi_n = v(all) - v(all but n)`` (Wang et al.
2019).

v is minus the loss (``of=headline``: the task's headline, such as the accuracy) on the server's validation samples.
Costs C + 1 utilities a round.
Duplicated clients score about 0. Sees: labels of the server's own samples only.
"""

import torch

from fedmpi.methods.contribution.game import Of, check_of
from fedmpi.core.parts import Contribution, Scores


def loo(of: Of = "loss"):
    """Utility lost by leaving a client out.

    Paper: Wang, Dang and Zhou 2019, "Measure Contribution of Participants in Federated Learning", arXiv 1909.08525.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    """
    check_of(of)

    def score(state, cohort, utility, gen):
        C = len(cohort.clients)
        v = utility(torch.cat([torch.ones(1, C, dtype=torch.bool), ~torch.eye(C, dtype=torch.bool)]), of)
        return Scores(v[0] - v[1:])

    return Contribution(score, validated=True, sees="updates, the server's samples")
