"""One round's exchange with the clients: the model goes out, their answers come back and are checked.

An answer is an ``Update`` or, where a client failed or sent what cannot be merged, a ``Refused``. Which rank trained
whom, and in what order answers arrive, plays no part.
"""

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import torch

from fedmpi.core import exact_sum
from fedmpi.client.worker import CAUSES, Number, digest, unbilled
from fedmpi.core.errors import DivergedError, FedError, WireError, WorkerError
from fedmpi.core.support import below, gathered, index_of
from fedmpi.core.parts import Updates
from fedmpi.transport.team import NOTHING, replies, teams
from fedmpi.transport.base import watched
from fedmpi.wire import frame, positions
from fedmpi.wire.feedback import carried


class Outcome(IntEnum):
    """What became of a client that was asked."""

    MERGED = 0
    LATE = 1         # after the deadline, or not among the first answers
    DROPPED = 2      # its device never answered
    REJECTED = 3     # not finite, or too large
    FAILED = 4       # its training raised
    PASSED = 5       # asked for its loss only, and not chosen


class Ask(NamedTuple):
    """One client asked to train, and what its answer must fit."""

    client: int
    t: int                        # the round whose model it got
    mask: torch.Tensor            # (Q,) bool, the same object for all that train the same
    meta: dict                    # goes with the job: nothing where the model was published
    arrays: dict
    memory: torch.Tensor | None = None    # (K,) on the mask's support: what encoding its earlier updates has lost


class Update(NamedTuple):
    """One client's decoded reply."""

    values: torch.Tensor | None   # float32, on ``support``; None where workers have added it to their sums
    support: torch.Tensor
    own: bool                     # the support differs from the server's
    numbers: np.ndarray           # (8,) float64, by fedmpi.client.worker.Number
    report: dict                  # of the pruner's probe
    scores: dict                  # {label: arrays} for the estimators of contributions
    up_bytes: int
    job_bytes: int
    rank: int
    memory: torch.Tensor | None = None    # float32, on ``support``: what encoding has lost, where that is remembered


class Refused(NamedTuple):
    """An answer that cannot be merged."""

    outcome: Outcome
    why: str                      # one line
    job_bytes: int
    up_bytes: int
    rank: int
    numbers: np.ndarray | None = None     # as an Update's, where it came
    cause: str = ""                       # of a divergence: a key of client.CAUSES


def announce(fed, state, t, clients):
    """Tell every worker about the round: ``(bytes published, asks)``, an ``Ask`` for each client.

    One model for all is published; where the pruner gives clients masks of their own, each model goes with its job."""
    who = clients.tolist()
    header = {"kind": "round", "t": t, "layout": fed.layout.digest}
    if fed.stale and t > 1:
        fed.transport.publish({"kind": "previous"}, {"values": state["previous"].numpy()})
    if fed.pruner.masks is None:
        meta, arrays = model_message(fed, state["x"], state["mask"], common_mask(fed, state, t, clients))
        down_bytes = fed.transport.publish(header | meta, arrays)
        return down_bytes, [Ask(client, t, state["mask"], {}, {}, owed(fed, state, client, state["mask"]))
                            for client in who]
    masks = fed.pruner.masks(state["pruner"], state["mask"], state["x"], fed.layout, clients)
    made = {id(mask): model_message(fed, state["x"], mask) for mask in {id(mask): mask for mask in masks}.values()}
    down_bytes = fed.transport.publish(header, {})
    return down_bytes, [Ask(client, t, mask, *made[id(mask)], owed(fed, state, client, mask))
                        for client, mask in zip(who, masks)]


def owed(fed, state, client, mask):
    """(K,) on the support of ``mask``: what encoding the client's earlier updates has lost; None where nothing is
    remembered. The server holds in trust what a real client would keep."""
    memory = state.get("memory", {}).get(client)
    if memory is None or mask is state["mask"]:
        return memory
    return carried(memory, fed.layout.support(state["mask"]), fed.layout.support(mask), fed.layout.P)


def remembered(fed, state, clients, answers, mask):
    """``{client: (K,) on the support of mask}``: the clients' memories after their ``answers`` have been merged; those
    whose answers were not keep theirs."""
    before, after = fed.layout.support(state["mask"]), fed.layout.support(mask)
    kept = {client: carried(memory, before, after, fed.layout.P) for client, memory in state["memory"].items()}
    return kept | {client: carried(answer.memory, answer.support, after, fed.layout.P)
                   for client, answer in zip(clients.tolist(), answers)}


def common_mask(fed, state, t, clients):
    """The last mask sent, where every client of the cohort can know it; None where some cannot."""
    held = state["held"][clients]
    knows = bool((held >= state["changed"]).all()) or (t > 1 and bool((held == t - 1).all()))
    return state["sent"] if knows else None


def model_message(fed, x, mask, known=None):
    """``(meta, arrays)`` that takes the kept values of ``x (P,)`` to clients. Positions go along only as far as the
    mask ``known`` does not tell: all of them, the changes, or none."""
    support = fed.layout.support(mask)
    kept = mask.numpy()
    code, array = positions.encode(kept, kept if known is mask else known if known is None else known.numpy())
    values = fed.codec.down.encode(gathered(x, support))
    return {"support": digest(support), "mask": code}, {"mask": array} | values


def collect(fed, asks, support, shares=None, what="clients trained"):
    """The answer to each of ``asks``, in their order whatever the order of arrival. ``support (K,)`` is the server's;
    answers on it have their values in the rows of one tensor. ``shares (C,)`` are the weights by which workers add up
    updates, where they do.

    What takes longest starts first: jobs go by number of samples, ``fed.together`` clients a job. A training that
    raised is tried again, dropped, or ends the run, as ``fed.on_error`` says; one that ran out of GPU memory is tried
    again while nobody else trains.
    """
    samples = torch.tensor([float(fed.sizes[ask.client]) for ask in asks])
    order = torch.argsort(samples, descending=True, stable=True).tolist()
    supports = {key: fed.layout.support(mask) for key, mask in {id(ask.mask): ask.mask for ask in asks}.items()}
    expected = {key: digest(each) for key, each in supports.items()}
    read = Reader(fed, supports, expected, digest(support),
                  torch.empty(len(asks), len(support)) if fed.values else None)
    answers = [None] * len(asks)
    chosen = teams(order, fed.together)

    jobs = [{"client": ask.client, "row": row} | ask.meta | ({} if shares is None else {"share": float(shares[row])})
            for row, ask in enumerate(asks)]

    sent = [ask.arrays | ({} if ask.memory is None else {"memory/values": ask.memory.numpy()}) for ask in asks]

    def play(chosen, beside=NOTHING):
        came = replies(fed.transport, jobs, sent, chosen, fed.meanwhile, beside)
        for reply in watched(came, sum(map(len, chosen)), fed.tell, what):
            row = reply.meta["row"]                                      # keyed by row: arrival does not matter
            if asks[row].memory is not None:                             # not billed: a real client would keep it
                reply = reply._replace(job_bytes=reply.job_bytes - memory_bytes(jobs[row], sent[row]))
            answer = failed(fed, reply) if reply.meta["kind"] == "failed" else read.reply(reply, asks[row], row)
            before = answers[row].job_bytes if answers[row] else 0       # what it was sent the first time
            answers[row] = answer._replace(job_bytes=before + answer.job_bytes)

    def failing(why=""):
        """What is left of the teams: a team that ran out of memory trains again as it was, for the same bits."""
        left = [[row for row in team if _again(answers[row]) and answers[row].why.startswith(why)] for team in chosen]
        return [team for team in left if team]

    play(chosen, fed.beside)
    if crowded := failing(MEMORY):
        fed.tell(f"warning: {sum(map(len, crowded))} clients ran out of GPU memory and train again, while nobody else "
                 "does; fewer ranks on a GPU, or a smaller --batch-size or --together, would avoid that")
    for team in crowded:
        play([team])
    if fed.on_error == "retry" and failing():
        play(failing())
    broken = [answer for answer in answers if _again(answer)]
    if broken and fed.on_error == "fatal":
        raise WorkerError(broken[0].rank, broken[0].why)
    return answers


def memory_bytes(job, arrays):
    """The bytes that a job takes for the client's memory."""
    meta, rest = {"kind": "run", "job": job}, {name: array for name, array in arrays.items() if name != "memory/values"}
    return frame.size(meta, arrays) - frame.size(meta, rest)


MEMORY = "out of GPU memory"


def _again(answer):
    return isinstance(answer, Refused) and answer.outcome == Outcome.FAILED


def failed(fed, reply):
    """The ``Refused`` of a training that raised, which ends the run at once where that is fatal."""
    meta = reply.meta
    if fed.on_error == "fatal" and not meta["memory"]:
        raise WorkerError(reply.rank, meta["trace"])
    last = meta["trace"].strip().splitlines()[-1]
    fed.tell(f"warning: round {meta['t']}: client {meta['client']} failed on rank {reply.rank}: {last}")
    why = MEMORY + ": " + meta["trace"] if meta["memory"] else meta["trace"]
    return Refused(Outcome.FAILED, why, reply.job_bytes, 0, reply.rank)


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
        answer = read_reply(self.fed, reply, ask.t, self.supports[key], self.expected[key], self.announced)
        if not isinstance(answer, Update) or answer.own or answer.values is None or self.U is None:
            return answer
        self.U[row] = answer.values                                      # the message's own memory is free again
        return answer._replace(values=self.U[row])


def read_reply(fed, reply, t, support, expected, announced):
    """The answer that a reply holds; raises WireError where it belongs to another round or support (by its digest
    ``expected``). ``announced`` is the digest of the support that the server itself trains on."""
    meta, arrays, layout = reply.meta, reply.arrays, fed.layout
    if (meta["t"], meta["support"]) != (t, expected):
        raise WireError(f"client {meta['client']} answered round {meta['t']} on support {meta['support']}, "
                        f"expected round {t} on {expected}")
    numbers = arrays["numbers"].copy()                     # nothing small may keep the whole message in memory
    own = "mask" in meta or expected != announced
    if "mask" in meta:
        given = positions.mask_of(support[: len(support) - len(layout.tail)], layout.Q)
        support = layout.support(torch.from_numpy(positions.decode(meta["mask"], arrays["mask"], layout.Q, given)))
    values, up_bytes = None, int(numbers[Number.BYTES]) or (
        reply.reply_bytes - unbilled(meta, arrays, next(iter(fed.contributions))))
    if fed.values:
        values = fed.codec.decode(arrays, len(support))
        if len(values) != len(support):
            raise WireError(f"client {meta['client']} sent {len(values)} values for a support of {len(support)}")
    loss, summed_up = numbers[Number.LOSS], bool(numbers[Number.SUMMED])
    if not np.isfinite(loss) or not (summed_up if values is None else exact_sum.sound(values)):
        return Refused(Outcome.REJECTED, f"round {t}: client {meta['client']} diverged (loss {loss:.3g})",
                       reply.job_bytes, up_bytes, reply.rank, numbers, meta.get("cause", "training"))
    report = {name.removeprefix("report/"): array.copy()
              for name, array in arrays.items() if name.startswith("report/")}
    if "index" in report:
        report["index"] = index_of(positions.decode(meta["index"], report["index"], layout.Q))
    scores = {}
    for name in arrays:
        if name.startswith("score/"):
            _, label, key = name.split("/", 2)
            scores.setdefault(label, {})[key] = arrays[name].copy()
    memory = torch.from_numpy(arrays["memory/values"].copy()) if "memory/values" in arrays else None
    return Update(values, support, own, numbers, report, scores, up_bytes, reply.job_bytes, reply.rank, memory)


def enough(fed, t, answers):
    """Raise where fewer than ``fed.quorum`` of the clients that answered did so with something that can be merged."""
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    sound = len(answers) - len(refused)
    if not refused or sound and sound >= fed.quorum * len(answers):
        return
    failures = sum(answer.outcome == Outcome.FAILED for answer in refused)
    line = (f"round {t}: {sound} of {len(answers)} clients sent what can be merged ({len(refused) - failures} "
            f"diverged, {failures} failed); --quorum asks for {fed.quorum:g} of them")
    if failures < len(refused):
        diverged = [answer for answer in refused if answer.outcome != Outcome.FAILED]
        raise DivergedError(f"{line}; {diverged[0].why}: {CAUSES[diverged[0].cause]}")
    raise FedError(f"{line}\n{refused[0].why}")


def stack(fed, replies, support):
    """``Updates`` of the cohort: on the announced support, or on the union where clients' masks differ from it."""
    n = torch.tensor([float(reply.numbers[Number.SAMPLES]) for reply in replies], dtype=torch.float64)
    C = len(replies)
    if replies[0].values is None:                          # they are in the workers' sums, and nobody looks at them
        U, B = torch.empty(C, 0), None
    elif not any(reply.own for reply in replies):
        U, B = rows_of([reply.values for reply in replies]), None
    else:
        union = torch.zeros(fed.layout.P, dtype=torch.bool)
        union[support] = True                              # what every client dropped has no holder
        for reply in replies:
            union[reply.support] = True
        support = torch.nonzero(union).flatten().int()
        U, B = torch.zeros(C, len(support)), torch.zeros(C, len(support), dtype=torch.bool)
        for row, reply in enumerate(replies):
            columns = torch.searchsorted(support, reply.support)
            U[row, columns] = reply.values
            B[row, columns] = True
    return Updates(U, B, support, n, below(support, fed.layout.R))


def rows_of(values):
    """(C, K): vectors as the rows of one tensor; no copy where they are that already, one after the other."""
    step, storage = 4 * len(values[0]), values[0].untyped_storage().data_ptr()
    if all(each.untyped_storage().data_ptr() == storage and each.data_ptr() == values[0].data_ptr() + row * step
           for row, each in enumerate(values)):
        return values[0].as_strided((len(values), len(values[0])), (len(values[0]), 1))
    return torch.stack(values)


def summed(fed, replies, shares, support):
    """``Updates`` of one row: the mean of the cohort's updates by ``shares (C,)`` of those that count, which the
    workers have added up, to the same bits in any order."""
    step = exact_sum.mean(torch.from_numpy(fed.transport.total(len(support))), float(shares.sum()))
    n = torch.tensor([sum(float(reply.numbers[Number.SAMPLES]) for reply in replies)], dtype=torch.float64)
    return Updates(step[None], None, support, n, below(support, fed.layout.R))
