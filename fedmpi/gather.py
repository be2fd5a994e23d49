"""Who takes part in a synchronous round, what they answer, and who of them counts."""

import math
from typing import NamedTuple

import torch

from fedmpi import clock, flops
from fedmpi.client import WORK
from fedmpi.errors import FedError
from fedmpi.exchange import Outcome, Update, announce, collect, enough, failed
from fedmpi.parts import Known
from fedmpi.rng import Purpose, stream
from fedmpi.transport.base import watched
from fedmpi.wire import frame

WAIT_S, PATIENCE = 60.0, 60 * 24 * 7     # virtual seconds between looks for available clients, and how many looks


class Gathered(NamedTuple):
    """What a round brought: a row for each of the A clients that were asked."""

    clients: torch.Tensor         # (A,) int64
    masks: list                   # A masks (Q,) that they were given
    answers: list                 # A of Update, Refused or None
    outcome: torch.Tensor         # (A,) int64 of Outcome
    seconds: torch.Tensor         # (A,) float64 of virtual time until the answer, NaN where none came
    up_bytes: torch.Tensor        # (A,) int64
    down_bytes: torch.Tensor      # (A,) int64
    own: list                     # [(Update, mask)] of the server's own samples, or nothing
    now: float                    # virtual time at the round's end
    shares: torch.Tensor | None = None   # (A,) float64 by which workers added up updates, where they did
    flight: dict = {}             # clients still at work

    @property
    def counts(self):
        """(C,) int64: the rows that are merged."""
        return torch.nonzero(self.outcome == Outcome.MERGED).flatten()


def gather(fed, state, t, support, laps):
    """A synchronous round's ``Gathered``: the sampler draws, devices drop out or come late, answers may be unfit."""
    now, fleet = look(fed, state["now"])
    count, clients = sample(fed, state, t, fleet)
    gone = clock.dropped(fleet, clients, stream(fed.seed, Purpose.DROPOUT, t))
    published, asks = announce(fed, state, t, clients)
    laps.lap("publish_s")
    up, down = torch.zeros(len(clients), dtype=torch.int64), torch.full((len(clients),), published)
    down[gone] += torch.tensor([frame.size(ask.meta, ask.arrays) if ask.arrays else 0 for ask in asks[: len(clients)]])[gone]
    seconds = torch.zeros(len(clients), dtype=torch.float64)
    answers, outcome = [None] * len(clients), torch.where(gone, int(Outcome.DROPPED), int(Outcome.PASSED))
    chosen, model = torch.nonzero(~gone).flatten(), published        # bytes of the model that training must wait for
    if fed.sampler.choose and len(chosen) > count:
        losses = told_losses(fed, t, clients, chosen, answers, up, down)
        forward = fed.sizes[clients] * flops.forward(fed.layout, fed.uses, state["mask"])
        seconds = clock.durations(fleet, clients, down, forward, up)
        told = torch.tensor([answers[row] is None for row in chosen.tolist()])
        keep = fed.sampler.choose(count, clients[chosen[told]], losses[told])
        begin, model = seconds[chosen].max(), 0                      # nobody trains before all of them have answered
        outcome[chosen[~told]] = Outcome.FAILED
        chosen = torch.searchsorted(clients, keep.sort().values)
        seconds[chosen] = begin

    shares = torch.zeros(len(clients), dtype=torch.float64)
    shares[chosen] = present(state, clients[chosen])
    rows = chosen.tolist()
    found = collect(fed, [asks[row] for row in rows] + asks[len(clients):], support, shares[chosen] if fed.sums else None,
                    f"round {t}: clients trained")
    for row, answer in zip(rows, found):
        answers[row], outcome[row] = answer, outcome_of(answer)
    enough(fed, t, [answer for answer in answers if answer is not None])
    own = [(answer, ask.mask) for answer, ask in zip(found[len(rows):], asks[len(clients):])]
    if own and outcome_of(own[0][0]) != Outcome.MERGED:
        raise FedError(f"round {t}: the server's own training gave nothing to compare with: {own[0][0].why}")

    sent = torch.tensor([(answer.job_bytes, answer.up_bytes) for answer in found[: len(rows)]],
                        dtype=torch.int64).reshape(-1, 2)
    work = worked(fed, [asks[row].mask for row in rows], found[: len(rows)])
    seconds[chosen] += clock.durations(fleet, clients[chosen], sent[:, 0] + model, work, sent[:, 1])
    down[chosen] += sent[:, 0]
    up[chosen] += sent[:, 1]
    seconds[gone | (outcome == Outcome.FAILED)] = torch.nan
    sound = torch.nonzero(outcome == Outcome.MERGED).flatten()
    outcome[sound[~clock.in_time(seconds[sound], count, fed.aggregation.deadline)]] = Outcome.LATE
    waited = outcome == Outcome.MERGED
    if int(waited.sum()) < count:                                    # who is unfit is known when its answer is there
        waited |= outcome == Outcome.REJECTED
    took = clock.round_s(seconds, waited, count, fed.aggregation.deadline)
    return Gathered(clients, [ask.mask for ask in asks[: len(clients)]], answers, outcome, seconds, up, down, own,
                    now + took, shares)


def look(fed, now):
    """``(virtual time, fleet)`` when somebody is available, from ``now`` on."""
    for _ in range(PATIENCE):
        fleet = fed.devices.at(now, len(fed.sizes), drawing(fed))
        if bool(fleet.available.any()):
            return now, fleet
        now += WAIT_S
    raise FedError(f"no client has been available for {PATIENCE * WAIT_S / 86400:.0f} days of virtual time: see --devices")


def drawing(fed):
    """``draw(*key)``: the generators of the devices."""
    return lambda *key: stream(fed.seed, Purpose.DEVICES, *key)


def sample(fed, state, t, fleet):
    """``(count, clients (A,) int64 sorted)``: how many answers are wanted, and who is asked. In round 1 everybody where
    the estimator that weighs wants that."""
    N = int(fleet.available.sum())
    opening = t == 1 and next(iter(fed.contributions.values())).opening
    count = N if opening else min(fed.cohort, N)
    asked = min(N, max(math.ceil(count * (1 + fed.aggregation.over)), fed.sampler.candidates))
    drawn = fed.sampler.draw(stream(fed.seed, Purpose.SAMPLE, t), asked, known(fed, state, fleet.available))
    return count, drawn.sort().values


def known(fed, state, available):
    """What a sampler may go by."""
    scores = state["weighting"].get("score", state["weighting"]["weights"])
    return Known(available, fed.sizes, torch.where(state["losses"].isnan(), torch.nan, scores), state["losses"])


def present(state, clients):
    """float64 (C,) that sum to 1: the weights that the clients have before this round is judged."""
    shares = state["weighting"]["weights"][clients]
    total = shares.sum()
    return shares / total if total > 0 else torch.full_like(shares, 1 / max(len(shares), 1))


def told_losses(fed, t, clients, rows, answers, up, down):
    """(d,) float64: the published model's loss on the samples of the candidates ``rows``, as they tell it; the bytes of
    asking and telling are added to ``up`` and ``down``, and those that failed to ``answers``."""
    losses = torch.empty(len(rows), dtype=torch.float64)
    jobs = [{"loss": int(clients[row]), "row": number} for number, row in enumerate(rows)]
    for reply in watched(fed.transport.map(jobs), len(jobs), fed.tell, f"round {t}: candidates asked for their loss"):
        number = reply.meta["row"]
        if reply.meta.get("kind") == "failed":
            answers[int(rows[number])] = failed(fed, reply)
        else:
            losses[number] = float(reply.arrays["loss"][0])
        up[rows[number]] += reply.reply_bytes
        down[rows[number]] += reply.job_bytes
    return losses


def outcome_of(answer):
    """Whether an answer is fit for merging."""
    return Outcome.MERGED if isinstance(answer, Update) else answer.outcome


def worked(fed, masks, answers):
    """(A,) float64: FLOPs of each training, by RigL's convention; 0 where there was none."""
    price = {id(mask): mask for mask, answer in zip(masks, answers) if answer is not None}
    price = {key: torch.tensor([flops.training(fed.layout, fed.uses, mask, *unit)[1] for unit in torch.eye(3).tolist()],
                               dtype=torch.float64) for key, mask in price.items()}
    return torch.tensor([0.0 if answer is None or answer.numbers is None else
                         float(price[id(mask)] @ torch.from_numpy(answer.numbers[WORK].copy())) for mask, answer in
                         zip(masks, answers)], dtype=torch.float64)
