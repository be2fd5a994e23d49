"""Who takes part in a synchronous round, what they answer, and who of them counts."""

import math
from typing import NamedTuple

import torch

from fedmpi.core import virtual_time, flops
from fedmpi.client.numbers import WORK
from fedmpi.core.errors import FedError
from fedmpi.server.answers import Outcome, enough, failed, outcome_of
from fedmpi.server.exchange import announce, collect
from fedmpi.server.sizes import costs_of
from fedmpi.core.parts import Known
from fedmpi.core.rng import Purpose, stream
from fedmpi.transport.base import watched
from fedmpi.wire import frame

WAIT_S, PATIENCE = 60.0, 60 * 24 * 7     # virtual seconds between looks for available clients, and how many looks


class Gathered(NamedTuple):
    """What a round brought: a row for each of the A clients that were asked, written in place as the round goes on."""

    clients: torch.Tensor         # (A,) int64
    masks: list                   # A masks (Q,) that they were given
    answers: list                 # A of Update, Refused or None
    outcome: torch.Tensor         # (A,) int64 of Outcome
    seconds: torch.Tensor         # (A,) float64 of virtual time until the answer, NaN where none came
    up_bytes: torch.Tensor        # (A,) int64
    down_bytes: torch.Tensor      # (A,) int64
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
    gone = virtual_time.dropped(fleet, clients, stream(fed.seed, Purpose.DROPOUT, t))
    published, asks = announce(fed, state, t, clients)
    laps.lap("encode_s")
    got = asked(clients, gone, published, asks, now)
    rows, model = torch.nonzero(~gone).flatten(), published     # bytes of the model that training must wait for
    if fed.sampler.choose and len(rows) > count:
        rows, model = chosen(fed, state, t, fleet, got, rows, count), 0
    got.shares[rows] = present(state, clients[rows])
    trained(fed, t, support, got, rows, asks)
    took = arrived(fed, fleet, got, rows, model, count)
    return got._replace(now=now + took)


def asked(clients, gone, published, asks, now):
    """The ``Gathered`` of a round that has just begun, for what follows to write its rows in place: the model of
    ``published`` bytes is out, nobody has answered, and who is ``gone (A,)`` never will."""
    A, down = len(clients), torch.full((len(clients),), published)
    down[gone] += torch.tensor([frame.size(ask.meta, ask.arrays) if ask.arrays else 0 for ask in asks])[gone]
    outcome = torch.where(gone, int(Outcome.DROPPED), int(Outcome.PASSED))
    return Gathered(clients, [ask.mask for ask in asks], [None] * A, outcome, torch.zeros(A, dtype=torch.float64),
                    torch.zeros(A, dtype=torch.int64), down, now, torch.zeros(A, dtype=torch.float64))


def chosen(fed, state, t, fleet, got, rows, count):
    """int64, sorted: ``count`` of the candidates' ``rows (d,)``, kept by the losses that they tell. Writes into ``got``
    what that cost: nobody trains before all candidates have answered."""
    losses = told_losses(fed, t, got, rows)
    forward = fed.sizes[got.clients] * flops.forward(fed.layout, fed.costs, state["mask"])
    got.seconds.copy_(virtual_time.durations(fleet, got.clients, got.down_bytes, forward, got.up_bytes))
    told = torch.tensor([got.answers[row] is None for row in rows.tolist()])
    got.outcome[rows[~told]] = Outcome.FAILED
    kept = fed.sampler.choose(count, got.clients[rows[told]], losses[told]).sort().values
    kept = torch.searchsorted(got.clients, kept)
    got.seconds[kept] = got.seconds[rows].max()
    return kept


def trained(fed, t, support, got, rows, asks):
    """The clients of ``rows`` train; their answers and what these are fit for go into ``got``."""
    found = collect(fed, [asks[row] for row in rows.tolist()], support, got.shares[rows] if fed.sums else None,
                    f"round {t}: clients trained")
    for row, answer in zip(rows.tolist(), found):
        got.answers[row], got.outcome[row] = answer, outcome_of(answer)
    enough(fed, t, [answer for answer in got.answers if answer is not None])


def arrived(fed, fleet, got, rows, model, count):
    """The round's virtual seconds. Those of the clients that trained, ``rows``, which waited for ``model`` bytes beside
    their jobs, go into ``got``, as does who of them is late."""
    answers, deadline = [got.answers[row] for row in rows.tolist()], fed.aggregation.deadline
    down, up = torch.tensor([(answer.job_bytes, answer.up_bytes) for answer in answers],
                            dtype=torch.int64).reshape(-1, 2).T
    work = worked(fed, [got.masks[row] for row in rows.tolist()], answers, got.clients[rows].tolist())
    got.seconds[rows] += virtual_time.durations(fleet, got.clients[rows], down + model, work, up)
    got.down_bytes[rows] += down
    got.up_bytes[rows] += up
    got.seconds[(got.outcome == Outcome.DROPPED) | (got.outcome == Outcome.FAILED)] = torch.nan
    sound = torch.nonzero(got.outcome == Outcome.MERGED).flatten()
    got.outcome[sound[~virtual_time.in_time(got.seconds[sound], count, deadline)]] = Outcome.LATE
    waited = got.outcome == Outcome.MERGED
    if int(waited.sum()) < count:                                    # who is unfit is known when its answer is there
        waited |= got.outcome == Outcome.REJECTED
    return virtual_time.round_s(got.seconds, waited, count, deadline)


def look(fed, now):
    """``(virtual time, fleet)`` when somebody is available, from ``now`` on."""
    for _ in range(PATIENCE):
        fleet = fed.devices.at(now, len(fed.sizes), drawing(fed))
        if bool(fleet.available.any()):
            return now, fleet
        now += WAIT_S
    raise FedError(f"no client has been available for {PATIENCE * WAIT_S / 86400:.0f} days of virtual time: "
                   "see --devices")


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


def told_losses(fed, t, got, rows):
    """(d,) float64: the published model's loss on the samples of the candidates' ``rows``, as they tell it. The bytes
    of asking and telling, and those that failed, go into ``got``."""
    losses = torch.empty(len(rows), dtype=torch.float64)
    jobs = [{"loss": int(got.clients[row]), "row": number} for number, row in enumerate(rows)]
    for reply in watched(fed.transport.map(jobs), len(jobs), fed.tell, f"round {t}: candidates asked for their loss"):
        number = reply.meta["row"]
        row = int(rows[number])
        if reply.meta.get("kind") == "failed":
            got.answers[row] = failed(fed, reply)
        else:
            losses[number] = float(reply.arrays["loss"][0])
        got.up_bytes[row] += reply.reply_bytes
        got.down_bytes[row] += reply.job_bytes
    return losses


def worked(fed, masks, answers, clients):
    """(A,) float64: FLOPs of each training, by RigL's convention; 0 where there was none. Clients of one mask train one
    network."""
    trained = {id(mask): (mask, client) for mask, answer, client in zip(masks, answers, clients) if answer is not None}
    price = {key: _prices(fed, *pair) for key, pair in trained.items()}
    return torch.tensor([0.0 if answer is None or answer.numbers is None else
                         float(price[id(mask)] @ torch.from_numpy(answer.numbers[WORK].copy())) for mask, answer in
                         zip(masks, answers)], dtype=torch.float64)


def _prices(fed, mask, client):
    """(3,) float64: FLOPs of a sample seen, of one in a pass of its own, and of one with a dense gradient."""
    costs = costs_of(fed, client)
    each = [flops.training(fed.layout, costs, mask, *unit)[1] for unit in torch.eye(3).tolist()]
    return torch.tensor(each, dtype=torch.float64)
