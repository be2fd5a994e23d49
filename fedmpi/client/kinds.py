"""The networks of a rank where clients train several: one resident model each, built when it is first trained."""

import copy
from typing import NamedTuple

import torch

from fedmpi.client.home import Home
from fedmpi.client.received import digest, placed
from fedmpi.compute.graphs import recorder
from fedmpi.compute.staging import staging
from fedmpi.core.errors import WireError
from fedmpi.core.kinds import Kind, kind, part, positions as positions_of
from fedmpi.core.layout import bind
from fedmpi.core.tensors import constants
from fedmpi.wire import positions


class Resident(NamedTuple):
    """One of the networks, on the rank's device."""

    kind: Kind                    # where its values lie in the common vector
    home: Home


def resident(whole, number, loss):
    """The ``Resident`` of the network ``number`` among those that the Home ``whole`` holds; it trains on ``loss``."""
    name = whole.model.names[number]
    one = kind(whole.layout, name)
    network = copy.deepcopy(whole.model.get_submodule(name))
    layout, x, g = bind(network, [slot.name for slot in one.layout.buffers])
    assert layout.digest == one.layout.digest, f"the network {name} is laid out in two ways"
    counters = [(buffer, buffer.clone()) for _, buffer in constants(network, layout)]
    home = whole._replace(
        model=network,
        layout=one.layout,
        x=x,
        g=g,
        initial=part(one, whole.initial),
        recorder=recorder(network, whole.device, loss),
        stage=staging(layout.P, whole.device),
        counters=counters)
    return Resident(one, home)


def decoded(resident, codec, meta, arrays):
    """The ``Received`` of a message with the values of a network."""
    home, layout = resident.home, resident.kind.layout
    mask = torch.from_numpy(positions.decode(meta["mask"], arrays["mask"], layout.Q))
    support = layout.support(mask)
    found = digest(positions_of(resident.kind, support))
    if found != meta["support"]:
        raise WireError(f"the server's support is {meta['support']}, this worker decoded {found}")
    values = codec.down.decode(arrays, len(support))
    base = home.stage.up(values, support, torch.zeros(layout.P, device=home.device))
    return placed(home, mask, support, found, base)


def cut_out(resident, received):
    """The ``Received`` of one network out of that of all."""
    one = resident.kind
    mask = received.mask[one.weights].clone()
    support = one.layout.support(mask)
    base = part(one, received.base)
    return placed(resident.home, mask, support, digest(positions_of(one, support)), base)


def server_network(whole, received):
    """``outputs_of(features)`` of the server's own network, at the received values, in evaluation mode; None where the
    server has none."""
    network = whole.model.of_server
    if network is None:
        return None
    whole.x.copy_(received.base)
    network.eval()
    return network
