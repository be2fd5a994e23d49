"""FedPer and FedBN: a part of the model stays with each client, all else is averaged as FedAvg does.

What stays is trained together with the rest, and neither travels nor is merged. The server's model has these tensors as
the factory made them, so that its accuracy on the test set says little: what counts is the clients' own accuracy,
``--client-test``. Where no tensor stays, both are FedAvg to the bit.
"""

from fedmpi.core.parts import Strategy
from fedmpi.core.reduce import average


def fedper(head: int = 1):
    """FedAvg of all but the last layers, of which each client keeps its own.

    ``head`` is how many layers with weights stay, counted from the model's end.

    Paper: Arivazhagan et al. 2019, "Federated Learning with Personalization Layers", arXiv 1912.00818.
    Up: the kept values of the update without the head.
    Down: the kept values of the model without the head.
    Example: fedmpi train --strategy fedper --model small-cnn --partition classes --client-test 0.2
    """
    if head < 0:
        raise ValueError(f"head must be >= 0 layers, got {head}")

    def personal(layout):
        modules = list(dict.fromkeys(module_of(slot.name) for slot in layout.weights))
        if head >= len(modules):
            raise ValueError(f"head={head} of a model of {len(modules)} layers with weights would leave nothing to "
                             "average")
        return of_modules(layout, modules[len(modules) - head:])

    return Strategy(lambda layout: {}, average, linear=True, additive=True, by_entry=True,
                    personal=personal if head else None)


def fedbn():
    """FedAvg of all but batch norms, of which each client keeps its own.

    Paper: Li et al. 2021, "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization", arXiv
        2102.07623.
    Up: the kept values of the update without batch norms.
    Down: the kept values of the model without batch norms.
    Example: fedmpi train --strategy fedbn --model pfl-cnn --features restyle --client-test 0.2
    """

    def personal(layout):
        # By their running statistics: a norm's name need not say what it is.
        norms = {module_of(slot.name) for slot in layout.buffers if slot.name.endswith(("running_mean", "running_var"))}
        return of_modules(layout, norms)

    def notes(facts):
        if not facts.layout.personal:
            yield "the model has no batch norm with running statistics, so that this is FedAvg"

    return Strategy(lambda layout: {}, average, linear=True, additive=True, by_entry=True, personal=personal,
                    notes=notes)


def module_of(name):
    """The module that holds a tensor, by the tensor's name."""
    return name.rpartition(".")[0]


def of_modules(layout, modules):
    """The names of all tensors that these modules hold."""
    slots = layout.weights + layout.others + layout.buffers
    return [slot.name for slot in slots if module_of(slot.name) in modules]
