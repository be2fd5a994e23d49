"""FLTrust: the server trusts a client as far as its update points like one of the server's own.

    v_n = w_n max(cos(U_n, g_0), 0)         x <- x + sum_n v_n (|g_0| / |U_n|) U_n / sum_n v_n

g_0 is the update that the server's own samples give, the samples of ``--server-data``: the server
trains on them while the clients train (Cao et al., NDSS 2021, arXiv 2012.13995). No client can
move the model further than the server would, none against it; without any trust the model does not
move. Weights w multiply trust (the paper has none: uniform).

Under masks of the clients' own a client is compared with g_0, and given its length, on the entries
that it holds, and the mean is over the holders of an entry; without a holder it does not move.
Running statistics are averaged with the weights v, not rescaled, and have no part in cosines and
lengths. Cost: two passes over the updates.
"""

import torch

from fedmpi.core.errors import UserError
from fedmpi.core.reduce import mean, moved
from fedmpi.core.parts import Strategy, Training
from fedmpi.methods.strategies.fedavg import stateless
from fedmpi.methods.strategies.krum import trained_blocks

# An update shorter than this has no direction.
TINY = 1e-20


def fltrust():
    """Trust by the cosine with an update of the server's own samples.

    Paper: Cao et al. 2021, "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping",
        arXiv 2012.13995.
    Up: the kept values of the update, as FedAvg, one by one: workers may not add them up.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy fltrust --server-data 100 --fault label-flip:share=0.2
    """
    return Strategy(
        stateless,
        merge,
        # The rule itself mistrusts: no scores unless somebody asks for them.
        contribution="uniform",
        server_data="labelled",
        before=before,
    )


def before(state, x, mask):
    """The server's own training, from the model that clients train."""
    return Training(x, mask)


def merge(state, x, updates, weights):
    """The state as it is, and ``x (P,)`` moved by the trusted mean."""
    if updates.server_update is None:
        raise UserError("fltrust needs samples of the server's own; give --server-data 100, say")
    trust, scale = trusted(updates)
    v = weights * trust
    if not v.sum() > 0:
        return state, x
    U = updates.U.clone()
    # Buffers keep their size.
    trained = U[:, : updates.trained]
    trained *= scale.float()[:, None]
    rescaled = updates._replace(U=U)
    step = mean(rescaled, v / v.sum())
    return state, moved(x, updates.support, step)


def trusted(updates):
    """``(trust, scale)``, float64 (C,) each, over the trained entries that a client holds.

    Trust is the cosine with the server's update, 0 where it is negative. Updates times their scale
    have the length of the server's."""
    dots, length, server_length = _against_server(updates)
    points = (length > TINY) & (server_length > TINY)
    both = (length * server_length).clamp(min=TINY ** 2)
    trust = torch.where(points, dots / both, 0.0)
    # Rounding may take a cosine above 1.
    trust = trust.clamp(0, 1)
    ratio = server_length / length.clamp(min=TINY)
    scale = torch.where(points, ratio, 0.0)
    return trust, scale


def _against_server(updates):
    """``(dots, lengths, server_lengths)``, float64 (C,) each.

    The inner products of updates and the server's update, and the lengths of both, over the
    entries that each client holds."""
    C = len(updates.U)
    dots, squares, server_squares = torch.zeros(3, C, dtype=torch.float64)
    for columns, u, b in trained_blocks(updates):
        g = updates.server_update[columns].double()
        dots += u @ g
        squares += u.square().sum(dim=1)
        if b is None:
            server_squares += g @ g
        else:
            server_squares += b @ g.square()
    return dots, squares.sqrt(), server_squares.sqrt()
