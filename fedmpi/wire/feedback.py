"""Error feedback: an encoding's loss is added to the client's next update.

    total = update + feedback memory;  sent = decode(encode(total));  memory = total - sent

``feedback`` is the codec's decay, mostly 1: then, after T updates, the sum of the sent ones is the sum of the true
ones, less the last memory. Seide et al. 2014, "1-bit stochastic gradient descent"; Karimireddy et al. 2019 (arXiv
1901.09847). A memory is (K,) float32 on a support: with a pruned weight, its part of the memory is forgotten.
"""

import torch


def feeding_back(codec, values, memory=None):
    """``(arrays, memory (K,))`` of an update ``values (K,)``; ``memory (K,)`` holds the losses of earlier updates."""
    total = values
    if memory is not None:
        total = values + codec.feedback * memory
    arrays = codec.encode(total)
    sent = codec.decode(arrays, len(total))
    return arrays, total - sent


def carried(memory, before, after, P):
    """(K',) float32: ``memory (K,)`` on the support ``before (K,)``, moved to the support ``after (K',)``; 0 at new
    positions. Both supports index a vector of length P."""
    if before is after or torch.equal(before, after):
        return memory
    whole = torch.zeros(P)
    whole[before] = memory
    return whole.index_select(0, after)
