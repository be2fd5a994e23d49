"""The server: one round on one screen, and the loop around it."""

import math
from typing import Any, Callable, NamedTuple

import numpy as np
import torch

from fedmpi import record
from fedmpi.client import digest
from fedmpi.errors import DivergedError, WireError
from fedmpi.evaluate import coalition_utility, finite
from fedmpi.flat import Layout
from fedmpi.parts import Codec, Cohort, Contribution, Pruner, Replies, Schedule, Strategy, Updates
from fedmpi.rng import Purpose, stream
from fedmpi.wire import positions


class Fed(NamedTuple):
    """A run's parts, already built. N clients of ``sizes (N,)`` float64 samples, ``cohort`` of them a round."""

    layout: Layout
    strategy: Strategy
    pruner: Pruner
    contribution: Contribution
    codec: Codec
    transport: Any
    test: Callable                # vector (P,) -> (loss, accuracy) on the test set: reported, never used
    validate: Callable | None     # the same on the server's validation set: for all that selects
    sizes: torch.Tensor
    cohort: int
    rounds: int
    seed: int
    uses: tuple                   # flops.uses


def start(fed, x):
    """The state before round 1 from the initial vector ``x (P,)``: a nested dict of tensors and numbers, which is
    also what a checkpoint holds. ``held[n]`` is the last round that client n took part in, ``sent`` the mask of the
    last model message, ``changed`` the first round of the present mask."""
    pruner, mask = fed.pruner.init(fed.layout, x, Schedule(0, fed.rounds), stream(fed.seed, Purpose.MASK))
    x = x if fed.pruner.residuals else served(x, fed.layout.support(mask))
    return {"x": x, "mask": mask, "sent": torch.zeros_like(mask), "changed": 1,
            "held": torch.zeros(len(fed.sizes), dtype=torch.int64), "strategy": fed.strategy.init(fed.layout),
            "pruner": pruner, "contribution": fed.contribution.init(fed.sizes)}


def play_round(fed, state, t):
    """``(state after round t, row, client rows)``. U is (C, K): a client a row, a kept weight a column."""
    clock, schedule = record.Clock(), Schedule(t, fed.rounds)
    clients = sample(fed, t)
    support = fed.layout.support(state["mask"])
    down_bytes = fed.transport.publish(*model_message(fed, state, t, clients, support))
    clock.lap("publish_s")

    replies, expected = [None] * len(clients), digest(support)
    for reply in fed.transport.map(train_jobs(fed, clients)):        # keyed by row: arrival does not matter
        replies[reply.meta["row"]] = read_reply(fed, reply, t, support, expected)
    updates = stack(fed, replies, support)
    clock.lap("train_s")

    cohort = Cohort(clients, updates, schedule)
    utility = coalition_utility(fed.validate, lambda chosen: coalition_model(fed, state, cohort, chosen))
    phi = fed.contribution.score(state["contribution"], cohort, utility, stream(fed.seed, Purpose.CONTRIBUTION, t))
    contribution, weights = fed.contribution.weigh(state["contribution"], phi, cohort)
    clock.lap("contribution_s")

    strategy, x = fed.strategy.merge(state["strategy"], state["x"], updates, weights)
    known = Replies(updates, weights, [reply.report for reply in replies], fed.layout, fed.uses)
    merged = served(x, updates.support)
    pruner, mask = fed.pruner.evolve(state["pruner"], state["mask"], x, known, schedule,
                                     stream(fed.seed, Purpose.EVOLVE, t))
    assert not fed.pruner.exact or int(mask.sum()) == int(state["mask"].sum()), "the number of kept weights changed"
    pruned = served(x, fed.layout.support(mask))
    x = x if fed.pruner.residuals else pruned
    flipped = 0 if mask is state["mask"] else int((mask ^ state["mask"]).sum())
    clock.lap("merge_s")

    row = record.round_row(t, fed.layout, fed.uses, state["mask"], replies, down_bytes, x, flipped, utility.calls[0])
    row |= accuracies(fed, pruned, merged, updates.B is None and not flipped)
    clock.lap("evaluate_s")
    row |= {"wire_sent_bytes": fed.transport.sent, "wire_received_bytes": fed.transport.received,
            "round_s": clock.total()} | clock.seconds
    held = state["held"].clone()
    held[clients] = t
    state = {"x": x, "mask": mask, "sent": state["mask"], "changed": t + 1 if flipped else state["changed"],
             "held": held, "strategy": strategy, "pruner": pruner, "contribution": contribution}
    return state, row, record.client_rows(t, clients, replies, down_bytes, phi, weights)


def simulate(fed, state, store, first, last, *, save_every=1, keep=2, on_round=lambda row: None):
    """Play rounds ``first`` to ``last``; returns the state after the last. A row is committed before its checkpoint:
    a run killed between the two plays the round again, to the same bits."""
    for t in range(first, last + 1):
        state, row, client_rows = play_round(fed, state, t)
        store.append(row, client_rows)
        if t % save_every == 0 or t == last:
            store.save(state, t, keep)
        on_round(row)
    return state


def sample(fed, t):
    """int64 (C,), sorted: round t's cohort, uniformly without replacement."""
    N = len(fed.sizes)
    if fed.cohort == N:
        return torch.arange(N)
    return torch.from_numpy(np.sort(stream(fed.seed, Purpose.SAMPLE, t).choice(N, fed.cohort, replace=False)))


def model_message(fed, state, t, clients, support):
    """``(meta, arrays)`` that takes the kept values to every worker. Positions go along only as far as some client of
    the cohort cannot know them: all of them, the changes since the last round, or none."""
    layout, held = fed.layout, state["held"][clients]
    numbers = layout.numbers(state["mask"]).numpy()
    knows = bool((held >= state["changed"]).all()) or (t > 1 and bool((held == t - 1).all()))
    known = layout.numbers(state["sent"]).numpy() if knows else None
    mask, array = positions.encode(numbers, layout.num_weights, known)
    meta = {"kind": "round", "t": t, "layout": layout.digest, "support": digest(support), "mask": mask}
    return meta, {"mask": array} | fed.codec.encode(state["x"].index_select(0, support))


def train_jobs(fed, clients):
    """One job a client, those with most samples first: what takes longest starts first."""
    order = torch.argsort(fed.sizes[clients], descending=True, stable=True).tolist()
    return [{"client": int(clients[row]), "row": row} for row in order]


class Update(NamedTuple):
    """One client's decoded reply."""

    values: torch.Tensor          # float32, on ``support``
    support: torch.Tensor
    own: bool                     # the support is the client's own, not the announced one
    numbers: np.ndarray           # samples, loss, samples seen, extra, dense, seconds
    report: dict
    up_bytes: int
    job_bytes: int
    rank: int


def read_reply(fed, reply, t, support, expected):
    """The ``Update`` of a reply; raises where it belongs to another round or support (by its digest ``expected``), or
    is not finite."""
    meta, arrays, layout = reply.meta, reply.arrays, fed.layout
    if (meta["t"], meta["support"]) != (t, expected):
        raise WireError(f"client {meta['client']} answered round {meta['t']} on support {meta['support']}, "
                        f"expected round {t} on {expected}")
    own = "mask" in meta
    if own:
        known = support[support < layout.Q]
        mask = torch.zeros(layout.Q, dtype=torch.bool)
        mask[known] = True
        numbers = positions.decode(meta["mask"], arrays["mask"], layout.numbers(mask).numpy())
        support = layout.support(layout.mask_of(torch.from_numpy(numbers)))
    values = fed.codec.decode(arrays, len(support))
    if len(values) != len(support):
        raise WireError(f"client {meta['client']} sent {len(values)} values for a support of {len(support)}")
    loss = float(arrays["numbers"][1])
    if not (math.isfinite(loss) and bool(torch.isfinite(values.sum()))):
        raise DivergedError(f"round {t}: client {meta['client']} diverged (loss {loss}); a smaller --lr may help")
    report = {name.removeprefix("report/"): array for name, array in arrays.items() if name.startswith("report/")}
    if "index" in report:
        report["index"] = positions.decode(meta["index"], report["index"])
    return Update(values, support, own, arrays["numbers"], report, reply.reply_bytes, reply.job_bytes, reply.rank)


def stack(fed, replies, support):
    """``Updates`` of the cohort: on the announced support, or on the union where clients moved their masks."""
    n = torch.tensor([float(reply.numbers[0]) for reply in replies], dtype=torch.float64)
    C = len(replies)
    if not any(reply.own for reply in replies):
        U, B = torch.empty(C, len(support)), None
        for row, reply in enumerate(replies):
            U[row] = reply.values
    else:
        present = torch.zeros(fed.layout.P, dtype=torch.bool)
        present[support] = True                            # what every client dropped has no holder
        for reply in replies:
            present[reply.support] = True
        support = torch.nonzero(present).flatten().int()
        U, B = torch.zeros(C, len(support)), torch.zeros(C, len(support), dtype=torch.bool)
        for row, reply in enumerate(replies):
            columns = torch.searchsorted(support, reply.support)
            U[row, columns] = reply.values
            B[row, columns] = True
    return Updates(U, B, support, n, int((support < fed.layout.R).sum()))


def coalition_model(fed, state, cohort, chosen):
    """The model (P,) that the strategy would have made of the clients ``chosen (C,) bool`` alone, with their present
    weights; the received model where none is chosen."""
    support = cohort.updates.support
    if not chosen.any():
        return served(state["x"], fed.layout.support(state["mask"]))
    weights = state["contribution"].get("weights", fed.sizes)[cohort.clients][chosen]
    _, x = fed.strategy.merge(state["strategy"], state["x"], cohort.updates.rows(chosen), weights / weights.sum())
    return served(x, support)


def served(x, support):
    """(P,): ``x`` on the support, zero elsewhere."""
    sparse = torch.zeros_like(x)
    sparse[support] = x[support]
    return sparse


def accuracies(fed, x, merged, same):
    """The test and validation columns; the test set is evaluated again before pruning where that differs."""
    loss, accuracy = fed.test(x)
    row = {"loss": finite(loss, "the merged model"), "accuracy": accuracy, "accuracy_before": accuracy if same else fed.test(merged)[1]}
    if fed.validate is not None:
        loss, row["val_accuracy"] = fed.validate(x)
        row["val_loss"] = finite(loss, "the merged model, on validation samples,")
    return row
