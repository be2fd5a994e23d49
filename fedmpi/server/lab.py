"""The server's own compute in a round: models evaluated, looked into and trained on samples that the server holds, by
all ranks.

Jobs are cut by what is asked, blocks of models and of ROWS samples, never by the number of ranks, and what comes back
is added in the order of the jobs: so the bits are the same on any number of ranks. A training is one job, as its steps
follow one another; several trainings are several jobs. Bytes of these messages are no client's.
"""

import itertools
import math
from typing import Callable, NamedTuple

import torch

from fedmpi.client.evaluate import CHUNK
from fedmpi.core import flops
from fedmpi.core.kinds import mask_of
from fedmpi.core.errors import FedError, UserError
from fedmpi.core.parts import Lab, Round, Trained
from fedmpi.core.support import gathered, scattered
from fedmpi.server import own_network
from fedmpi.transport.base import watched
from fedmpi.transport.team import Beside
from fedmpi.wire import positions

ROWS = CHUNK     # samples a job


class Holdings(NamedTuple):
    """What the server holds of its own: the numbers of its samples by name, ``{"validation": n, "server": n}``, how
    many have each label, see ``Lab``, whether it knows the labels of ``"server"``, and its FLOP/s of virtual time."""

    sizes: dict
    labels: dict
    labelled: bool = True
    speed: float = math.inf


class Work(NamedTuple):
    """Jobs of the server's own, to be done beside others; ``result(replies)`` is what they come to, whatever the order
    of ``replies``."""

    beside: Beside
    result: Callable


class RoundLab(NamedTuple):
    """The server's own compute in one round, as the engine has it."""

    lab: Lab
    work: Callable                # (trainings) -> Work whose result is that of ``lab.train``
    spent: dict                   # FLOPs so far, by column of the run file
    speed: float                  # FLOP/s of virtual time

    @property
    def seconds(self):
        """Virtual seconds so far."""
        return sum(self.spent.values()) / self.speed


def round_lab(fed, t, mask):
    """The ``RoundLab`` of round ``t``, in which ``mask (Q,)`` is trained."""
    spent = {"flops_server": 0.0, "flops_lab": 0.0}
    numbers = itertools.count()

    def book(samples, price):
        spent["flops_lab"] += samples * price

    def forward(kept):
        kept = fed.layout.full_mask() if kept is None else kept
        return flops.forward(fed.layout, fed.costs, kept)

    def evaluate(models, on="server", mask=None):
        size = _size(fed, on, labelled=True)
        loss, headline = torch.zeros(2, len(models), dtype=torch.float64)
        jobs = [{"lab": "evaluate", "on": on, "models": block, "rows": rows}
                for block in _spans(0, len(models), fed.block) for rows in _spans(0, size, ROWS)]
        _hand_out(fed, models)
        for job, reply in zip(jobs, _in_order(fed, t, jobs)):
            block = slice(*job["models"])
            loss[block] += torch.from_numpy(reply.arrays["loss"])
            headline[block] += torch.from_numpy(reply.arrays["headline"])
        book(size * len(models), forward(mask))
        return loss / size, headline / size

    def outputs(x, on="server", rows=None, of="", mask=None):
        start, stop = rows or (0, _size(fed, on))
        jobs = [{"lab": "outputs", "on": on, "models": (0, 1), "rows": span, "of": of}
                for span in _spans(start, stop, ROWS)]
        _hand_out(fed, x[None])
        # Copy: a view would keep the whole message alive.
        found = [torch.from_numpy(reply.arrays["outputs"].copy()) for reply in _in_order(fed, t, jobs)]
        book(stop - start, forward(mask))
        return torch.cat(found)

    def gradient(x, on="server", mask=None):
        size = _size(fed, on, labelled=True)
        jobs = [{"lab": "gradient", "on": on, "models": (0, 1), "rows": rows} for rows in _spans(0, size, ROWS)]
        _hand_out(fed, x[None])
        whole = torch.zeros(fed.layout.R)
        for reply in _in_order(fed, t, jobs):
            whole += torch.from_numpy(reply.arrays["gradient"])
        kept = fed.layout.full_mask() if mask is None else mask
        book(1, flops.training(fed.layout, fed.costs, kept, 0, size, 0)[1])
        return whole / size

    def work(trainings):
        jobs, arrays = zip(*(_training(fed, t, next(numbers), training) for training in trainings))

        def result(replies):
            replies = sorted(replies, key=lambda reply: reply.index)
            found = []
            for training, reply in zip(trainings, replies):
                x, trained = _trained(fed, training, reply)
                spent["flops_server"] += flops.training(fed.layout, fed.costs, training.mask, trained.samples, 0, 0)[1]
                found.append((x, trained))
            return found

        return Work(Beside(list(jobs), list(arrays), []), result)

    def train(trainings):
        if not trainings:
            return []
        asked = work(trainings)
        return asked.result(list(_in_order(fed, t, asked.beside.jobs, asked.beside.arrays)))

    def fit(x, samples, loss, epochs=0, batch_size=0, lr=0.0):
        if fed.own_network is None:
            raise UserError("the strategy trains a network of the server's own, and the run has none; give "
                            "--server-model")
        settings = {"epochs": epochs, "batch_size": batch_size, "lr": lr}
        now = Round(t, fed.rounds)
        x, trained = own_network.fitted(fed.own_network, now, fed.seed, next(numbers), x, mask, samples, loss, settings)
        own = mask_of(fed.kinds.server, mask)
        spent["flops_server"] += flops.training(fed.layout, fed.kinds.server_costs, own, trained.samples, 0, 0)[1]
        return x, trained

    lab = Lab(evaluate, outputs, gradient, train, fed.server.sizes, fed.server.labels, Round(t, fed.rounds), mask, fit)
    return RoundLab(lab, work, spent, fed.server.speed)


def _spans(start, stop, size):
    """Pairs (start, stop) of at most ``size`` that cover a range."""
    return [(first, min(first + size, stop)) for first in range(start, stop, size)]


def _size(fed, on, labelled=False):
    """The number of the samples ``on``; UserError where there are none, or where labels are asked for that the server
    does not know."""
    if on not in fed.server.sizes:
        raise ValueError(f"the server's samples are {' or '.join(fed.server.sizes)}, got {on!r}")
    if not fed.server.sizes[on]:
        option = "--server-data 0.05" if on == "server" else "--validation 0.1"
        raise UserError(f"the strategy works on {on} samples, of which the server has none; give {option}, say")
    if labelled and on == "server" and not fed.server.labelled:
        raise UserError("the strategy works with unlabelled server data, and asks for what takes their labels; its "
                        'part must say server_data="labelled"')
    return fed.server.sizes[on]


def _hand_out(fed, models):
    """Give ``models (M, P)`` to every worker."""
    fed.transport.share({"kind": "models"}, {"models": models.contiguous().numpy()})


def _training(fed, t, number, training):
    """``(job, arrays)`` of a training, the ``number``-th of the round."""
    _size(fed, training.on, labelled=True)
    code, mask = positions.encode(training.mask.numpy())
    values = gathered(training.x, fed.layout.support(training.mask))
    job = {"lab": "train", "on": training.on, "t": t, "number": number, "mask": code, "epochs": training.epochs,
           "batch_size": training.batch_size, "lr": training.lr}
    return job, {"mask": mask, "values": values.numpy()}


def _trained(fed, training, reply):
    """``(x (P,), Trained)`` of the answer to a training."""
    values = torch.from_numpy(reply.arrays["values"].copy())
    x = scattered(values, fed.layout.support(training.mask), training.x.clone())
    loss, steps, samples, travelled = reply.arrays["trained"].tolist()
    return x, Trained(loss, int(steps), int(samples), travelled)


def _in_order(fed, t, jobs, arrays=None):
    """The replies to ``jobs`` in their order, each as soon as those before it are there. What ran out of a GPU's
    memory beside other ranks is asked again when they are done."""
    waiting, turn = {}, 0
    what = f"round {t}: jobs of the server's own work done"
    for reply in watched(_sound(fed, jobs, arrays), len(jobs), fed.tell, what):
        waiting[reply.index] = reply
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1


def _sound(fed, jobs, arrays):
    """Every job's reply, in any order."""
    again = []
    for reply in fed.transport.map(jobs, arrays):
        if reply.meta.get("again"):
            again.append(reply.index)
        else:
            yield reply
    for index in again:
        yield retried(fed, jobs[index], arrays[index] if arrays else {}, index)


def retried(fed, job, arrays, index=0):
    """The reply to a job that ran out of memory before, while nobody else works."""
    reply = next(iter(list(fed.transport.map([job], [arrays]))))
    if reply.meta.get("again"):
        raise FedError(f"rank {reply.rank} ran out of GPU memory twice at the server's own work ({job['lab']}): take "
                       "fewer ranks on a GPU, or a smaller --batch-size")
    return reply._replace(index=index)


def update_beside(fed, t, work, base, support):
    """(K,) on ``support``: what the one training of ``work``, done beside the clients', adds to ``base (P,)``."""
    [(x, trained)] = _finished(fed, work)
    update = gathered(x, support) - gathered(base, support)
    if not (math.isfinite(trained.loss) and bool(update.isfinite().all())):
        raise FedError(f"round {t}: the server's own training gave nothing to compare with: it diverged (loss "
                       f"{trained.loss:.3g})")
    return update


def _finished(fed, work):
    """What ``work`` came to, whose jobs have been done beside others."""
    beside = work.beside
    replies = [retried(fed, beside.jobs[reply.index], beside.arrays[reply.index], reply.index)
               if reply.meta.get("again") else reply for reply in beside.replies]
    return work.result(replies)
