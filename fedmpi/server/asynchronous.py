"""Asynchronous rounds: clients are always at work, each on the model of its own start, in virtual time.

What is trained when, on which rank, plays no part: an answer is merged when it arrives by the clients' devices. Those
whose arrival must be known are trained together with all others that have started, which is what keeps ranks busy.
"""

import torch

from fedmpi.core import virtual_time, flops
from fedmpi.core.errors import FedError
from fedmpi.server.answers import Outcome, Refused, Update, enough, outcome_of
from fedmpi.server.exchange import ask, collect, model_message
from fedmpi.server.recruit import PATIENCE, WAIT_S, Gathered, drawing, known, worked
from fedmpi.core.rng import Purpose, stream
from fedmpi.wire import frame


def nobody(slots):
    """The state of ``slots`` clients at work before the first has started: ``client`` (-1: a free slot), ``start`` and
    ``finish`` (s of virtual time; NaN while unknown), ``version`` (the round whose model it got) and ``number`` (of its
    start, unique in the run), all (M,); ``started`` counts starts; ``models`` by round and ``answers`` by slot."""
    return {"client": torch.full((slots,), -1), "start": torch.zeros(slots, dtype=torch.float64),
            "finish": torch.full((slots,), torch.nan, dtype=torch.float64),
            "least": torch.zeros(slots, dtype=torch.float64), "version": torch.zeros(slots, dtype=torch.int64),
            "number": torch.zeros(slots, dtype=torch.int64), "started": 0, "models": {}, "answers": {}}


def gather(fed, state, t, support, laps):
    """A round's ``Gathered``: the next answers, as many as ``fed.aggregation.buffer``, scaled by their staleness."""
    flight = {key: value.clone() if isinstance(value, torch.Tensor) else value
              for key, value in state["flight"].items()}
    flight |= {"models": flight["models"] | {t: {"x": state["x"], "mask": state["mask"]}},
               "answers": dict(flight["answers"])}
    message = model_message(fed, state, t, state["mask"])
    laps.lap("encode_s")
    now, came = state["now"], []                    # rows: (client, version, answer, outcome, seconds)
    while sum(row[3] == Outcome.MERGED for row in came) < fed.aggregation.buffer:
        now = fill(fed, state, t, flight, now, came, message)
        working = torch.nonzero(flight["client"] >= 0).flatten()
        if not len(working):
            break                                   # everybody has had a turn
        slot = int(working[virtual_time.earliest({key: flight[key][working] for key in ("finish", "number")},
                                          flight["least"][working])])
        if bool(flight["finish"][slot].isnan()):
            train(fed, state, flight, t, support)
            continue
        finish = float(flight["finish"][slot])
        # An answer that came while the server was at its own work has waited for it.
        now = max(now, finish)
        version, answer = int(flight["version"][slot]), flight["answers"].pop(slot)
        answer = Update(**answer) if "values" in answer else Refused(**answer)
        if isinstance(answer, Update):
            answer = aged(fed, state, flight["models"][version]["x"], answer, t - version, support)
        came.append((int(flight["client"][slot]), version, answer, outcome_of(answer),
                     finish - float(flight["start"][slot])))
        flight["client"][slot] = -1
        answered = [row[2] for row in came if row[2] is not None]
        if len(answered) >= 2 * fed.aggregation.buffer + len(flight["client"]):
            enough(fed, t, answered)                # most of them were unfit: no use to wait for more
    enough(fed, t, [row[2] for row in came if row[2] is not None])
    masks = [flight["models"][version]["mask"] for _, version, *_ in came]
    working = flight["client"] >= 0
    flight["models"] = {v: flight["models"][v] for v in sorted(set(flight["version"][working].tolist()))}
    clients, _, answers, outcome, seconds = zip(*came)                # never empty
    up, down = ([0 if answer is None else getattr(answer, name) for answer in answers]
                for name in ("up_bytes", "job_bytes"))
    down = [frame.size(*message) if answer is None else bytes_ for answer, bytes_ in zip(answers, down)]
    return Gathered(torch.tensor(clients), masks, list(answers), torch.tensor([int(each) for each in outcome]),
                    torch.tensor(seconds, dtype=torch.float64), torch.tensor(up), torch.tensor(down), now, None,
                    flight)


def fill(fed, state, t, flight, now, came, message):
    """Start available clients in all free slots, and return the virtual time; those that drop out go to ``came``. While
    nobody is at work, and somebody has not had a turn in this round, others are waited for."""
    N = len(fed.sizes)
    for _ in range(PATIENCE):
        fleet = fed.devices.at(now, N, drawing(fed))
        free = torch.nonzero(flight["client"] < 0).flatten().tolist()
        while free:
            idle = fleet.available.clone()
            idle[flight["client"][flight["client"] >= 0]] = False
            idle[[row[0] for row in came]] = False                     # a client has one turn in a round
            if not bool(idle.any()):
                break
            number, flight["started"] = flight["started"], flight["started"] + 1
            client = fed.sampler.draw(stream(fed.seed, Purpose.SAMPLE, t, number), 1, known(fed, state, idle))
            if bool(virtual_time.dropped(fleet, client, stream(fed.seed, Purpose.DROPOUT, t, number))):
                came.append((int(client), t, None, Outcome.DROPPED, float("nan")))
                continue
            work = fed.least[client] * flops.training(fed.layout, fed.costs, state["mask"], 1, 0, 0)[1]
            took = virtual_time.durations(fleet, client, torch.tensor([frame.size(*message)]), work, torch.zeros(1))
            slot = free.pop(0)
            for key, value in (("client", client), ("start", now), ("finish", torch.nan), ("least", now + float(took)),
                               ("version", t), ("number", number)):
                flight[key][slot] = value
        if bool((flight["client"] >= 0).any()) or len({row[0] for row in came}) == N:
            return now
        now += WAIT_S
    raise FedError(f"no client has been available for {PATIENCE * WAIT_S / 86400:.0f} days of virtual time: see "
                   "--devices")


def train(fed, state, flight, t, support):
    """Train all that have started and are not trained yet, and tell when they arrive."""
    slots = torch.nonzero((flight["client"] >= 0) & flight["finish"].isnan()).flatten().tolist()
    made, asks = {}, []
    for slot in slots:
        version = int(flight["version"][slot])
        model = flight["models"][version]
        if version not in made:
            made[version] = model_message(fed, state | model, version, model["mask"])
        meta, arrays = made[version]
        meta = meta | {"t": version, "number": int(flight["number"][slot])}
        asks.append(ask(fed, state, int(flight["client"][slot]), version, model["mask"], meta, arrays))
    answers = collect(fed, asks, support, None, f"round {t}: clients trained")
    masks, clients = [ask.mask for ask in asks], [ask.client for ask in asks]
    for slot, answer, work in zip(slots, answers, worked(fed, masks, answers, clients)):
        fleet = fed.devices.at(float(flight["start"][slot]), len(fed.sizes), drawing(fed))
        took = virtual_time.durations(fleet, flight["client"][slot: slot + 1], torch.tensor([answer.job_bytes]),
                                       work[None],
                               torch.tensor([answer.up_bytes]))
        flight["finish"][slot] = max(flight["start"][slot] + took[0], flight["least"][slot])      # one that failed, too
        flight["answers"][slot] = answer._asdict()


def aged(fed, state, base, answer, staleness, support):
    """The ``Update`` of a client that started ``staleness`` merges ago, as the server's present model takes it."""
    values = answer.values
    if fed.aggregation.mixing:
        values = values + (base[answer.support] - state["x"][answer.support])
    values = values * float(fed.aggregation.discount(torch.tensor([float(staleness)], dtype=torch.float64))[0])
    return answer._replace(values=values, own=not torch.equal(answer.support, support))
