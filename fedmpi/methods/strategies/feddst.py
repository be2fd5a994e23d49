"""FedDST: clients move their own masks while they train (arXiv 2112.09824).

    x_j <- sum_n n_n x_nj / sum_n n_n       over the clients n that hold weight j; 0 without any

The server then prunes the mean back to the budget. ``fedmpi.methods.pruning.feddst`` moves the
masks, and is used unless another pruner is named. ``mu > 0`` is the paper's FedProx variant. The
gradient by which weights grow is that of the plain loss, without the pull of ``mu``.
"""

from fedmpi.core.reduce import average
from fedmpi.core.parts import Descent, Strategy
from fedmpi.methods.strategies.fedavg import stateless
from fedmpi.methods.strategies.fedprox import no_pull


def feddst(mu: float = 0.0):
    """FedAvg or FedProx with masks that clients adjust.

    Paper: Bibikar et al. 2022, "Federated Dynamic Sparse Training: Computing Less, Communicating
        Less, Yet Learning Better", arXiv 2112.09824.
    Up: the kept values of the update, as FedAvg, and the positions that a client's own mask has
        changed.
    Down: the kept values of the model, as FedAvg, and the changes of the mask.
    Example: fedmpi train --strategy feddst --pruner feddst:sparsity=0.9
    """
    if mu < 0:
        raise ValueError(f"mu must be >= 0, got {mu}")

    def notes(facts):
        yield from no_pull(mu, facts)
        if not facts.pruned_apart:
            usual = "FedProx" if mu else "FedAvg"
            yield (f"its method is its pruner: with {facts.named['pruner']} this is {usual}; take "
                   "--pruner feddst")

    return Strategy(
        stateless,
        average,
        Descent(mu=mu),
        pruner="feddst",
        # Not additive: clients' masks differ.
        linear=True,
        notes=notes,
    )
