"""The smaller networks that clients of a rank train: its resident model without some units."""

from typing import NamedTuple

import numpy as np
import torch

from fedmpi.client import samples as shards
from fedmpi.client.home import Home
from fedmpi.client.received import Received
from fedmpi.compute.structure import cut
from fedmpi.compute.trace import trace
from fedmpi.core.errors import WireError
from fedmpi.core.support import digest
from fedmpi.core.units import Structure
from fedmpi.methods.datasets.dataset import laid

# The networks in memory may have so many times the values of the whole model.
CACHED = 4


class Smaller(NamedTuple):
    """A network without some units, on the rank's device; clients train all of its values."""

    home: Home
    digest: int                   # of its support in the whole model's vector


class Networks(NamedTuple):
    """The networks built lately. Building one takes as long as a few steps of training."""

    structure: Structure
    built: dict                   # {packed bits of units: Smaller}, the last used at the end


def networks(home, samples):
    """The ``Networks`` of a rank's model, none of them built yet."""
    # Two samples that go through the model show its units.
    sample = laid(shards.first_two(samples))
    structure = trace(home.model, home.layout, sample)
    return Networks(structure, {})


def network(networks, whole, bits):
    """The ``Smaller`` network with the units of ``bits`` (uint8, packed).

    ``whole`` is the Home of the whole network.
    """
    key, built = bits.tobytes(), networks.built
    if key in built:
        # Move it to the end, as the last used.
        built[key] = built.pop(key)
        return built[key]
    units = np.unpackbits(bits, count=networks.structure.num_units)
    units = torch.from_numpy(units.astype(bool))
    small = cut(whole.model, networks.structure, units)
    home = whole._replace(
        model=small.model,
        layout=small.layout,
        x=small.x,
        g=small.g,
        # Recording a step pays over many rounds, and this network may serve a single one.
        recorder=None)
    support = small.support.cpu()
    built[key] = Smaller(home, digest(support))
    _forget(built, CACHED * whole.layout.P)
    return built[key]


def _forget(built, most):
    """Drop the least used networks while all have more than ``most`` values; the last one stays."""
    total = sum(smaller.home.layout.P for smaller in built.values())
    oldest = list(built)[:-1]
    for key in oldest:
        if total <= most:
            return
        dropped = built.pop(key)
        total -= dropped.home.layout.P


def decoded(smaller, codec, meta, arrays):
    """The ``Received`` of a message with the values of a smaller network."""
    home = smaller.home
    layout = home.layout
    if smaller.digest != meta["support"]:
        raise WireError(f"the server's support is {meta['support']}, this worker cut one of "
                        f"{smaller.digest}")
    mask = layout.full_mask()
    support = layout.support(mask)
    values = codec.down.decode(arrays, len(support))
    zeros = torch.zeros(layout.P, device=home.device)
    base = home.stage.up(values, support, zeros)
    # Nothing is pruned within a smaller network.
    trainable = torch.ones(layout.R, device=home.device)
    return Received(
        mask=mask,
        support=support,
        digest=smaller.digest,
        base=base,
        device_mask=mask.to(home.device),
        trainable=trainable)
