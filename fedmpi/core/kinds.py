"""Several networks in one run: kinds of clients, each with a network of its own, and perhaps one that
only the server has.

All of them lie in one vector ``x (P,)``, so that masks, merges, checkpoints and digests know no
difference. A network's tensors lie next to each other in each of the vector's three regions, in the
order and with the padding of the network by itself. Therefore its own vector ``(P_k,)`` is three
slices of the common one, and a position of its own moves by one number in each region.

The tensors of a network called ``mlp`` are named ``mlp.layer.weight`` in the common vector.
"""

from typing import NamedTuple

import torch

from fedmpi.core.flops import Costs
from fedmpi.core.layout import Layout, arranged

SERVER = "server"        # the name of the network that only the server has


class Kind(NamedTuple):
    """One network among several."""

    name: str
    layout: Layout                # of the network by itself
    spans: tuple                  # three slices of the common vector: its weights, other parameters, buffers

    @property
    def weights(self):
        """The slice of a mask (Q,) of the common vector that is this network's."""
        return self.spans[0]


class Kinds(NamedTuple):
    """The networks of a run, and who trains which. N clients."""

    kinds: tuple                  # of Kind, those that clients train
    of: torch.Tensor              # (N,) int64: which of them each client trains
    costs: tuple                  # of Costs, one a kind, by the layers of the common layout
    server: Kind | None = None    # the network that only the server has
    server_costs: Costs | None = None

    def of_client(self, client):
        """The ``Kind`` that a client trains."""
        return self.kinds[int(self.of[client])]

    def costs_of(self, client):
        """The ``Costs`` of the network that a client trains."""
        return self.costs[int(self.of[client])]

    def shares(self):
        """(kinds,) float64: which share of the clients trains each of the networks."""
        counts = torch.bincount(self.of, minlength=len(self.kinds))
        return counts.double() / len(self.of)


def kind(layout, name):
    """The ``Kind`` called ``name`` among the networks of a common ``layout``."""
    regions = [_named(slots, name) for slots in (layout.weights, layout.others, layout.buffers)]
    shapes = [[(_within(slot.name, name), slot.shape) for slot in slots] for slots in regions]
    frozen = [(_within(tensor, name), shape) for tensor, shape in layout.frozen if _is_of(tensor, name)]
    own = arranged(*shapes, frozen)
    personal = [_within(tensor, name) for tensor in layout.personal if _is_of(tensor, name)]
    own = own.with_personal(lambda _: personal) if personal else own
    lengths = own.Q, own.R - own.Q, own.P - own.R
    spans = [_span(slots, length) for slots, length in zip(regions, lengths)]
    return Kind(name, own, tuple(spans))


def _is_of(tensor, name):
    return tensor.startswith(name + ".")


def _within(tensor, name):
    """What a network calls a tensor that is ``mlp.layer.weight`` in the common layout."""
    return tensor.removeprefix(name + ".")


def _named(slots, name):
    return [slot for slot in slots if _is_of(slot.name, name)]


def _span(slots, length):
    start = slots[0].offset if slots else 0
    return slice(start, start + length)


def part(kind, x):
    """``(P_k,)``: a network's own vector out of the common one ``x (P,)``, a copy."""
    return torch.cat([x[span] for span in kind.spans])


def with_part(kind, x, own):
    """``(P,)``: a copy of ``x`` in which the network has the values of its own vector ``own (P_k,)``."""
    whole = x.clone()
    lengths = [span.stop - span.start for span in kind.spans]
    for span, values in zip(kind.spans, own.split(lengths)):
        whole[span] = values
    return whole


def mask_of(kind, mask):
    """bool (Q,): what of a common mask ``mask (Q,)`` is this network's."""
    whole = torch.zeros_like(mask)
    whole[kind.weights] = mask[kind.weights]
    return whole


def positions(kind, own):
    """int32 (K,), sorted: the places in the common vector of a network's own positions ``own (K,)``."""
    layout = kind.layout
    first = own.new_tensor([0, layout.Q, layout.R])
    moves = own.new_tensor([span.start for span in kind.spans]) - first
    region = (own >= layout.Q).long() + (own >= layout.R).long()
    return own + moves[region]
