"""FedDST: clients move their own masks while they train, the server averages each weight over its holders and prunes
back to the budget (arXiv 2112.09824).

``x_j <- sum_n n_n x_nj / sum_n n_n`` over the clients that hold j, 0 where none does. The masks' moves are in
``fedmpi.pruning.feddst``, used unless another pruner is named. ``mu > 0`` is the paper's FedProx variant; the
gradient that steers growth never sees the pull. Wire: the kept values, both ways, and the changed positions.
"""

from fedmpi.local import sgd
from fedmpi.merge import average
from fedmpi.parts import Strategy


def feddst(mu: float = 0.0, momentum: float = 0.9, weight_decay: float = 1e-3):
    """FedAvg or FedProx with masks that clients adjust."""

    if mu < 0:
        raise ValueError(f"mu must be >= 0, got {mu}")

    def local(task):
        base = task.base[: task.layout.R]
        pull = (lambda x, g: g.add_(x, alpha=mu).sub_(base, alpha=mu)) if mu else None
        return sgd(task, momentum, weight_decay, correct=pull)

    return Strategy(lambda layout: {}, local, average, pruner="feddst", linear=True,
                    sgd={"momentum": momentum, "weight_decay": weight_decay, "mu": mu})
