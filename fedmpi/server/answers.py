"""Answers of clients, as the server reads and checks them: an ``Update``, or a ``Refused`` that cannot be merged."""

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import torch

from fedmpi.client.answer import unbilled
from fedmpi.client.numbers import CAUSES, Number
from fedmpi.core import exact_sum
from fedmpi.core.errors import DivergedError, FedError, WireError, WorkerError
from fedmpi.core.support import index_of
from fedmpi.wire import fields, positions


class Outcome(IntEnum):
    """What became of a client that was asked."""

    MERGED = 0
    LATE = 1         # after the deadline, or not among the first answers
    DROPPED = 2      # its device never answered
    REJECTED = 3     # not finite, or too large
    FAILED = 4       # its training raised
    PASSED = 5       # asked for its loss only, and not chosen


class Update(NamedTuple):
    """One client's decoded answer."""

    values: torch.Tensor | None   # float32, on ``support``; None where workers have added it to their sums
    support: torch.Tensor
    own: bool                     # the support differs from the server's
    numbers: np.ndarray           # float64, by fedmpi.client.numbers.Number
    report: dict                  # of the pruner's probe
    scores: dict                  # {label: arrays} for the estimators of contributions
    up_bytes: int
    job_bytes: int
    rank: int
    parts: dict = {}              # {name: tensor} of the strategy's answers, (K,) on ``support`` where they are on it
    kept: dict = {}               # {name: tensor} of what the client keeps, likewise


class Refused(NamedTuple):
    """An answer that cannot be merged."""

    outcome: Outcome
    why: str                      # one line
    job_bytes: int
    up_bytes: int
    rank: int
    numbers: np.ndarray | None = None     # as an Update's, where it came
    cause: str = ""                       # of a divergence: a key of client.CAUSES


OUT_OF_MEMORY = "out of GPU memory"


def failed(fed, reply):
    """The ``Refused`` of a training that raised, which ends the run at once where that is fatal."""
    meta = reply.meta
    if fed.on_error == "fatal" and not meta["memory"]:
        raise WorkerError(reply.rank, meta["trace"])
    last = meta["trace"].strip().splitlines()[-1]
    fed.tell(f"warning: round {meta['t']}: client {meta['client']} failed on rank {reply.rank}: {last}")
    why = meta["trace"]
    if meta["memory"]:
        why = f"{OUT_OF_MEMORY}: {why}"
    return Refused(Outcome.FAILED, why, reply.job_bytes, 0, reply.rank)


def is_failed(answer):
    """Whether an answer is that of a training that raised."""
    return isinstance(answer, Refused) and answer.outcome == Outcome.FAILED


def outcome_of(answer):
    """Whether an answer is fit for merging."""
    return Outcome.MERGED if isinstance(answer, Update) else answer.outcome


class Reader(NamedTuple):
    """Turns replies into answers: the supports and their digests by mask, and the rows that values go to."""

    fed: Any
    supports: dict                # id(mask) -> (K,) int32
    expected: dict                # id(mask) -> its digest
    announced: int                # digest of the support that the server itself trains on
    U: torch.Tensor | None        # (C, K) float32

    def reply(self, reply, ask, row):
        """``Update`` or ``Refused``. Raises WireError where the answer belongs to another round or support."""
        key = id(ask.mask)
        answer = read(self.fed, reply, ask, self.supports[key], self.expected[key], self.announced)
        if not isinstance(answer, Update) or answer.own or answer.values is None or self.U is None:
            return answer
        # The message's own memory is free again.
        self.U[row] = answer.values
        return answer._replace(values=self.U[row])


def read(fed, reply, ask, support, expected, announced):
    """The answer to ``ask`` that a reply holds. ``support (K,)`` is that of the mask that was asked, ``expected`` its
    digest, ``announced`` the one of the support that the server itself trains on. WireError where the answer belongs to
    another round or support."""
    meta, arrays = reply.meta, reply.arrays
    if (meta["t"], meta["support"]) != (ask.t, expected):
        raise WireError(f"client {meta['client']} answered round {meta['t']} on support {meta['support']}, "
                        f"expected round {ask.t} on {expected}")
    # Copy what is small: a view would keep the whole message alive.
    numbers = arrays["numbers"].copy()
    own = "mask" in meta or expected != announced
    if "mask" in meta:
        mask = positions.decode(meta["mask"], arrays["mask"], fed.layout.Q, ask.mask.numpy())
        support = fed.layout.support(torch.from_numpy(mask))
    up_bytes = int(numbers[Number.BYTES]) or reply.reply_bytes - unbilled(meta, arrays, fed.weighs, fed.strategy)
    values, parts = _decoded(fed, meta, arrays, support)
    if not _sound(numbers, values, parts):
        why = f"round {ask.t}: client {meta['client']} diverged (loss {numbers[Number.LOSS]:.3g})"
        return Refused(Outcome.REJECTED, why, reply.job_bytes, up_bytes, reply.rank, numbers,
                       meta.get("cause", "training"))
    return Update(values, support, own, numbers, _report(fed.layout, meta, arrays), _scores(arrays), up_bytes,
                  reply.job_bytes, reply.rank, parts, _kept(arrays))


def _decoded(fed, meta, arrays, support):
    """``(values, parts)``: the update, None where the server wants no single ones, and those of the strategy's answers
    that workers have not summed."""
    there = {name: field for name, field in fed.strategy.answers.items() if not (fed.sums and field.fold == "sum")}
    parts = fields.decoded(there, arrays, "answer/", fed.codec, len(support))
    # Copy: a view would keep the whole message alive.
    parts = {name: tensor.clone() for name, tensor in parts.items()}
    if not fed.values:
        return None, parts
    values = fed.codec.decode(arrays, len(support))
    if len(values) != len(support):
        raise WireError(f"client {meta['client']} sent {len(values)} values for a support of {len(support)}")
    return values, parts


def _sound(numbers, values, parts):
    """Whether an answer is finite and not too large, so that it can be merged."""
    if not np.isfinite(numbers[Number.LOSS]):
        return False
    if values is None:
        return bool(numbers[Number.SUMMED])
    return exact_sum.sound(values) and all(exact_sum.sound(part.float()) for part in parts.values())


def _report(layout, meta, arrays):
    """What the pruner's probe reports, as numpy arrays."""
    report = {name.removeprefix("report/"): array.copy()
              for name, array in arrays.items() if name.startswith("report/")}
    if "index" in report:
        report["index"] = index_of(positions.decode(meta["index"], report["index"], layout.Q))
    return report


def _scores(arrays):
    """``{label: arrays}`` of what clients report to estimators of contributions."""
    scores = {}
    for name in arrays:
        if name.startswith("score/"):
            _, label, key = name.split("/", 2)
            scores.setdefault(label, {})[key] = arrays[name].copy()
    return scores


def _kept(arrays):
    """What the client keeps, by name."""
    return {name.removeprefix("kept/"): torch.from_numpy(array.copy())
            for name, array in arrays.items() if name.startswith("kept/")}


def enough(fed, t, answers):
    """Raise where fewer than ``fed.quorum`` of the clients that answered did so with something that can be merged."""
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    sound = len(answers) - len(refused)
    if not refused or sound and sound >= fed.quorum * len(answers):
        return
    failures = sum(is_failed(answer) for answer in refused)
    line = (f"round {t}: {sound} of {len(answers)} clients sent what can be merged ({len(refused) - failures} "
            f"diverged, {failures} failed); --quorum asks for {fed.quorum:g} of them")
    if failures < len(refused):
        diverged = [answer for answer in refused if not is_failed(answer)]
        raise DivergedError(f"{line}; {diverged[0].why}: {CAUSES[diverged[0].cause]}")
    raise FedError(f"{line}\n{refused[0].why}")
