"""What clients keep between their rounds, held by the server in trust: a simulated client has no memory of its own.

A client's state belongs to the client and never to a rank: it travels with the client's job and comes back with its
answer, is billed to nobody, and counts once the answer was merged. A state on the support of a mask is kept as the
values there, together with the mask; when it is wanted under another mask it is 0 wherever a weight is new, also where
one was pruned and has grown again in between.

``{client: Kept}`` is part of the run's state. The values lie in memory, or in a file a client and round where those of
all clients would need more than ``IN_MEMORY`` bytes (``fedmpi.store.client_files``); then a checkpoint names the files,
and no state is written twice.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from fedmpi.core.support import scattered

IN_MEMORY = 256 << 20      # bytes of all clients' states together that rank 0 holds
MASK = "_mask"             # among the values of a client: the mask, packed, that those on the support belong to


class Kept(NamedTuple):
    """What one client keeps since round ``t``."""

    t: int
    values: dict | None           # {name: tensor}; None where they lie in a file


def kept(t, mask, values, shelf, client):
    """The ``Kept`` of a client whose answer, of ``mask (Q,) bool``, was merged in round ``t``."""
    values = values | {MASK: torch.from_numpy(np.packbits(mask.numpy()))}
    if shelf is None:
        return Kept(t, values)
    shelf.write(client, t, {name: tensor.numpy() for name, tensor in values.items()})
    return Kept(t, None)


def recalled(found, layout, mask, support, grown, fixed, shelf=None, client=None):
    """``{name: tensor}``: what a client kept, as it is under ``mask (Q,)`` with this ``support (K,)``.

    ``grown (Q,)`` int32 is the round from which on each weight has lived without a break, or None where masks never
    change; values of the names in ``fixed`` are of no support."""
    values = found.values
    if values is None:
        values = {name: torch.from_numpy(array) for name, array in shelf.read(client, found.t).items()}
    values = dict(values)
    bits = values.pop(MASK)
    if grown is None or values.keys() <= fixed:
        return values
    before = torch.from_numpy(np.unpackbits(bits.numpy(), count=layout.Q).astype(bool))
    # What has grown in the very next round was in the client's own mask, if it was in any.
    alive = before & (grown <= found.t + 1)
    if torch.equal(alive, mask):
        return values
    return {name: tensor if name in fixed else carried(tensor, layout, alive, before, support)
            for name, tensor in values.items()}


def carried(values, layout, alive, before, support):
    """(K',) float32 on ``support (K',)``: ``values (K,)`` of the mask ``before (Q,)``, 0 where a weight is not ``alive
    (Q,)`` any more."""
    whole = scattered(values, layout.support(before), torch.zeros(layout.P))
    whole[: layout.Q] *= alive
    return whole.index_select(0, support)


def grown(before, mask, last, t):
    """(Q,) int32: from which round on each weight lives, where ``mask`` comes after ``last``, that of round ``t``."""
    new = mask & ~last
    return torch.where(new, t + 1, before) if bool(new.any()) else before


def spills(fields, layout, N):
    """Whether what N clients keep is too much for memory; ``fields`` are the sizes that can be known before."""
    sizes = [layout.P if field.on == "support" else math.prod(field.on) for field in fields.values()
             if field.on != "any"]
    return 4 * N * sum(sizes) > IN_MEMORY


def files_of(states):
    """The pairs (client, round) of the files that ``{client: Kept}`` names."""
    return {(client, found.t) for client, found in states.items() if found.values is None}


def as_dict(states):
    """``{client: Kept}`` as a checkpoint holds it: columns of all clients instead of an entry each."""
    clients = sorted(states)
    entry = {"client": torch.tensor(clients, dtype=torch.int64),
             "t": torch.tensor([states[client].t for client in clients], dtype=torch.int64), "values": {}}
    names = {name for client in clients for name in states[client].values or ()}
    for name in sorted(names):
        have = [row for row, client in enumerate(clients) if name in states[client].values]
        tensors = [states[clients[row]].values[name] for row in have]
        entry["values"][name] = {"rows": torch.tensor(have),
                                 "flat": torch.cat([tensor.flatten() for tensor in tensors]),
                                 "shapes": torch.tensor([tensor.shape for tensor in tensors], dtype=torch.int64)}
    return entry


def from_dict(entry):
    """``{client: Kept}`` of such columns."""
    clients, rounds = entry["client"].tolist(), entry["t"].tolist()
    values = [None] * len(clients)
    if entry["values"]:
        values = [{} for _ in clients]
    for name, columns in entry["values"].items():
        shapes = columns["shapes"].tolist()
        parts = columns["flat"].split([math.prod(shape) for shape in shapes])
        for row, part, shape in zip(columns["rows"].tolist(), parts, shapes):
            values[row][name] = part.view(shape)
    return {client: Kept(t, row) for client, t, row in zip(clients, rounds, values)}
