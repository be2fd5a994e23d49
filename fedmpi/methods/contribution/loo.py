"""Leave-one-out: the loss of the merged model without a client (Wang et al. 2019).

    phi_n = v(all) - v(all but n)

v is minus the loss (``of=headline``: the task's headline, such as the accuracy) on the server's
validation samples. Costs C + 1 utilities a round. Duplicated clients score about 0. Sees: labels
of the server's own samples only.
"""

import torch

from fedmpi.methods.contribution.game import Of, SEES, check_of
from fedmpi.core.parts import Contribution, Scores


def loo(of: Of = "loss"):
    """Utility lost by leaving a client out.

    Paper: Wang, Dang and Zhou 2019, "Measure Contribution of Participants in Federated Learning",
        arXiv 1909.08525.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    """
    check_of(of)

    def score(state, cohort, utility, gen):
        """The cohort's losses of utility, float64 (C,)."""
        C = len(cohort.clients)
        everybody = torch.ones(1, C, dtype=torch.bool)
        without_one = ~torch.eye(C, dtype=torch.bool)
        coalitions = torch.cat([everybody, without_one])
        v = utility(coalitions, of)
        return Scores(v[0] - v[1:])

    return Contribution(
        score,
        validated=True,
        sees=SEES,
    )
