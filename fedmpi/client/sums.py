"""Sums of a round's updates: of this rank's clients, or of all clients of the node's ranks.

A large model's sums lie in the node's memory once, 8 bytes a weight. All of its workers add to
them, a piece under a lock at a time: integers come to the same sum in any order.
"""

from typing import Callable, NamedTuple

import numpy as np
import torch

from fedmpi.core import exact_sum
from fedmpi.core.allocator import LARGE

# Entries under one lock: 8 MiB, so that ranks seldom wait for each other.
PIECE = 1 << 20


class Sums(NamedTuple):
    """Sums (P,) int64 of updates on a support: the first K entries are in use.

    ``begin(t)``: a round begins, all sums are 0. ``add(update (K,), share, size)`` adds a client's
    update, see ``exact_sum.add``. ``part(start, stop)``: these sums as a numpy array, read only;
    None if another rank tells them.
    """

    begin: Callable
    add: Callable
    part: Callable


def sums(P, device, memory, adds):
    """The ``Sums`` of a rank; ``memory`` see ``fedmpi.transport.sharing.room``.

    On a GPU they stay there: the way down would take longer than adding. ``adds``: whether the rank
    has clients of its own.
    """
    if P >= LARGE and device.type == "cpu":
        # All workers of the node make them together.
        return of_node(P, memory)
    if not adds:
        return of_nobody()
    return of_rank(P, device)


def of_nobody():
    """The ``Sums`` of a rank without clients."""
    def begin(t):
        pass

    def add(update, share, size):
        raise AssertionError("a rank without clients has nothing to add")

    def part(start, stop):
        return None

    return Sums(begin, add, part)


def of_rank(P, device):
    """The ``Sums`` of this rank's clients, on the device."""
    total = torch.zeros(P, dtype=torch.int64, device=device)

    def begin(t):
        total.zero_()

    def add(update, share, size):
        exact_sum.add(total[: len(update)], update, share, size)

    def part(start, stop):
        return total[start:stop].cpu().numpy()

    return Sums(begin, add, part)


def of_node(P, memory):
    """The ``Sums`` of the clients of all workers of this node, in memory that they share."""
    num_pieces = -(-P // PIECE)
    room = memory(8 * (num_pieces + P))
    numbers = room.content.view(np.int64)
    # The round of a piece's sums. Nobody need set a new round's sums to 0: whoever adds first does.
    rounds, total = numbers[:num_pieces], torch.from_numpy(numbers[num_pieces:])
    now = 0

    def begin(t):
        nonlocal now
        now = t

    def piece(number):
        """The sums of a piece in this round."""
        first = number * PIECE
        sums_now = total[first: first + PIECE]
        if rounds[number] != now:
            sums_now.zero_()
            rounds[number] = now
        return sums_now

    def add(update, share, size):
        for number, values in enumerate(update.split(PIECE)):
            with room.lock(number):
                sums_now = piece(number)
                exact_sum.add(sums_now[: len(values)], values, share, size)

    def part(start, stop):
        if not room.is_first:
            return None
        # All clients have answered: nobody adds any more.
        for number in range(start // PIECE, -(-stop // PIECE)):
            piece(number)
        return total[start:stop].numpy()

    return Sums(begin, add, part)
