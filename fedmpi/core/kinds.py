"""Several networks in one run: kinds of clients, and perhaps a network of the server alone.

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

# The name of the server's own network.
SERVER = "server"


class NetworkKind(NamedTuple):
    """One network among several."""

    name: str
    # Of the network by itself.
    layout: Layout
    # Three slices of the common vector: its weights, other parameters and buffers.
    spans: tuple

    @property
    def weights(self):
        """This network's slice of a mask (Q,) of the common vector."""
        return self.spans[0]


class NetworkKinds(NamedTuple):
    """The networks of a run, and each client's kind. N clients."""

    # Each a NetworkKind, for clients.
    kinds: tuple
    # (N,) int64: the number of each client's kind.
    of: torch.Tensor
    # Of Costs, one a kind, by the layers of the common layout.
    costs: tuple
    # The server's own network.
    server: NetworkKind | None = None
    server_costs: Costs | None = None

    def of_client(self, client):
        """The ``NetworkKind`` of a client."""
        return self.kinds[int(self.of[client])]

    def costs_of(self, client):
        """The ``Costs`` of a client's network."""
        return self.costs[int(self.of[client])]

    def shares(self):
        """(kinds,) float64: the share of each kind among the clients."""
        counts = torch.bincount(self.of, minlength=len(self.kinds))
        return counts.double() / len(self.of)


def kind(layout, name):
    """The ``NetworkKind`` called ``name`` among the networks of a common ``layout``."""
    alone, regions = _own_layout(layout, name)
    personal = [_within(tensor, name) for tensor in layout.personal if _is_of(tensor, name)]
    if personal:
        alone = alone.with_personal(lambda _: personal)
    weights, others, buffers = regions
    spans = (
        _span(weights, alone.Q),
        _span(others, alone.R - alone.Q),
        _span(buffers, alone.P - alone.R),
    )
    return NetworkKind(name, alone, spans)


def _own_layout(layout, name):
    """``(own, regions)``: the layout of a network, and its slots in the common one, by region."""
    regions, shapes = [], []
    for slots in (layout.weights, layout.others, layout.buffers):
        region = [slot for slot in slots if _is_of(slot.name, name)]
        regions.append(region)
        named = [(_within(slot.name, name), slot.shape) for slot in region]
        shapes.append(named)
    frozen = []
    for tensor, shape in layout.frozen:
        if _is_of(tensor, name):
            own_name = _within(tensor, name)
            frozen.append((own_name, shape))
    weights, others, buffers = shapes
    return arranged(weights, others, buffers, frozen), regions


def _is_of(tensor, name):
    """Whether a tensor of the common layout belongs to the network called ``name``."""
    return tensor.startswith(name + ".")


def _within(tensor, name):
    """The network's own name for a tensor, without ``mlp.`` for a network called ``mlp``."""
    return tensor.removeprefix(name + ".")


def _span(slots, length):
    """The slice of ``length`` values that begins with the first of the slots."""
    # A network without parameters of a region has an empty slice there.
    start = slots[0].offset if slots else 0
    return slice(start, start + length)


def part(kind, x):
    """``(P_k,)``: a network's own vector out of the common one ``x (P,)``, a copy."""
    return torch.cat([x[span] for span in kind.spans])


def with_part(kind, x, vector):
    """``(P,)``: a copy of ``x`` with the network's own ``vector (P_k,)`` in its places."""
    whole = x.clone()
    lengths = [span.stop - span.start for span in kind.spans]
    pieces = vector.split(lengths)
    for span, values in zip(kind.spans, pieces):
        whole[span] = values
    return whole


def mask_of(kind, mask):
    """bool (Q,): a common mask ``mask (Q,)`` on this network's weights, False elsewhere."""
    whole = torch.zeros_like(mask)
    whole[kind.weights] = mask[kind.weights]
    return whole


def positions(kind, alone):
    """int32 (K,), sorted: a network's own positions ``alone (K,)``, in the common vector."""
    layout = kind.layout
    first = alone.new_tensor([0, layout.Q, layout.R])
    starts = [span.start for span in kind.spans]
    starts = alone.new_tensor(starts)
    moves = starts - first
    # A position moves with its region: 0 for weights, 1 for other parameters, 2 for buffers.
    after_weights = (alone >= layout.Q).long()
    after_parameters = (alone >= layout.R).long()
    region = after_weights + after_parameters
    return alone + moves[region]
