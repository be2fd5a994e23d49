"""The server's own compute in a round, done by all ranks: models evaluated, looked into, trained.

The samples are the server's own. Work is cut into jobs of blocks of models and of ROWS samples,
never by the number of ranks, and results are added in the order of the jobs: so the bits are the
same on any number of ranks. A training is one job, as its steps follow one another. No client is
billed for these messages.
"""

import itertools
import math
from typing import Any, Callable, NamedTuple

import torch

from fedmpi.client.evaluate import CHUNK
from fedmpi.core import flops
from fedmpi.core.errors import FedError, UserError
from fedmpi.core.kinds import mask_of
from fedmpi.core.parts import Lab, Round, Trained
from fedmpi.core.support import gathered, scattered
from fedmpi.server import own_network
from fedmpi.transport.base import watched
from fedmpi.transport.team import Beside
from fedmpi.wire import positions

# Samples of a job.
ROWS = CHUNK


class Holdings(NamedTuple):
    """The server's own samples, and the speed of its own compute."""

    sizes: dict                   # {"validation": n, "server": n}
    labels: dict                  # see ``Lab``
    labelled: bool = True         # the server knows the labels of "server"
    speed: float = math.inf       # FLOP/s of virtual time


class Work(NamedTuple):
    """Jobs of the server's own, to be done beside others."""

    beside: Beside
    result: Callable              # (replies, in any order) -> result


class RoundLab(NamedTuple):
    """The server's own compute in one round, as the engine sees it."""

    lab: Lab
    work: Callable                # (trainings) -> Work, with the result of ``lab.train``
    spent: dict                   # FLOPs so far, by column of the run file
    speed: float                  # FLOP/s of virtual time

    @property
    def seconds(self):
        """Virtual seconds so far."""
        return sum(self.spent.values()) / self.speed


def round_lab(run, t, mask):
    """The ``RoundLab`` of round ``t``, with the trained ``mask (Q,)``."""
    spent = {"flops_server": 0.0, "flops_lab": 0.0}
    bench = Bench(run, t, mask, spent, itertools.count())
    lab = Lab(
        evaluate=bench.evaluate,
        outputs=bench.outputs,
        gradient=bench.gradient,
        train=bench.train,
        sizes=run.server.sizes,
        labels=run.server.labels,
        round=Round(t, run.rounds),
        mask=mask,
        fit=bench.fit)
    return RoundLab(lab, bench.work, spent, run.server.speed)


class Bench(NamedTuple):
    """The functions of a ``Lab``, for one round."""

    run: Any
    t: int
    mask: torch.Tensor            # (Q,) bool, trained in this round
    spent: dict                   # FLOPs so far, written in place
    numbers: Any                  # counts the round's trainings

    def evaluate(self, models, on="server", mask=None):
        """``(losses, headlines)``, both (M,) float64: means of ``models (M, P)`` over samples."""
        size = _size(self.run, on, labelled=True)
        jobs = []
        for block in _spans(0, len(models), self.run.block):
            for rows in _spans(0, size, ROWS):
                job = {"lab": "evaluate", "on": on, "models": block, "rows": rows}
                jobs.append(job)
        _hand_out(self.run, models)
        loss, headline = torch.zeros(2, len(models), dtype=torch.float64)
        replies = self._in_order(jobs)
        # The order of the jobs fixes the order of the sums.
        for job, reply in zip(jobs, replies):
            start, stop = job["models"]
            loss[start:stop] += torch.from_numpy(reply.arrays["loss"])
            headline[start:stop] += torch.from_numpy(reply.arrays["headline"])
        self._book_passes(size * len(models), mask)
        return loss / size, headline / size

    def outputs(self, x, on="server", rows=None, of="", mask=None):
        """(n, ...): outputs of the model ``x (P,)``, or of its module ``of``, for n samples."""
        start, stop = rows or (0, _size(self.run, on))
        jobs = []
        for span in _spans(start, stop, ROWS):
            job = {"lab": "outputs", "on": on, "models": (0, 1), "rows": span, "of": of}
            jobs.append(job)
        _hand_out(self.run, x[None])
        outputs = []
        for reply in self._in_order(jobs):
            # Copy: a view would keep the whole message alive.
            piece = reply.arrays["outputs"].copy()
            outputs.append(torch.from_numpy(piece))
        self._book_passes(stop - start, mask)
        return torch.cat(outputs)

    def gradient(self, x, on="server", mask=None):
        """(R,): the gradient of the mean loss of ``x (P,)`` over the samples ``on``."""
        layout = self.run.layout
        size = _size(self.run, on, labelled=True)
        jobs = []
        for rows in _spans(0, size, ROWS):
            job = {"lab": "gradient", "on": on, "models": (0, 1), "rows": rows}
            jobs.append(job)
        _hand_out(self.run, x[None])
        total = torch.zeros(layout.R)
        for reply in self._in_order(jobs):
            gradient = reply.arrays["gradient"]
            total += torch.from_numpy(gradient)
        kept = self._kept(mask)
        # Counted like the training's passes with a dense gradient.
        _, work = flops.training(layout, self.run.costs, kept, 0, size, 0)
        self.spent["flops_lab"] += work
        return total / size

    def train(self, trainings):
        """``[(x (P,), Trained)]``: a model for each of ``trainings``."""
        if not trainings:
            return []
        work = self.work(trainings)
        replies = self._in_order(work.beside.jobs, work.beside.arrays)
        return work.result(list(replies))

    def work(self, trainings):
        """``Work`` of ``trainings``, for other jobs' side."""
        jobs, arrays = [], []
        for training in trainings:
            number = next(self.numbers)
            job, model = _training(self.run, self.t, number, training)
            jobs.append(job)
            arrays.append(model)

        def result(replies):
            in_order = sorted(replies, key=lambda reply: reply.index)
            pairs = zip(trainings, in_order)
            return [self._trained(training, reply) for training, reply in pairs]

        beside = Beside(jobs, arrays, [])
        return Work(beside, result)

    def fit(self, x, samples, loss, epochs=0, batch_size=0, lr=0.0):
        """``(x (P,), Trained)``: the server's own network, trained on ``samples`` of features."""
        run = self.run
        if run.own_network is None:
            raise UserError("the strategy trains a network of the server's own, and the run has "
                            "none; give --server-model")
        settings = {"epochs": epochs, "batch_size": batch_size, "lr": lr}
        now = Round(self.t, run.rounds)
        number = next(self.numbers)
        x, trained = own_network.fitted(
            server_network=run.own_network,
            now=now,
            run_seed=run.seed,
            number=number,
            x=x,
            mask=self.mask,
            samples=samples,
            loss=loss,
            settings=settings)
        mask = mask_of(run.kinds.server, self.mask)
        self._book_training(run.kinds.server_costs, mask, trained)
        return x, trained

    def _trained(self, training, reply):
        """``(x (P,), Trained)`` of the answer to a training."""
        # Copy: a view would keep the whole message alive.
        values = reply.arrays["values"].copy()
        values = torch.from_numpy(values)
        support = self.run.layout.compact(training.mask)
        x = scattered(values, support, training.x.clone())
        # All four travel as float64.
        loss, steps, samples, travelled = reply.arrays["trained"].tolist()
        trained = Trained(
            loss=loss,
            steps=int(steps),
            samples=int(samples),
            travelled=travelled)
        self._book_training(self.run.costs, training.mask, trained)
        return x, trained

    def _book_training(self, costs, mask, trained):
        """Count a training's FLOPs."""
        _, work = flops.training(self.run.layout, costs, mask, trained.samples, 0, 0)
        self.spent["flops_server"] += work

    def _book_passes(self, samples, mask):
        """Count the FLOPs of forward passes; ``mask`` None: of the dense model."""
        kept = self._kept(mask)
        one_sample = flops.forward(self.run.layout, self.run.costs, kept)
        self.spent["flops_lab"] += samples * one_sample

    def _kept(self, mask):
        """(Q,) bool: ``mask``, or all weights if it is None."""
        if mask is None:
            return self.run.layout.full_mask()
        return mask

    def _in_order(self, jobs, arrays=None):
        """The replies to ``jobs`` in their order, each as soon as all before it have come.

        A job that ran out of a GPU's memory is done again while no other rank works.
        """
        waiting, turn = {}, 0
        line = f"round {self.t}: jobs of the server's own work done"
        replies = _sound(self.run, jobs, arrays)
        for reply in watched(replies, len(jobs), self.run.tell, line):
            waiting[reply.index] = reply
            while turn in waiting:
                yield waiting.pop(turn)
                turn += 1


def _spans(start, stop, size):
    """A range in pairs (start, stop) of at most ``size``."""
    spans = []
    for first in range(start, stop, size):
        end = min(first + size, stop)
        spans.append((first, end))
    return spans


def _size(run, on, labelled=False):
    """The number of the samples ``on``.

    UserError if there are none, or if labels are asked for and the server lacks them.
    """
    if on not in run.server.sizes:
        raise ValueError(f"the server's samples are {' or '.join(run.server.sizes)}, got {on!r}")
    if not run.server.sizes[on]:
        option = "--server-data 0.05" if on == "server" else "--validation 0.1"
        raise UserError(f"the strategy works on {on} samples, of which the server has none; give "
                        f"{option}, say")
    needs_labels = labelled and on == "server"
    if needs_labels and not run.server.labelled:
        raise UserError("the strategy works with unlabelled server data, and asks for what takes "
                        'their labels; its part must say server_data="labelled"')
    return run.server.sizes[on]


def _hand_out(run, models):
    """Give ``models (M, P)`` to every worker."""
    # The strategy's tensor may be a view of another one.
    models = models.contiguous()
    run.transport.share({"kind": "models"}, {"models": models.numpy()})


def _training(run, t, number, training):
    """``(job, arrays)`` of a training, number ``number`` of the round."""
    _size(run, training.on, labelled=True)
    code, mask = positions.encode(training.mask.numpy())
    support = run.layout.compact(training.mask)
    values = gathered(training.x, support)
    job = {
        "lab": "train",
        "on": training.on,
        "t": t,
        "number": number,
        "mask": code,
        "epochs": training.epochs,
        "batch_size": training.batch_size,
        "lr": training.lr,
    }
    return job, {"mask": mask, "values": values.numpy()}


def _sound(run, jobs, arrays):
    """A reply to every job, in any order."""
    # Jobs without enough memory wait until the ranks that share a GPU are idle.
    again = []
    for reply in run.transport.map(jobs, arrays):
        if reply.meta.get("again"):
            again.append(reply.index)
        else:
            yield reply
    for index in again:
        own_arrays = arrays[index] if arrays else {}
        yield retried(run, jobs[index], own_arrays, index)


def retried(run, job, arrays, index=0):
    """The reply to a job after it ran out of memory, while no other rank works."""
    [reply] = run.transport.map([job], [arrays])
    if reply.meta.get("again"):
        raise FedError(f"rank {reply.rank} ran out of GPU memory twice at the server's own work "
                       f"({job['lab']}): take fewer ranks on a GPU, or a smaller --batch-size")
    return reply._replace(index=index)


def update_beside(run, t, work, base, support):
    """(K,) on ``support``: the update of the server's own training, done beside the clients'.

    ``base (P,)`` is the model it began with.
    """
    [(x, trained)] = _finished(run, work)
    update = gathered(x, support) - gathered(base, support)
    is_finite = bool(update.isfinite().all())
    if not (is_finite and math.isfinite(trained.loss)):
        raise FedError(f"round {t}: the server's own training gave nothing to compare with: it "
                       f"diverged (loss {trained.loss:.3g})")
    return update


def _finished(run, work):
    """The result of ``work`` after its jobs were done beside others."""
    beside = work.beside
    replies = []
    for reply in beside.replies:
        if reply.meta.get("again"):
            index = reply.index
            reply = retried(run, beside.jobs[index], beside.arrays[index], index)
        replies.append(reply)
    return work.result(replies)
