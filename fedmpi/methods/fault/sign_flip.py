"""Sign flipping: Byzantine clients train honestly and send the opposite.

    x_n - x = -scale (trained - x)        (Li 2019, RSA, arXiv 1811.03761)

The recorded quality is 0. Buffers are not flipped, nor is the loss.
"""

from fedmpi.core.parts import Fault
from fedmpi.methods.fault.training import drawn, non_negative, stretched


def sign_flip(share: float = 0.2, scale: float = 1.0):
    """round(share * clients) random clients whose updates are multiplied by ``-scale``.

    Paper: Li et al. 2019, "RSA: Byzantine-Robust Stochastic Aggregation Methods for Distributed
        Learning from Heterogeneous Datasets", arXiv 1811.03761.
    """
    non_negative(scale=scale)

    def local(task, train, previous):
        return stretched(task, train, -scale)

    return Fault(drawn(share), 0.0, local=local)
