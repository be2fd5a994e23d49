"""What is recorded of a round: the columns of the run file, with units, and the rows that fill them."""

import hashlib
import resource
import time

import numpy as np
import torch

from fedmpi.core import flops
from fedmpi.core.errors import UserError
from fedmpi.core.parts import Round
from fedmpi.client.numbers import WORK, Number
from fedmpi.server import own_accuracy
from fedmpi.server.answers import Outcome
from fedmpi.server.sizes import costs_of, dense_flops, dense_values, layout_of, mean_weights
from fedmpi.store import Column

PHASES = {
    "encode_s": "encoding the model and handing it to every worker",
    "train_s": "from the first job sent to the last update decoded: the four below, and what else is done meanwhile",
    "wait_s": "of train_s, waiting for clients with nothing else to do",
    "decode_s": "of train_s, handing out jobs, opening and decoding answers",
    "contribution_s": "scoring contributions, utilities included",
    "merge_s": "merging updates, pruning and growing",
    "row_s": "what is recorded of the round, and its digest",
}
LATER = {
    "evaluate_s": "test and validation sets, while the next round's clients train",
    "store_s": "writing the row and the checkpoint of the round before, while clients train",
}


def columns(fed):
    """``(columns of /rounds, columns of /clients)`` that a run of these parts has."""
    labels = list(fed.contributions)
    validated, num_layers = fed.validate is not None, len(fed.layout.weights)
    columns = round_columns(validated, num_layers, labels, fed.objective, names_of(fed.kinds),
                            own=fed.own_tests is not None, working=fed.strategy.after is not None)
    columns += [Column(name, "float64", unit, text) for name, unit, text in fed.strategy.columns]
    names = [column.name for column in columns]
    chosen = [("--task has a metric", name) for name in fed.objective.metrics]
    chosen += [("--strategy has a column", name) for name, _, _ in fed.strategy.columns]
    for whose, name in chosen:
        if names.count(name) > 1:
            raise UserError(f"{whose} {name}, which is the name of another column of run files; call it otherwise")
    return columns, client_columns(labels, fed.objective.unit)


def of_strategy(strategy, learnt):
    """The columns that the strategy has of its own; NaN in a round that merged nobody's answer."""
    unknown = {name: float("nan") for name, _, _ in strategy.columns}
    return unknown | learnt.recorded


def own_columns(fed):
    """The columns of /own; none where clients have no test parts of their own."""
    if fed.own_tests is None:
        return []
    return own_accuracy.table_columns(fed.objective.headline, fed.objective.unit)


def of_objective(objective):
    """What a run file records of its objective, beside the spec of its task."""
    return {"headline": objective.headline, "higher": objective.higher, "unit": objective.unit,
            "metrics": list(objective.metrics)}


def names_of(kinds):
    """The names of the networks of a run with several, ``Kinds`` or None."""
    return () if kinds is None else tuple(one.name for one in kinds.kinds)


def evaluation_columns(objective, validated, networks=()):
    """The columns that evaluations fill, by the run's objective; those of the validation set where there is one. Where
    there are several ``networks``, each has columns of its own, beside the means over clients."""
    headline, others = objective.headline, [name for name in objective.metrics if name != objective.headline]
    others += [f"{value}_{name}" for name in networks for value in ("loss", *objective.metrics)]
    word, after = words(headline), "after pruning and growing"
    columns = [
        Column(headline, "float64", "1", f"test {word} {after}"),
        Column("loss", "float64", objective.unit, f"test loss {after}"),
        Column(f"{headline}_before", "float64", "1", f"test {word} of the merged model before pruning and growing"),
    ] + [Column(name, "float64", "1", f"test {words(name)} {after}") for name in others]
    if validated:
        columns += [Column(f"val_{headline}", "float64", "1", f"validation {word} {after}"),
                    Column("val_loss", "float64", objective.unit, f"validation loss {after}")]
        columns += [Column(f"val_{name}", "float64", "1", f"validation {words(name)} {after}") for name in others]
    return columns


def words(metric):
    """A metric's name as text says it."""
    return metric.replace("_", " ")


def round_columns(validated, num_layers, labels, objective, networks=(), own=False, working=False):
    """The columns of /rounds; those of the validation set where there is one, costs of each of the estimators
    ``labels``, clients' ``own`` test parts where they have some, and the server's own work after a merge where it is
    ``working``."""
    columns = [
        Column("round", "int64", "1", "round, from 1"),
        *evaluation_columns(objective, validated, networks),
        Column("train_loss", "float64", objective.unit, "clients' mean training loss, by samples"),
        Column("lr", "float64", "1", "the clients' learning rate, of the first local step of the round"),
        Column("sparsity", "float64", "1", "fraction of zeros among prunable weights of the model trained this round"),
        Column("kept", "int64", "1", "prunable weights kept, by any client where masks differ"),
        Column("kept_layers", "int64", "1", "the same a layer, in the order of attrs/layers", width=num_layers,
               dim="layer"),
        Column("mask_changed", "int64", "1", "mask entries that this round's update flipped"),
        Column("mask_changed_layers", "int64", "1", "the same a layer", width=num_layers, dim="layer"),
        Column("asked", "int64", "1", "clients that were asked to take part"),
        Column("merged", "int64", "1", "clients whose updates were merged"),
        Column("late", "int64", "1", "clients whose answers came too late, see --aggregation"),
        Column("dropped", "int64", "1", "clients that never answered, see --devices"),
        Column("rejected", "int64", "1", "clients whose updates were not finite, or too large"),
        Column("failed", "int64", "1", "clients whose training raised, see --on-error"),
        Column("sim_s", "float64", "s", "virtual time of the round, by --devices"),
        Column("sim_total_s", "float64", "s", "virtual time since the run's start"),
        Column("up_bytes", "int64", "B", "clients' replies, all that were asked, as they are encoded for the wire"),
        Column("down_bytes", "int64", "B", "model and job messages, all that were asked, as handed to the transport"),
        Column("dense_bytes", "int64", "B", "float32 values of the dense model, once each way for each that was asked"),
        Column("flops_prunefl", "float64", "FLOP", "training, PruneFL's convention"),
        Column("flops_rigl", "float64", "FLOP", "training, RigL's convention"),
        Column("flops_dense", "float64", "FLOP", "training the dense model on the same samples (both conventions)"),
        Column("flops_server", "float64", "FLOP", "training on the server's own samples (RigL's convention); utilities "
               "and evaluations are not counted"),
        Column("utility_calls", "int64", "1", "coalition models evaluated, by all estimators together"),
        Column("weights_digest", "uint64", "1", "of the server's vector and mask, to compare runs"),
        Column("wire_sent_bytes", "int64", "B", "all messages that the server sent", machine=True),
        Column("wire_received_bytes", "int64", "B", "all messages that the server received", machine=True),
        Column("rss_bytes", "int64", "B", "largest resident memory of rank 0 so far", machine=True),
        Column("round_s", "float64", "s", "the whole round", machine=True),
        Column("recorded", "float64", "s", "when the round was recorded, since 1970-01-01 UTC", machine=True),
    ] + [Column(name, "float64", "s", text, machine=True) for name, text in (PHASES | LATER).items()]
    if working:
        columns += [Column("flops_lab", "float64", "FLOP", "the server's own evaluations, outputs and gradients; those "
                           "of estimators and of the test and validation sets are not counted"),
                    Column("lab_s", "float64", "s", "the server's own work on what was merged, done by all ranks",
                           machine=True)]
    for label in labels:
        columns += [Column(f"calls_{label}", "int64", "1", f"distinct coalitions that {label} asked for"),
                    Column(f"score_{label}_s", "float64", "s", f"scoring by {label}, what others asked before is free",
                           machine=True)]
    return columns + own_accuracy.round_columns(objective.headline, objective.unit) * own


def client_columns(labels, unit="nat"):
    """The columns of /clients: the estimator that weighs is called contribution, those that observe by their name."""
    return [
        Column("round", "int64", "1", "round, from 1"),
        Column("client", "int64", "1", "client, from 0"),
        Column("samples", "int64", "1", "training samples"),
        Column("loss", "float64", unit, "mean training loss over the local epochs"),
        Column("sparsity", "float64", "1", "fraction of zeros among the prunable weights that it trained"),
        Column("weight", "float64", "1", "share in this round's merge"),
        Column("outcome", "int8", "1", ", ".join(f"{each.value} {each.name.lower()}" for each in Outcome),
               names=tuple(each.name.lower() for each in sorted(Outcome))),
        Column("sim_s", "float64", "s", "virtual time until its answer, NaN where none came"),
        Column("up_bytes", "int64", "B", "its reply"),
        Column("down_bytes", "int64", "B", "the model message and its job"),
        Column("train_s", "float64", "s", "its training on the worker", machine=True),
        Column("rank", "int64", "1", "the rank that trained it", machine=True),
    ] + [column for number, label in enumerate(labels) for column in (
        Column(score_name(number, label), "float64", "1", f"score of this round by {label}"),
        Column(score_name(number, label) + "_error", "float64", "1", "its standard error, where it is an estimate"))]


def score_name(number, label):
    """The column of an estimator's scores."""
    return f"score_{label}" if number else "contribution"


class Clock:
    """Seconds by phase: ``lap(name)`` adds the time since the last lap to ``name``; what the transport waited, and did
    meanwhile, is told apart."""

    def __init__(self, transport):
        self.begin = self.last = time.perf_counter()
        self.seconds, self.transport = dict.fromkeys(PHASES, 0.0), transport
        self.waited_s, self.meanwhile_s = transport.waited_s, transport.meanwhile_s

    def lap(self, name):
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        if name == "train_s":
            waited, meanwhile = self.transport.waited_s - self.waited_s, self.transport.meanwhile_s - self.meanwhile_s
            self.seconds["wait_s"] += waited
            self.seconds["decode_s"] += now - self.last - waited - meanwhile
            self.waited_s, self.meanwhile_s = self.transport.waited_s, self.transport.meanwhile_s
        self.last = now

    def total(self):
        """Seconds so far; what no lap took is the row's."""
        self.lap("row_s")
        return self.last - self.begin


class Stopwatch:
    """``yield from stopwatch(work)`` runs the generator ``work`` and adds the ``seconds`` of its own slices up."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self, work):
        while True:
            begin = time.perf_counter()
            try:
                next(work)
            except StopIteration as end:
                return end.value
            finally:
                self.seconds += time.perf_counter() - begin
            yield


def digest(x, mask):
    """uint64 over the bytes of ``x (P,)`` and the bits of ``mask (Q,)``. SHA-1, which processors have instructions for,
    takes half the time of blake2b; here chance is to be found out, not somebody who forges."""
    state = hashlib.sha1(x.numpy(), usedforsecurity=False)
    state.update(np.packbits(mask.numpy()))
    return int.from_bytes(state.digest()[:8], "little")


def round_row(fed, state, after, t, got, learnt):
    """The part of the row that is known from what the round brought, ``Gathered`` and ``Learnt``, and from the states
    before and after it."""
    layout, mask = fed.layout, after["mask"]
    trained = [row for row, answer in enumerate(got.answers) if answer is not None and answer.numbers is not None]
    numbers = np.stack([got.answers[row].numbers for row in trained]) if trained else np.zeros((0, len(Number)))
    counted = np.isin(trained, got.counts.numpy())
    samples, losses = numbers[counted, Number.SAMPLES], numbers[counted, Number.LOSS]
    masks = [got.masks[row] for row in trained] or [state["mask"]]
    distinct = _distinct(masks)
    price = [flops.training(layout, costs_of(fed, got.clients[trained[rows[0]]]), each,
                            *numbers[rows, WORK].sum(axis=0)) for each, rows in distinct if trained]
    union = distinct[0][0] if len(distinct) == 1 else torch.stack([each for each, _ in distinct]).any(dim=0)
    kept = sum(int(torch.count_nonzero(each)) * len(rows) for each, rows in distinct) / len(masks)
    layers = layout.kept(union)
    changed = [0] * len(layers) if mask is state["mask"] else layout.kept(mask ^ state["mask"])
    tally = {name: int((got.outcome == code).sum()) for name, code in (
        ("merged", Outcome.MERGED), ("late", Outcome.LATE), ("dropped", Outcome.DROPPED),
        ("rejected", Outcome.REJECTED), ("failed", Outcome.FAILED))}
    return tally | {
        "round": t,
        "asked": len(got.clients),
        "sim_s": got.now - state["now"],
        "sim_total_s": got.now,
        "train_loss": float((samples * losses).sum() / samples.sum()) if counted.any() else float("nan"),
        "lr": fed.lr(Round(t, fed.rounds)),
        "sparsity": 1 - kept / mean_weights(fed, got.clients[trained] if trained else got.clients),
        "kept": sum(layers),
        "kept_layers": layers,
        "mask_changed": sum(changed),
        "mask_changed_layers": changed,
        "up_bytes": int(got.up_bytes.sum()),
        "down_bytes": int(got.down_bytes.sum()),
        "dense_bytes": 2 * 4 * dense_values(fed, got.clients),
        "flops_prunefl": sum(prunefl for prunefl, _ in price),
        "flops_rigl": sum(rigl for _, rigl in price),
        "flops_dense": dense_flops(fed, got.clients[trained], numbers[:, Number.SEEN]),
        "utility_calls": learnt.calls,
        "rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _distinct(masks):
    """``(mask, rows that have it)`` of each mask object."""
    rows = {}
    for row, mask in enumerate(masks):
        rows.setdefault(id(mask), []).append(row)
    return [(masks[same[0]], same) for same in rows.values()]


def stored(spent_s):
    """The columns that are known when the row is written; ``spent_s`` went into writing the row before."""
    return {"store_s": spent_s, "recorded": time.time()}


def own_costs(fed, lab):
    """The columns of what the server's own work took, from the ``RoundLab``; its seconds where it had nothing to do."""
    if fed.strategy.after is None:
        return {"flops_server": lab.spent["flops_server"]}
    return lab.spent | {"lab_s": 0.0}


def costs(fed, learnt):
    """The columns of what each estimator asked for, and how long it took."""
    return {f"calls_{label}": learnt.asked.get(label, 0) for label in fed.contributions} | {
        f"score_{label}_s": learnt.seconds.get(label, 0.0) for label in fed.contributions}


def client_rows(fed, t, got, learnt):
    """One row for each client that was asked, as columns; what is not known of those that do not count is NaN."""
    A, counts = len(got.clients), got.counts.numpy()
    numbers = np.full((A, Number.STEPS), np.nan)
    for row, answer in enumerate(got.answers):
        if answer is not None and answer.numbers is not None:
            numbers[row] = answer.numbers[: Number.STEPS]

    def spread(values):
        column = np.full(A, np.nan)
        column[counts] = values
        return column

    rows = {
        "round": np.full(A, t),
        "client": got.clients.numpy(),
        "samples": fed.sizes[got.clients].numpy().astype(np.int64),
        "loss": numbers[:, Number.LOSS],
        "sparsity": np.empty(A),
        "weight": np.nan_to_num(spread(learnt.weights.numpy())),
        "outcome": got.outcome.numpy(),
        "sim_s": got.seconds.numpy(),
        "up_bytes": got.up_bytes.numpy(),
        "down_bytes": got.down_bytes.numpy(),
        "train_s": numbers[:, Number.SECONDS],
        "rank": np.array([-1 if answer is None else answer.rank for answer in got.answers]),
    }
    for mask, same in _distinct(got.masks):
        all_weights = layout_of(fed, got.clients[same[0]]).num_weights
        rows["sparsity"][same] = 1 - int(torch.count_nonzero(mask)) / all_weights
    for number, label in enumerate(fed.contributions):
        name, found = score_name(number, label), learnt.scores.get(label)
        error = found and found.error
        rows[name] = spread(np.nan if found is None else found.phi.numpy())
        rows[name + "_error"] = spread(np.nan if error is None else error.numpy())
    return rows
