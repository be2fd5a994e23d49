"""PruneFL: FedAvg on a model whose mask follows the gradients that clients report.

The method (arXiv 1909.12326) is its pruner, ``fedmpi.methods.pruning.prunefl``, used unless
another is named. The merge is FedAvg's.
"""

from fedmpi.core.reduce import average
from fedmpi.core.parts import Strategy
from fedmpi.methods.strategies.fedavg import stateless


def prunefl():
    """FedAvg with PruneFL's adaptive pruning.

    Paper: Jiang et al. 2023, "Model Pruning Enables Efficient Federated Learning on Edge Devices",
        arXiv 1909.12326.
    Up: the kept values of the update, as FedAvg; what its pruner adds is in fedmpi list pruner
        prunefl.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy prunefl --pruner prunefl:every=10
    """
    return Strategy(
        stateless,
        average,
        pruner="prunefl",
        linear=True,
        additive=True,
        in_pieces=True,
        notes=notes,
    )


def notes(facts):
    """A line for the user where no client reports gradients to the pruner."""
    if not facts.pruner_reports:
        yield (f"its method is its pruner: with {facts.named['pruner']} this is FedAvg; take "
               "--pruner prunefl")
