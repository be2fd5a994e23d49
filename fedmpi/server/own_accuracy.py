"""Clients' models on clients' own test parts: after a round's merge, spread over all workers.

The model that a client has is what the server would publish now, through the same codec, with what
the client keeps of its own laid over it: its personal tensors, or what the strategy's ``own_model``
makes of it. One that has not taken part yet has those of the first model. Jobs are cut by clients,
never by ranks, and so are the bits. While workers evaluate, rank 0 evaluates the test set.
"""

import time
from functools import partial
from typing import NamedTuple

import numpy as np

from fedmpi.client.train import RESIDUAL
from fedmpi.server.exchange import ask, model_message
from fedmpi.store import Column
from fedmpi.transport.base import watched
from fedmpi.transport.team import joined

SAMPLES = 512           # that a job has at least, but for the last one
WORST = 10              # the worst of so many clients make own_accuracy_worst


class OwnTests(NamedTuple):
    """Who is evaluated on test parts of their own, and when."""

    clients: np.ndarray       # (M,) int64, ascending: those that have a test part
    samples: np.ndarray       # (M,) int64 of it
    every: int                # rounds from one evaluation to the next; the last round has one
    at_once: int = 64         # samples that go through the model in one pass on a CPU


def round_columns(headline="accuracy", unit="nat"):
    """The columns of /rounds about clients' own test parts, of the metric ``headline``; NaN in rounds without."""
    return [
        Column(f"own_{headline}", "float64", "1", f"{headline} of clients' models on their own test parts, mean over "
               "clients"),
        Column(f"own_{headline}_weighted", "float64", "1", "the same, weighted by their test samples"),
        Column(f"own_{headline}_worst", "float64", "1", "the same, of the worst tenth of the clients, rounded up"),
        Column("own_loss", "float64", unit, "loss of clients' models on their own test parts, mean over clients"),
        Column("own_s", "float64", "s", "evaluating clients on their own test parts, no part of round_s", machine=True),
    ]


def table_columns(headline="accuracy", unit="nat"):
    """The columns of /own: a row for each client with a test part, in each round that evaluates them."""
    return [
        Column("round", "int64", "1", "round, from 1"),
        Column("client", "int64", "1", "client, from 0"),
        Column("samples", "int64", "1", "samples of its own test part"),
        Column(headline, "float64", "1", f"{headline} of its model on its own test part"),
        Column("loss", "float64", unit, "loss of its model on its own test part"),
    ]


def evaluate(fed, state, mask, t, meanwhile=()):
    """``(columns of /rounds, columns of /own)`` of the model of ``state``, on ``mask``, after round ``t``. Rank 0 does
    slices of ``meanwhile`` as long as it waits for workers."""
    begin, elsewhere = time.perf_counter(), fed.transport.meanwhile_s
    # As the next round would publish it: a codec may draw by the round.
    meta, arrays = model_message(fed, state, t + 1, mask)
    tests = fed.own_tests
    fed.transport.publish({"kind": "tested", "t": t, "at_once": tests.at_once} | meta, arrays)
    jobs = [{"own": chosen.tolist(), "block": number} for number, chosen in enumerate(blocks(tests))]
    if fed.kinds is not None:
        jobs = [job | {"networks": fed.kinds.of[job["own"]].tolist()} for job in jobs]
    given = None
    strategy = fed.strategy
    if fed.layout.personal or strategy.own_model is not None or strategy.predict is not None:
        jobs = [job | {"alone": True} for job in jobs]
        given = OnDemand(jobs, partial(alone, fed, state, mask, t + 1))
    values = [None] * len(jobs)
    meanwhile = _as_long(meanwhile, lambda: any(each is None for each in values))
    replies = fed.transport.map(jobs, given, meanwhile)
    for reply in watched(replies, len(jobs), fed.tell, f"round {t}: blocks of clients tested"):
        values[reply.meta["block"]] = reply.arrays["values"].copy()
    losses, metric = np.concatenate(values).T
    elsewhere = fed.transport.meanwhile_s - elsewhere
    row = summary(metric, losses, tests.samples, fed.objective.headline, fed.objective.higher) | {
        "own_s": time.perf_counter() - begin - elsewhere}
    return row, rows(t, tests, metric, losses, fed.objective.headline)


class OnDemand:
    """The arrays of each job, made when it is sent: those of all clients together may be more than memory holds."""

    def __init__(self, jobs, make):
        """``make(job) -> {name: array}``."""
        self.jobs, self.make = jobs, make

    def __getitem__(self, index):
        return self.make(self.jobs[index])


def alone(fed, state, mask, t, job):
    """The arrays that go to each client of a job alone, in one message: what it keeps, and what the strategy would send
    to it in round ``t``."""
    found = []
    for client in job["own"]:
        asked = ask(fed, state, client, t, mask)
        kept = {f"kept/{name}": tensor.numpy() for name, tensor in asked.kept.items() if name != RESIDUAL}
        found.append(({}, asked.arrays | kept))
    return joined(found)[1]


def _as_long(work, wanted):
    """The slices of ``work`` as long as they are ``wanted()``: what is left is done while the next round's clients
    train."""
    work = iter(work)
    while wanted():
        try:
            next(work)
        except StopIteration:
            return
        yield


def blocks(tests):
    """The clients of each job: an array of clients in their order, with SAMPLES samples or little more."""
    before = np.cumsum(tests.samples) - tests.samples
    starts = np.flatnonzero(np.diff(before // SAMPLES, prepend=-1))
    return np.split(tests.clients, starts[1:])


def summary(metric, losses, samples, headline="accuracy", higher=True):
    """The columns of /rounds, but for the seconds, of values (M,) a client with ``samples (M,)``."""
    return {
        f"own_{headline}": float(metric.mean()),
        f"own_{headline}_weighted": float((metric * samples).sum() / samples.sum()),
        f"own_{headline}_worst": worst(metric, higher),
        "own_loss": float(losses.mean()),
    }


def worst(metric, higher=True):
    """The mean of the worst tenth of the values, rounded up: of 25 values of the worst 3."""
    ordered = np.sort(metric) if higher else -np.sort(-metric)
    return float(ordered[: -(-len(metric) // WORST)].mean())


def rows(t, tests, metric, losses, headline="accuracy"):
    """The rows of /own of a round."""
    return {"round": np.full(len(tests.clients), t), "client": tests.clients, "samples": tests.samples,
            headline: metric, "loss": losses}


def nothing(headline="accuracy"):
    """The columns of /rounds of a round in which clients are not evaluated."""
    return dict.fromkeys((column.name for column in round_columns(headline)), float("nan"))
