"""Asynchronous rounds: clients are always at work, each on the model of its own start.

Time is virtual: an answer is merged when the client's devices deliver it, whenever and on
whichever rank it was trained. As soon as one arrival must be known, all clients that have
started are trained together, to keep the ranks busy.
"""

import math
from typing import Any, NamedTuple

import torch

from fedmpi.core import flops, virtual_time
from fedmpi.core.rng import Purpose, stream
from fedmpi.core.support import positions_of, same
from fedmpi.server.answers import Outcome, Refused, Update, enough, outcome_of
from fedmpi.server.exchange import ask, collect, model_message
from fedmpi.server.recruit import (PATIENCE, WAIT_S, Recruited, client_records, drawing,
                                   nobody_available, worked)
from fedmpi.wire import frame


class Turn(NamedTuple):
    """A client's turn that ended in this round."""

    client: int
    version: int                  # the round of its model
    answer: Any                   # Update, Refused, or None if its device never answered
    outcome: Outcome
    seconds: float                # virtual seconds of its work


def nobody(slots):
    """The state of ``slots`` places for clients at work, all of them free.

    Tensors (slots,): ``client`` (-1: free), ``start`` and ``finish`` (virtual seconds, NaN while
    unknown), ``earliest_finish`` (a lower bound of ``finish``), ``version`` (the round of the
    client's model) and ``number`` (of its start, unique in the run). ``started`` counts starts;
    ``models`` are keyed by round, ``answers`` by slot.
    """
    return {
        "client": torch.full((slots,), -1),
        "start": torch.zeros(slots, dtype=torch.float64),
        "finish": torch.full((slots,), torch.nan, dtype=torch.float64),
        "earliest_finish": torch.zeros(slots, dtype=torch.float64),
        "version": torch.zeros(slots, dtype=torch.int64),
        "number": torch.zeros(slots, dtype=torch.int64),
        "started": 0,
        "models": {},
        "answers": {},
    }


def recruit(run, state, t, support, laps):
    """``Recruited`` of the next ``run.timing.buffer`` answers, scaled by their staleness.

    ``support (K,)`` is the server's.
    """
    flight = _copied(state["flight"])
    flight["models"][t] = {"x": state["x"], "mask": state["mask"]}
    message = model_message(run, state, t, state["mask"])
    laps.lap("encode_s")

    buffer = run.timing.buffer
    now, turns = state["now"], []
    while _num_merged(turns) < buffer:
        now = fill(run, state, t, flight, now, turns, message)
        slot = _next_slot(flight)
        if slot is None:
            # Every client has had a turn.
            break
        if bool(flight["finish"][slot].isnan()):
            train(run, state, flight, t, support)
            continue
        # An answer that came during the server's own work has waited for its end.
        finish = float(flight["finish"][slot])
        now = max(now, finish)
        turn = _taken(run, state, t, flight, slot, support)
        turns.append(turn)
        answers = _answers(turns)
        if len(answers) >= 2 * buffer + len(flight["client"]):
            # Most answers were unfit: waiting for more is of no use.
            enough(run, t, answers)
    answers = _answers(turns)
    enough(run, t, answers)
    return _recruited(flight, turns, now, message)


def _num_merged(turns):
    """How many of the ``turns`` gave an update fit for merging."""
    return sum(turn.outcome == Outcome.MERGED for turn in turns)


def _copied(flight):
    """A copy of ``flight`` for this round to write to."""
    copy = {}
    for key, value in flight.items():
        if isinstance(value, torch.Tensor):
            value = value.clone()
        if isinstance(value, dict):
            value = dict(value)
        copy[key] = value
    return copy


def _next_slot(flight):
    """The slot of the next client to arrive; None if nobody is at work."""
    working = torch.nonzero(flight["client"] >= 0).flatten()
    if not len(working):
        return None
    arrivals = {
        "finish": flight["finish"][working],
        "number": flight["number"][working],
    }
    bounds = flight["earliest_finish"][working]
    row = virtual_time.earliest(arrivals, bounds)
    return int(working[row])


def _taken(run, state, t, flight, slot, support):
    """``Turn`` of the client in ``slot``; its answer has arrived, and the slot is free again."""
    version = int(flight["version"][slot])
    fields = flight["answers"].pop(slot)
    if "values" in fields:
        answer = Update(**fields)
        base = flight["models"][version]["x"]
        staleness = t - version
        answer = aged(run, state, base, answer, staleness, support)
    else:
        answer = Refused(**fields)
    client = int(flight["client"][slot])
    start = float(flight["start"][slot])
    finish = float(flight["finish"][slot])
    flight["client"][slot] = -1
    return Turn(
        client=client,
        version=version,
        answer=answer,
        outcome=outcome_of(answer),
        seconds=finish - start)


def _answers(turns):
    """The answers of the ``turns``, without clients that dropped out."""
    return [turn.answer for turn in turns if turn.answer is not None]


def _recruited(flight, turns, now, message):
    """``Recruited`` of the round's ``turns``, never empty; forgets models that nobody trains."""
    models = flight["models"]
    masks = [models[turn.version]["mask"] for turn in turns]
    at_work = flight["client"] >= 0
    in_use = set(flight["version"][at_work].tolist())
    flight["models"] = {version: models[version] for version in sorted(in_use)}

    clients, _, answers, outcomes, seconds = zip(*turns)
    model_bytes = frame.size(*message)
    up_bytes, down_bytes = [], []
    for answer in answers:
        if answer is None:
            # A client that dropped out got the model.
            up_bytes.append(0)
            down_bytes.append(model_bytes)
        else:
            up_bytes.append(answer.up_bytes)
            down_bytes.append(answer.job_bytes)
    numbers = [int(outcome) for outcome in outcomes]
    return Recruited(
        clients=torch.tensor(clients),
        masks=masks,
        answers=list(answers),
        outcome=torch.tensor(numbers),
        seconds=torch.tensor(seconds, dtype=torch.float64),
        up_bytes=torch.tensor(up_bytes),
        down_bytes=torch.tensor(down_bytes),
        now=now,
        flight=flight)


def fill(run, state, t, flight, now, turns, message):
    """Start available clients in all free slots; returns the virtual time.

    Clients that drop out go to ``turns``. The server waits for others only while nobody is at work
    and some client has not had a turn in this round.
    """
    N = len(run.sizes)
    for _ in range(PATIENCE):
        _start_all(run, state, t, flight, now, turns, message)
        had_a_turn = {turn.client for turn in turns}
        if len(had_a_turn) == N:
            return now
        at_work = flight["client"] >= 0
        if bool(at_work.any()):
            return now
        # Nobody can work now: look again later.
        now += WAIT_S
    raise nobody_available()


def _start_all(run, state, t, flight, now, turns, message):
    """Start clients available at the time ``now`` until no slot is free, or no client idle."""
    fleet = run.devices.at(now, len(run.sizes), drawing(run))
    free = torch.nonzero(flight["client"] < 0).flatten().tolist()
    while free:
        idle = _idle(fleet, flight, turns)
        if not bool(idle.any()):
            return
        # The number keys all random draws of a start.
        number = flight["started"]
        flight["started"] += 1
        sampling = stream(run.seed, Purpose.SAMPLE, t, number)
        records = client_records(run, state, idle)
        client = run.sampler.draw(sampling, 1, records)
        fate = stream(run.seed, Purpose.DROPOUT, t, number)
        drops_out = bool(virtual_time.dropped(fleet, client, fate))
        if drops_out:
            turn = Turn(int(client), t, None, Outcome.DROPPED, math.nan)
            turns.append(turn)
            continue
        slot = free.pop(0)
        flight["client"][slot] = client
        flight["start"][slot] = now
        flight["finish"][slot] = torch.nan
        least_s = _least_s(run, state, fleet, client, message)
        flight["earliest_finish"][slot] = now + least_s
        flight["version"][slot] = t
        flight["number"][slot] = number


def _idle(fleet, flight, turns):
    """(N,) bool: available clients, not at work, without a turn in this round."""
    idle = fleet.available.clone()
    clients = flight["client"]
    idle[clients[clients >= 0]] = False
    had_a_turn = [turn.client for turn in turns]
    idle[had_a_turn] = False
    return idle


def _least_s(run, state, fleet, client, message):
    """A lower bound of the virtual seconds of the work of ``client (1,)``."""
    # A pass of its own or a dense gradient may come on top.
    _, one_sample = flops.training(run.layout, run.costs, state["mask"], 1, 0, 0)
    work = run.min_samples_seen[client] * one_sample
    model_bytes = frame.size(*message)
    down_bytes = torch.tensor([model_bytes])
    # The size of the answer is not known yet.
    up_bytes = torch.zeros(1)
    took = virtual_time.durations(fleet, client, down_bytes, work, up_bytes)
    return float(took)


def train(run, state, flight, t, support):
    """Train the clients at work without an answer; writes answers and arrivals to ``flight``."""
    at_work = flight["client"] >= 0
    untrained = at_work & flight["finish"].isnan()
    slots = torch.nonzero(untrained).flatten()
    slots = slots.tolist()
    asks = _asks(run, state, flight, slots)
    line = f"round {t}: clients trained"
    answers = collect(run, asks, support, what=line)
    masks = [ask.mask for ask in asks]
    clients = [ask.client for ask in asks]
    work = worked(run, masks, answers, clients)
    for slot, answer, own_work in zip(slots, answers, work):
        arrival = _arrival(run, flight, slot, answer, own_work[None])
        # A training that raised has done no work: it counts from the bound.
        earliest = flight["earliest_finish"][slot]
        flight["finish"][slot] = max(arrival, earliest)
        # A checkpoint holds dicts, not tuples.
        flight["answers"][slot] = _plain(answer)


def _arrival(run, flight, slot, answer, work):
    """The virtual time of an answer's arrival, a 0-d float64, for the client in ``slot``.

    ``work (1,)`` are the FLOPs of the training.
    """
    start = flight["start"][slot]
    N = len(run.sizes)
    # The devices are those of the moment when the client started.
    fleet = run.devices.at(float(start), N, drawing(run))
    client = flight["client"][slot: slot + 1]
    down_bytes = torch.tensor([answer.job_bytes])
    up_bytes = torch.tensor([answer.up_bytes])
    took = virtual_time.durations(fleet, client, down_bytes, work, up_bytes)
    return start + took[0]


def _asks(run, state, flight, slots):
    """An ``Ask`` for the client of each slot, with the model of its start."""
    messages, asks = {}, []
    for slot in slots:
        version = int(flight["version"][slot])
        model = flight["models"][version]
        if version not in messages:
            # The state as it was, as far as the message needs it.
            then = state | model
            messages[version] = model_message(run, then, version, model["mask"])
        meta, arrays = messages[version]
        number = int(flight["number"][slot])
        meta = meta | {"t": version, "number": number}
        client = int(flight["client"][slot])
        order = ask(run, state, client, version, model["mask"], meta, arrays)
        asks.append(order)
    return asks


def _plain(answer):
    """The fields of an answer, as a checkpoint holds them."""
    answer_fields = answer._asdict()
    if isinstance(answer, Update):
        answer_fields["support"] = positions_of(answer.support)
    return answer_fields


def aged(run, state, base, answer, staleness, support):
    """The ``Update`` of a client that started ``staleness`` merges ago, for the present model.

    ``base (P,)`` is the model of its start.
    """
    on = positions_of(answer.support)
    values = answer.values
    if run.timing.mixing:
        behind = base[on] - state["x"][on]
        values = values + behind
    ages = torch.tensor([staleness], dtype=torch.float64)
    discounts = run.timing.discount(ages)
    # Scaled here, not by its weight: weights in the merge sum to 1 whatever the ages.
    values = values * float(discounts[0])
    custom_mask = not same(on, support)
    return answer._replace(values=values, custom_mask=custom_mask)
