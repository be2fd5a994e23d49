"""Clients' models on clients' own test parts: after a round's merge, spread over all workers.

A client's model is the one that the server would publish now, through the same codec, together
with the client's own state: its personal tensors, or the strategy's ``own_model``. A client that
has not taken part yet has the tensors of the first model. Work is cut into jobs of clients, never
by ranks: so are the bits. While workers evaluate, rank 0 evaluates the test set.
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

# A job has at least so many samples, but for the last one.
SAMPLES = 512
# One client in WORST, rounded up, makes own_accuracy_worst.
WORST = 10


class OwnTests(NamedTuple):
    """The clients with test parts of their own, and the rounds that evaluate them."""

    clients: np.ndarray       # (M,) int64, ascending
    samples: np.ndarray       # (M,) int64, of the test parts
    test_every: int                # rounds from one evaluation to the next; the last round has one
    at_once: int = 64         # samples that go through the model in one pass on a CPU


def round_columns(headline="accuracy", unit="nat"):
    """The columns of /rounds about clients' own test parts, by the metric ``headline``."""
    return [
        Column(f"own_{headline}", "float64", "1",
               f"{headline} of clients' models on their own test parts, mean over clients"),
        Column(f"own_{headline}_weighted", "float64", "1",
               "the same, weighted by their test samples"),
        Column(f"own_{headline}_worst", "float64", "1",
               "the same, of the worst tenth of the clients, rounded up"),
        Column("own_loss", "float64", unit,
               "loss of clients' models on their own test parts, mean over clients"),
        Column("own_s", "float64", "s",
               "evaluating clients on their own test parts, no part of round_s", machine=True),
    ]


def table_columns(headline="accuracy", unit="nat"):
    """The columns of /own: a row for each client with a test part, and each evaluation."""
    return [
        Column("round", "int64", "1", "round, from 1"),
        Column("client", "int64", "1", "client, from 0"),
        Column("samples", "int64", "1", "samples of its own test part"),
        Column(headline, "float64", "1", f"{headline} of its model on its own test part"),
        Column("loss", "float64", unit, "loss of its model on its own test part"),
    ]


def evaluate(run, state, mask, t, meanwhile=()):
    """``(columns of /rounds, columns of /own)`` of the model of ``state`` after round ``t``.

    ``mask (Q,)`` is the model's. Rank 0 does slices of ``meanwhile`` while it waits for workers.
    """
    begin = time.perf_counter()
    # Seconds of rank 0's other work count as evaluate_s.
    others_s = run.transport.meanwhile_s
    tests, objective = run.own_tests, run.objective
    # As the next round would publish it: a codec may draw by the round.
    meta, arrays = model_message(run, state, t + 1, mask)
    header = {"kind": "tested", "t": t, "at_once": tests.at_once}
    meta = header | meta
    run.transport.publish(meta, arrays)

    jobs = jobs_of(run)
    arrays = _arrays(run, state, mask, t, jobs)
    values = _answers(run, jobs, arrays, t, meanwhile)
    losses, metric = values.T
    others_s = run.transport.meanwhile_s - others_s
    row = summary(metric, losses, tests.samples, objective.headline, objective.higher)
    whole_s = time.perf_counter() - begin
    row["own_s"] = whole_s - others_s
    own_rows = rows(t, tests, metric, losses, objective.headline)
    return row, own_rows


def jobs_of(run):
    """The workers' jobs: blocks of clients, and the numbers of their networks if it has several."""
    jobs = []
    for number, clients in enumerate(blocks(run.own_tests)):
        job = {"own": clients.tolist(), "block": number}
        if run.kinds is not None:
            networks = run.kinds.of[job["own"]]
            job["networks"] = networks.tolist()
        if _models_differ(run):
            job["alone"] = True
        jobs.append(job)
    return jobs


def _models_differ(run):
    """Whether clients need arrays of their own for their models."""
    strategy = run.strategy
    own_model = strategy.own_model is not None or strategy.predict is not None
    return bool(run.layout.personal) or own_model


def _arrays(run, state, mask, t, jobs):
    """The arrays of each job, or None if all clients have the same model."""
    if not _models_differ(run):
        return None
    return OnDemand(jobs, partial(alone, run, state, mask, t + 1))


def _answers(run, jobs, arrays, t, meanwhile):
    """(M, 2) float64: loss and metric of each client, in the order of the jobs."""
    values = [None] * len(jobs)

    def some_missing():
        return any(block is None for block in values)

    # Rank 0 evaluates the test set until the last client is tested.
    replies = run.transport.map(jobs, arrays, _as_long(meanwhile, some_missing))
    line = f"round {t}: blocks of clients tested"
    for reply in watched(replies, len(jobs), run.tell, line):
        number = reply.meta["block"]
        # Copy: a view would keep the whole message alive.
        values[number] = reply.arrays["values"].copy()
    return np.concatenate(values)


class OnDemand:
    """The arrays of each job, made when the job is sent: all together might exceed the memory."""

    def __init__(self, jobs, make):
        """``make(job) -> {name: array}``."""
        self.jobs, self.make = jobs, make

    def __getitem__(self, index):
        return self.make(self.jobs[index])


def alone(run, state, mask, t, job):
    """The arrays for the clients of a job, in one message, as they would get them in round ``t``.

    For each client: its state, and the strategy's message to it alone.
    """
    messages = []
    for client in job["own"]:
        order = ask(run, state, client, t, mask)
        arrays = dict(order.arrays)
        for name, tensor in order.kept.items():
            # A test sends no update, and needs no residual of earlier ones.
            if name != RESIDUAL:
                arrays[f"kept/{name}"] = tensor.numpy()
        messages.append(({}, arrays))
    _, arrays = joined(messages)
    return arrays


def _as_long(work, wanted):
    """The slices of ``work`` as long as they are ``wanted()``.

    The next round goes on with the rest while its clients train.
    """
    work = iter(work)
    while wanted():
        try:
            next(work)
        except StopIteration:
            return
        yield


def blocks(tests):
    """The clients of each job, in their order: arrays with SAMPLES samples or little more."""
    # Samples of all clients before each one.
    before = np.cumsum(tests.samples) - tests.samples
    block = before // SAMPLES
    step = np.diff(block, prepend=-1)
    starts = np.flatnonzero(step)
    return np.split(tests.clients, starts[1:])


def summary(metric, losses, samples, headline="accuracy", higher=True):
    """The columns of /rounds but for the seconds; ``metric``, ``losses``, ``samples`` are (M,)."""
    weighted = (metric * samples).sum() / samples.sum()
    return {
        f"own_{headline}": float(metric.mean()),
        f"own_{headline}_weighted": float(weighted),
        f"own_{headline}_worst": worst(metric, higher),
        "own_loss": float(losses.mean()),
    }


def worst(metric, higher=True):
    """The mean of the worst tenth of the values, rounded up: of 25 values of the worst 3."""
    if higher:
        worst_first = np.sort(metric)
    else:
        worst_first = -np.sort(-metric)
    # Divided and rounded up.
    count = -(-len(metric) // WORST)
    return float(worst_first[:count].mean())


def rows(t, tests, metric, losses, headline="accuracy"):
    """The rows of /own of a round."""
    return {
        "round": np.full(len(tests.clients), t),
        "client": tests.clients,
        "samples": tests.samples,
        headline: metric,
        "loss": losses,
    }


def nothing(headline="accuracy"):
    """The columns of /rounds in a round that evaluates no client: NaN."""
    names = [column.name for column in round_columns(headline)]
    return dict.fromkeys(names, float("nan"))
