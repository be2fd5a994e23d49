"""Local training by SGD with the options of a test."""

from fedmpi.compute.sgd import descend
from fedmpi.core.parts import Descent
from fedmpi.methods.optimisers.sgd import sgd as factory


def ruled(task, momentum=0.0, weight_decay=0.0, **descent):
    """``(task, Descent)``: the task with SGD by these options; all others are of the Descent."""
    return task._replace(optimiser=factory(momentum, weight_decay)), Descent(**descent)


def sgd(task, **options):
    """The mean loss of a task's training by SGD, ``options`` as for ``ruled``."""
    return descend(*ruled(task, **options)).loss
