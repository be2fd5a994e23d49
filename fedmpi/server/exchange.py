"""A round's exchange with the clients: the model goes out, answers come back.

Neither the ranks that clients trained on nor the order of arrival plays a part.
"""

from typing import Any, NamedTuple

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
    """A client's order to train, and the model that its answer must fit."""

    client: int
    t: int                        # the round whose model it got
    mask: torch.Tensor            # (Q,) bool, one object for all clients that train the same
    meta: dict                    # with ``arrays``, the model; empty if that was published
    arrays: dict
    kept: dict = {}               # {name: tensor} of the client's state: not billed
    support: torch.Tensor | None = None   # (K,) int32, unless it is the support of ``mask``


# ------------------------------------------------------------- the model goes out


def announce(fed, state, t, clients):
    """Tell every worker about round ``t``: ``(bytes published, an Ask for each client)``.

    One model for all clients is published. Models that differ go with the clients' jobs.
    """
    header = {"kind": "round", "t": t, "layout": fed.layout.digest}
    if fed.stale and t > 1:
        fed.transport.publish({"kind": "previous"}, {"values": state["previous"].numpy()})
    if fed.kinds is not None:
        asks_of = asks_by_kind
    elif fed.pruner.units is not None:
        asks_of = smaller_asks
    elif fed.pruner.masks is not None:
        asks_of = _masked_asks
    else:
        last = common_mask(fed, state, t, clients)
        meta, arrays = model_message(fed, state, t, state["mask"], last)
        published = fed.transport.publish(header | meta, arrays)
        return published, [ask(fed, state, client, t, state["mask"]) for client in clients.tolist()]
    published = fed.transport.publish(header, {})
    return published, asks_of(fed, state, t, clients)


def _masked_asks(fed, state, t, clients):
    """An ``Ask`` for each client, with the model under the mask that the pruner gives it."""
    masks = fed.pruner.masks(state["pruner"], state["mask"], state["x"], fed.layout, clients)
    distinct = {id(mask): mask for mask in masks}
    messages = {key: model_message(fed, state, t, mask) for key, mask in distinct.items()}
    return [ask(fed, state, client, t, mask, *messages[id(mask)])
            for client, mask in zip(clients.tolist(), masks)]


def asks_by_kind(fed, state, t, clients):
    """An ``Ask`` for each client, with the network of the client's kind."""
    numbers = fed.kinds.of[clients].tolist()
    messages = {number: _kind_message(fed, state, t, number) for number in sorted(set(numbers))}
    asks = []
    for client, number in zip(clients.tolist(), numbers):
        mask, meta, arrays, support = messages[number]
        asks.append(ask(fed, state, client, t, mask, meta, arrays, support))
    return asks


def _kind_message(fed, state, t, number):
    """``(mask (Q,), meta, arrays, support)`` of an ``Ask`` for the network ``number``.

    Mask and support count in the common vector; positions on the wire count in the network's own.
    """
    kind = fed.kinds.kinds[number]
    mask = mask_of(kind, state["mask"])
    own_mask = mask[kind.weights]
    support = positions_of(kind, kind.layout.support(own_mask))
    code, bits = positions.encode(own_mask.numpy())
    meta = {"support": digest(support), "mask": code, "network": number}
    codec = drawing(fed.codec.down, fed.seed, t)
    arrays = {"mask": bits} | codec.encode(gathered(state["x"], support))
    meta, arrays = _with_sent(fed, state, meta, arrays, codec, support)
    return mask, meta, arrays, support


def smaller_asks(fed, state, t, clients):
    """An ``Ask`` for each client, with the network that the pruner gives it: whole, or smaller."""
    gen = stream(fed.seed, Purpose.MASK, t)
    fleet = fed.devices.at(state["now"], len(fed.sizes),
                           lambda *key: stream(fed.seed, Purpose.DEVICES, *key))
    units = fed.pruner.units(state["pruner"], state["x"], fed.structure, clients, fleet, gen)
    distinct = {id(kept): kept for kept in units}
    messages = {key: _network_message(fed, state, t, kept) for key, kept in distinct.items()}
    return [Ask(client, t, *messages[id(kept)]) for client, kept in zip(clients.tolist(), units)]


def _network_message(fed, state, t, kept):
    """``(mask, meta, arrays, {}, support)`` of an ``Ask``; ``kept`` is ``{layer: (n,) bool}``, its units.

    The mask marks the network's prunable weights in the vector of the whole one.
    """
    units = flat(fed.structure, kept)
    if units.all():
        return state["mask"], *model_message(fed, state, t, state["mask"])
    entries = held(fed.structure, units)
    support = torch.from_numpy(index_of(entries.numpy()))
    codec = drawing(fed.codec.down, fed.seed, t)
    values = codec.encode(gathered(state["x"], support))
    arrays = {"units": np.packbits(units.numpy())} | values
    mask = entries[: fed.layout.Q].clone()
    return mask, {"support": digest(support)}, arrays, {}, support


def ask(fed, state, client, t, mask, meta={}, arrays={}, support=None):
    """The ``Ask`` of a client that trains under ``mask`` the model of round ``t``.

    ``meta`` and ``arrays`` hold that model, unless it is published. ``support`` defaults to the mask's.
    """
    meta, arrays = _with_own(fed, state, client, t, mask, meta, arrays)
    return Ask(client, t, mask, meta, arrays, memory(fed, state, client, mask), support)


def _with_own(fed, state, client, t, mask, meta, arrays):
    """``(meta, arrays)`` with the strategy's message to this client alone."""
    strategy = fed.strategy
    if strategy.send_to is None:
        return meta, arrays
    tensors = strategy.send_to(state["strategy"], client)
    named = {name: strategy.sends[name] for name in tensors}
    codec = drawing(fed.codec.down, fed.seed, t, client)
    sent = fields.encoded(named, tensors, "given/", codec, fed.layout.support(mask))
    return meta | {"given": [*meta.get("given", ()), *named]}, arrays | sent


def memory(fed, state, client, mask):
    """``{name: tensor}``: the state that a client keeps, as it is under ``mask (Q,)``."""
    kept = state.get("clients", {}).get(client)
    if kept is None:
        return {}
    fixed = {name for name, field in fed.kept_fields.items() if field.on != "support"}
    one_mask_ever = state["changed"] == 1 and fed.pruner.masks is None and not fed.pruner.moves
    grown = None if one_mask_ever else state["grown"]
    support = fed.layout.support(mask)
    return client_states.recalled(kept, fed.layout, mask, support, grown, fixed, fed.shelf, client)


def remembered(fed, state, t, clients, answers, masks):
    """``{client: Kept}`` after the ``answers`` of ``clients (C,)`` were merged in round ``t``.

    ``masks`` are those that the clients were sent. All other clients keep their states.
    """
    after = dict(state["clients"])
    for client, answer, mask in zip(clients.tolist(), answers, masks):
        if answer.own:
            mask = _ended(fed, answer, mask)
        if answer.kept:
            after[client] = client_states.kept(t, mask, answer.kept, fed.shelf, client)
    return after


def _ended(fed, answer, mask):
    """(Q,) bool: the mask that a client ended with, from the support of its answer."""
    ended = torch.zeros_like(mask)
    prunable = answer.support < fed.layout.Q
    ended[answer.support[prunable].long()] = True
    return ended


def common_mask(fed, state, t, clients):
    """(Q,) bool: the last mask sent, if every client of the cohort can know it, else None."""
    last_rounds = state["held"][clients]
    if bool((last_rounds >= state["changed"]).all()):
        return state["sent"]
    if t > 1 and bool((last_rounds == t - 1).all()):
        return state["sent"]
    return None


def model_message(fed, state, t, mask, known=None):
    """``(meta, arrays)``: the model's values under ``mask``, and the strategy's message to all clients.

    ``known (Q,) bool`` is the mask that clients have, or None: positions travel only as far as they
    differ from it.
    """
    support = fed.layout.support(mask)
    bits = mask.numpy()
    before = None
    if known is mask:
        # The same object: the encoder need not compare.
        before = bits
    elif known is not None:
        before = known.numpy()
    code, array = positions.encode(bits, before)
    meta = {"support": digest(support), "mask": code}
    codec = drawing(fed.codec.down, fed.seed, t)
    arrays = {"mask": array} | codec.encode(gathered(state["x"], support))
    return _with_sent(fed, state, meta, arrays, codec, support)


def _with_sent(fed, state, meta, arrays, codec, support):
    """``(meta, arrays)`` with the strategy's message to all clients."""
    if fed.strategy.send is None:
        return meta, arrays
    tensors = fed.strategy.send(state["strategy"])
    named = {name: fed.strategy.sends[name] for name in tensors}
    sent = fields.encoded(named, tensors, "given/", codec, support)
    return meta | {"given": list(named)}, arrays | sent


# ------------------------------------------------------------- answers come back


def collect(fed, asks, support, shares=None, what="clients trained"):
    """The answer to each of ``asks``, in their order whatever the order of arrival.

    Answers on the server's ``support (K,)`` have their values in the rows of one tensor. ``shares
    (C,)`` are the weights of clients in the workers' sums, if workers add updates up. ``what`` tells
    the user about the progress.

    The longest trainings start first: jobs go by number of samples, ``fed.together`` clients a job.
    A training that raised is tried again, dropped, or ends the run, by ``fed.on_error``. A training
    that ran out of GPU memory is tried again while nobody else trains.
    """
    jobs = [_job(ask, row, shares) for row, ask in enumerate(asks)]
    arrays = [_arrays(ask) for ask in asks]
    unbilled = [_unbilled(ask, job, own) for ask, job, own in zip(asks, jobs, arrays)]
    reader = _reader(fed, asks, support)
    collecting = Collecting(fed, asks, jobs, arrays, unbilled, reader, [None] * len(asks), what)
    _until_done(fed, _by_length(fed, asks), collecting)
    return collecting.answers


class Collecting(NamedTuple):
    """The jobs of a cohort, and the answers so far, in the order of the asks."""

    fed: Any
    asks: list
    jobs: list
    arrays: list                  # a dict of arrays a job
    unbilled: list                # bytes of a job that a real federation would not send
    reader: Reader
    answers: list                 # None until the answer is there
    what: str                     # text for the user about the progress

    def play(self, chosen, beside=NOTHING):
        """Train the teams ``chosen``, lists of rows, and write the answers of their clients."""
        fed = self.fed
        came = replies(fed.transport, self.jobs, self.arrays, chosen, fed.meanwhile, beside)
        num_clients = sum(map(len, chosen))
        for reply in watched(came, num_clients, fed.tell, self.what):
            # An answer is keyed by its row: its time of arrival does not matter.
            row = reply.meta["row"]
            answer = self._read(reply._replace(job_bytes=reply.job_bytes - self.unbilled[row]), row)
            if self.answers[row]:
                # A second try is billed on top of the first.
                answer = answer._replace(job_bytes=self.answers[row].job_bytes + answer.job_bytes)
            self.answers[row] = answer

    def _read(self, reply, row):
        if reply.meta["kind"] == "failed":
            return failed(self.fed, reply)
        return self.reader.reply(reply, self.asks[row], row)

    def failing(self, chosen, why=""):
        """The teams of ``chosen``, without clients whose answer is there; empty teams are left out.

        ``why`` limits them to failures that begin with this text. A team that ran out of memory trains
        again as it was, for the same bits.
        """
        rest = [[row for row in team if self._failed(row, why)] for team in chosen]
        return [team for team in rest if team]

    def _failed(self, row, why):
        return is_failed(self.answers[row]) and self.answers[row].why.startswith(why)


def _reader(fed, asks, support):
    """The ``Reader`` of the answers to ``asks``."""
    distinct = {id(ask.mask): ask for ask in asks}
    supports = {key: _support_of(fed, ask) for key, ask in distinct.items()}
    expected = {key: digest(own) for key, own in supports.items()}
    U = torch.empty(len(asks), len(support)) if fed.values else None
    return Reader(fed, supports, expected, digest(support), U)


def _support_of(fed, ask):
    """(K,) int32: the support that a client trains on."""
    return fed.layout.support(ask.mask) if ask.support is None else ask.support


def _job(ask, row, shares):
    """A client's job, as the worker gets it."""
    job = {"client": ask.client, "row": row} | ask.meta
    if shares is not None:
        job["share"] = float(shares[row])
    return job


def _arrays(ask):
    """The arrays that travel with a client's job."""
    kept = {f"kept/{name}": tensor.numpy() for name, tensor in ask.kept.items()}
    return ask.arrays | kept


def _unbilled(ask, job, arrays):
    """The bytes of a client's state in its job: a real client would have it."""
    if not ask.kept:
        return 0
    meta = {"kind": "run", "job": job}
    billed = {name: array for name, array in arrays.items() if not name.startswith("kept/")}
    return frame.size(meta, arrays) - frame.size(meta, billed)


def _by_length(fed, asks):
    """Teams of rows, first the clients with the most samples."""
    samples = torch.tensor([float(fed.sizes[ask.client]) for ask in asks])
    rows = torch.argsort(samples, descending=True, stable=True).tolist()
    return teams(rows, fed.together)


def _until_done(fed, chosen, collecting):
    """Train the teams ``chosen``, and again those that failed, by ``fed.on_error``."""
    collecting.play(chosen, fed.beside)
    crowded = collecting.failing(chosen, OUT_OF_MEMORY)
    if crowded:
        fed.tell(f"warning: {sum(map(len, crowded))} clients ran out of GPU memory and train again, "
                 "while nobody else does; fewer ranks on a GPU, or a smaller --batch-size or "
                 "--together, would avoid that")
    for team in crowded:
        collecting.play([team])
    failing = collecting.failing(chosen)
    if fed.on_error == "retry" and failing:
        collecting.play(failing)
    broken = [answer for answer in collecting.answers if is_failed(answer)]
    if broken and fed.on_error == "fatal":
        raise WorkerError(broken[0].rank, broken[0].why)
