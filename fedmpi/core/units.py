"""Filters and neurons: which entries of a model's vector belong to each, and the vector of the model without some.

A *unit* is a filter of a convolution or a neuron of a linear layer. It owns the rows of weights
that make it, its bias, what a norm holds for it, and the columns of the weights that read it. Where
outputs are added up, as around a residual block, the units added to each other are one unit.

An entry of the vector belongs to at most one unit in each dimension of its tensor: ``W[o, c]`` to
the unit o that it makes and to the unit c that it reads. A smaller model keeps the entries all of
whose units are kept. ``fedmpi.compute.structure`` finds the units, and builds the smaller module.

Sizes: U units in all layers, P values in the vector.
"""

import math
from typing import NamedTuple

import torch

from fedmpi.core.errors import UserError
from fedmpi.core.layout import Layout, Slot, arranged
from fedmpi.core.mask import top

FIXED = -1       # in place of a unit: never cut, as the channels of an image


class Axis(NamedTuple):
    """One dimension of one tensor, along which units lie."""

    slot: Slot
    dim: int
    units: torch.Tensor           # (slot.shape[dim],) int64: a unit each, or FIXED
    role: str                     # "weight" makes the unit, "bias", "norm" scales it, "input" reads it, "other"


class Structure(NamedTuple):
    """The units of a model whose vector has this layout."""

    layout: Layout
    layers: dict                  # {name of the first module that makes them: how many units}
    axes: tuple                   # of Axis
    whole: dict                   # {name of a module that makes units: why they are never cut}

    @property
    def num_units(self):
        return sum(self.layers.values())


def flat(structure, kept):
    """(U,) bool of ``kept {layer: (n,) bool}``, True for what stays; layers that it leaves out stay whole."""
    unknown = [name for name in kept if name not in structure.layers]
    if unknown:
        why = structure.whole.get(unknown[0], "no layer of this name makes any")
        raise ValueError(f"the units of {unknown[0]!r} cannot be cut: {why}; those of "
                         f"{', '.join(structure.layers) or 'no layer'} can")
    parts = []
    for name, count in structure.layers.items():
        part = torch.as_tensor(kept.get(name, torch.ones(count, dtype=torch.bool)))
        if part.shape != (count,) or part.dtype != torch.bool:
            raise ValueError(f"the mask of {name} must be bool ({count},), got {part.dtype} {tuple(part.shape)}")
        if not part.any():
            raise ValueError(f"the mask of {name} keeps none of its {count} units: keep at least one")
        parts.append(part)
    return torch.cat(parts) if parts else torch.ones(0, dtype=torch.bool)


def by_layer(structure, units):
    """``{layer: (n,)}``: the parts of ``units (U,)``, as views."""
    return dict(zip(structure.layers, units.split(list(structure.layers.values()))))


def held(structure, units):
    """(P,) bool: the entries that the model of the kept ``units (U,) bool`` holds. Padding is False."""
    entries = structure.layout.real.clone()
    for axis in structure.axes:
        stays = _stays(axis, units)
        if not stays.all():
            across = [-1 if dim == axis.dim else 1 for dim in range(len(axis.slot.shape))]
            entries[axis.slot.span].view(axis.slot.shape).logical_and_(stays.view(across))
    return entries


def small_layout(structure, units):
    """The ``Layout`` of the model of the kept ``units (U,) bool``: the same tensors in the same order, smaller."""
    shapes = {slot.name: list(slot.shape) for slot in structure.layout.slots}
    for axis in structure.axes:
        shapes[axis.slot.name][axis.dim] = int(_stays(axis, units).sum())
    layout = structure.layout
    regions = ([(slot.name, tuple(shapes[slot.name])) for slot in region]
               for region in (layout.weights, layout.others, layout.buffers))
    return arranged(*regions, frozen=layout.frozen)


def _stays(axis, units):
    """(n,) bool: the places of an axis that stay."""
    free = axis.units == FIXED
    return free | units[axis.units.masked_fill(free, 0)] if len(units) else free


def l1(structure, x):
    """``{layer: (n,) float64}``: the sum of the magnitudes of the weights in ``x (P,)`` that make each unit, of all
    layers that make it. Biases and norms do not count, nor do the weights that read it (FedMP)."""
    return by_layer(structure, _magnitudes(structure, x, "weight"))


def norm_scale(structure, x):
    """``{layer: (n,) float64}``: the magnitude of the factor by which a norm scales each unit, of all its norms
    (Sub-FedAvg). UserError where a layer has no norm."""
    scaled = torch.zeros(structure.num_units, dtype=torch.bool)
    for axis in structure.axes:
        if axis.role == "norm":
            scaled[axis.units[axis.units != FIXED]] = True
    bare = [name for name, part in by_layer(structure, scaled).items() if not part.all()]
    if bare:
        raise UserError(f"no batch norm scales the units of {', '.join(bare)}: score them by l1")
    return by_layer(structure, _magnitudes(structure, x, "norm"))


def _magnitudes(structure, x, role):
    """(U,) float64: the sum of the magnitudes of each unit's entries in this role."""
    total = torch.zeros(structure.num_units, dtype=torch.float64)
    for axis in structure.axes:
        if axis.role != role:
            continue
        rows = x[axis.slot.span].view(axis.slot.shape).movedim(axis.dim, 0)
        sizes = rows.reshape(len(axis.units), -1).abs().sum(1, dtype=torch.float64)
        free = axis.units != FIXED
        total.index_add_(0, axis.units[free], sizes[free])
    return total


def choose(scores, rate):
    """``{layer: (n,) bool}``: in every layer without the share ``rate`` of its units, rounded down, of least score,
    of equal ones the last. At least one unit of each layer stays."""
    if not 0 <= rate < 1:
        raise ValueError(f"the share of units to cut must be in [0, 1), got {rate}")
    return {name: top(score, len(score) - _num_cut(len(score), rate)) for name, score in scores.items()}


def _num_cut(count, rate):
    # .29 * 100 is 28.999999999999996: the share is meant as it is written.
    return min(math.floor(rate * count + 1e-9), count - 1)
