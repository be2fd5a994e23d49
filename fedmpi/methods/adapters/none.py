"""No adapters: the whole model is trained."""

from fedmpi.core.parts import Adapters


def none():
    """No adapters: every parameter of the model is trained.

    Paper: none: nothing is added, the usual training.
    Up: nothing of its own.
    Down: nothing of its own.
    Example: fedmpi train --adapters none
    """
    return Adapters()
