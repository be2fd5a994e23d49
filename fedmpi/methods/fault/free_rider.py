"""Free-riders: clients send an update without training, to be paid for nothing.

    kind=zero    x_n - x = 0                   (plain free-riding of Fraboni 2021, arXiv 2006.11901)
    kind=random  x_n - x = std N(0, 1)         (random weights)
    kind=stale   x_n - x = x - x_previous      (delta weights of Lin 2019, arXiv 1911.12560)

``x_previous`` is the model received the time before, so stale sends nothing in the first round.
Only live weights move; buffers are sent back as received. The loss they report is the received
model's on their samples: they evaluate, but do not train. The recorded quality is 0. The random
kind is Gaussian; Lin's is uniform.
"""

from typing import Literal

import torch

from fedmpi.core.effect import needs
from fedmpi.core.parts import Fault, Trained
from fedmpi.methods.fault.training import drawn, non_negative, received_loss, set_update


@needs(std="kind=random")
def free_rider(share: float = 0.2, kind: Literal["zero", "random", "stale"] = "zero",
               std: float = 0.01):
    """round(share * clients) random free-riders; ``std`` is of the random kind.

    Paper: Fraboni, Vidal and Lorenzi 2021, "Free-rider Attacks on Model Aggregation in Federated
        Learning", arXiv 2006.11901; Lin, Du and Liu 2019, "Free-riders in Federated Learning:
        Attacks and Defenses", arXiv 1911.12560.
    """
    non_negative(std=std)
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    update_of = KINDS[kind]

    def local(task, train, previous):
        loss = received_loss(task)
        set_update(task, update_of(task, previous, std))
        return Trained(loss, steps=0, samples=0, travelled=0.0)

    return Fault(drawn(share), 0.0, local=local, needs_previous_model=kind == "stale")


# Three updates (R,) of a free-rider's choice, by the kind.


def _zero(task, previous, std):
    return torch.zeros_like(task.g)


def _random(task, previous, std):
    numbers = task.gen.standard_normal(task.layout.R, "float32")
    # Drawn on the CPU: the same numbers on every device.
    noise = torch.from_numpy(numbers).to(task.x.device)
    return noise.mul_(std)


def _stale(task, previous, std):
    # The first round has no model before it.
    if previous is None:
        return torch.zeros_like(task.g)
    base = task.base[: task.layout.R]
    before = previous[: task.layout.R].to(base.device)
    return base - before


KINDS = {"zero": _zero, "random": _random, "stale": _stale}
