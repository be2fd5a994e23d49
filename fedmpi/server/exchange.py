"""One round's exchange with the clients: the model goes out, their answers come back.

Which rank trained whom, and in what order answers arrive, plays no part.
"""

from typing import NamedTuple

import numpy as np
import torch

from fedmpi.client.received import digest
from fedmpi.core.errors import WorkerError
from fedmpi.core.kinds import mask_of
from fedmpi.core.kinds import positions as positions_of
from fedmpi.core.rng import Purpose, stream
from fedmpi.core.support import gathered, index_of
from fedmpi.core.units import flat, held
from fedmpi.methods.codecs.values import drawing
from fedmpi.server import client_states
from fedmpi.server.answers import OUT_OF_MEMORY, Reader, failed, is_failed
from fedmpi.transport.base import watched
from fedmpi.transport.team import NOTHING, replies, teams
from fedmpi.wire import fields, frame, positions


class Ask(NamedTuple):
    """One client asked to train, and what its answer must fit."""

    client: int
    t: int                        # the round whose model it got
    mask: torch.Tensor            # (Q,) bool, the same object for all that train the same
    meta: dict                    # goes with the job: nothing where the model was published
    arrays: dict
    kept: dict = {}               # {name: tensor} of what the client keeps: it travels with the job, unbilled
    support: torch.Tensor | None = None   # (K,) int32: all values of a smaller network; None: those of the mask


def announce(fed, state, t, clients):
    """Tell every worker about the round: ``(bytes published, asks)``, an ``Ask`` for each client.

    One model for all is published; where the pruner gives clients masks of their own, each model goes with its job."""
    header = {"kind": "round", "t": t, "layout": fed.layout.digest}
    if fed.stale and t > 1:
        fed.transport.publish({"kind": "previous"}, {"values": state["previous"].numpy()})
    if fed.kinds is not None:
        published = fed.transport.publish(header, {})
        return published, asks_by_kind(fed, state, t, clients)
    if fed.pruner.units is not None:
        published = fed.transport.publish(header, {})
        return published, smaller_asks(fed, state, t, clients)
    if fed.pruner.masks is None:
        meta, arrays = model_message(fed, state, t, state["mask"], common_mask(fed, state, t, clients))
        published = fed.transport.publish(header | meta, arrays)
        return published, [ask(fed, state, client, t, state["mask"]) for client in clients.tolist()]
    masks = fed.pruner.masks(state["pruner"], state["mask"], state["x"], fed.layout, clients)
    distinct = {id(mask): mask for mask in masks}
    made = {key: model_message(fed, state, t, mask) for key, mask in distinct.items()}
    published = fed.transport.publish(header, {})
    return published, [ask(fed, state, client, t, mask, *made[id(mask)])
                       for client, mask in zip(clients.tolist(), masks)]


def asks_by_kind(fed, state, t, clients):
    """An ``Ask`` for each client, which brings it the network that clients of its kind train."""
    numbers = fed.kinds.of[clients].tolist()
    made = {number: _kind_message(fed, state, t, number) for number in sorted(set(numbers))}
    asks = []
    for client, number in zip(clients.tolist(), numbers):
        mask, meta, arrays, support = made[number]
        asks.append(ask(fed, state, client, t, mask, meta, arrays, support))
    return asks


def _kind_message(fed, state, t, number):
    """``(mask (Q,), meta, arrays, support)`` of an ``Ask`` of a client of this kind. Mask and support are those of the
    common vector; positions travel as those of the network's own."""
    one = fed.kinds.kinds[number]
    mask = mask_of(one, state["mask"])
    own = mask[one.weights]
    support = positions_of(one, one.layout.support(own))
    code, bits = positions.encode(own.numpy())
    meta = {"support": digest(support), "mask": code, "network": number}
    codec = drawing(fed.codec.down, fed.seed, t)
    arrays = {"mask": bits} | codec.encode(gathered(state["x"], support))
    return mask, *_with_sent(fed, state, meta, arrays, codec, support), support


def smaller_asks(fed, state, t, clients):
    """An ``Ask`` for each client, which brings it the network that the pruner gives it, whole or smaller."""
    gen = stream(fed.seed, Purpose.MASK, t)
    fleet = fed.devices.at(state["now"], len(fed.sizes),
                           lambda *key: stream(fed.seed, Purpose.DEVICES, *key))
    kept = fed.pruner.units(state["pruner"], state["x"], fed.structure, clients, fleet, gen)
    distinct = {id(each): each for each in kept}
    made = {key: _network_message(fed, state, t, each) for key, each in distinct.items()}
    return [Ask(client, t, *made[id(each)]) for client, each in zip(clients.tolist(), kept)]


def _network_message(fed, state, t, kept):
    """``(mask, meta, arrays, {}, support)`` of an ``Ask`` for the network of the units ``kept {layer: (n,) bool}``. The
    mask is what the network has of the prunable weights."""
    units = flat(fed.structure, kept)
    if units.all():
        return state["mask"], *model_message(fed, state, t, state["mask"])
    entries = held(fed.structure, units)
    support = torch.from_numpy(index_of(entries.numpy()))
    codec = drawing(fed.codec.down, fed.seed, t)
    arrays = {"units": np.packbits(units.numpy())} | codec.encode(gathered(state["x"], support))
    return entries[: fed.layout.Q].clone(), {"support": digest(support)}, arrays, {}, support


def ask(fed, state, client, t, mask, meta={}, arrays={}, support=None):
    """The ``Ask`` of a client that trains under ``mask`` in round ``t``. ``meta`` and ``arrays`` hold the model that
    goes with its job, nothing where that was published. ``support`` is given where it is not that of the mask."""
    message = _with_own(fed, state, client, t, mask, meta, arrays)
    return Ask(client, t, mask, *message, memory(fed, state, client, mask), support)


def _with_own(fed, state, client, t, mask, meta, arrays):
    """``(meta, arrays)`` with what the strategy sends to this client alone."""
    strategy = fed.strategy
    if strategy.send_to is None:
        return meta, arrays
    tensors = strategy.send_to(state["strategy"], client)
    named = {name: strategy.sends[name] for name in tensors}
    support = fed.layout.support(mask)
    sent = fields.encoded(named, tensors, "given/", drawing(fed.codec.down, fed.seed, t, client), support)
    return meta | {"given": [*meta.get("given", ()), *named]}, arrays | sent


def memory(fed, state, client, mask):
    """``{name: tensor}`` of what a client keeps, as it is under ``mask (Q,)``; empty where that is nothing."""
    found = state.get("clients", {}).get(client)
    if found is None:
        return {}
    fixed = {name for name, field in fed.kept_fields.items() if field.on != "support"}
    steady = state["changed"] == 1 and fed.pruner.masks is None and not fed.pruner.moves
    since = None if steady else state["grown"]
    support = fed.layout.support(mask)
    return client_states.recalled(found, fed.layout, mask, support, since, fixed, fed.shelf, client)


def remembered(fed, state, t, clients, answers, masks):
    """``{client: Kept}`` once the ``answers`` of ``clients (C,)`` have been merged in round ``t``; all others keep what
    they have. ``masks`` are those that they were given."""
    after = dict(state["clients"])
    for client, answer, mask in zip(clients.tolist(), answers, masks):
        if answer.own:
            mask = _ended(fed, answer, mask)
        if answer.kept:
            after[client] = client_states.kept(t, mask, answer.kept, fed.shelf, client)
    return after


def _ended(fed, answer, mask):
    """(Q,) bool: the mask that a client ended with, by the support of its answer."""
    mask = torch.zeros_like(mask)
    mask[answer.support[answer.support < fed.layout.Q].long()] = True
    return mask


def common_mask(fed, state, t, clients):
    """The last mask sent, where every client of the cohort can know it; None where some cannot."""
    held = state["held"][clients]
    knows = bool((held >= state["changed"]).all()) or (t > 1 and bool((held == t - 1).all()))
    return state["sent"] if knows else None


def model_message(fed, state, t, mask, known=None):
    """``(meta, arrays)`` that takes the kept values of the model to clients in round ``t``, and what the strategy sends
    to all beside it. Positions go along only as far as the mask ``known`` does not tell: all of them, the
    changes, or none."""
    support = fed.layout.support(mask)
    bits = mask.numpy()
    before = None
    if known is not None:
        before = bits if known is mask else known.numpy()
    code, array = positions.encode(bits, before)
    meta = {"support": digest(support), "mask": code}
    codec = drawing(fed.codec.down, fed.seed, t)
    arrays = {"mask": array} | codec.encode(gathered(state["x"], support))
    return _with_sent(fed, state, meta, arrays, codec, support)


def _with_sent(fed, state, meta, arrays, codec, support):
    """``(meta, arrays)`` with what the strategy sends to all clients beside the model."""
    if fed.strategy.send is None:
        return meta, arrays
    tensors = fed.strategy.send(state["strategy"])
    named = {name: fed.strategy.sends[name] for name in tensors}
    sent = fields.encoded(named, tensors, "given/", codec, support)
    return meta | {"given": list(named)}, arrays | sent


def collect(fed, asks, support, shares=None, what="clients trained"):
    """The answer to each of ``asks``, in their order whatever the order of arrival. ``support (K,)`` is the server's;
    answers on it have their values in the rows of one tensor. ``shares (C,)`` are the weights by which workers add up
    updates, where they do.

    What takes longest starts first: jobs go by number of samples, ``fed.together`` clients a job. A training that
    raised is tried again, dropped, or ends the run, as ``fed.on_error`` says; one that ran out of GPU memory is tried
    again while nobody else trains.
    """
    read = _reader(fed, asks, support)
    jobs = [_job(ask, row, shares) for row, ask in enumerate(asks)]
    sent = [ask.arrays | {f"kept/{name}": tensor.numpy() for name, tensor in ask.kept.items()} for ask in asks]
    unbilled = [_unbilled(job, arrays) if ask.kept else 0 for ask, job, arrays in zip(asks, jobs, sent)]
    answers = [None] * len(asks)

    def play(chosen, beside=NOTHING):
        came = replies(fed.transport, jobs, sent, chosen, fed.meanwhile, beside)
        # An answer is keyed by its row: when it arrives does not matter.
        for reply in watched(came, sum(map(len, chosen)), fed.tell, what):
            row = reply.meta["row"]
            reply = reply._replace(job_bytes=reply.job_bytes - unbilled[row])
            answer = failed(fed, reply) if reply.meta["kind"] == "failed" else read.reply(reply, asks[row], row)
            before = answers[row].job_bytes if answers[row] else 0
            answers[row] = answer._replace(job_bytes=before + answer.job_bytes)

    _until_done(fed, _by_length(fed, asks), answers, play)
    return answers


def _reader(fed, asks, support):
    """The ``Reader`` of the answers to ``asks``."""
    distinct = {id(ask.mask): ask for ask in asks}
    supports = {key: fed.layout.support(ask.mask) if ask.support is None else ask.support
                for key, ask in distinct.items()}
    expected = {key: digest(each) for key, each in supports.items()}
    U = torch.empty(len(asks), len(support)) if fed.values else None
    return Reader(fed, supports, expected, digest(support), U)


def _job(ask, row, shares):
    """What the worker is told of an ask."""
    job = {"client": ask.client, "row": row} | ask.meta
    return job if shares is None else job | {"share": float(shares[row])}


def _unbilled(job, arrays):
    """The bytes that a job takes for what the client keeps: a real client would have it."""
    meta = {"kind": "run", "job": job}
    billed = {name: array for name, array in arrays.items() if not name.startswith("kept/")}
    return frame.size(meta, arrays) - frame.size(meta, billed)


def _by_length(fed, asks):
    """Teams of rows, those with the most samples first."""
    samples = torch.tensor([float(fed.sizes[ask.client]) for ask in asks])
    return teams(torch.argsort(samples, descending=True, stable=True).tolist(), fed.together)


def _until_done(fed, chosen, answers, play):
    """``play`` the teams, and those again whose training raised, as ``fed.on_error`` says."""

    def failing(why=""):
        """What is left of the teams: a team that ran out of memory trains again as it was, for the same bits."""
        left = [[row for row in team if is_failed(answers[row]) and answers[row].why.startswith(why)]
                for team in chosen]
        return [team for team in left if team]

    play(chosen, fed.beside)
    if crowded := failing(OUT_OF_MEMORY):
        fed.tell(f"warning: {sum(map(len, crowded))} clients ran out of GPU memory and train again, while nobody else "
                 "does; fewer ranks on a GPU, or a smaller --batch-size or --together, would avoid that")
    for team in crowded:
        play([team])
    if fed.on_error == "retry" and failing():
        play(failing())
    broken = [answer for answer in answers if is_failed(answer)]
    if broken and fed.on_error == "fatal":
        raise WorkerError(broken[0].rank, broken[0].why)
