"""Laws of virtual time: devices, samplers and timing."""

import math

import numpy as np
import torch

from fedmpi import catalog
from fedmpi.core.parts import ClientRecords
from fedmpi.core.rng import stream
from fedmpi.laws.hold import hold, hold_all, hold_equal, hold_type, twice
from fedmpi.plugins.spec import make

# Seconds of virtual time.
MOMENTS = (0.0, 1.0, 3599.9, 3600.0, 1e5, 1e9)
# Of the generators for devices in tests.
PURPOSE = 99
CLIENTS = 6
# A client out of reach.
AWAY = 2


def devices(spec):
    """Shapes, types and ranges at any moment; the same fleet for the same arguments.

    The order of the calls does not matter.
    """
    part = make(catalog.DEVICES, spec)
    for N in (1, 3, 50):
        forwards = _fleets(part, MOMENTS, N)
        # A device that counted its calls would differ.
        backwards = _fleets(part, MOMENTS[::-1], N)
        for seconds, fleet in forwards.items():
            _check_fleet(fleet, N)
            again = backwards[seconds]
            for one, other in zip(fleet, again):
                hold_equal(one, other, "the same moment has two fleets")


def _fleets(part, moments, N):
    """``{seconds: the fleet of N devices at this moment}``, asked in this order."""
    return {seconds: part.at(seconds, N, _draw) for seconds in moments}


def _draw(*key):
    return stream(7, PURPOSE, *key)


def _check_fleet(fleet, N):
    for name in fleet._fields:
        column = getattr(fleet, name)
        dtype = torch.float64
        if name == "available":
            dtype = torch.bool
        hold_type(column, (N,), dtype, f"{name} is not (N,) {dtype}")
    for name in ("speed", "down", "up"):
        column = getattr(fleet, name)
        hold_all(column > 0, f"{name} must be > 0")
    hold_all(fleet.latency >= 0, "latency must be >= 0")
    is_share = (fleet.dropout >= 0) & (fleet.dropout <= 1)
    hold_all(is_share, "dropout must be in [0, 1]")


def sampler(spec):
    """Distinct available clients, as many as are asked for, by the generator alone.

    With any knowledge of the server about them.
    """
    part = make(catalog.SAMPLERS, spec)
    for records in _known():
        for count in (1, 3, 6, 9):
            _check_draw(part, records, count)


def _check_draw(part, records, count):
    def draw():
        gen = np.random.default_rng(1)
        return part.draw(gen, count, records)

    drawn, again = twice(draw)
    dtype = drawn.dtype
    hold(dtype == torch.int64, f"clients are {dtype}, not int64")
    available = records.available
    num_available = int(available.sum())
    # Fewer where fewer are available.
    wanted = min(count, num_available)
    num_drawn = len(drawn)
    hold(num_drawn == wanted, f"{num_drawn} of {num_available} clients, not {count}")
    distinct = drawn.unique()
    hold(len(distinct) == num_drawn, "a client was drawn twice")
    hold_all(available[drawn], "a client was drawn that is not available")
    hold_equal(drawn, again, "the same generator drew others")


def _known():
    """The server's knowledge at the start, of some of six clients, and of all."""
    available = torch.ones(CLIENTS, dtype=torch.bool)
    available[AWAY] = False
    clients = torch.arange(CLIENTS)
    sizes = (clients + 1).double()
    # NaN stands for a client never heard of.
    of_nobody = torch.full_like(sizes, math.nan)
    of_some = sizes.clone()
    of_some[:3] = math.nan
    of_all = sizes
    for numbers in (of_nobody, of_some, of_all):
        yield ClientRecords(available, sizes, scores=numbers, losses=numbers)


def timing(spec):
    """Times >= 0, and with a buffer a finite discount of every staleness."""
    part = make(catalog.TIMINGS, spec)
    hold(part.deadline >= 0 and part.over >= 0, "deadline and over must be >= 0")
    if part.buffer:
        staleness = torch.tensor([0.0, 1.0, 2.0, 50.0], dtype=torch.float64)
        factors = part.discount(staleness)
        hold(factors.shape == staleness.shape, "the discount is not one number an answer")
        is_sound = factors.isfinite() & (factors >= 0)
        hold_all(is_sound, f"discounts {factors}")
