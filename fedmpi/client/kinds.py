"""The networks of a run with several: a resident model for each, built when it is first trained."""

import copy
from typing import NamedTuple

import torch

from fedmpi.client.home import Home
from fedmpi.client.received import placed
from fedmpi.compute.graphs import recorder
from fedmpi.compute.staging import staging
from fedmpi.core.errors import WireError
from fedmpi.core.kinds import NetworkKind, kind, part, positions as positions_of
from fedmpi.core.layout import bind
from fedmpi.core.support import digest
from fedmpi.core.tensors import constants
from fedmpi.wire import positions


class Resident(NamedTuple):
    """One of the networks, on the rank's device."""

    kind: NetworkKind             # where its values lie in the common vector
    home: Home


def resident(whole, number, loss):
    """The ``Resident`` of network ``number`` of the Home ``whole``; it trains on ``loss``."""
    name = whole.model.names[number]
    one = kind(whole.layout, name)
    # Copy: this one is bound to a vector of its own.
    network = whole.model.get_submodule(name)
    network = copy.deepcopy(network)
    statistics = [slot.name for slot in one.layout.buffers]
    layout, x, g = bind(network, statistics)
    assert layout.digest == one.layout.digest, f"the network {name} is laid out in two ways"
    counters = [(buffer, buffer.clone()) for _, buffer in constants(network, layout)]
    initial = None
    if whole.initial is not None:
        initial = part(one, whole.initial)
    home = whole._replace(
        model=network,
        layout=one.layout,
        x=x,
        g=g,
        initial=initial,
        recorder=recorder(network, whole.device, loss),
        stage=staging(layout.P, whole.device),
        counters=counters)
    return Resident(one, home)


def decoded(resident, codec, meta, arrays):
    """The ``Received`` of a message with the values of a network."""
    home, layout = resident.home, resident.kind.layout
    bits = positions.decode(meta["mask"], arrays["mask"], layout.Q)
    mask = torch.from_numpy(bits)
    support = layout.support(mask)
    # Both ends compare positions in the common vector.
    common_support = positions_of(resident.kind, support)
    decoded_digest = digest(common_support)
    if decoded_digest != meta["support"]:
        raise WireError(f"the server's support is {meta['support']}, this worker decoded "
                        f"{decoded_digest}")
    values = codec.down.decode(arrays, len(support))
    zeros = torch.zeros(layout.P, device=home.device)
    base = home.stage.up(values, support, zeros)
    return placed(home, mask, support, decoded_digest, base)


def cut_out(resident, received):
    """The ``Received`` of one network, cut out of the ``received`` vector of all."""
    one = resident.kind
    mask = received.mask[one.weights].clone()
    support = one.layout.support(mask)
    common_support = positions_of(one, support)
    common_digest = digest(common_support)
    base = part(one, received.base)
    return placed(resident.home, mask, support, common_digest, base)


def server_network(whole, received):
    """``outputs_of(features)``: the server's own network at the received values, for evaluation.

    None if the server has none.
    """
    network = whole.model.of_server
    if network is None:
        return None
    whole.x.copy_(received.base)
    network.eval()
    return network
