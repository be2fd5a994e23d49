"""A client's own values of the model, if only a part of it travels in a round.

    own         the client's model, as its last round left it
    received    the last value of each weight that the server has sent
    base        received, with the part of this round;    update = trained - base

Both are the client's state, on the support, and are not billed. Before a client's first round both
are the first model, which follows from the run's seed.
"""

from typing import NamedTuple

import torch

from fedmpi.core.parts import Field
from fedmpi.core.support import gathered, scattered

# Names in a client's state.
OWN_VALUES = "_own_values"
LAST_RECEIVED = "_last_received"


class OwnValues(NamedTuple):
    """A client's vectors before its training, on the device."""

    x: torch.Tensor               # (P,) its own values
    base: torch.Tensor            # (P,) of each weight the last received value
    came: torch.Tensor            # (P,) bool: the values received in this round


def state_fields(strategy):
    """``{name: Field}`` of the values that clients keep; none if the whole model travels."""
    if strategy.travels is None:
        return {}
    return {OWN_VALUES: Field(), LAST_RECEIVED: Field()}


def own_values(home, strategy, received, t, kept):
    """The ``OwnValues`` of a client in round ``t``, taken out of the client's state ``kept``.

    ``received`` is the model message, 0 where nothing came.
    """
    part = strategy.travels(home.layout, t)
    came = part.down.to(home.device)
    own = kept.pop(OWN_VALUES, None)
    x = _on_device(home, received, own)
    last = kept.pop(LAST_RECEIVED, None)
    last = _on_device(home, received, last)
    base = torch.where(came, received.base, last)
    return OwnValues(x, base, came)


def _on_device(home, received, values):
    """(P,) on the device, 0 off the support: ``values (K,)``, or the first model's if None."""
    support = received.support
    if values is None:
        values = gathered(home.initial, support)
    zeros = torch.zeros(home.layout.P)
    whole = scattered(values, support, zeros)
    return whole.to(home.device)


def state_after(strategy, task, support):
    """``{name: tensor (K,)}``: the state after the training of ``task``, on the ``support (K,)``."""
    if strategy.travels is None:
        return {}
    support = support.to(task.x.device)
    own = gathered(task.x, support)
    last = gathered(task.base, support)
    # Copy: the next client trains in the same vector.
    return {OWN_VALUES: own.clone(), LAST_RECEIVED: last.clone()}
