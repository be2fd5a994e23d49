"""A synchronous round: the sampler draws a cohort, the cohort trains, and answers in time count."""

import math
from typing import NamedTuple

import numpy as np
import torch

from fedmpi.client.stats import WORK
from fedmpi.core import flops, virtual_time
from fedmpi.core.errors import FedError
from fedmpi.core.parts import ClientRecords
from fedmpi.core.rng import Purpose, stream
from fedmpi.server.answers import Outcome, enough, failed, outcome_of
from fedmpi.server.exchange import announce, collect
from fedmpi.server.sizes import costs_of
from fedmpi.transport.base import watched
from fedmpi.wire import frame

# While no client is available the server looks again after WAIT_S virtual seconds, PATIENCE times.
WAIT_S = 60.0
PATIENCE = 60 * 24 * 7


class Recruited(NamedTuple):
    """The answers of a round: a row for each of A clients, filled in place as the round goes on."""

    clients: torch.Tensor         # (A,) int64
    masks: list                   # A masks (Q,) bool, which the clients were sent
    answers: list                 # A of Update, Refused or None
    outcome: torch.Tensor         # (A,) int64 of Outcome
    seconds: torch.Tensor         # (A,) float64, virtual time until the answer; NaN if none came
    up_bytes: torch.Tensor        # (A,) int64
    down_bytes: torch.Tensor      # (A,) int64
    now: float                    # virtual time at the round's end
    shares: torch.Tensor | None = None   # (A,) float64, weights in the workers' sums
    flight: dict = {}             # clients still at work, in asynchronous runs

    @property
    def merged_rows(self):
        """(C,) int64: the rows of merged clients."""
        return torch.nonzero(self.outcome == Outcome.MERGED).flatten()


def recruit(run, state, t, support, laps):
    """``Recruited`` of a synchronous round. ``support (K,)`` is the server's."""
    now, fleet = look(run, state["now"])
    count, clients = sample(run, state, t, fleet)
    gen = stream(run.seed, Purpose.DROPOUT, t)
    gone = virtual_time.dropped(fleet, clients, gen)
    published, asks = announce(run, state, t, clients)
    laps.lap("encode_s")

    got = unanswered(clients, gone, published, asks, now)
    rows = torch.nonzero(~gone).flatten()
    # Training starts once the model has arrived.
    awaited_bytes = published
    has_choice = len(rows) > count
    if run.sampler.choose and has_choice:
        rows = chosen(run, state, t, fleet, got, rows, count)
        # Candidates have had the model since they told their losses.
        awaited_bytes = 0
    got.shares[rows] = present(state, clients[rows])
    trained(run, t, support, got, rows, asks)
    took_s = arrived(run, fleet, got, rows, awaited_bytes, count)
    return got._replace(now=now + took_s)


def unanswered(clients, gone, published, asks, now):
    """``Recruited`` before any answer: the ``published`` bytes of the model are out to all clients.

    Clients that are ``gone (A,) bool`` will never answer; they get their jobs nevertheless.
    """
    A = len(clients)
    down_bytes = torch.full((A,), published)
    job_bytes = torch.tensor([_job_bytes(ask) for ask in asks])
    down_bytes[gone] += job_bytes[gone]
    return Recruited(
        clients=clients,
        masks=[ask.mask for ask in asks],
        answers=[None] * A,
        outcome=torch.where(gone, int(Outcome.DROPPED), int(Outcome.PASSED)),
        seconds=torch.zeros(A, dtype=torch.float64),
        up_bytes=torch.zeros(A, dtype=torch.int64),
        down_bytes=down_bytes,
        now=now,
        shares=torch.zeros(A, dtype=torch.float64))


def _job_bytes(ask):
    """The bytes of the model in a client's job; 0 if all clients get the same model."""
    if not ask.arrays:
        return 0
    return frame.size(ask.meta, ask.arrays)


def chosen(run, state, t, fleet, got, rows, count):
    """int64, sorted: ``count`` of the candidates' ``rows (d,)``, chosen by the candidates' losses.

    No client trains before all losses are told: writes this wait, and failures, to ``got``.
    """
    losses = told_losses(run, t, got, rows)
    candidates = got.clients
    # A loss takes a forward pass over all samples.
    one_sample = flops.forward(run.layout, run.costs, state["mask"])
    work = run.sizes[candidates] * one_sample
    waits = virtual_time.durations(fleet, candidates, got.down_bytes, work, got.up_bytes)
    got.seconds.copy_(waits)

    # So far only failures count as answers.
    is_sound = [got.answers[row] is None for row in rows.tolist()]
    sound = torch.tensor(is_sound)
    failed_rows = rows[~sound]
    got.outcome[failed_rows] = Outcome.FAILED
    sound_rows = rows[sound]
    clients = run.sampler.choose(count, candidates[sound_rows], losses[sound])
    clients = clients.sort().values
    # Candidates are sorted.
    kept = torch.searchsorted(candidates, clients)
    # Training starts after the slowest candidate.
    got.seconds[kept] = got.seconds[rows].max()
    return kept


def trained(run, t, support, got, rows, asks):
    """Have the clients of ``rows`` train, and write answers and outcomes to ``got``."""
    shares = None
    if run.sums_on_workers:
        shares = got.shares[rows]
    rows = rows.tolist()
    own_asks = [asks[row] for row in rows]
    line = f"round {t}: clients trained"
    answers = collect(run, own_asks, support, shares, line)
    for row, answer in zip(rows, answers):
        got.answers[row] = answer
    # One write for all: a write into a tensor takes as long as reading a small answer.
    outcomes = [outcome_of(answer) for answer in answers]
    got.outcome[rows] = torch.tensor(outcomes, dtype=torch.int64)
    # Candidates that failed before count, too.
    all_answers = [answer for answer in got.answers if answer is not None]
    enough(run, t, all_answers)


def arrived(run, fleet, got, rows, awaited_bytes, count):
    """The round's virtual seconds; writes seconds, bytes and late answers to ``got``.

    The clients of ``rows`` trained once ``awaited_bytes`` had reached them beside their jobs.
    """
    _bill(run, fleet, got, rows, awaited_bytes)
    outcome, deadline = got.outcome, run.timing.deadline
    silent = (outcome == Outcome.DROPPED) | (outcome == Outcome.FAILED)
    got.seconds[silent] = torch.nan

    sound = got.merged_rows
    in_time = virtual_time.in_time(got.seconds[sound], count, deadline)
    late = sound[~in_time]
    outcome[late] = Outcome.LATE
    waited = outcome == Outcome.MERGED
    if int(waited.sum()) < count:
        # The server sees only from an answer that it is unfit.
        waited |= outcome == Outcome.REJECTED
    return virtual_time.round_s(got.seconds, waited, count, deadline)


def _bill(run, fleet, got, rows, awaited_bytes):
    """Write the virtual seconds and the bytes of the trainings of ``rows`` to ``got``."""
    numbers = rows.tolist()
    answers = [got.answers[row] for row in numbers]
    masks = [got.masks[row] for row in numbers]
    clients = got.clients[rows]
    job_bytes = [answer.job_bytes for answer in answers]
    up_bytes = [answer.up_bytes for answer in answers]
    # The type of an empty list would be float.
    down = torch.tensor(job_bytes, dtype=torch.int64)
    up = torch.tensor(up_bytes, dtype=torch.int64)
    got.down_bytes[rows] += down
    got.up_bytes[rows] += up
    work = worked(run, masks, answers, clients.tolist())
    # A client trains once all of its model has come.
    awaited = down + awaited_bytes
    took = virtual_time.durations(fleet, clients, awaited, work, up)
    # Candidates have waited before.
    got.seconds[rows] += took


def look(run, now):
    """``(virtual time, fleet)`` from ``now`` on, as soon as some client is available."""
    N = len(run.sizes)
    draw = drawing(run)
    for _ in range(PATIENCE):
        fleet = run.devices.at(now, N, draw)
        if bool(fleet.available.any()):
            return now, fleet
        now += WAIT_S
    raise nobody_available()


def nobody_available():
    """The FedError about a run without available clients."""
    days = PATIENCE * WAIT_S / 86400
    return FedError(f"no client has been available for {days:.0f} days of virtual time: "
                    "see --devices")


def drawing(run):
    """``draw(*key)``: the generators of the devices."""
    def draw(*key):
        return stream(run.seed, Purpose.DEVICES, *key)

    return draw


def sample(run, state, t, fleet):
    """``(count, clients (A,) int64 sorted)``: how many answers are wanted, and the clients asked.

    Some estimators open with a round of all clients.
    """
    available = fleet.available
    N = int(available.sum())
    count = min(run.cohort, N)
    weigher = run.contributions[run.weighs]
    if t == 1 and weigher.opening:
        count = N
    # More are asked than needed if the server is ready to leave some behind, or to choose.
    with_spare = math.ceil(count * (1 + run.timing.over))
    wanted = max(with_spare, run.sampler.candidates)
    wanted = min(wanted, N)
    gen = stream(run.seed, Purpose.SAMPLE, t)
    records = client_records(run, state, available)
    drawn = run.sampler.draw(gen, wanted, records)
    return count, drawn.sort().values


def client_records(run, state, available):
    """``ClientRecords``: the facts for a sampler; ``available (N,) bool``."""
    weighting, losses = state["weighting"], state["losses"]
    scores = weighting.get("score", weighting["weights"])
    # A client without a loss has never been merged: its score is only a start.
    scores = torch.where(losses.isnan(), torch.nan, scores)
    return ClientRecords(
        available=available,
        sizes=run.sizes,
        scores=scores,
        losses=losses)


def present(state, clients):
    """(C,) float64: the shares of the clients before this round is scored; their sum is 1."""
    shares = state["weighting"]["weights"][clients]
    total = shares.sum()
    if total > 0:
        return shares / total
    # No client has earned a weight: all count alike.
    C = max(len(shares), 1)
    return torch.full_like(shares, 1 / C)


def told_losses(run, t, got, rows):
    """(d,) float64: the model's loss on each candidate's samples, for the ``rows (d,)``.

    Writes the bytes of questions and answers, and failures, to ``got``.
    """
    losses = torch.empty(len(rows), dtype=torch.float64)
    candidates = got.clients[rows].tolist()
    jobs = []
    for number, client in enumerate(candidates):
        jobs.append({"loss": client, "row": number})
    line = f"round {t}: candidates asked for their loss"
    replies = run.transport.map(jobs)
    for reply in watched(replies, len(jobs), run.tell, line):
        number = reply.meta["row"]
        row = int(rows[number])
        if reply.meta.get("kind") == "failed":
            got.answers[row] = failed(run, reply)
        else:
            [loss] = reply.arrays["loss"].tolist()
            losses[number] = loss
        got.up_bytes[row] += reply.reply_bytes
        got.down_bytes[row] += reply.job_bytes
    return losses


def worked(run, masks, answers, clients):
    """(A,) float64: FLOPs of each training by RigL's convention; 0 for answers without numbers.

    Clients with the same mask object train the same network.
    """
    prices, work = {}, []
    samples = np.array([_samples(answer) for answer in answers])
    samples = torch.from_numpy(samples)
    for mask, answer, client, seen in zip(masks, answers, clients, samples.unbind()):
        if answer is None or answer.numbers is None:
            work.append(0.0)
            continue
        key = id(mask)
        if key not in prices:
            prices[key] = _prices(run, mask, client)
        flop = prices[key].dot(seen)
        work.append(flop.item())
    return torch.tensor(work, dtype=torch.float64)


def _samples(answer):
    """The numbers of ``WORK`` of an answer, zeros if it has none."""
    if answer is None or answer.numbers is None:
        return np.zeros(WORK.stop - WORK.start)
    return answer.numbers[WORK]


def _prices(run, mask, client):
    """(3,) float64: FLOPs of a sample, in the order of ``stats.WORK``.

    These are a sample seen, one in a pass of its own, and one with a dense gradient.
    """
    costs = costs_of(run, client)
    prices = []
    for unit in torch.eye(3).tolist():
        _, rigl = flops.training(run.layout, costs, mask, *unit)
        prices.append(rigl)
    return torch.tensor(prices, dtype=torch.float64)
