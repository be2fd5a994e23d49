"""Feature noise: clients with a broken sensor, inputs of partly, or all but, noise.

    x + std N(0, 1) on every input value, after normalisation

The recorded quality is ``1 / (1 + std^2)``, the signal's share of the variance of inputs with
variance 1. The features kind ``gaussian`` is the same as a difference between all clients; here
it is the fault of some.
"""

from fedmpi.core.parts import Fault
from fedmpi.methods.fault.training import drawn, non_negative
from fedmpi.methods.features.images import changes_ids, noised


def feature_noise(share: float = 0.2, std: float = 1.0):
    """Gaussian noise of deviation ``std`` on the inputs of round(share * clients) random clients.

    Paper: Li et al. 2022, "Federated Learning on Non-IID Data Silos: An Experimental Study",
        arXiv 2102.02079, there as a difference between all clients.
    """
    non_negative(std=std)
    signal_share = 1.0 / (1.0 + std * std)

    def inputs(inputs, gen):
        return noised(inputs, std, gen)

    return Fault(drawn(share), signal_share, inputs=inputs, refuses=changes_ids)
