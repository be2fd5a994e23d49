"""Clients' states between their rounds, held by the server: a simulated client has no memory.

A state belongs to the client, never to a rank. It travels with the client's job and comes back with
its answer, is billed to nobody, and counts once the answer is merged. Values on the support of a
mask are kept together with the mask. Under another mask they are 0 wherever a weight is new, also
if it was pruned and has grown again in between.

``{client: Kept}`` is part of the run's state. Values lie in memory, or in one file for each client
and round if all clients together would need more than IN_MEMORY bytes
(``fedmpi.store.client_files``). A checkpoint then names the files: no state is written twice.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from fedmpi.core.support import gathered, scattered

# Bytes of all clients' states together that rank 0 holds at most.
IN_MEMORY = 256 << 20
# The name, among a client's values, of the packed mask that values on the support belong to.
MASK = "_mask"


class Kept(NamedTuple):
    """A client's state since round ``t``."""

    t: int
    values: dict | None           # {name: tensor}; None if they lie in a file


def kept(t, mask, values, shelf, client):
    """The ``Kept`` of a client whose answer, on ``mask (Q,) bool``, was merged in round ``t``."""
    packed = np.packbits(mask.numpy())
    values = values | {MASK: torch.from_numpy(packed)}
    if shelf is None:
        return Kept(t, values)
    arrays = {name: tensor.numpy() for name, tensor in values.items()}
    shelf.write(client, t, arrays)
    return Kept(t, None)


def recalled(state, layout, mask, support, grown, fixed, shelf=None, client=None):
    """``{name: tensor}``: the values of ``state``, a Kept, as they are under ``mask (Q,)``.

    ``support (K,)`` is the mask's. ``grown (Q,)`` int32 is the round from which on each weight has
    lived without a break, or None if masks never change. The names in ``fixed`` are on no support.
    """
    values = _values(state, shelf, client)
    bits = values.pop(MASK)
    if grown is None or values.keys() <= fixed:
        return values
    unpacked = np.unpackbits(bits.numpy(), count=layout.Q)
    before = torch.from_numpy(unpacked.astype(bool))
    # Weights grown in the very next round were in the client's own mask, if they were in any.
    alive = before & (grown <= state.t + 1)
    if torch.equal(alive, mask):
        return values
    for name, tensor in values.items():
        if name not in fixed:
            values[name] = carried(tensor, layout, alive, before, support)
    return values


def _values(state, shelf, client):
    """A new dict of a client's values, from memory or from its file."""
    if state.values is not None:
        return dict(state.values)
    arrays = shelf.read(client, state.t)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def carried(values, layout, alive, before, support):
    """(K',) float32 on ``support (K',)``, from ``values (K,)`` on the mask ``before (Q,)``.

    Weights have 0 unless they are still ``alive (Q,)``.
    """
    support_before = layout.compact(before)
    zeros = torch.zeros(layout.P)
    whole = scattered(values, support_before, zeros)
    whole[: layout.Q] *= alive
    return gathered(whole, support)


def grown(before, mask, last, t):
    """(Q,) int32: the round from which on each weight has lived, updated from ``before (Q,)``.

    ``last (Q,)`` is the mask of round ``t``, ``mask (Q,)`` the next one.
    """
    new = mask & ~last
    if not bool(new.any()):
        return before
    return torch.where(new, t + 1, before)


def spills(fields, layout, N):
    """Whether the states of N clients exceed IN_MEMORY, as far as ``{name: Field}`` tells sizes."""
    num_values = 0
    for field in fields.values():
        if field.on == "support":
            num_values += layout.P
        elif field.on != "any":
            num_values += math.prod(field.on)
    # Values are float32.
    return 4 * N * num_values > IN_MEMORY


def files_of(states):
    """``{(client, round)}``: the files of ``{client: Kept}``."""
    return {(client, state.t) for client, state in states.items() if state.values is None}


def as_dict(states):
    """``{client: Kept}`` as a checkpoint holds it: columns instead of an entry a client."""
    clients = sorted(states)
    ordered = [states[client] for client in clients]
    names = {name for state in ordered for name in state.values or ()}
    rounds = [state.t for state in ordered]
    values = {name: _column(ordered, name) for name in sorted(names)}
    return {
        "client": torch.tensor(clients, dtype=torch.int64),
        "t": torch.tensor(rounds, dtype=torch.int64),
        "values": values,
    }


def _column(states, name):
    """The values ``name`` of all states with this name, one behind the other."""
    rows = [row for row, state in enumerate(states) if name in state.values]
    tensors = [states[row].values[name] for row in rows]
    shapes = [tensor.shape for tensor in tensors]
    flat = [tensor.flatten() for tensor in tensors]
    return {
        "rows": torch.tensor(rows),
        "flat": torch.cat(flat),
        "shapes": torch.tensor(shapes, dtype=torch.int64),
    }


def from_dict(entry):
    """``{client: Kept}`` from the columns of a checkpoint."""
    clients = entry["client"].tolist()
    if entry["values"]:
        values = [{} for _ in clients]
    else:
        # All values lie in files.
        values = [None for _ in clients]
    for name, column in entry["values"].items():
        shapes = column["shapes"].tolist()
        sizes = [math.prod(shape) for shape in shapes]
        parts = column["flat"].split(sizes)
        rows = column["rows"].tolist()
        for row, part, shape in zip(rows, parts, shapes):
            values[row][name] = part.view(shape)
    states = map(Kept, entry["t"].tolist(), values)
    return dict(zip(clients, states))
