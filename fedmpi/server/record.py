"""The record of a round: the columns of the run file, with units, and their rows."""

import hashlib
import math
import resource
import time

import numpy as np
import torch

from fedmpi.client.stats import WORK, Stats
from fedmpi.core import flops
from fedmpi.core.errors import UserError
from fedmpi.core.parts import Round
from fedmpi.server import own_accuracy
from fedmpi.server.answers import Outcome
from fedmpi.server.sizes import costs_of, dense_flops, dense_values, layout_of, mean_weights
from fedmpi.store import Column

# Seconds of a round, phase by phase; PHASES are laps of its Clock.
PHASES = {
    "encode_s": "encoding the model and handing it to every worker",
    "train_s": "from the first job sent to the last update decoded: the four below, and what else "
               "is done meanwhile",
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


def columns(run):
    """``(columns of /rounds, columns of /clients)`` of a run."""
    labels = list(run.contributions)
    columns = round_columns(
        run.validate is not None,
        len(run.layout.weights),
        labels,
        run.objective,
        names_of(run.kinds),
        own=run.own_tests is not None,
        working=run.strategy.after is not None)
    for name, unit, text in run.strategy.columns:
        columns.append(Column(name, "float64", unit, text))
    names = [column.name for column in columns]
    _check_names(run, names)
    return columns, client_columns(labels, run.objective.unit)


def _check_names(run, names):
    """Raise UserError if the task or the strategy gives a column a name twice."""
    named = []
    for name in run.objective.recorded:
        named.append(("--task has a metric", name))
    for name, _, _ in run.strategy.columns:
        named.append(("--strategy has a column", name))
    for source, name in named:
        if names.count(name) > 1:
            raise UserError(f"{source} {name}, which is the name of another column of run files; "
                            "call it otherwise")


def of_strategy(strategy, aggregated):
    """The strategy's own columns; NaN in a round without merged answers."""
    unknown = {name: math.nan for name, _, _ in strategy.columns}
    return unknown | aggregated.recorded


def own_columns(run):
    """The columns of /own; none unless clients have test parts of their own."""
    if run.own_tests is None:
        return []
    return own_accuracy.table_columns(run.objective.headline, run.objective.unit)


def of_objective(objective):
    """The run file's entries about the objective, beside the spec of its task."""
    return {
        "headline": objective.headline,
        "higher": objective.higher,
        "unit": objective.unit,
        "metrics": objective.recorded,
    }


def names_of(kinds):
    """The names of a run's networks; none if ``kinds`` is None, as the run has only one."""
    if kinds is None:
        return ()
    return tuple(one.name for one in kinds.kinds)


def evaluation_columns(objective, validated, networks=()):
    """The columns of evaluations, by the objective.

    ``validated`` adds the validation set. Each of several ``networks`` has columns of its own,
    beside the means over clients.
    """
    headline = objective.headline
    others = [name for name in objective.recorded if name != headline]
    for network in networks:
        others += [f"{value}_{network}" for value in ("loss", *objective.metrics)]
    text, after = words(headline), "after pruning and growing"
    before = f"test {text} of the merged model before pruning and growing"
    columns = [
        Column(headline, "float64", "1", f"test {text} {after}"),
        Column("loss", "float64", objective.unit, f"test loss {after}"),
        Column(f"{headline}_before", "float64", "1", before),
    ]
    for name in others:
        columns.append(Column(name, "float64", "1", f"test {words(name)} {after}"))
    if not validated:
        return columns
    columns += [
        Column(f"val_{headline}", "float64", "1", f"validation {text} {after}"),
        Column("val_loss", "float64", objective.unit, f"validation loss {after}"),
    ]
    for name in others:
        columns.append(
            Column(f"val_{name}", "float64", "1", f"validation {words(name)} {after}"))
    return columns


def no_evaluation(run):
    """The columns of an evaluation in a round without one: NaN."""
    validated = run.validate is not None
    columns = evaluation_columns(run.objective, validated, names_of(run.kinds))
    names = [column.name for column in columns]
    names.append("evaluate_s")
    return dict.fromkeys(names, math.nan)


def words(metric):
    """A metric's name as text says it."""
    return metric.replace("_", " ")


def round_columns(validated, num_layers, labels, objective, networks=(), own=False, working=False):
    """The columns of /rounds.

    ``validated``: the server has a validation set. ``labels``: the estimators. ``networks``: the
    names of several networks. ``own``: clients have test parts of their own. ``working``: the
    server works on the merged model.
    """
    # The order of the columns is that of the run file.
    columns = [Column("round", "int64", "1", "round, from 1")]
    columns += evaluation_columns(objective, validated, networks)
    columns += _model_columns(num_layers, objective)
    columns += _cost_columns()
    columns += _machine_columns()
    if working:
        columns += _working_columns()
    for label in labels:
        columns += _estimator_columns(label)
    if own:
        columns += own_accuracy.round_columns(objective.headline, objective.unit)
    return columns


def _model_columns(num_layers, objective):
    """Columns of /rounds about the training, the mask and the cohort."""
    return [
        Column("train_loss", "float64", objective.unit, "clients' mean training loss, by samples"),
        Column("lr", "float64", "1",
               "the clients' learning rate, of the first local step of the round"),
        Column("sparsity", "float64", "1",
               "fraction of zeros among prunable weights of the model trained this round"),
        Column("sparsity_all", "float64", "1",
               "the same among all trained parameters, dense ones too"),
        Column("kept", "int64", "1", "prunable weights kept, by any client where masks differ"),
        Column("kept_layers", "int64", "1", "the same a layer, in the order of attrs/layers",
               width=num_layers, dim="layer"),
        Column("mask_changed", "int64", "1", "mask entries that this round's update flipped"),
        Column("mask_changed_layers", "int64", "1", "the same a layer",
               width=num_layers, dim="layer"),
        Column("asked", "int64", "1", "clients that were asked to take part"),
        Column("merged", "int64", "1", "clients whose updates were merged"),
        Column("late", "int64", "1", "clients whose answers came too late, see --timing"),
        Column("dropped", "int64", "1", "clients that never answered, see --devices"),
        Column("rejected", "int64", "1", "clients whose updates were not finite, or too large"),
        Column("failed", "int64", "1", "clients whose training raised, see --on-error"),
    ]


def _cost_columns():
    """Columns of /rounds about the costs of the simulated federation."""
    return [
        Column("sim_s", "float64", "s", "virtual time of the round, by --devices"),
        Column("sim_total_s", "float64", "s", "virtual time since the run's start"),
        Column("up_bytes", "int64", "B",
               "clients' replies, all that were asked, as they are encoded for the wire"),
        Column("down_bytes", "int64", "B",
               "model and job messages, all that were asked, as handed to the transport"),
        Column("dense_bytes", "int64", "B",
               "float32 values of the dense model, once each way for each that was asked"),
        Column("flops_prunefl", "float64", "FLOP", "training, PruneFL's convention"),
        Column("flops_rigl", "float64", "FLOP", "training, RigL's convention"),
        Column("flops_dense", "float64", "FLOP",
               "training the dense model on the same samples (both conventions)"),
        Column("flops_server", "float64", "FLOP",
               "training on the server's own samples (RigL's convention); utilities and "
               "evaluations are not counted"),
        Column("utility_calls", "int64", "1",
               "coalition models evaluated, by all estimators together"),
    ]


def _machine_columns():
    """The digest, and columns of /rounds about the machine of the run."""
    columns = [
        Column("weights_digest", "uint64", "1", "of the server's vector and mask, to compare runs"),
        Column("wire_sent_bytes", "int64", "B", "all messages that the server sent", machine=True),
        Column("wire_received_bytes", "int64", "B", "all messages that the server received",
               machine=True),
        Column("rss_bytes", "int64", "B", "largest resident memory of rank 0 so far", machine=True),
        Column("round_s", "float64", "s", "the whole round", machine=True),
        Column("recorded", "float64", "s", "when the round was recorded, since 1970-01-01 UTC",
               machine=True),
    ]
    seconds = PHASES | LATER
    for name, text in seconds.items():
        columns.append(Column(name, "float64", "s", text, machine=True))
    return columns


def _working_columns():
    """Columns of /rounds about the server's own work after a merge."""
    return [
        Column("flops_lab", "float64", "FLOP",
               "the server's own evaluations, outputs and gradients; those of estimators and of "
               "the test and validation sets are not counted"),
        Column("lab_s", "float64", "s",
               "the server's own work on what was merged, done by all ranks", machine=True),
    ]


def _estimator_columns(label):
    """Columns of /rounds about the price of an estimator."""
    return [
        Column(f"calls_{label}", "int64", "1", f"distinct coalitions that {label} asked for"),
        Column(f"score_{label}_s", "float64", "s",
               f"scoring by {label}, what others asked before is free", machine=True),
    ]


def client_columns(labels, unit="nat"):
    """The columns of /clients; ``labels`` are the estimators, first the one that weighs."""
    outcomes = sorted(Outcome)
    names = [outcome.name.lower() for outcome in outcomes]
    numbered = [f"{outcome.value} {outcome.name.lower()}" for outcome in outcomes]
    columns = [
        Column("round", "int64", "1", "round, from 1"),
        Column("client", "int64", "1", "client, from 0"),
        Column("samples", "int64", "1", "training samples"),
        Column("loss", "float64", unit, "mean training loss over the local epochs"),
        Column("sparsity", "float64", "1",
               "fraction of zeros among the prunable weights that it trained"),
        Column("weight", "float64", "1", "share in this round's merge"),
        Column("outcome", "int8", "1", ", ".join(numbered), names=tuple(names)),
        Column("sim_s", "float64", "s", "virtual time until its answer, NaN where none came"),
        Column("up_bytes", "int64", "B", "its reply"),
        Column("down_bytes", "int64", "B", "the model message and its job"),
        Column("train_s", "float64", "s", "its training on the worker", machine=True),
        Column("rank", "int64", "1", "the rank that trained it", machine=True),
    ]
    for number, label in enumerate(labels):
        name = score_name(number, label)
        columns += [
            Column(name, "float64", "1", f"score of this round by {label}"),
            Column(f"{name}_error", "float64", "1", "its standard error, where it is an estimate"),
        ]
    return columns


def score_name(number, label):
    """The column of an estimator's scores: number 0 weighs, the others observe."""
    if number == 0:
        return "contribution"
    return f"score_{label}"


class Clock:
    """Seconds by phase: ``lap(name)`` adds the time since the last lap to ``name``.

    The lap "train_s" also tells how long rank 0 waited, did other work, or read answers.
    """

    def __init__(self, transport):
        self.transport = transport
        self.begin = self.last = time.perf_counter()
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.waited_s = transport.waited_s
        self.meanwhile_s = transport.meanwhile_s

    def lap(self, name):
        now = time.perf_counter()
        took_s = now - self.last
        self.seconds[name] = self.seconds.get(name, 0.0) + took_s
        if name == "train_s":
            self._split(took_s)
        self.last = now

    def _split(self, took_s):
        """Split the seconds of a training lap into waiting, other work, and the rest: decoding."""
        transport = self.transport
        waited_s = transport.waited_s - self.waited_s
        meanwhile_s = transport.meanwhile_s - self.meanwhile_s
        self.seconds["wait_s"] += waited_s
        self.seconds["decode_s"] += took_s - waited_s - meanwhile_s
        self.waited_s = transport.waited_s
        self.meanwhile_s = transport.meanwhile_s

    def total(self):
        """Seconds so far; the time since the last lap is the row's."""
        self.lap("row_s")
        return self.last - self.begin


def digest(x, mask):
    """uint64 over the bytes of ``x (P,)`` and the bits of ``mask (Q,)``."""
    # SHA-1 takes half the time of blake2b, as processors have instructions for it. The digest finds
    # accidents, not forgers.
    state = hashlib.sha1(x.numpy(), usedforsecurity=False)
    state.update(np.packbits(mask.numpy()))
    return int.from_bytes(state.digest()[:8], "little")


def round_row(run, state, after, t, got, aggregated):
    """The columns by ``Recruited``, ``Aggregated`` and the states before and after the round."""
    trained = [row for row, answer in enumerate(got.answers) if _has_numbers(answer)]
    numbers = _numbers(got, trained)
    sim = {"sim_s": got.now - state["now"], "sim_total_s": got.now}
    bytes_ = {
        "up_bytes": int(got.up_bytes.sum()),
        "down_bytes": int(got.down_bytes.sum()),
        # Both ways, 4 bytes a float32.
        "dense_bytes": 2 * 4 * dense_values(run, got.clients),
    }
    others = {
        "round": t,
        "asked": len(got.clients),
        "train_loss": _train_loss(got, trained, numbers),
        "lr": run.lr(Round(t, run.rounds)),
        "utility_calls": aggregated.calls,
        # Linux counts in KiB.
        "rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    masks = _mask_columns(run, state, after, got, trained)
    work = _work_columns(run, got, trained, numbers)
    return _tally(got) | sim | bytes_ | others | masks | work


def _has_numbers(answer):
    """Whether a client trained to the end: then its answer has numbers, fit for merging or not."""
    return answer is not None and answer.numbers is not None


def _numbers(got, trained):
    """(A', len(Stats) or fewer) float64: the numbers of the clients in the rows ``trained``."""
    if not trained:
        return np.zeros((0, len(Stats)))
    rows = [got.answers[row].numbers for row in trained]
    return np.stack(rows)


def _tally(got):
    """``{outcome: how many clients had it}``."""
    names = ("merged", "late", "dropped", "rejected", "failed")
    tally = {}
    for name in names:
        had_it = got.outcome == Outcome[name.upper()]
        tally[name] = int(had_it.sum())
    return tally


def _train_loss(got, trained, numbers):
    """The mean training loss of the merged clients, by samples; NaN without any."""
    counted = np.isin(trained, got.merged_rows.numpy())
    if not counted.any():
        return math.nan
    samples = numbers[counted, Stats.SAMPLES]
    losses = numbers[counted, Stats.LOSS]
    total = (samples * losses).sum()
    return float(total / samples.sum())


def _mask_columns(run, state, after, got, trained):
    """The columns about the masks of the clients in the rows ``trained``, and of the new model."""
    masks = [got.masks[row] for row in trained]
    if not masks:
        # Nobody trained: the round is told by the server's mask.
        masks = [state["mask"]]
    distinct = _distinct(masks)
    union, _ = distinct[0]
    if len(distinct) > 1:
        all_masks = [mask for mask, _ in distinct]
        union = torch.stack(all_masks).any(dim=0)
    # All clients' kept weights together.
    kept = 0
    for mask, rows in distinct:
        of_one = int(torch.count_nonzero(mask))
        kept += of_one * len(rows)
    clients = got.clients[trained] if trained else got.clients
    weights, parameters = mean_weights(run, clients)
    sparsity = 1 - kept / len(masks) / weights
    layers = run.layout.kept(union)
    moved = [0] * len(layers)
    # The same object has not changed: spare the comparison.
    if after["mask"] is not state["mask"]:
        moved = run.layout.kept(after["mask"] ^ state["mask"])
    return {
        "sparsity": sparsity,
        "sparsity_all": sparsity * weights / parameters,
        "kept": sum(layers),
        "kept_layers": layers,
        "mask_changed": sum(moved),
        "mask_changed_layers": moved,
    }


def _work_columns(run, got, trained, numbers):
    """The columns about the FLOPs of the clients in the rows ``trained``."""
    prunefl = rigl = 0
    masks = [got.masks[row] for row in trained]
    for mask, rows in _distinct(masks):
        # Clients with the same mask object train the same network.
        first = trained[rows[0]]
        costs = costs_of(run, got.clients[first])
        # FLOPs are linear in the samples: add these up first.
        work = numbers[rows, WORK].sum(axis=0)
        price = flops.training(run.layout, costs, mask, *work)
        prunefl += price[0]
        rigl += price[1]
    return {
        "flops_prunefl": prunefl,
        "flops_rigl": rigl,
        "flops_dense": dense_flops(run, got.clients[trained], numbers[:, Stats.SEEN]),
    }


def _distinct(masks):
    """``[(mask, its rows)]``, one entry for each mask object."""
    rows_of = {}
    for row, mask in enumerate(masks):
        rows = rows_of.setdefault(id(mask), [])
        rows.append(row)
    distinct = []
    for rows in rows_of.values():
        mask = masks[rows[0]]
        distinct.append((mask, rows))
    return distinct


def stored(spent_s):
    """The columns of the moment of writing; the last row took ``spent_s``."""
    return {"store_s": spent_s, "recorded": time.time()}


def own_costs(run, lab):
    """The columns about the server's own work, from the ``RoundLab``."""
    if run.strategy.after is None:
        return {"flops_server": lab.spent["flops_server"]}
    # The round's clock overwrites the seconds if there was work after the merge.
    return lab.spent | {"lab_s": 0.0}


def costs(run, aggregated):
    """The columns about each estimator's coalitions and seconds."""
    # An empty round asks no estimator.
    columns = {}
    for label in run.contributions:
        columns[f"calls_{label}"] = aggregated.num_coalitions.get(label, 0)
        columns[f"score_{label}_s"] = aggregated.seconds.get(label, 0.0)
    return columns


def client_rows(run, t, got, aggregated):
    """The rows of /clients: columns with an entry for each of A clients.

    Unknown values are NaN.
    """
    A = len(got.clients)
    numbers = np.full((A, Stats.STEPS), np.nan)
    for row, answer in enumerate(got.answers):
        if _has_numbers(answer):
            numbers[row] = answer.numbers[: Stats.STEPS]
    weights = _spread(got, aggregated.weights.numpy())
    # No rank has trained a client without an answer.
    ranks = [-1 if answer is None else answer.rank for answer in got.answers]
    sizes = run.sizes[got.clients].numpy()
    rows = {
        "round": np.full(A, t),
        "client": got.clients.numpy(),
        "samples": sizes.astype(np.int64),
        "loss": numbers[:, Stats.LOSS],
        "sparsity": _sparsities(run, got),
        "weight": np.nan_to_num(weights),
        "outcome": got.outcome.numpy(),
        "sim_s": got.seconds.numpy(),
        "up_bytes": got.up_bytes.numpy(),
        "down_bytes": got.down_bytes.numpy(),
        "train_s": numbers[:, Stats.SECONDS],
        "rank": np.array(ranks),
    }
    for number, label in enumerate(run.contributions):
        name = score_name(number, label)
        scores = aggregated.scores.get(label)
        rows |= _score_rows(got, name, scores)
    return rows


def _spread(got, values):
    """(A,) float64: ``values (C,)`` of the merged clients, NaN for the others."""
    column = np.full(len(got.clients), np.nan)
    column[got.merged_rows.numpy()] = values
    return column


def _sparsities(run, got):
    """(A,) float64: the sparsity of each client's network."""
    sparsities = np.empty(len(got.clients))
    for mask, rows in _distinct(got.masks):
        # Clients with the same mask object train the same network.
        layout = layout_of(run, got.clients[rows[0]])
        kept = int(torch.count_nonzero(mask))
        sparsities[rows] = 1 - kept / layout.num_weights
    return sparsities


def _score_rows(got, name, scores):
    """The columns ``name`` and ``name_error``, from ``Scores``, or from None in an empty round."""
    phi = error = np.nan
    if scores is not None:
        phi = scores.phi.numpy()
        if scores.error is not None:
            error = scores.error.numpy()
    return {
        name: _spread(got, phi),
        f"{name}_error": _spread(got, error),
    }
