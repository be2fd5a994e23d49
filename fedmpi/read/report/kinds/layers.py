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
    T = len(kept)
    L = len(layers)
    # A single layer has the sparsity of the whole model.
    if not T or L < 2 or L != kept.shape[-1]:
        return None
    products = [np.prod(shape) for _, shape, *_ in layers]
    sizes = np.array(products, float)
    share_kept = kept / sizes
    sparsity = 1 - share_kept
    numbers = np.arange(T)
    rounds = numbers + 1.0
    lines = []
    for (name, *_), of_layer in zip(layers, sparsity.T):
        label = str(name)
        lines.append(Line(label, rounds, of_layer))
    num_weights = sizes.sum()
    num_kept = kept.sum(axis=1)
    kept_share = num_kept / num_weights
    total = 1 - kept_share
    return Layers(lines, total)


def draw(place, layers):
    """A line a layer, or a row a layer if they are many."""
    ax = place.subplots()
    num_layers = len(layers.lines)
    if num_layers > MOST_LINES:
        _draw_heat(place, ax, layers.lines)
        return
    fraction_axis(ax)
    drawing.lines(ax, layers.lines, "round", LABEL, whole=True)


def _draw_heat(place, ax, lines):
    """A row a layer, a column a round."""
    rows = [line.y for line in lines]
    values = np.stack(rows)
    L, T = values.shape
    image = drawing.heat(ax, values, 1.0)
    extent = (0.5, T + 0.5, L - 0.5, -0.5)
    # Columns count from 0, rounds from 1.
    image.set_extent(extent)
    labels = [line.label for line in lines]
    rows_of_axis = range(L)
    ax.set_yticks(rows_of_axis, labels, fontsize="small")
    ax.set(xlabel="round")
    place.colorbar(image, ax=ax, location="top", label=LABEL, aspect=30, pad=0.02)


def say(layers):
    # After the last round.
    by_sparsity = sorted(layers.lines, key=lambda line: line.y[-1])
    first = by_sparsity[0]
    densest = _end(first)
    last = by_sparsity[-1]
    sparsest = _end(last, "the sparsest")
    sparsity_at_end = layers.total[-1]
    return (f"Sparsity of each layer by round. After the last one {densest} and {sparsest}; all "
            f"together {sparsity_at_end:.3f}.")


def _end(line, superlative="is the densest"):
    sparsity = line.y[-1]
    return f"{line.label} {superlative} ({sparsity:.3f})"
