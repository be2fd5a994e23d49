"""A client's answer after its training: its update, and reports to the methods."""

import math
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from fedmpi.client.stats import WORK, Stats
from fedmpi.client.own_values import state_after
from fedmpi.client.sums import Sums, sums
from fedmpi.client.train import INNER, OWN, RESIDUAL, inner_fields
from fedmpi.core import exact_sum
from fedmpi.core.allocator import LARGE
from fedmpi.core.support import gathered
from fedmpi.wire.chosen import for_update, up
from fedmpi.wire.codecs import drawing
from fedmpi.wire import fields, frame, positions
from fedmpi.wire.feedback import carried, feeding_back


class Accumulator(NamedTuple):
    """The sums of this rank's clients in a round: integers of ``core.exact_sum``, on the device."""

    update: Sums
    totals: dict                  # {name: (size,) int64} of the strategy's answers that are summed


def empty_accumulator(layout, answers, device, memory, adds=True):
    """The ``Accumulator`` before any answer; ``answers`` are the strategy's fields.

    ``memory`` is that of the node's workers, see ``fedmpi.transport.sharing.room``. ``adds``:
    whether this rank has clients of its own; those of its node may have sums together.
    """
    def zeros(size):
        return torch.zeros(size, dtype=torch.int64, device=device)

    totals = {}
    for name, field in answers.items():
        if field.fold == "sum":
            # Any support is smaller than the whole vector.
            size = size_of(field, layout.P)
            totals[name] = zeros(size)
    return Accumulator(sums(layout.P, device, memory, adds), totals)


def size_of(field, K):
    """The number of values of a field, on a support of K."""
    if field.on == "support":
        return K
    return math.prod(field.on)


def clear(accumulator, t):
    """Set all sums to zero, for round ``t``."""
    accumulator.update.begin(t)
    for total in accumulator.totals.values():
        total.zero_()


def joined(accumulator, answers, K, start, stop):
    """int64, on the host: the entries ``start`` to ``stop`` of all sums, one behind the other.

    These are the sum of updates (K,), then the sums of the strategy's answers. None: nothing is
    added here.
    """
    first, last = min(start, K), min(stop, K)
    part = accumulator.update.part(first, last)
    if not accumulator.totals:
        return part
    if part is None:
        part = np.zeros(last - first, np.int64)
    parts = [part]
    end = K
    for name, total in accumulator.totals.items():
        begin, end = end, end + size_of(answers[name], K)
        # Counted from the beginning of this sum.
        first, last = max(start, begin) - begin, min(stop, end) - begin
        parts.append(total[first: max(first, last)].cpu().numpy())
    return np.concatenate(parts)


class Reply(NamedTuple):
    """The results of a client's training, before they are encoded."""

    support: Any                  # (K,) of the mask at the end of the training
    update: torch.Tensor          # (K,) float32 on the device: trained minus received
    answers: dict                 # {name: tensor} of the strategy's
    kept: dict                    # {name: tensor} of the client's state


def answer(parts, home, accumulator, wants_single_updates, job, client, trained, begin, cause):
    """``(meta, arrays)``: the answer to ``job`` of a ``client``, a Prepared, that has ``trained``.

    The update is added to ``accumulator``, unless None. ``wants_single_updates``: the server wants
    the update itself, too. ``cause()`` names the cause of a useless update. The work began at
    ``begin``, by ``time.perf_counter``.
    """
    task = client.task
    meta = {
        "kind": "update",
        "t": job["t"],
        "support": client.received.digest,
        "client": job["client"],
        "row": job["row"],
    }
    arrays = dict(client.reports)
    answer_fields = parts.strategy.answers
    support = _own_support(home, client, meta, arrays)
    reply = _reply(parts, home, client, trained, support)
    codec = for_update(parts.codec, parts.strategy, home.layout, job["t"], support)
    codec = drawing(codec, parts.seed, job["t"], job["client"])
    chosen = up(parts.strategy, home.layout, job["t"], support)
    loss, size = _checked(reply, trained.loss, meta, cause)
    if not math.isfinite(loss):
        reply = _unchanged(reply)

    counted = accumulator is not None and "share" in job
    stays_here = counted and not wants_single_updates
    values = _encoded(codec, home, client, reply, arrays, chosen, stays_here)
    others = fields.encoded(answer_fields, reply.answers, "answer/", codec, support)
    arrays |= values
    arrays |= others
    _report(task, meta, arrays)
    seconds = time.perf_counter() - begin
    numbers = arrays["numbers"] = _numbers(task, trained, loss, seconds, parts.strategy.steps)
    if counted:
        whole = frame.size(meta, arrays)
        numbers[Stats.BYTES] = whole - unbilled(meta, arrays, parts.weighs, parts.strategy)
        # Add last, so that a failing client leaves the sums untouched.
        share = job["share"]
        numbers[Stats.SUMMED] = _added(
            codec, answer_fields, home, accumulator, reply, share, loss, size, values, others)
        arrays = _without_sums(arrays, answer_fields, others)
    if not wants_single_updates:
        arrays = _without(arrays, values)
    return meta, arrays


def _without(arrays, names):
    """The ``arrays`` but for those with these names."""
    return {name: array for name, array in arrays.items() if name not in names}


def _without_sums(arrays, answer_fields, others):
    """The ``arrays`` but for those of the strategy's answers that only count as sums."""
    summed = [path for path in others if _summed(answer_fields, path)]
    return _without(arrays, summed)


def _own_support(home, client, meta, arrays):
    """(K,): the support of the client's mask after its training.

    A mask that differs from the received one goes into the message.
    """
    mask, received = client.task.mask, client.received
    # The same object is the usual case, and needs no comparison.
    is_received = mask is received.device_mask
    if is_received or torch.equal(mask, received.device_mask):
        return received.support
    mask = mask.cpu()
    code, bits = positions.encode(mask.numpy(), client.last_mask)
    meta["mask"] = code
    arrays["mask"] = bits
    return home.layout.compact(mask)


def _reply(parts, home, client, trained, support):
    """The ``Reply`` of a client, on the ``support (K,)`` at the end of its training."""
    task, strategy = client.task, parts.strategy
    if strategy.update:
        into = _free_vector(home)
        update = home.stage.difference(task.x, task.base, support, into)
    else:
        update = torch.zeros(len(support), device=home.device)
    answers, kept = {}, {}
    if strategy.reply:
        answers, kept = strategy.reply(task, trained)
    state = {}
    for name, tensor in kept.items():
        field = strategy.keeps[name]
        state[name] = fields.values_of(name, field, tensor, support)
    state |= _inner(parts, home, trained.state, support)
    state |= state_after(strategy, task, support)
    if home.layout.personal:
        personal = home.layout.personal_positions.to(home.device)
        state[OWN] = gathered(task.x, personal)
    return Reply(support, update, answers, state)


def _free_vector(home):
    """(P,): a vector that is free after a training, for the update of a large model, or None.

    It is one of the optimiser's: fresh memory would cost more than the subtraction. The next
    training writes to it again.
    """
    layout = home.layout
    is_small = layout.P < LARGE
    # The optimiser has no values of buffers, which lie behind R.
    has_buffers = layout.R < layout.P
    if is_small or has_buffers or not home.spare:
        return None
    vectors = home.spare.values()
    return next(iter(vectors))


def _inner(parts, home, state, support):
    """``{name: tensor}`` of an optimiser's ``state`` as the client keeps it, on ``support (K,)``."""
    inner = {}
    for name, field in inner_fields(parts.strategy, parts.optimiser).items():
        # A fault may have left no state: the client starts anew in its next round.
        tensor = state.get(name.removeprefix(INNER))
        if tensor is None:
            continue
        if field.on == "support" and len(tensor) < home.layout.P:
            # Running averages, behind the trained R, have none.
            tensor = F.pad(tensor, (0, home.layout.P - len(tensor)))
        inner[name] = fields.values_of(name, field, tensor, support)
    return inner


def _checked(reply, loss, meta, cause):
    """``(loss, size)``: the loss, NaN if nothing can be merged, and the update's magnitude."""
    # Check before encoding: a codec may make an exploded value look sound.
    size = exact_sum.magnitude(reply.update)
    fits = size <= exact_sum.LARGEST
    if not (fits and _all_sound(reply.answers)):
        loss = math.nan
    if not math.isfinite(loss):
        meta["cause"] = cause()
    return loss, size


def _unchanged(reply):
    """The ``reply`` with zeros in place of its update and answers.

    It will not be merged, and a codec need not expect NaN.
    """
    answers = {name: torch.zeros_like(tensor) for name, tensor in reply.answers.items()}
    return reply._replace(update=torch.zeros_like(reply.update), answers=answers)


def _all_sound(answers):
    parts = [part.float() for part in answers.values()]
    return all(map(exact_sum.sound, parts))


def _encoded(codec, home, client, reply, arrays, chosen, only_size):
    """The arrays of the encoded update; writes the client's state to ``arrays``.

    ``chosen (K,) bool`` are the values that travel, None: all. ``only_size``: the update stays on
    this rank, and any values of the right size will do.
    """
    kept = reply.kept
    if codec.feedback:
        residual = client.residual
        if residual is not None:
            residual = carried(residual, client.received.support, reply.support, home.layout.P)
        update = home.stage.down(reply.update)
        values, kept[RESIDUAL] = feeding_back(codec, update, residual, chosen)
    elif only_size and codec.exact:
        # Spare the way down from a GPU.
        anything = torch.empty(len(reply.update))
        values = codec.encode(anything)
    else:
        update = home.stage.down(reply.update)
        values = codec.encode(update)
    for name, tensor in kept.items():
        arrays[f"kept/{name}"] = tensor.cpu().numpy()
    return values


def _report(task, meta, arrays):
    """Write the report of the pruner's probe to the message."""
    for name, array in task.probe.report().items():
        if name == "index":
            mask = positions.mask_of(array, task.layout.Q)
            code, array = positions.encode(mask)
            meta["index"] = code
        arrays["report/" + name] = array


def _numbers(task, trained, loss, seconds, steps):
    """float64, by ``Stats``, without the sums' numbers; ``steps``: with the optimiser's steps."""
    count = len(Stats) if steps else int(Stats.STEPS)
    numbers = np.zeros(count)
    probe = task.probe
    dense = min(probe.dense, trained.samples)
    numbers[WORK] = trained.samples, probe.extra, dense
    numbers[Stats.SAMPLES] = len(task.labels)
    numbers[Stats.LOSS] = loss
    numbers[Stats.SECONDS] = seconds
    if steps:
        numbers[Stats.STEPS] = trained.steps
        numbers[Stats.TRAVELLED] = trained.travelled
    return numbers


def _added(codec, answer_fields, home, accumulator, reply, share, loss, size, values, others):
    """1 if the reply is in the sums now, 0 if it cannot be merged."""
    K = len(reply.support)
    update = reply.update
    if not codec.exact:
        # The residual was encoded, too: the decoded update may be larger.
        update = codec.decode(values, K)
        update = update.to(home.device)
        size = exact_sum.magnitude(update)
    fits = size <= exact_sum.LARGEST
    if not (fits and math.isfinite(loss)):
        return 0
    summed = {name: answer_fields[name] for name in accumulator.totals}
    decoded = fields.decoded(summed, others, "answer/", codec, K)
    accumulator.update.add(update, share, size)
    for name, tensor in decoded.items():
        tensor = tensor.float().flatten().to(home.device)
        total = accumulator.totals[name]
        total = total[: len(tensor)]
        size = exact_sum.magnitude(tensor)
        exact_sum.add(total, tensor, 1.0, size)
    return 1


def _summed(answer_fields, path):
    """Whether only the sum over clients counts of the answer in the array ``answer/NAME/...``."""
    name = path.removeprefix("answer/").partition("/")[0]
    return answer_fields[name].fold == "sum"


def unbilled(meta, arrays, weighs, strategy):
    """The bytes of an answer beside the method's own cost.

    These are reports to observing estimators, and the client's state: a real client would keep it.
    """
    billed = {}
    for path, array in arrays.items():
        if is_billed(path, weighs, strategy):
            billed[path] = array
    if len(billed) == len(arrays):
        return 0
    whole = frame.size(meta, arrays)
    return whole - frame.size(meta, billed)


def is_billed(path, weighs, strategy):
    """Whether an array of a message is billed; ``weighs`` labels the estimator that weighs."""
    kind, _, rest = path.partition("/")
    if kind == "score":
        return rest.startswith(weighs + "/")
    name = rest.partition("/")[0]
    if kind == "answer":
        return strategy.answers[name].billed
    if kind == "given":
        return strategy.sends[name].billed
    return kind != "kept"
