"""Size: clients are drawn one after the other, in proportion to their samples.

    P(next = n) = n_n / sum of n over the available clients not drawn yet

``fedmpi.methods.sampler.race`` says what this means for a cohort of several. A client drawn by
size and weighted by size counts twice: ``--weighting uniform`` goes with it. That is still not
FedAvg's mean over all clients: a cohort has distinct clients here, and large ones are drawn
less often than in proportion.
"""

from fedmpi.core.parts import Sampler
from fedmpi.methods.sampler.race import drawn_by, available_clients


def size():
    """In proportion to the number of samples.

    Paper: Li et al. 2020, "Federated Optimization in Heterogeneous Networks", arXiv 1812.06127.
    Up: nothing more: the server knows the number of samples.
    Down: nothing more.
    Example: fedmpi train --sampler size --weighting uniform --cohort 4
    """

    def draw(gen, count, records):
        clients = available_clients(records)
        # Nothing to choose: nothing is drawn either.
        if count >= len(clients):
            return clients
        return drawn_by(records.sizes[clients], clients, count, gen)

    return Sampler(draw)
