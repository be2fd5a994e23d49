"""FedPer and FedBN: a part of the model stays with each client, all else is averaged.

    shared part      x <- x + sum_n w_n (x_n - x)           as FedAvg does
    personal part    stays as client n trained it           FedPer: last layers; FedBN: batch norms

The personal part is trained together with the rest, and neither travels nor is merged. In the
server's model these tensors stay as the factory made them, so its accuracy on the test set says
little: look at the clients' own accuracy, ``--client-test``. Without a personal tensor both are
FedAvg to the bit.
"""

from fedmpi.core.parts import Strategy
from fedmpi.core.reduce import average
from fedmpi.methods.strategies.fedavg import stateless


def fedper(head: int = 1):
    """FedAvg of all but the last layers, of which each client keeps its own.

    ``head`` is how many layers with weights stay, counted from the model's end.

    Paper: Arivazhagan et al. 2019, "Federated Learning with Personalization Layers", arXiv
        1912.00818.
    Up: the kept values of the update without the head.
    Down: the kept values of the model without the head.
    Example: fedmpi train --strategy fedper --model small-cnn --partition classes --client-test 0.2
    """
    if head < 0:
        raise ValueError(f"head must be >= 0 layers, got {head}")

    def personal(layout):
        return last_layers(layout, head)

    def notes(facts):
        if not head:
            yield "head=0 leaves nothing personal: this is FedAvg"

    return Strategy(
        stateless,
        average,
        linear=True,
        additive=True,
        in_pieces=True,
        by_entry=True,
        # Without a head this is FedAvg, also in its messages.
        personal=personal if head else None,
        notes=notes,
    )


def fedbn():
    """FedAvg of all but batch norms, of which each client keeps its own.

    Paper: Li et al. 2021, "FedBN: Federated Learning on Non-IID Features via Local Batch
        Normalization", arXiv 2102.07623.
    Up: the kept values of the update without batch norms.
    Down: the kept values of the model without batch norms.
    Example: fedmpi train --strategy fedbn --model pfl-cnn --features restyle --client-test 0.2
    """

    def notes(facts):
        if not facts.layout.personal:
            yield "the model has no batch norm with running statistics, so that this is FedAvg"

    return Strategy(
        stateless,
        average,
        linear=True,
        additive=True,
        in_pieces=True,
        by_entry=True,
        personal=batch_norms,
        notes=notes,
    )


def last_layers(layout, head):
    """The names of the tensors of the last ``head`` layers; ValueError where none would be left."""
    modules = [module_of(slot.name) for slot in layout.weights]
    # Each once, in the model's order.
    layers = list(dict.fromkeys(modules))
    if head >= len(layers):
        raise ValueError(f"head={head} of a model of {len(layers)} layers with weights would leave "
                         "nothing to average")
    first = len(layers) - head
    return of_modules(layout, layers[first:])


def batch_norms(layout):
    """The names of the tensors of all modules with running statistics."""
    # A norm's name need not say that it is one, but its buffers do.
    statistics = ("running_mean", "running_var")
    buffers = [slot.name for slot in layout.buffers]
    norms = {module_of(name) for name in buffers if name.endswith(statistics)}
    return of_modules(layout, norms)


def module_of(name):
    """The module that holds a tensor, by the tensor's name."""
    return name.rpartition(".")[0]


def of_modules(layout, modules):
    """The names of all tensors that these modules hold."""
    names = [slot.name for slot in layout.slots]
    return [name for name in names if module_of(name) in modules]
