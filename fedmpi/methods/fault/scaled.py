"""Scaled updates: clients train honestly, then multiply their update by ``factor``.

    x_n - x = factor (trained - x)

This is the scaling of model replacement (Bagdasaryan 2020, arXiv 1807.00459). Replacing the
model takes factor = clients / server rate. The data are as good as anyone's, but the update is
not: the recorded quality is ``min(factor, 1 / factor)``. Buffers are not scaled, nor is the
loss.
"""

from fedmpi.core.parts import Fault
from fedmpi.methods.fault.training import drawn, non_negative, stretched


def scaled(share: float = 0.2, factor: float = 10.0):
    """round(share * clients) random clients whose updates are ``factor`` times too long.

    Paper: Bagdasaryan et al. 2020, "How To Backdoor Federated Learning", arXiv 1807.00459.
    """
    non_negative(factor=factor)

    def local(task, train, previous):
        return stretched(task, train, factor)

    # A factor of 0 sends nothing.
    quality = 0.0
    if factor:
        quality = min(factor, 1.0 / factor)
    return Fault(drawn(share), quality, local=local)
