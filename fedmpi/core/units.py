"""Filters and neurons, and the entries of each in a model's vector.

A *unit* is a filter of a convolution or a neuron of a linear layer. It owns the rows of weights
that make it, its bias, its entries in a norm, and the columns of the weights that read it. An
addition of outputs, as around a residual block, makes their units one.

An entry of the vector belongs to at most one unit in each dimension of its tensor: ``W[o, c]`` to
the unit o that it makes and to the unit c that it reads. A smaller model holds the entries without
a cut unit. ``fedmpi.compute.trace`` finds the units, ``fedmpi.compute.structure`` builds
the smaller module.

Sizes: U units in all layers, n in one, P values in the vector.
"""

import math
from typing import NamedTuple

import torch

from fedmpi.core.errors import UserError
from fedmpi.core.layout import Layout, Slot, arranged
from fedmpi.core.mask import top

# In place of a unit: never cut, as the channels of an image.
FIXED = -1


class Axis(NamedTuple):
    """One dimension of one tensor, along which units lie.

    ``role`` is the tensor's use: ``"weight"`` makes the units, ``"bias"`` is added to them,
    ``"norm"`` scales them, ``"input"`` reads them; ``"other"`` is anything else.
    """

    slot: Slot
    dim: int
    units: torch.Tensor           # (slot.shape[dim],) int64: a unit each, or FIXED
    role: str


class Structure(NamedTuple):
    """The units of a model whose vector has this layout."""

    layout: Layout
    # {name of the first module that makes them: how many units}
    layers: dict
    # Of Axis.
    axes: tuple
    # {name of a module that makes units: why they are never cut}
    whole: dict

    @property
    def num_units(self):
        return sum(self.layers.values())


def flat(structure, kept):
    """(U,) bool, True for the units that stay, of ``kept {layer: (n,) bool}``.

    Layers that ``kept`` leaves out stay whole. ValueError if a layer has no units to cut, if a mask
    does not fit, or if no unit of a layer would be left.
    """
    for name in kept:
        if name not in structure.layers:
            why = structure.whole.get(name, "no layer of this name makes any")
            raise ValueError(
                f"the units of {name!r} cannot be cut: {why}; "
                f"those of {', '.join(structure.layers)} can"
            )
    parts = []
    for name, count in structure.layers.items():
        part = kept.get(name)
        if part is None:
            part = torch.ones(count, dtype=torch.bool)
        _check_mask(part, name, count)
        parts.append(part)
    return torch.cat(parts)


def _check_mask(part, name, count):
    """ValueError unless ``part`` keeps some of a layer's ``count`` units."""
    fits = part.shape == (count,) and part.dtype == torch.bool
    if not fits:
        raise ValueError(
            f"the mask of {name} must be bool ({count},), got {part.dtype} {tuple(part.shape)}"
        )
    if not part.any():
        raise ValueError(f"the mask of {name} keeps none of its {count} units: keep one")


def by_layer(structure, units):
    """``{layer: (n,)}``: the parts of ``units (U,)``, as views."""
    counts = list(structure.layers.values())
    return dict(zip(structure.layers, units.split(counts)))


def entries_of(structure, units):
    """(P,) bool: the entries of the model that keeps ``units (U,) bool``. Padding is False."""
    entries = structure.layout.real.clone()
    for axis in structure.axes:
        stays = _stays(axis, units)
        if stays.all():
            continue
        # One unit is a slice of the tensor across the axis.
        across = [1] * len(axis.slot.shape)
        across[axis.dim] = -1
        tensor = axis.slot.of(entries)
        tensor.logical_and_(stays.view(across))
    return entries


def small_layout(structure, units):
    """The ``Layout`` of the model that keeps ``units (U,) bool``: the same tensors, smaller."""
    layout = structure.layout
    shapes = {}
    for slot in layout.slots:
        shapes[slot.name] = list(slot.shape)
    for axis in structure.axes:
        stays = _stays(axis, units)
        shape = shapes[axis.slot.name]
        shape[axis.dim] = int(stays.sum())

    regions = []
    for slots in (layout.weights, layout.others, layout.buffers):
        region = [(slot.name, shapes[slot.name]) for slot in slots]
        regions.append(region)
    weights, others, buffers = regions
    return arranged(weights, others, buffers, layout.frozen)


def _stays(axis, units):
    """(n,) bool: the places of an axis that stay."""
    fixed = axis.units == FIXED
    # FIXED is no place among the units; any other one will do for it.
    places = axis.units.masked_fill(fixed, 0)
    return fixed | units[places]


def l1(structure, x):
    """``{layer: (n,) float64}``: the sum of the magnitudes in ``x (P,)`` of a unit's own weights.

    These make the unit, in one layer or several; biases, norms and the weights that read it do
    not count (FedMP).
    """
    magnitudes = _magnitudes(structure, x, "weight")
    return by_layer(structure, magnitudes)


def norm_scale(structure, x):
    """``{layer: (n,) float64}``: the magnitude in ``x (P,)`` of the factor by which batch norms
    scale a unit (Sub-FedAvg). UserError if a layer has no norm."""
    scaled = torch.zeros(structure.num_units, dtype=torch.bool)
    for axis in structure.axes:
        if axis.role == "norm":
            free = axis.units != FIXED
            scaled[axis.units[free]] = True
    parts = by_layer(structure, scaled)
    bare = [name for name, part in parts.items() if not part.all()]
    if bare:
        raise UserError(f"no batch norm scales the units of {', '.join(bare)}: score them by l1")
    magnitudes = _magnitudes(structure, x, "norm")
    return by_layer(structure, magnitudes)


def _magnitudes(structure, x, role):
    """(U,) float64: the sum of the magnitudes of each unit's entries in this role."""
    total = torch.zeros(structure.num_units, dtype=torch.float64)
    for axis in structure.axes:
        if axis.role != role:
            continue
        # A unit a row.
        tensor = axis.slot.of(x).movedim(axis.dim, 0)
        rows = tensor.reshape(len(axis.units), -1)
        sizes = rows.abs().sum(1, dtype=torch.float64)
        free = axis.units != FIXED
        total.index_add_(0, axis.units[free], sizes[free])
    return total


def choose(scores, rate):
    """``{layer: (n,) bool}``: all units but the share ``rate`` of least score in each layer.

    How many go is rounded down, and one unit at least stays; of equal ones the last goes.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"the share of units to cut must be in [0, 1), got {rate}")
    chosen = {}
    for name, score in scores.items():
        num_kept = len(score) - _num_cut(len(score), rate)
        chosen[name] = top(score, num_kept)
    return chosen


def _num_cut(count, rate):
    """How many of ``count`` units go."""
    # .29 * 100 is 28.999999999999996: the share is meant as it is written.
    num_cut = math.floor(rate * count + 1e-9)
    return min(num_cut, count - 1)
