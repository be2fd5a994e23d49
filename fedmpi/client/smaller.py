"""The smaller networks that clients of a rank train: its resident model without some units."""

from typing import NamedTuple

import numpy as np
import torch

from fedmpi.client.home import Home
from fedmpi.client.received import Received, digest
from fedmpi.compute.structure import cut
from fedmpi.compute.trace import trace
from fedmpi.core.errors import WireError
from fedmpi.core.units import Structure
from fedmpi.methods.datasets.dataset import inputs, laid

CACHED = 4       # times the values of the whole model: what the networks that are kept may take


class Smaller(NamedTuple):
    """A network of which clients train every value, on the rank's device."""

    home: Home
    digest: int                   # of where its values lie in the whole model's vector


class Networks(NamedTuple):
    """The networks built lately, by what they keep. Building one takes as long as a few steps."""

    structure: Structure
    built: dict                   # {bits of the units, as they travel: Smaller}, the latest last


def networks(home, samples):
    """``Networks`` of a rank's model, none of them built yet. Two samples show its units."""
    data = samples.data
    first = torch.from_numpy(data["x_train"][:2].copy()).to(home.device)
    sample = laid(inputs(first, samples.mean, samples.std))
    return Networks(trace(home.model, home.layout, sample), {})


def network(networks, whole, bits):
    """The ``Smaller`` network that keeps the units of ``bits`` (uint8, packed).

    ``whole`` is the Home of the whole network.
    """
    key, built = bits.tobytes(), networks.built
    if key in built:
        built[key] = built.pop(key)
        return built[key]
    units = torch.from_numpy(np.unpackbits(bits, count=networks.structure.num_units).astype(bool))
    small = cut(whole.model, networks.structure, units)
    # A step is recorded once for many rounds, and this network may serve one.
    home = whole._replace(
        model=small.model, layout=small.layout, x=small.x, g=small.g, recorder=None)
    built[key] = Smaller(home, digest(small.support.cpu()))
    _forget(built, CACHED * whole.layout.P)
    return built[key]


def _forget(built, most):
    """Let go of the oldest networks while all have more than ``most`` values; the last stays."""
    total = sum(smaller.home.layout.P for smaller in built.values())
    for key in list(built)[:-1]:
        if total <= most:
            return
        total -= built.pop(key).home.layout.P


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
    base = home.stage.up(values, support, torch.zeros(layout.P, device=home.device))
    live = torch.ones(layout.R, device=home.device)
    return Received(mask, support, smaller.digest, base, mask.to(home.device), live)
