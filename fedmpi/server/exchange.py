"""A round's exchange with the clients: the model goes out, answers come back.

Neither the ranks of the trainings nor the order of arrival plays a part.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from fedmpi.core.errors import WorkerError
from fedmpi.core.kinds import mask_of
from fedmpi.core.kinds import positions as positions_in
from fedmpi.core.rng import Purpose, stream
from fedmpi.core.support import digest, gathered, index_of, positions_of
from fedmpi.core.units import entries_of, flat
from fedmpi.wire.chosen import for_model
from fedmpi.wire.codecs import drawing
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


def announce(run, state, t, clients):
    """Tell every worker about round ``t``: ``(bytes published, an Ask for each client)``.

    One model for all clients is published. Different models go with the clients' jobs.
    """
    header = {"kind": "round", "t": t, "layout": run.layout.digest}
    if run.needs_previous_model and t > 1:
        values = state["previous"].numpy()
        run.transport.publish({"kind": "previous"}, {"values": values})
    # Clients may differ by their networks, by units, or by masks.
    if run.kinds is not None:
        asks_of = asks_by_kind
    elif run.pruner.units is not None:
        asks_of = smaller_asks
    elif run.pruner.masks is not None:
        asks_of = _masked_asks
    else:
        return _announce_one_model(run, state, t, clients, header)
    meta, arrays = header, {}
    if run.strategy.absorb is not None:
        # Every worker repeats a change of the base, also one without a client in this round.
        meta, arrays = _with_sent(run, state, header, {}, run.codec.down, run.layout.dense_positions)
    # The rest of the models goes with the clients' jobs.
    published = run.transport.publish(meta, arrays)
    return published, asks_of(run, state, t, clients)


def _announce_one_model(run, state, t, clients, header):
    """``announce`` for clients that all train the same model."""
    mask = state["mask"]
    last_mask = common_mask(run, state, t, clients)
    meta, arrays = model_message(run, state, t, mask, last_mask, of_round=True)
    meta = header | meta
    published = run.transport.publish(meta, arrays)
    asks = [ask(run, state, client, t, mask) for client in clients.tolist()]
    return published, asks


def _masked_asks(run, state, t, clients):
    """An ``Ask`` for each client, with the model under the client's mask, by the pruner."""
    pruner, layout = run.pruner, run.layout
    masks = pruner.masks(state["pruner"], state["mask"], state["x"], layout, clients)
    # Clients with the same mask object share a message.
    messages, asks = {}, []
    for client, mask in zip(clients.tolist(), masks):
        key = id(mask)
        if key not in messages:
            number = len(messages)
            messages[key] = _masked_message(run, state, t, mask, number)
        meta, arrays = messages[key]
        order = ask(run, state, client, t, mask, meta, arrays)
        asks.append(order)
    return asks


def _masked_message(run, state, t, mask, number):
    """``(meta, arrays)``: a client's model, and the strategy's message unless it was published."""
    if run.strategy.absorb is not None:
        run = run._replace(strategy=run.strategy._replace(send=None))
    return model_message(run, state, t, mask, number=number)


def asks_by_kind(run, state, t, clients):
    """An ``Ask`` for each client, with the network of the client's kind."""
    numbers = run.kinds.of[clients].tolist()
    messages, asks = {}, []
    for client, number in zip(clients.tolist(), numbers):
        if number not in messages:
            messages[number] = _kind_message(run, state, t, number)
        mask, meta, arrays, support = messages[number]
        order = ask(run, state, client, t, mask, meta, arrays, support)
        asks.append(order)
    return asks


def _kind_message(run, state, t, number):
    """``(mask (Q,), meta, arrays, support)`` of an ``Ask`` for the network ``number``.

    Mask and support count in the common vector; positions on the wire count in the network's own.
    """
    kind = run.kinds.kinds[number]
    mask = mask_of(kind, state["mask"])
    own_mask = mask[kind.weights]
    own_support = kind.layout.support(own_mask)
    support = positions_in(kind, own_support)
    code, bits = positions.encode(own_mask.numpy())
    meta = {
        "support": digest(support),
        "mask": code,
        "network": number,
    }
    # One codec for the round: all clients with this network get the same message.
    codec = drawing(run.codec.down, run.seed, t, message=number)
    values = gathered(state["x"], support)
    arrays = {"mask": bits} | codec.encode(values)
    meta, arrays = _with_sent(run, state, meta, arrays, codec, support)
    return mask, meta, arrays, support


def smaller_asks(run, state, t, clients):
    """An ``Ask`` for each client, with the client's network, by the pruner: whole, or smaller."""
    gen = stream(run.seed, Purpose.MASK, t)
    x = state["x"]
    fleet = _fleet(run, state)
    networks = run.pruner.units(state["pruner"], x, run.structure, clients, fleet, gen)
    # Clients with the same object share a network and its message.
    orders, asks = {}, []
    for client, units in zip(clients.tolist(), networks):
        key = id(units)
        if key not in orders:
            # The whole network's message has the number 0.
            number = len(orders) + 1
            orders[key] = _network_order(run, state, t, units, number)
        order = orders[key]
        asks.append(order._replace(client=client))
    return asks


def _fleet(run, state):
    """The clients' devices at the beginning of the round."""
    def draw(*key):
        return stream(run.seed, Purpose.DEVICES, *key)

    N = len(run.sizes)
    return run.devices.at(state["now"], N, draw)


def _network_order(run, state, t, units, number):
    """An ``Ask``, the client still missing, for the network of ``units``, ``{layer: (n,) bool}``.

    The mask marks the network's prunable weights in the vector of the whole one. ``number`` is that
    of the message among those of the round.
    """
    units = flat(run.structure, units)
    if units.all():
        mask = state["mask"]
        meta, arrays = model_message(run, state, t, mask)
        return Ask(None, t, mask, meta, arrays)
    # Of all values, those of the network; of the prunable ones, its mask.
    entries = entries_of(run.structure, units)
    index = index_of(entries.numpy())
    support = torch.from_numpy(index)
    mask = entries[: run.layout.Q].clone()
    codec = drawing(run.codec.down, run.seed, t, message=number)
    values = gathered(state["x"], support)
    packed = np.packbits(units.numpy())
    arrays = {"units": packed} | codec.encode(values)
    meta = {"support": digest(support)}
    return Ask(None, t, mask, meta, arrays, support=support)


def ask(run, state, client, t, mask, meta=None, arrays=None, support=None):
    """The ``Ask`` of a client for training under ``mask`` the model of round ``t``.

    ``meta`` and ``arrays`` hold the model, unless it is published. ``support`` defaults to that of
    the mask.
    """
    meta, arrays = _with_own(run, state, client, t, mask, meta or {}, arrays or {})
    return Ask(
        client=client,
        t=t,
        mask=mask,
        meta=meta,
        arrays=arrays,
        kept=state_of_client(run, state, client, mask),
        support=support)


def _with_own(run, state, client, t, mask, meta, arrays):
    """``(meta, arrays)`` with the strategy's message to this client alone."""
    strategy = run.strategy
    if strategy.send_to is None:
        return meta, arrays
    tensors = strategy.send_to(state["strategy"], client)
    named = {name: strategy.sends[name] for name in tensors}
    # The client is part of the key: its message is its own. Its answer has the number 0.
    codec = drawing(run.codec.down, run.seed, t, client, message=1)
    support = run.layout.compact(mask)
    message = fields.encoded(named, tensors, "given/", codec, support)
    # The model may have brought the message to all clients.
    names = [*meta.get("given", ()), *named]
    meta = meta | {"given": names}
    return meta, arrays | message


def state_of_client(run, state, client, mask):
    """``{name: tensor}``: a client's state, as it is under ``mask (Q,)``."""
    kept = state.get("clients", {}).get(client)
    if kept is None:
        return {}
    fixed = {name for name, field in run.kept_fields.items() if field.on != "support"}
    pruner = run.pruner
    same_for_all = pruner.masks is None and not pruner.moves
    has_never_changed = state["mask_since"] == 1
    grown = state["grown"]
    if same_for_all and has_never_changed:
        grown = None
    return client_states.recalled(
        kept, run.layout, mask, run.layout.compact(mask), grown, fixed, run.shelf, client)


def remembered(run, state, t, clients, answers, masks):
    """``{client: Kept}`` after the ``answers`` of ``clients (C,)`` were merged in round ``t``.

    ``masks`` are the masks sent to the clients. All other clients keep their states.
    """
    after = dict(state["clients"])
    for client, answer, mask in zip(clients.tolist(), answers, masks):
        if answer.custom_mask:
            mask = _ended(run, answer, mask)
        if answer.kept:
            after[client] = client_states.kept(t, mask, answer.kept, run.shelf, client)
    return after


def _ended(run, answer, mask):
    """(Q,) bool: a client's mask after its training, from the support of its answer."""
    ended = torch.zeros_like(mask)
    # Prunable weights come first in the vector.
    support = positions_of(answer.support)
    prunable = support < run.layout.Q
    ended[support[prunable].long()] = True
    return ended


def common_mask(run, state, t, clients):
    """(Q,) bool: the last mask sent, if every client of the cohort can know it, else None."""
    last_rounds = state["last_round_of"][clients]
    have_present_mask = last_rounds >= state["mask_since"]
    if bool(have_present_mask.all()):
        return state["last_sent_mask"]
    # Before round 1 nobody has a mask.
    took_part = last_rounds == t - 1
    if t > 1 and bool(took_part.all()):
        return state["last_sent_mask"]
    return None


def model_message(run, state, t, mask, last_mask=None, number=0, of_round=False):
    """``(meta, arrays)``: the model's values under ``mask``, and the strategy's message to all.

    ``last_mask (Q,) bool`` is the mask that clients have, or None: positions travel only as far as
    they differ from it. ``of_round``: the values are those that travel in round ``t``, where the
    strategy sends a part of the model.
    """
    support = run.layout.compact(mask)
    bits = mask.numpy()
    before = None
    if last_mask is mask:
        # The same object: the encoder need not compare.
        before = bits
    elif last_mask is not None:
        before = last_mask.numpy()
    code, array = positions.encode(bits, before)
    meta = {"support": digest(support), "mask": code}
    codec = run.codec.down
    if of_round:
        codec = for_model(codec, run.strategy, run.layout, t, support)
    codec = drawing(codec, run.seed, t, message=number)
    values = gathered(state["x"], support)
    arrays = {"mask": array} | codec.encode(values)
    return _with_sent(run, state, meta, arrays, codec, support)


def _with_sent(run, state, meta, arrays, codec, support):
    """``(meta, arrays)`` with the strategy's message to all clients."""
    if run.strategy.send is None:
        return meta, arrays
    tensors = run.strategy.send(state["strategy"])
    named = {name: run.strategy.sends[name] for name in tensors}
    message = fields.encoded(named, tensors, "given/", codec, support)
    meta = meta | {"given": list(named)}
    return meta, arrays | message


# ------------------------------------------------------------- answers come back


def collect(run, asks, support, shares=None, what="clients trained"):
    """The answer to each of ``asks``, in their order whatever the order of arrival.

    Answers on the server's ``support (K,)`` have their values in the rows of one tensor. If workers
    add updates up, ``shares (C,)`` are the clients' weights in the sums. ``what`` tells the user
    about the progress.

    The longest trainings start first: jobs go by number of samples, ``run.together`` clients a
    job. Failed trainings are tried again, dropped, or end the run, by ``run.on_error``. If a
    GPU's memory was too small they are tried again while nobody else trains.
    """
    jobs = [_job(ask, row, shares) for row, ask in enumerate(asks)]
    arrays = [_arrays(ask) for ask in asks]
    unbilled = [_unbilled(*row) for row in zip(asks, jobs, arrays)]
    collecting = Collecting(
        run=run,
        asks=asks,
        jobs=jobs,
        arrays=arrays,
        unbilled=unbilled,
        reader=_reader(run, asks, support),
        answers=[None] * len(asks),
        what=what)
    chosen = _by_length(run, asks)
    _until_done(run, chosen, collecting)
    return collecting.answers


class Collecting(NamedTuple):
    """The jobs of a cohort, and the answers so far, in the order of the asks."""

    run: Any
    asks: list
    jobs: list
    arrays: list                  # a dict of arrays a job
    unbilled: list                # bytes of a job that a real federation would not send
    reader: Reader
    answers: list                 # None until the answer is there
    what: str                     # text for the user about the progress

    def train(self, chosen, beside=NOTHING):
        """Train the teams ``chosen``, lists of rows, and write the answers of their clients."""
        run = self.run
        came = replies(run.transport, self.jobs, self.arrays, chosen, run.meanwhile, beside)
        num_clients = sum(map(len, chosen))
        for reply in watched(came, num_clients, run.tell, self.what):
            # An answer is keyed by its row: its time of arrival does not matter.
            row = reply.meta["row"]
            answer = self._read(reply, row)
            before = self.answers[row]
            if before:
                # A second try is billed on top of the first.
                job_bytes = before.job_bytes + answer.job_bytes
                answer = answer._replace(job_bytes=job_bytes)
            self.answers[row] = answer

    def _read(self, reply, row):
        """The answer in a ``reply``, billed for its job without the client's state."""
        job_bytes = reply.job_bytes - self.unbilled[row]
        reply = reply._replace(job_bytes=job_bytes)
        if reply.meta["kind"] == "failed":
            return failed(self.run, reply)
        question = self.asks[row]
        return self.reader.reply(reply, question, row)

    def failing(self, chosen, why=""):
        """The teams of ``chosen``, reduced to failed clients; ``why`` begins the reason.

        Teams without failures are left out. A team that ran out of memory failed as a whole, and
        trains again as it was, for the same bits.
        """
        rest = [self._failing_rows(team, why) for team in chosen]
        return [team for team in rest if team]

    def _failing_rows(self, team, why):
        rows = []
        for row in team:
            answer = self.answers[row]
            if is_failed(answer) and answer.why.startswith(why):
                rows.append(row)
        return rows


def _reader(run, asks, support):
    """The ``Reader`` of the answers to ``asks``."""
    supports, expected = {}, {}
    for ask in asks:
        key = id(ask.mask)
        if key not in supports:
            own_support = _support_of(run, ask)
            supports[key] = own_support
            expected[key] = digest(own_support)
    U = None
    if run.wants_single_updates:
        U = torch.empty(len(asks), len(support))
    return Reader(run, supports, expected, digest(support), U)


def _support_of(run, ask):
    """(K,): the support of a client's training."""
    if ask.support is None:
        return run.layout.compact(ask.mask)
    return ask.support


def _job(ask, row, shares):
    """A client's job, as the worker gets it."""
    job = {"client": ask.client, "row": row} | ask.meta
    if shares is not None:
        job["share"] = float(shares[row])
    return job


def _arrays(ask):
    """The arrays of a client's job."""
    arrays = dict(ask.arrays)
    for name, tensor in ask.kept.items():
        arrays[f"kept/{name}"] = tensor.numpy()
    return arrays


def _unbilled(ask, job, arrays):
    """The bytes of a client's state in its job: a real client would have it."""
    if not ask.kept:
        return 0
    meta = {"kind": "run", "job": job}
    billed = {}
    for name, array in arrays.items():
        if not name.startswith("kept/"):
            billed[name] = array
    whole = frame.size(meta, arrays)
    return whole - frame.size(meta, billed)


def _by_length(run, asks):
    """Teams of rows, first the clients with the most samples."""
    clients = [ask.client for ask in asks]
    # Clients with as many samples stay in the order of the asks.
    samples = run.sizes[clients].float()
    rows = torch.argsort(samples, descending=True, stable=True)
    return teams(rows.tolist(), run.together)


def _until_done(run, chosen, collecting):
    """Train the teams ``chosen``, and failed ones again, by ``run.on_error``."""
    collecting.train(chosen, run.beside)
    crowded = collecting.failing(chosen, OUT_OF_MEMORY)
    if crowded:
        num_clients = sum(map(len, crowded))
        run.tell(f"warning: {num_clients} clients ran out of GPU memory and train again, while "
                 "nobody else does; fewer ranks on a GPU, or a smaller --batch-size or --together, "
                 "would avoid that")
    # One team at a time has all of a GPU's memory.
    for team in crowded:
        collecting.train([team])
    failing = collecting.failing(chosen)
    if run.on_error == "retry" and failing:
        collecting.train(failing)
    broken = [answer for answer in collecting.answers if is_failed(answer)]
    if broken and run.on_error == "fatal":
        raise WorkerError(broken[0].rank, broken[0].why)
