"""Error feedback: an encoding's loss is added to the client's next update.

    total = update + feedback residual;  sent = decode(encode(total));  residual = total - sent

``feedback`` is the codec's decay, mostly 1: then, after T updates, the sum of the sent ones is the
sum of the true ones, less the last residual. Seide et al. 2014, "1-bit stochastic gradient
descent"; Karimireddy et al. 2019 (arXiv 1901.09847). A residual is (K,) float32 on a support: with
a pruned weight, its part of the residual is forgotten.
"""

import torch

from fedmpi.core.support import gathered, same, scattered


def feeding_back(codec, values, residual=None, chosen=None):
    """``(arrays, residual (K,))`` of an update ``values (K,)``.

    ``residual (K,)`` holds the losses of earlier updates. With ``chosen (K,) bool`` only these
    values travel, and the residual of all others stays as it is.
    """
    total = values
    if residual is not None:
        total = values + codec.feedback * residual
    arrays = codec.encode(total)
    sent = codec.decode(arrays, len(total))
    lost = total - sent
    if chosen is not None:
        before = torch.zeros_like(lost) if residual is None else residual
        lost = torch.where(chosen, lost, before)
    return arrays, lost


def carried(residual, before, after, P):
    """(K',) float32: ``residual (K,)`` on the support ``before (K,)``, moved to ``after (K',)``.

    0 at new positions. Both supports index a vector of length P.
    """
    if same(before, after):
        return residual
    whole = scattered(residual, before, torch.zeros(P))
    return gathered(whole, after)
