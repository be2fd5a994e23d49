"""Sparsity of each layer by round: lines of a few layers, a heat map of more."""

from typing import NamedTuple

import numpy as np

from fedmpi.read.report import draw as drawing
from fedmpi.read.report.kinds.picture import fraction_axis
from fedmpi.read.report.series import Line

# Layers that are drawn as lines; more become the rows of a heat map.
MOST_LINES = 8
LABEL = "sparsity (fraction of zeros)"


class Layers(NamedTuple):
    """The sparsity of a run's layers, a Line each, and ``total (T,)`` of all layers together."""

    lines: list
    total: np.ndarray


def find(run):
    """The ``Layers`` of a run; None if it has fewer than two, or has not recorded them."""
    kept = run.rounds.get("kept_layers")
    layers = run.attrs.get("layers")
    if kept is None or not layers:
        return None
    T, L = len(kept), len(layers)
    # A single layer has the sparsity of the whole model.
    if not T or L < 2 or L != kept.shape[-1]:
        return None
    sizes = np.array([np.prod(shape) for _, shape, *_ in layers], float)
    sparsity = 1 - kept / sizes
    rounds = np.arange(T) + 1.0
    lines = []
    for (name, *_), of_layer in zip(layers, sparsity.T):
        lines.append(Line(str(name), rounds, of_layer))
    kept_share = kept.sum(axis=1) / sizes.sum()
    return Layers(lines, 1 - kept_share)


def draw(place, layers):
    """A line a layer, or a row a layer if they are many."""
    ax = place.subplots()
    if len(layers.lines) > MOST_LINES:
        _draw_heat(place, ax, layers.lines)
        return
    fraction_axis(ax)
    drawing.lines(ax, layers.lines, "round", LABEL, whole=True)


def _draw_heat(place, ax, lines):
    """A row a layer, a column a round."""
    values = np.stack([line.y for line in lines])
    L, T = values.shape
    image = drawing.heat(ax, values, 1.0)
    # Columns count from 0, rounds from 1.
    image.set_extent((0.5, T + 0.5, L - 0.5, -0.5))
    labels = [line.label for line in lines]
    ax.set_yticks(range(L), labels, fontsize="small")
    ax.set(xlabel="round")
    place.colorbar(image, ax=ax, location="top", label=LABEL, aspect=30, pad=0.02)


def say(layers):
    by_sparsity = sorted(layers.lines, key=lambda line: line.y[-1])
    densest = _end(by_sparsity[0])
    sparsest = _end(by_sparsity[-1], "the sparsest")
    return (f"Sparsity of each layer by round. After the last one {densest} and {sparsest}; all "
            f"together {layers.total[-1]:.3f}.")


def _end(line, superlative="is the densest"):
    return f"{line.label} {superlative} ({line.y[-1]:.3f})"
