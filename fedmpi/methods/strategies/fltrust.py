"""FLTrust: the server trains on a few samples of its own, and trusts a client as far as its update points the same way
(Cao et al., NDSS 2021, arXiv 2012.13995).

``x <- x + sum_n v_n (|g_0| / |U_n|) U_n / sum_n v_n`` with ``v_n = w_n max(cos(U_n, g_0), 0)``, g_0 the update that the
server's own samples give: those of ``--server-data``, on which the server trains while the clients do. No client can
move the model further than the server would, none against it; where nobody is trusted the model does not move. Weights
multiply trust (the paper has none: uniform).

Under masks of the clients' own a client is compared with g_0, and given its length, on the entries that it holds, and
the mean is over the holders of an entry; what nobody holds does not move. Running statistics are averaged with the
weights v, not rescaled, and have no part in cosines and lengths. Cost: two passes over the updates.
"""

import torch

from fedmpi.core.errors import UserError
from fedmpi.core.reduce import mean, moved
from fedmpi.core.parts import Strategy, Training
from fedmpi.methods.strategies.krum import trained_blocks

TINY = 1e-20                                 # an update shorter than this has no direction


def fltrust():
    """Trust by the cosine with an update of the server's own samples.

    Paper: Cao et al. 2021, "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping", arXiv 2012.13995.
    Up: the kept values of the update, as FedAvg, one by one: workers may not add them up.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy fltrust --server-data 100 --fault label-flip:share=0.2
    """

    def merge(state, x, updates, weights):
        if updates.root is None:
            raise UserError("fltrust needs samples of the server's own; give --server-data 100, say")
        trust, scale = trusted(updates)
        v = weights * trust
        if not v.sum() > 0:
            return state, x
        U = updates.U.clone()
        U[:, : updates.trained] *= scale.float()[:, None]
        return state, moved(x, updates.support, mean(updates._replace(U=U), v / v.sum()))

    def before(state, x, mask):
        return Training(x, mask)

    return Strategy(lambda layout: {}, merge, contribution="uniform", server_data="labelled", before=before)


def trusted(updates):
    """``(trust, scale)``, float64 (C,) each: the cosine with the server's update where positive, else 0, and what takes
    an update to the length of the server's; over the trained entries that a client holds."""
    dots, own, root = torch.zeros(3, len(updates.U), dtype=torch.float64)
    for columns, u, b in trained_blocks(updates):
        g = updates.root[columns].double()
        dots += u @ g
        own += u.square().sum(dim=1)
        root += g @ g if b is None else b @ g.square()
    own, root = own.sqrt(), root.sqrt()
    points = (own > TINY) & (root > TINY)
    trust = torch.where(points, dots / (own * root).clamp(min=TINY ** 2), 0.0).clamp(0, 1)
    return trust, torch.where(points, root / own.clamp(min=TINY), 0.0)
