"""What is recorded of a round: the columns of the run file, with units, and the rows that fill them."""

import hashlib
import resource
import time

import numpy as np

from fedmpi import flops
from fedmpi.store import Column

PHASES = {
    "publish_s": "encoding the model and handing it to every worker",
    "train_s": "from the first job sent to the last update decoded",
    "contribution_s": "scoring contributions, utilities included",
    "merge_s": "merging updates, pruning and growing",
    "evaluate_s": "test and validation sets",
}


def round_columns(validated, num_layers):
    """The columns of /rounds; those of the validation set where there is one."""
    columns = [
        Column("round", "int64", "1", "round, from 1"),
        Column("accuracy", "float64", "1", "test accuracy after pruning and growing"),
        Column("loss", "float64", "nat", "test cross-entropy after pruning and growing"),
        Column("accuracy_before", "float64", "1", "test accuracy of the merged model before pruning and growing"),
        Column("train_loss", "float64", "nat", "clients' mean training loss, by samples"),
        Column("sparsity", "float64", "1", "fraction of zeros among prunable weights of the model trained this round"),
        Column("kept", "int64", "1", "prunable weights kept"),
        Column("kept_layers", "int64", "1", "the same a layer, in the order of attrs/layers", width=num_layers),
        Column("mask_changed", "int64", "1", "mask entries that this round's update flipped"),
        Column("up_bytes", "int64", "B", "clients' replies, all of the cohort, as handed to the transport"),
        Column("down_bytes", "int64", "B", "model and job messages, all of the cohort, as handed to the transport"),
        Column("dense_bytes", "int64", "B", "float32 values of the dense model, once each way for each of the cohort"),
        Column("flops_prunefl", "float64", "FLOP", "training, PruneFL's convention (methods 0.3)"),
        Column("flops_rigl", "float64", "FLOP", "training, RigL's convention"),
        Column("flops_dense", "float64", "FLOP", "training the dense model on the same samples (both conventions)"),
        Column("utility_calls", "int64", "1", "coalition models evaluated"),
        Column("weights_digest", "uint64", "1", "of the server's vector and mask, to compare runs"),
        Column("wire_sent_bytes", "int64", "B", "all messages that the server sent", machine=True),
        Column("wire_received_bytes", "int64", "B", "all messages that the server received", machine=True),
        Column("rss_bytes", "int64", "B", "largest resident memory of rank 0 so far", machine=True),
        Column("round_s", "float64", "s", "the whole round", machine=True),
    ] + [Column(name, "float64", "s", text, machine=True) for name, text in PHASES.items()]
    if validated:
        columns[4:4] = [Column("val_accuracy", "float64", "1", "validation accuracy after pruning and growing"),
                        Column("val_loss", "float64", "nat", "validation cross-entropy after pruning and growing")]
    return columns


CLIENT_COLUMNS = [
    Column("round", "int64", "1", "round, from 1"),
    Column("client", "int64", "1", "client, from 0"),
    Column("samples", "int64", "1", "training samples"),
    Column("loss", "float64", "nat", "mean training loss over the local epochs"),
    Column("contribution", "float64", "1", "score of this round (see attrs/options for the estimator)"),
    Column("weight", "float64", "1", "share in this round's merge"),
    Column("up_bytes", "int64", "B", "its reply"),
    Column("down_bytes", "int64", "B", "the model message and its job"),
    Column("train_s", "float64", "s", "its training on the worker", machine=True),
    Column("rank", "int64", "1", "the rank that trained it", machine=True),
]


class Clock:
    """Seconds by phase: ``lap(name)`` adds the time since the last lap to ``name``."""

    def __init__(self):
        self.begin = self.last = time.perf_counter()
        self.seconds = dict.fromkeys(PHASES, 0.0)

    def lap(self, name):
        now = time.perf_counter()
        self.seconds[name] += now - self.last
        self.last = now

    def total(self):
        return time.perf_counter() - self.begin


def digest(*tensors):
    """uint64 over the bytes of the tensors."""
    state = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        state.update(tensor.numpy())
    return int.from_bytes(state.digest(), "little")


def round_row(t, layout, uses, mask, replies, down_bytes, x, flipped, calls):
    """The part of the row that is known from the round's messages; ``mask`` is the one that clients trained."""
    numbers = np.stack([reply.numbers for reply in replies])
    samples, losses, seen, extra, dense, _ = numbers.T
    prunefl, rigl = flops.training(layout, uses, mask, seen.sum(), extra.sum(), dense.sum())
    kept = int(mask.sum())
    return {
        "round": t,
        "train_loss": float((samples * losses).sum() / samples.sum()),
        "sparsity": 1 - kept / layout.num_weights,
        "kept": kept,
        "kept_layers": layout.kept(mask),
        "mask_changed": flipped,
        "up_bytes": sum(reply.up_bytes for reply in replies),
        "down_bytes": sum(reply.job_bytes + down_bytes for reply in replies),
        "dense_bytes": 2 * len(replies) * 4 * layout.num_values,
        "flops_prunefl": prunefl,
        "flops_rigl": rigl,
        "flops_dense": flops.training(layout, uses, layout.full_mask(), seen.sum(), 0, 0)[1],
        "utility_calls": calls,
        "weights_digest": digest(x, mask),
        "rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def client_rows(t, clients, replies, down_bytes, phi, weights):
    """One row a participant, as columns."""
    numbers = np.stack([reply.numbers for reply in replies])
    return {
        "round": np.full(len(replies), t),
        "client": clients.numpy(),
        "samples": numbers[:, 0].astype(np.int64),
        "loss": numbers[:, 1],
        "contribution": phi.numpy(),
        "weight": weights.numpy(),
        "up_bytes": np.array([reply.up_bytes for reply in replies]),
        "down_bytes": np.array([reply.job_bytes + down_bytes for reply in replies]),
        "train_s": numbers[:, 5],
        "rank": np.array([reply.rank for reply in replies]),
    }
