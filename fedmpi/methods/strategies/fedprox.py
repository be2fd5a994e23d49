"""FedProx: a client's loss pulls it back to the model that it received (arXiv 1812.06127).

    client n minimises  F_n(x) + mu/2 |x - x_t|^2;      the server averages as FedAvg does

On a sparse model the pull acts on kept weights only. Every client does the same epochs (no
stragglers here), so the paper's inexactness plays no part.
"""

from fedmpi.core.reduce import average
from fedmpi.core.parts import Descent, Strategy
from fedmpi.methods.strategies.fedavg import stateless


def fedprox(mu: float = 0.01):
    """FedAvg with a pull towards the received model during local training.

    Paper: Li et al. 2020, "Federated Optimization in Heterogeneous Networks", arXiv 1812.06127.
    Up: the kept values of the update, as FedAvg.
    Down: the kept values of the model, as FedAvg.
    Example: fedmpi train --strategy fedprox:mu=0.1
    """
    if mu < 0:
        raise ValueError(f"mu must be >= 0, got {mu}")

    def notes(facts):
        return no_pull(mu, facts)

    return Strategy(
        stateless,
        average,
        Descent(mu=mu),
        linear=True,
        additive=True,
        in_pieces=True,
        by_entry=True,
        notes=notes,
    )


def no_pull(mu, facts):
    """A line for the user where the pull ``mu`` towards the received model never acts."""
    if mu and facts.steps == 1:
        yield f"no effect of mu={mu}: clients take one step a round, from where the pull is 0"
