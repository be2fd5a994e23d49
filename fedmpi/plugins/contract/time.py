"""The contract of the parts of virtual time: devices, samplers, timing."""

import torch

from fedmpi.core.parts import Fleet
from fedmpi.plugins.contract.require import check_tensor, few, in_words, require, with_functions

TIMING = "see fedmpi.core.parts.Timing"


def devices(part, option):
    """The ``Devices``, their fleets checked."""

    def at(seconds, N, draw):
        fleet = part.at(seconds, N, draw)
        require(isinstance(fleet, Fleet), option, "a Fleet from at", in_words(fleet),
                "return fedmpi.core.parts.Fleet(...)")
        for name in fleet._fields:
            dtype = torch.bool if name == "available" else torch.float64
            check_tensor(getattr(fleet, name), (N,), dtype, option, f"{name} of the Fleet")
        return fleet

    return part._replace(at=at)


def sampler(part, option):
    """The ``Sampler``, its clients checked."""

    def draw(gen, count, records):
        clients = part.draw(gen, count, records)
        # Fewer clients where fewer are available.
        num_available = int(records.available.sum())
        shape = (min(count, num_available),)
        check_tensor(clients, shape, torch.int64, option, "the clients that draw returns")
        _check_clients(clients, len(records.available), option, "draw")
        are_available = bool(records.available[clients].all())
        require(are_available, option, "draw to take clients that are available",
                "some that are not", "look at records.available")
        return clients

    def choose(count, clients, losses):
        kept = part.choose(count, clients, losses)
        shape = (min(count, len(clients)),)
        check_tensor(kept, shape, torch.int64, option, "the clients that choose returns")
        are_candidates = bool(torch.isin(kept, clients).all())
        require(are_candidates, option, "choose to keep some of the candidates",
                "clients that are none", "return clients, not their rows")
        _check_clients(kept, int(clients.max()) + 1, option, "choose")
        return kept

    return with_functions(part, {"draw": draw, "choose": choose})


def _check_clients(clients, N, option, function):
    """Clients must be distinct, and in [0, N)."""
    is_inside = (clients >= 0) & (clients < N)
    require(bool(is_inside.all()), option, f"clients in [0, {N}) from {function}", few(clients),
            "they count from 0")
    are_distinct = len(clients.unique()) == len(clients)
    require(are_distinct, option, f"distinct clients from {function}", "one that comes twice",
            "draw without replacement")


def timing(part, option):
    """The ``Timing``, its numbers and discounts checked."""
    for name in ("deadline", "over", "buffer", "concurrency"):
        value = getattr(part, name)
        fits = isinstance(value, (int, float)) and value >= 0
        require(fits, option, f"{name} as a number >= 0", in_words(value), TIMING)
    has_discount = part.discount is not None
    require(not part.buffer or has_discount, option, "a discount where there is a buffer", "None",
            "return Timing(..., discount=torch.ones_like)")

    def discount(staleness):
        factors = part.discount(staleness)
        check_tensor(factors, staleness.shape, torch.float64, option, "what discount returns")
        is_finite = bool(factors.isfinite().all())
        require(is_finite, option, "finite discounts", few(factors), TIMING)
        return factors

    return with_functions(part, {"discount": discount})
