"""Feedback of the error: what encoding an update loses is added to the client's next one.

    total = update + memory;  sent = decode(encode(total));  memory = total - sent

so that after T updates what was sent adds up to what was meant, but for the last memory. Seide et al. 2014, "1-bit
stochastic gradient descent"; Karimireddy et al. 2019 (arXiv 1901.09847). A memory is (K,) float32 on a support: where a
weight is pruned, what was still owed to it is forgotten.
"""

import torch


def feeding_back(codec, values, memory=None):
    """``(arrays, memory (K,))`` of an update ``values (K,)``; ``memory (K,)`` is what earlier ones have lost."""
    total = values if memory is None else values + memory
    arrays = codec.encode(total)
    return arrays, total - codec.decode(arrays, len(total))


def carried(memory, before, after, P):
    """(K',) float32: a ``memory (K,)`` on the support ``before (K,)`` as it is on ``after (K',)``: 0 where that is new.
    P is the length of the vector that both point into."""
    if before is after or torch.equal(before, after):
        return memory
    whole = torch.zeros(P)
    whole[before] = memory
    return whole.index_select(0, after)
