"""Fragments of a model, which are merged in turn (Streaming DiLoCo, arXiv 2501.18512).

    round t     up: the update of fragment (t - 1) mod F;    down: the fragment merged last
    arrival     x <- (1 - mixing) received + mixing x, on that fragment, before step ``delay``

A fragment is a set of whole layers. Layer i of n, counted from the input, belongs to

    strided         i mod F          neighbours are merged at different times
    sequential      floor(i F / n)   neighbours are merged together

A layer is all that stands under one number in the tensors' names, such as ``blocks.3``. What has
no number (tables, heads) goes to the fragments that are still the smallest, the largest first. A
model of fewer such layers than fragments is cut by its modules.
"""

import functools
import re

import torch

from fedmpi.core.parts import Travels

# Numbers of fragments are uint8.
MOST = 255
NUMBERED = re.compile(r"(?:.*?\.)?\d+(?=\.)")


def fragment_of(t, fragments):
    """The number of the fragment whose updates travel in round ``t``; in round 0 the last one."""
    return (t - 1) % fragments


def schedule(fragments, pattern):
    """``travels(layout, t) -> Travels`` of these fragments, see ``Strategy.travels``."""

    @functools.cache
    def numbers_of(layout):
        return numbers(layout, fragments, pattern)

    # Both ends ask several times in a round.
    @functools.lru_cache(maxsize=1)
    def travels(layout, t):
        of_entries = numbers_of(layout)
        up = of_entries == fragment_of(t, fragments)
        # The last merge was that of the round before.
        down = of_entries == fragment_of(t - 1, fragments)
        return Travels(down, up)

    return travels


def numbers(layout, fragments, pattern):
    """uint8 (P,): the fragment of each entry; of padding 0."""
    entries = torch.zeros(layout.P, dtype=torch.uint8)
    for number, slots in enumerate(dealt(layout, fragments, pattern)):
        for slot in slots:
            entries[slot.span] = number
    return entries


def dealt(layout, fragments, pattern):
    """The slots of each fragment, a list of lists; empty ones beyond ``most_fragments``."""
    layers, others = _layers(layout, _numbered)
    if len(layers) < fragments:
        layers, others = _layers(layout, _module)
    parts = [[] for _ in range(fragments)]
    for i, slots in enumerate(layers):
        number = i % fragments
        if pattern == "sequential":
            number = i * fragments // len(layers)
        parts[number] += slots
    for slots in sorted(others, key=_size, reverse=True):
        smallest = min(parts, key=_size)
        smallest += slots
    return parts


def most_fragments(layout):
    """The most fragments that a model of this layout has layers for."""
    numbered, _ = _layers(layout, _numbered)
    modules, _ = _layers(layout, _module)
    return max(len(numbered), len(modules))


def _layers(layout, layer_of):
    """``(layers, others)``, lists of lists of slots: by ``layer_of(name)``, and those without one.

    The others are taken module by module.
    """
    layers, others = {}, {}
    for slot in layout.slots:
        layer = layer_of(slot.name)
        if layer is None:
            others.setdefault(_module(slot.name), []).append(slot)
        else:
            layers.setdefault(layer, []).append(slot)
    return list(layers.values()), list(others.values())


def _numbered(name):
    """``blocks.3`` of ``blocks.3.attention.query.weight``; None of a name without a number."""
    begin = NUMBERED.match(name)
    return begin and begin.group()


def _module(name):
    return name.rpartition(".")[0]


def _size(slots):
    return sum(slot.size for slot in slots)


def never_merged(facts, fragments):
    """Yield a note if there are fewer rounds than fragments."""
    if facts.rounds < fragments:
        yield (f"{facts.rounds} rounds merge as many of the {fragments} fragments: the others stay "
               "as they were at first")


def arrival(mixing):
    """``arrive(task)``: the received part becomes the client's own, see ``Descent.arrives``."""

    def arrive(task):
        new = task.base
        if mixing:
            new = (1 - mixing) * task.base + mixing * task.x
        task.x.copy_(torch.where(task.came, new, task.x))

    return arrive
