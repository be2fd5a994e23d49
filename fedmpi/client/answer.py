"""What a client answers once it has trained: its update and whatever else its strategy, pruner and estimators want."""

import math
import time
from typing import NamedTuple

import numpy as np
import torch

from fedmpi.client.numbers import WORK, Number
from fedmpi.client.train import OWN, RESIDUAL
from fedmpi.core import exact_sum
from fedmpi.core.support import gathered
from fedmpi.methods.codecs.values import drawing
from fedmpi.wire import fields, frame, positions
from fedmpi.wire.feedback import carried, feeding_back


class Sums(NamedTuple):
    """What the clients of this rank have added up in this round, whole numbers as ``fedmpi.core.exact_sum`` has them,
    on the device."""

    update: torch.Tensor          # (P,) int64, the first K of them in use
    totals: dict                  # {name: (size,) int64} of the strategy's answers that are summed


def no_sums(layout, answers, device):
    """The ``Sums`` before anybody has answered; ``answers`` are the strategy's fields."""
    totals = {name: torch.zeros(size_of(field, layout.P), dtype=torch.int64, device=device)
              for name, field in answers.items() if field.fold == "sum"}
    return Sums(torch.zeros(layout.P, dtype=torch.int64, device=device), totals)


def size_of(field, K):
    """How many values a field holds, where the support has K."""
    return K if field.on == "support" else math.prod(field.on)


def clear(sums):
    """Set all sums to zero."""
    sums.update.zero_()
    for total in sums.totals.values():
        total.zero_()


def joined(sums, answers, K):
    """int64, on the host: the sums of updates (K,), then those of the strategy's answers, one after the other."""
    parts = [sums.update[:K]]
    parts += [total[: size_of(answers[name], K)] for name, total in sums.totals.items()]
    return torch.cat(parts).cpu().numpy()


class Reply(NamedTuple):
    """What a client has made in its training, before it is encoded."""

    support: torch.Tensor         # (K,) int32 of the mask that it ended with
    update: torch.Tensor          # (K,) float32 on the device: trained minus received
    answers: dict                 # {name: tensor} of the strategy's
    kept: dict                    # {name: tensor} that the client keeps


def answer(parts, home, sums, single, job, client, trained, begin, cause):
    """``(meta, arrays)`` of the answer to ``job`` of a ``client`` (Prepared) that has ``trained``.

    ``sums`` is where its update is added, or None; ``single`` says whether the server wants it by itself. ``cause()``
    names what made an update useless. ``begin`` is when the work began, by ``time.perf_counter``."""
    task, received = client.task, client.received
    codec, fields_of = drawing(parts.codec, parts.seed, job["t"], job["client"]), parts.strategy.answers
    meta = {"kind": "update", "t": job["t"], "support": received.digest, "client": job["client"], "row": job["row"]}
    arrays = dict(client.reports)
    support = _own_support(home, client, meta, arrays)
    reply = _reply(parts, home, client, trained, support)
    loss, size = _checked(reply, trained.loss, meta, cause)
    counted = sums is not None and "share" in job
    values = _encoded(codec, home, client, reply, arrays, counted and not single)
    others = fields.encoded(fields_of, reply.answers, "answer/", codec, support)
    arrays |= values | others
    _report(task, meta, arrays)
    arrays["numbers"] = numbers = _numbers(task, trained, loss, time.perf_counter() - begin, parts.strategy.steps)
    if counted:
        numbers[Number.BYTES] = frame.size(meta, arrays) - unbilled(meta, arrays, parts.weighs, parts.strategy)
        # Add last, so that a client that fails leaves the sums untouched.
        numbers[Number.SUMMED] = _added(codec, fields_of, home, sums, reply, job["share"], loss, size, values, others)
    stays = set() if single else set(values)
    if counted:
        stays |= {name for name in others if _summed(fields_of, name)}
    return meta, {name: array for name, array in arrays.items() if name not in stays}


def _own_support(home, client, meta, arrays):
    """(K,): the support of the mask that the client ended with, which goes into the message where it is another than
    the received one."""
    mask, there = client.task.mask, client.received.there
    if mask is there or torch.equal(mask, there):
        return client.received.support
    mask = mask.cpu()
    meta["mask"], arrays["mask"] = positions.encode(mask.numpy(), client.known)
    return home.layout.support(mask)


def _reply(parts, home, client, trained, support):
    """The ``Reply`` of a client."""
    task, strategy = client.task, parts.strategy
    if strategy.update:
        update = home.stage.difference(task.x, client.received.base, support)
    else:
        update = torch.zeros(len(support), device=home.device)
    answers, kept = strategy.reply(task, trained) if strategy.reply else ({}, {})
    kept = {name: fields.values_of(name, strategy.keeps[name], tensor, support) for name, tensor in kept.items()}
    if home.layout.personal:
        kept[OWN] = gathered(task.x, home.layout.own.to(home.device))
    return Reply(support, update, answers, kept)


def _checked(reply, loss, meta, cause):
    """``(loss, size)`` of a reply: its loss, NaN where nothing of it can be merged, and its largest magnitude."""
    size = exact_sum.magnitude(reply.update)
    sound = size <= exact_sum.LARGEST and all(exact_sum.sound(part.float()) for part in reply.answers.values())
    if not (math.isfinite(loss) and sound):
        meta["cause"] = cause()
    # Check before encoding: a codec may make an exploded value look sound.
    return (loss if sound else math.nan), size


def _encoded(codec, home, client, reply, arrays, only_size):
    """The arrays of the encoded update; what the client keeps goes into ``arrays``. Where ``only_size`` they stay here,
    and may hold anything of the right size."""
    kept = reply.kept
    if codec.feedback:
        owed = client.residual
        if owed is not None:
            owed = carried(owed, client.received.support, reply.support, home.layout.P)
        values, kept[RESIDUAL] = feeding_back(codec, home.stage.down(reply.update), owed)
    elif only_size and codec.exact:
        values = codec.encode(torch.empty(len(reply.update)))
    else:
        values = codec.encode(home.stage.down(reply.update))
    arrays |= {f"kept/{name}": tensor.cpu().numpy() for name, tensor in kept.items()}
    return values


def _report(task, meta, arrays):
    """Put what the pruner's probe has to say into the message."""
    for name, array in task.probe.report().items():
        if name == "index":
            meta["index"], array = positions.encode(positions.mask_of(array, task.layout.Q))
        arrays["report/" + name] = array


def _numbers(task, trained, loss, seconds, steps):
    """float64: the answer's numbers, but for those of the sums; with ``steps`` those of the optimiser's steps, too."""
    numbers = np.zeros(len(Number) if steps else int(Number.STEPS))
    numbers[WORK] = trained.samples, task.probe.extra, min(task.probe.dense, trained.samples)
    numbers[Number.SAMPLES], numbers[Number.LOSS] = len(task.labels), loss
    numbers[Number.SECONDS] = seconds
    if steps:
        numbers[Number.STEPS], numbers[Number.TRAVELLED] = trained.steps, trained.travelled
    return numbers


def _added(codec, fields_of, home, sums, reply, share, loss, size, values, others):
    """Whether a reply is in the sums now: one that cannot be merged is not."""
    K = len(reply.support)
    update = reply.update
    if not codec.exact:
        # What encoding lost before went along, so that the decoded update may be larger.
        update = codec.decode(values, K).to(home.device)
        size = exact_sum.magnitude(update)
    if not (math.isfinite(loss) and size <= exact_sum.LARGEST):
        return 0
    decoded = fields.decoded({name: fields_of[name] for name in sums.totals}, others, "answer/", codec, K)
    exact_sum.add(sums.update[:K], update, share, size)
    for name, tensor in decoded.items():
        tensor = tensor.float().flatten().to(home.device)
        exact_sum.add(sums.totals[name][: len(tensor)], tensor, 1.0, exact_sum.magnitude(tensor))
    return 1


def _summed(fields_of, name_on_the_wire):
    """Whether an array belongs to an answer of which the server wants the sum alone."""
    name = name_on_the_wire.removeprefix("answer/").partition("/")[0]
    return fields_of[name].fold == "sum"


def unbilled(meta, arrays, weighs, strategy):
    """The bytes of an answer that are no part of what the method costs: those for estimators that only observe, and
    those of what a client keeps, which a real one would not send."""
    billed = {name: array for name, array in arrays.items() if is_billed(name, weighs, strategy)}
    return 0 if len(billed) == len(arrays) else frame.size(meta, arrays) - frame.size(meta, billed)


def is_billed(name, weighs, strategy):
    """Whether an array of a message is billed; ``weighs`` is the label of the estimator that weighs."""
    kind, _, rest = name.partition("/")
    if kind == "score":
        return rest.startswith(weighs + "/")
    if kind in ("answer", "given"):
        fields_of = strategy.answers if kind == "answer" else strategy.sends
        return fields_of[rest.partition("/")[0]].billed
    return kind != "kept"
