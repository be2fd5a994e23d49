"""Laws of virtual time: devices, samplers and timing."""

import math

import numpy as np
import torch

from fedmpi import catalog
from fedmpi.core.parts import Known
from fedmpi.core.rng import stream
from fedmpi.laws.hold import hold
from fedmpi.plugins.spec import make

MOMENTS = (0.0, 1.0, 3599.9, 3600.0, 1e5, 1e9)
PURPOSE = 99     # of the generators that devices are tried with
AWAY = 2         # a client that is not there


def devices(spec):
    """Shapes, types and ranges at any moment; the same arguments give the same fleet, in any
    order of calls."""
    part = make(catalog.DEVICES, spec)
    for N in (1, 3, 50):
        first = [part.at(seconds, N, _draw) for seconds in MOMENTS]
        again = [part.at(seconds, N, _draw) for seconds in reversed(MOMENTS)][::-1]
        for fleet, twin in zip(first, again):
            _check_fleet(fleet, N)
            same = all(torch.equal(one, other) for one, other in zip(fleet, twin))
            hold(same, "the same moment has two fleets")


def _draw(*key):
    return stream(7, PURPOSE, *key)


def _check_fleet(fleet, N):
    for name in fleet._fields:
        column = getattr(fleet, name)
        dtype = torch.bool if name == "available" else torch.float64
        hold(column.shape == (N,) and column.dtype == dtype, f"{name} is not (N,) {dtype}")
    for name in ("speed", "down", "up"):
        hold(bool((getattr(fleet, name) > 0).all()), f"{name} must be > 0")
    hold(bool((fleet.latency >= 0).all()), "latency must be >= 0")
    hold(bool(((fleet.dropout >= 0) & (fleet.dropout <= 1)).all()), "dropout must be in [0, 1]")


def sampler(spec):
    """Distinct available clients, as many as are asked for, by the generator alone, whatever is
    known."""
    part = make(catalog.SAMPLERS, spec)
    for known in _known():
        for count in (1, 3, 6, 9):
            drawn, again = (part.draw(np.random.default_rng(1), count, known) for _ in range(2))
            there = int(known.available.sum())
            hold(drawn.dtype == torch.int64, f"clients are {drawn.dtype}, not int64")
            hold(len(drawn) == min(count, there), f"{len(drawn)} of {there} clients, not {count}")
            hold(len(drawn.unique()) == len(drawn), "a client was drawn twice")
            hold(bool(known.available[drawn].all()), "a client was drawn that is not available")
            hold(torch.equal(drawn, again), "the same generator drew others")


def _known():
    """What a server knows at the start, of some of six clients, and of all."""
    available = torch.ones(6, dtype=torch.bool)
    available[AWAY] = False
    sizes = torch.arange(1, 7, dtype=torch.float64)
    nothing = torch.full((6,), math.nan, dtype=torch.float64)
    some = torch.where(sizes > 3, sizes, math.nan)
    for what in (nothing, some, sizes):
        yield Known(available, sizes, torch.ones(6, dtype=torch.float64), what)


def aggregation(spec):
    """Times >= 0, and a finite discount of every staleness where there is a buffer."""
    part = make(catalog.AGGREGATIONS, spec)
    hold(part.deadline >= 0 and part.over >= 0, "deadline and over must be >= 0")
    if part.buffer:
        staleness = torch.tensor([0.0, 1.0, 2.0, 50.0], dtype=torch.float64)
        factors = part.discount(staleness)
        hold(factors.shape == staleness.shape, "the discount is not one number an answer")
        hold(bool((factors.isfinite() & (factors >= 0)).all()), f"discounts {factors}")
