"""One client's local training, divided over the ranks of a group: data parallel, with shards.

Every member of a group has the whole model, and takes its share of each batch. The vector of
trained weights is cut in spans, one a member. A member adds up the gradients of its own span, from
all members, keeps the optimiser's state of it, steps it, and gives its new weights to the others::

    share of the batch -> gradients of all weights -> sums of the own span -> step of the own span
                                                                           -> weights of all spans

This is the second stage of ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054). A gradient leaves for
the member of its span as soon as the backward pass has it, and a member never holds all of them.
The bytes between members are those of adding up gradients at all of them, twice the weights a step.

Gradients are added in the order of members, whatever the library behind a process group does: the
same bits for the same number of members. They are those of one rank but for rounding, as a share
counts by its samples.

FSDP2 of torch would divide the weights, too. It puts parameters of its own in the place of the
model's, though, which are views of one vector here: for messages, masks, tests.
"""

import contextlib
import math
from collections import deque
from typing import Any, NamedTuple

import torch
from torch import distributed

from fedmpi.compute.sgd import batches, learning_rates, length_of, resume, shift_of
from fedmpi.core.errors import UserError
from fedmpi.core.parts import Descent, Trained
from fedmpi.core.support import count

# Pieces of gradients on their way at a time: the backward pass goes on meanwhile.
IN_FLIGHT = 2
# Values of a piece: 8 MiB.
PIECE = 1 << 21
# The torch libraries of process groups: for tensors in the node's memory, and on GPUs.
BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


class Group(NamedTuple):
    """A rank's place among the ranks that train one client."""

    member: int                   # its number, from 0: that one leads, and answers the server
    size: int
    process_group: Any            # of torch.distributed


def span_of(R, size, member):
    """The slice of R trained weights that a ``member`` of ``size`` owns.

    >>> [span_of(10, 3, member) for member in range(3)]
    [slice(0, 4, None), slice(4, 8, None), slice(8, 10, None)]
    """
    # Divided and rounded up.
    longest = -(-R // size)
    start = min(member * longest, R)
    stop = min(start + longest, R)
    return slice(start, stop)


def share_of(inputs, targets, size, member):
    """``(inputs, targets, rows)``: a member's samples of a batch, and how many of them count.

    A member without any gets the first sample of the batch, which does not count: its passes are
    those of the others, and so are its exchanges.
    """
    own_targets = targets.tensor_split(size)[member]
    rows = len(own_targets)
    if not rows:
        return inputs[:1], targets[:1], 0
    return inputs.tensor_split(size)[member], own_targets, rows


def train(local, task, group):
    """The ``Trained`` of a task that all members of the ``group`` were given; ``task.x`` is trained
    in place, at all of them.

    ``local`` is a ``Descent``. The state of one that resumes is whole at the leader, and empty at
    others.
    """
    if not isinstance(local, Descent):
        raise UserError("a training of a strategy's own cannot be divided over several ranks: take "
                        "--ranks-per-client 1")
    if task.probe.step is not None or task.probe.epoch is not None:
        raise UserError("the pruner watches the steps of a training, whose gradients are divided "
                        "over several ranks: take --ranks-per-client 1")
    R = task.layout.R
    spans = [span_of(R, group.size, member) for member in range(group.size)]
    own = spans[group.member]
    # Its memory is the rank's already. Only this span of it is written to.
    sums = task.g[own]
    with exchanging(task, spans, group, sums) as exchange:
        return _descend(task, local, group, spans, sums, exchange)


def _descend(task, descent, group, spans, sums, exchange):
    """``train``, once gradients go to the members of their spans: to ``sums`` of the own one."""
    x = task.x[: task.layout.R]
    own = spans[group.member]
    epochs, steps, _ = length_of(task)
    lrs = learning_rates(task, steps)
    state = task.optimiser.init(x[own])
    # Counts are the same for all spans.
    resume(state, {name: _part(tensor, own) for name, tensor in task.inner.items()})
    change = _changing(task, descent, group, own)
    move = _moving(task.optimiser, x[own], sums, state)
    slopes = _slopes(task, descent, group, exchange)

    total = torch.zeros((), device=x.device)
    taken = seen = 0
    task.model.train()
    for _ in range(epochs):
        for inputs, targets in batches(task, descent.shuffle):
            if taken == steps:
                break
            sums.zero_()
            total += slopes(inputs, targets)
            change(sums)
            move(lrs[taken])
            _give_weights(x, spans, group)
            taken += 1
            seen += len(targets)
    sums.zero_()
    loss = float(_of_all(total, group).sum()) / max(seen, 1)
    travelled = math.nan
    if task.optimiser.travelled is not None:
        travelled = task.optimiser.travelled(lrs[:taken])
    kept = {}
    if descent.resumes:
        kept = _whole(state, spans, group)
    return Trained(loss, taken, seen, travelled, kept)


def _part(tensor, span):
    """The ``span`` of a vector; a count, which has no dimensions, is itself."""
    return tensor[span] if tensor.ndim else tensor


# --- a step ---


def _slopes(task, descent, group, exchange):
    """``slopes(inputs, targets) -> ()``: the loss of the member's share, times its samples.

    Its gradients are at the members of their spans when this returns.
    """
    model = task.model
    loss_of = descent.loss or task.objective.loss

    def slopes(inputs, targets):
        num_samples = len(targets)
        # Each part of a batch is divided, so that all members take as many passes.
        part_size = -(-num_samples // task.accumulate)
        total = torch.zeros((), device=targets.device)
        for few_inputs, few_targets in zip(inputs.split(part_size), targets.split(part_size)):
            share = share_of(few_inputs, few_targets, group.size, group.member)
            own_inputs, own_targets, rows = share
            with task.casting():
                loss = loss_of(model(own_inputs), own_targets)
            (loss * (rows / num_samples)).backward()
            exchange.finish()
            total += loss.detach() * rows
        return total

    return slopes


def _changing(task, descent, group, own):
    """``change(sums)`` in place: what ``Descent`` adds, the mask, and the shortening of a step.

    In the order of ``fedmpi.compute.sgd``, on the ``own`` span.
    """
    x = task.x[own]
    is_sparse = count(task.mask) < task.layout.num_weights
    shift = None
    if descent.shift is not None:
        shift = shift_of(descent, task)[own]

    def change(sums):
        if descent.mu:
            sums.add_(x, alpha=descent.mu).sub_(task.base[own], alpha=descent.mu)
        if shift is not None:
            sums.add_(shift)
        if is_sparse:
            sums.mul_(task.trainable[own])
        if task.clip_norm:
            norms = _of_all(torch.linalg.vector_norm(sums), group)
            norm = torch.linalg.vector_norm(norms)
            # As in torch: the 1e-6 spares a gradient of 0 the division by 0.
            factor = task.clip_norm / (norm + 1e-6)
            sums.mul_(factor.clamp(max=1.0))

    return change


def _moving(optimiser, x, sums, state):
    """``move(lr)``: the optimiser's step of the own span ``x``, by its kernel if it has one."""
    if optimiser.fused is None:
        return lambda lr: optimiser.step(x, sums, state, lr)
    # The kernel takes a list of tensors for each vector; counts stay as they are.
    states = dict(state)
    for name, tensor in state.items():
        if tensor.shape == x.shape:
            states[name] = [tensor]
    vectors, gradients = [x], [sums]
    return lambda lr: optimiser.fused(vectors, gradients, states, lr)


# --- between members ---


def _give_weights(x, spans, group):
    """Every member's span of ``x (R,)`` to all others."""
    works = []
    for member, span in enumerate(spans):
        work = distributed.broadcast(
            x[span], member, group=group.process_group, async_op=True)
        works.append(work)
    for work in works:
        work.wait()


def _of_all(value, group):
    """(size,): the members' values ``value ()``, in their order."""
    values = [torch.empty_like(value) for _ in range(group.size)]
    distributed.all_gather(values, value, group=group.process_group)
    return torch.stack(values)


def _whole(state, spans, group):
    """``{name: tensor}``: the optimiser's state of all spans at the leader, empty at others."""
    whole = {}
    for name, tensor in state.items():
        if not tensor.ndim:
            whole[name] = tensor
            continue
        if group.member:
            distributed.send(tensor, 0, group=group.process_group)
            continue
        vector = tensor.new_empty(spans[-1].stop)
        vector[spans[0]] = tensor
        for member in range(1, group.size):
            distributed.recv(vector[spans[member]], member, group=group.process_group)
        whole[name] = vector
    return {} if group.member else whole


@contextlib.contextmanager
def exchanging(task, spans, group, sums):
    """An ``Exchange`` that the model's backward passes feed, inside a context.

    Afterwards the model's gradients add up in the task's ``g`` again.
    """
    named = dict(task.model.named_parameters())
    slots = {slot.name: slot for slot in task.layout.trained}
    # Backward passes come to the last parameters first.
    ordered = [slots[name] for name in reversed(named) if name in slots]
    exchange = Exchange(ordered, spans, group, sums)
    handles = []
    for place, slot in enumerate(ordered):
        parameter = named[slot.name]
        parameter.grad = None

        def hand_over(parameter, place=place):
            gradient, parameter.grad = parameter.grad, None
            exchange.give(place, gradient)

        handles.append(parameter.register_post_accumulate_grad_hook(hand_over))
    try:
        yield exchange
    finally:
        for handle in handles:
            handle.remove()
        for slot in ordered:
            named[slot.name].grad = slot.of(task.g)


def pieces_of(slot, spans):
    """Yield ``(member, start, stop)``: the pieces of a slot in the vector, and whose spans they are
    in."""
    end = slot.offset + slot.size
    for member, span in enumerate(spans):
        first = max(slot.offset, span.start)
        last = min(end, span.stop)
        for start in range(first, last, PIECE):
            stop = min(start + PIECE, last)
            yield member, start, stop


class Exchange:
    """Gradients on their way to the members of their spans.

    They leave in one order at all members, that of ``slots``, whatever order passes find them in.
    One that comes before its turn waits.
    """

    def __init__(self, slots, spans, group, sums):
        self.slots, self.spans, self.group = slots, spans, group
        self.sums = sums
        # {place in the order: gradient} of those that wait.
        self.early = {}
        self.turn = 0
        # Rooms for all members' pieces, in turn: one for each piece on its way.
        longest = min(PIECE, len(sums))
        self.rooms = deque(sums.new_empty(IN_FLIGHT, group.size, longest))
        # (work, piece, parts, where their sum begins), the oldest first.
        self.in_flight = deque()

    def give(self, place, gradient):
        """Take the gradient of the slot at ``place`` in the order."""
        self.early[place] = gradient
        while self.turn in self.early:
            self._leave(self.early.pop(self.turn))

    def finish(self):
        """Wait until all gradients of a pass are in the sums."""
        while self.turn < len(self.slots):
            gradient = self.early.pop(self.turn, None)
            if gradient is None:
                # The pass has not used this parameter.
                gradient = self.sums.new_zeros(self.slots[self.turn].size)
            self._leave(gradient)
        while self.in_flight:
            self._settle()
        self.turn = 0

    def _leave(self, gradient):
        """Send the gradient of the slot whose turn it is, in pieces, to the members of its spans."""
        slot = self.slots[self.turn]
        self.turn += 1
        flat = gradient.contiguous().view(-1)
        for owner, start, stop in pieces_of(slot, self.spans):
            own_start = self.spans[owner].start
            piece = flat[start - slot.offset: stop - slot.offset]
            self._send(piece, owner, start - own_start)

    def _send(self, piece, owner, start):
        """Send a piece to its ``owner``, whose sums have it from ``start`` on."""
        if len(self.in_flight) == IN_FLIGHT:
            self._settle()
        parts = None
        if owner == self.group.member:
            room = self.rooms[0]
            self.rooms.rotate()
            parts = [part[: len(piece)] for part in room]
        work = distributed.gather(
            piece, parts, owner, group=self.group.process_group, async_op=True)
        self.in_flight.append((work, piece, parts, start))

    def _settle(self):
        """Wait for the oldest piece, and add it up if it is of the own span."""
        work, piece, parts, start = self.in_flight.popleft()
        work.wait()
        if parts is None:
            return
        first, *others = parts
        for part in others:
            first.add_(part)
        self.sums[start: start + len(piece)] += first
