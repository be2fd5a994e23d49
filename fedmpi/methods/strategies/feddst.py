"""FedDST: clients move their own masks while they train, the server averages each weight over its holders and prunes
back to the budget (arXiv 2112.09824).

``x_j <- sum_n n_n x_nj / sum_n n_n`` over the clients that hold j, 0 where none does. The masks' moves are in
``fedmpi.methods.pruning.feddst``, used unless another pruner is named. ``mu > 0`` is the paper's FedProx variant; the
gradient that steers growth never sees the pull.
"""

from fedmpi.core.reduce import average
from fedmpi.core.parts import Descent, Strategy
from fedmpi.methods.strategies.fedprox import no_pull


def feddst(mu: float = 0.0):
    """FedAvg or FedProx with masks that clients adjust.

    Paper: Bibikar et al. 2022, "Federated Dynamic Sparse Training: Computing Less, Communicating Less, Yet Learning
        Better", arXiv 2112.09824.
    Up: the kept values of the update, as FedAvg, and the positions that a client's own mask has changed.
    Down: the kept values of the model, as FedAvg, and the changes of the mask.
    Example: fedmpi train --strategy feddst --pruner feddst:sparsity=0.9
    """

    if mu < 0:
        raise ValueError(f"mu must be >= 0, got {mu}")

    return Strategy(lambda layout: {}, average, Descent(mu=mu), pruner="feddst", linear=True,
                    notes=lambda facts: no_pull(mu, facts))
