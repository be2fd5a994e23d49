"""Shared by the kinds of devices: units, availability in a slot of time, checks of options.

The keys of ``draw`` are part of a run's identity: ``draw(0)`` is for the properties that a
device keeps for good, ``draw(1, slot)`` for availability in a slot of time, ``draw(2)`` for the
beginning of a client's day.
"""

import math

import torch

from fedmpi.core.parts import Fleet

GFLOPS = 1e9                # FLOP/s
MBIT = 1e6 / 8              # B/s
MILLISECOND = 1e-3          # s


def fleet(N, *, gflops, down_mbit, up_mbit, latency_ms, dropout, available):
    """The ``Fleet`` of these values in an option's units, each a number or (N,)."""

    def column(value, unit=1.0, dtype=torch.float64):
        values = torch.as_tensor(value, dtype=dtype) * unit
        return values.to(dtype).expand(N).clone()

    return Fleet(
        column(gflops, GFLOPS),
        column(down_mbit, MBIT),
        column(up_mbit, MBIT),
        column(latency_ms, MILLISECOND),
        column(dropout),
        column(available, True, torch.bool),
    )


def present(seconds, N, draw, availability, slot_s):
    """(N,) bool: the clients available in the slot of ``slot_s`` seconds around ``seconds``.

    Each client is with probability ``availability``; slots and clients are independent.
    """
    slot = int(seconds // slot_s)
    luck = draw(1, slot).random(N)
    return torch.from_numpy(luck < availability)


def check(*, positive=(), rates=(), shares=(), spreads=()):
    """Raise ``ValueError`` for the first of the ``(name, value)`` pairs that is out of range.

    ``positive`` finite and > 0, ``rates`` positive or infinite, ``shares`` in [0, 1],
    ``spreads`` finite and >= 0.
    """
    for name, value in positive:
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be > 0 and finite, got {value}")
    for name, value in rates:
        if not value > 0:
            raise ValueError(f"{name} must be > 0 (inf: takes no time), got {value}")
    for name, value in shares:
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")
    for name, value in spreads:
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be >= 0 and finite, got {value}")


def check_common(gflops, down_mbit, up_mbit, latency_ms, dropout, availability, slot_s):
    """The checks of the options that constant, drawn and tiers have in common."""
    check(
        rates=(("gflops", gflops), ("down_mbit", down_mbit), ("up_mbit", up_mbit)),
        spreads=(("latency_ms", latency_ms),),
        shares=(("dropout", dropout),),
        positive=(("slot_s", slot_s),),
    )
    if dropout == 1:
        raise ValueError("dropout must be below 1, got 1.0: nobody would ever answer")
    if not 0 < availability <= 1:
        raise ValueError(f"availability must be in (0, 1], got {availability}")
    # 3600 is the default: another length was given by the user.
    if availability == 1 and slot_s != 3600:
        raise ValueError(f"slot_s={slot_s:g} is of no use where everybody is always there: give "
                         "an availability below 1")
