"""Clients' answers, read and checked: an ``Update``, or ``Refused`` if it cannot be merged."""

import math
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import torch

from fedmpi.client.answer import unbilled
from fedmpi.client.stats import Stats, advice
from fedmpi.core import exact_sum
from fedmpi.core.errors import DivergedError, FedError, WireError, WorkerError
from fedmpi.core.support import index_of
from fedmpi.core.words import plural
from fedmpi.wire import fields, positions
from fedmpi.wire.chosen import for_update

# How the reason of a failure begins if a GPU's memory was too small.
OUT_OF_MEMORY = "out of GPU memory"


class Outcome(IntEnum):
    """The end of a client's part in a round."""

    MERGED = 0
    LATE = 1         # after the deadline, or after the first answers that were wanted
    DROPPED = 2      # its device never answered
    REJECTED = 3     # its update is not finite, or too large
    FAILED = 4       # its training raised
    PASSED = 5       # a candidate that told its loss and was not chosen


class Update(NamedTuple):
    """A client's answer, decoded."""

    values: torch.Tensor | None   # (K,) float32 on ``support``; None if workers add updates up
    support: Any                  # (K,), see fedmpi.core.support
    custom_mask: bool             # the support differs from the server's
    numbers: np.ndarray           # float64, by fedmpi.client.stats.Stats
    report: dict                  # of the pruner's probe
    scores: dict                  # {label: arrays} for estimators of contributions
    up_bytes: int
    job_bytes: int
    rank: int
    parts: dict = {}              # {name: tensor} of the strategy's answers
    kept: dict = {}               # {name: tensor} of the client's state
    sent: torch.Tensor | None = None      # (K,) bool: the values that the message had; None: all


class Refused(NamedTuple):
    """An answer that cannot be merged."""

    outcome: Outcome
    why: str                      # a line, or the trace of a failure
    job_bytes: int
    up_bytes: int
    rank: int
    numbers: np.ndarray | None = None     # like an Update's, unless the training raised
    cause: str = ""                       # of a divergence: a key of stats.CAUSES


def failed(run, reply):
    """``Refused`` of a failed training. Raises WorkerError if a failure ends the run."""
    meta, rank = reply.meta, reply.rank
    trace, out_of_memory = meta["trace"], meta["out_of_memory"]
    if run.on_error == "fatal" and not out_of_memory:
        raise WorkerError(rank, trace)
    last_line = trace.strip().splitlines()[-1]
    run.tell(f"warning: round {meta['t']}: client {meta['client']} failed on rank {rank}: "
             f"{last_line}")
    why = trace
    if out_of_memory:
        why = f"{OUT_OF_MEMORY}: {trace}"
    return Refused(
        outcome=Outcome.FAILED,
        why=why,
        job_bytes=reply.job_bytes,
        up_bytes=0,
        rank=rank)


def is_failed(answer):
    """Whether the training behind an answer raised."""
    return isinstance(answer, Refused) and answer.outcome == Outcome.FAILED


def outcome_of(answer):
    """The ``Outcome`` of an answer, as far as its content decides."""
    if isinstance(answer, Update):
        return Outcome.MERGED
    return answer.outcome


class Reader(NamedTuple):
    """Reads the replies of a cohort."""

    run: Any
    supports: dict                # {id(mask): its support (K,)}
    expected: dict                # {id(mask): digest of its support}
    announced: int                # digest of the server's support
    U: torch.Tensor | None        # (C, K) float32: a row for each update on the server's support

    def reply(self, reply, ask, row):
        """``Update`` or ``Refused``. Raises WireError if the reply answers another question."""
        key = id(ask.mask)
        support, expected = self.supports[key], self.expected[key]
        answer = read(self.run, reply, ask, support, expected, self.announced)
        if self.U is None or isinstance(answer, Refused):
            return answer
        if answer.custom_mask or answer.values is None:
            return answer
        # Copy into the row: the message's own memory is free again.
        self.U[row] = answer.values
        return answer._replace(values=self.U[row])


def read(run, reply, ask, support, expected, announced):
    """``Update`` or ``Refused``: the answer to ``ask`` in a ``reply``.

    ``support (K,)`` is the client's when it was asked, ``expected`` its digest, ``announced`` the
    digest of the server's support. WireError if the reply belongs to another round or support.
    """
    meta, arrays = reply.meta, reply.arrays
    fits = (meta["t"], meta["support"]) == (ask.t, expected)
    if not fits:
        raise WireError(f"client {meta['client']} answered round {meta['t']} on support "
                        f"{meta['support']}, expected round {ask.t} on {expected}")
    # Copy small arrays: a view would keep the whole message alive.
    numbers = arrays["numbers"].copy()
    custom_mask = expected != announced
    if "mask" in meta:
        custom_mask = True
        asked = ask.mask.numpy()
        mask = positions.decode(meta["mask"], arrays["mask"], run.layout.Q, asked)
        support = run.layout.compact(torch.from_numpy(mask))
    values = _values(run, meta, arrays, support)
    parts = _parts(run, arrays, support)
    up_bytes = _up_bytes(run, reply, numbers)
    if not _sound(numbers, values, parts):
        loss = numbers[Stats.LOSS]
        return Refused(
            outcome=Outcome.REJECTED,
            why=f"round {ask.t}: client {meta['client']} diverged (loss {loss:.3g})",
            job_bytes=reply.job_bytes,
            up_bytes=up_bytes,
            rank=reply.rank,
            numbers=numbers,
            cause=meta.get("cause") or _cause_unseen(loss))
    return Update(
        values=values,
        support=support,
        custom_mask=custom_mask,
        numbers=numbers,
        report=_report(run.layout, meta, arrays),
        scores=_scores(arrays),
        up_bytes=up_bytes,
        job_bytes=reply.job_bytes,
        rank=reply.rank,
        parts=parts,
        kept=_kept(arrays),
        sent=_sent(run, meta, arrays, support))


def _cause_unseen(loss):
    """The cause of a divergence in which the client found nothing wrong before it encoded."""
    return "codec" if math.isfinite(loss) else "training"


def _up_bytes(run, reply, numbers):
    """The billed bytes of a reply: as it tells them if its update stayed in the worker's sums."""
    reported = int(numbers[Stats.BYTES])
    if reported:
        return reported
    return reply.reply_bytes - unbilled(reply.meta, reply.arrays, run.weighs, run.strategy)


def _values(run, meta, arrays, support):
    """(K,) float32: the update; None if the server wants no single ones."""
    if not run.wants_single_updates:
        return None
    codec = for_update(run.codec, run.strategy, run.layout, meta["t"], support)
    values = codec.decode(arrays, len(support))
    if len(values) != len(support):
        raise WireError(f"client {meta['client']} sent {len(values)} values for a support of "
                        f"{len(support)}")
    return values


def _sent(run, meta, arrays, support):
    """(K,) bool: the values of the update that the message has; None: all."""
    if run.codec.sent is None:
        return None
    codec = for_update(run.codec, run.strategy, run.layout, meta["t"], support)
    return codec.sent(arrays, len(support))


def _parts(run, arrays, support):
    """``{name: tensor}`` of the strategy's answers, without sums of the workers."""
    if not run.strategy.answers:
        return {}
    wanted = {}
    for name, field in run.strategy.answers.items():
        stays_on_worker = run.sums_on_workers and field.fold == "sum"
        if not stays_on_worker:
            wanted[name] = field
    parts = fields.decoded(wanted, arrays, "answer/", run.codec, len(support))
    # Copy: a view would keep the whole message alive.
    return {name: tensor.clone() for name, tensor in parts.items()}


def _sound(numbers, values, parts):
    """Whether an answer can be merged: finite, and not too large."""
    if not np.isfinite(numbers[Stats.LOSS]):
        return False
    if values is None:
        # The worker has checked before it added.
        return bool(numbers[Stats.SUMMED])
    if not exact_sum.sound(values):
        return False
    return all(exact_sum.sound(part.float()) for part in parts.values())


def _report(layout, meta, arrays):
    """``{name: array}`` of the pruner's probe."""
    report = {}
    for path, array in arrays.items():
        if path.startswith("report/"):
            name = path.removeprefix("report/")
            report[name] = array.copy()
    if "index" in report:
        mask = positions.decode(meta["index"], report["index"], layout.Q)
        report["index"] = index_of(mask)
    return report


def _scores(arrays):
    """``{label: {name: array}}`` of the client's reports to estimators of contributions."""
    scores = {}
    for path in arrays:
        if path.startswith("score/"):
            _, label, name = path.split("/", 2)
            scores.setdefault(label, {})[name] = arrays[path].copy()
    return scores


def _kept(arrays):
    """``{name: tensor}`` of the client's state."""
    kept = {}
    for path, array in arrays.items():
        if path.startswith("kept/"):
            name = path.removeprefix("kept/")
            # Copy: a view would keep the whole message alive.
            kept[name] = torch.from_numpy(array.copy())
    return kept


def enough(run, t, answers):
    """Raise if a share of less than ``run.quorum`` of the ``answers``, or none, can be merged.

    DivergedError if some client diverged, FedError if all trainings raised.
    """
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    sound = len(answers) - len(refused)
    has_quorum = sound > 0 and sound >= run.quorum * len(answers)
    if not refused or has_quorum:
        return
    diverged = [answer for answer in refused if not is_failed(answer)]
    num_failed = len(refused) - len(diverged)
    line = (f"round {t}: {sound} of {plural(len(answers), 'client')} sent what can be merged "
            f"({len(diverged)} diverged, {num_failed} failed); --quorum asks for "
            f"{run.quorum:g} of them")
    if diverged:
        # One client stands for all: the causes are mostly the same.
        first = diverged[0]
        raise DivergedError(f"{line}; {first.why}: {advice(first.cause, run.codec.exact)}")
    raise FedError(f"{line}\n{refused[0].why}")
