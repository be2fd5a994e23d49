"""The worker: a rank that trains one client at a time, or evaluates coalitions of those that have trained."""

import time
import traceback
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from fedmpi.client import answer as answers
from fedmpi.client import lab
from fedmpi.client import own_model as own_models
from fedmpi.client import samples as shards
from fedmpi.client.cohort import taken
from fedmpi.client.evaluate import evaluated, mean_loss
from fedmpi.client.home import home
from fedmpi.client import kinds, smaller
from fedmpi.client.received import decoded
from fedmpi.client.team import side_by_side
from fedmpi.client.train import prepared, spread, trained
from fedmpi.compute.evaluate import by_sample
from fedmpi.compute.forward import ensemble
from fedmpi.core.errors import FedError, WireError
from fedmpi.core.parts import Augmentation, Codec, Objective, Optimiser, Pruner, Schedule, Strategy
from fedmpi.methods.codecs.values import fitted
from fedmpi.transport.team import joined, parted
from fedmpi.wire import fields, positions


class WorkerParts(NamedTuple):
    """What a worker trains with, built from the set-up message."""

    model: torch.nn.Module
    strategy: Strategy
    pruner: Pruner
    codec: Codec
    reports: dict                 # what estimators of contributions want from clients: name -> report(task)
    weighs: str                   # the name of the estimator that weighs
    features: Any                 # fedmpi.core.parts.Features
    faults: tuple                 # of fedmpi.core.parts.Fault
    epochs: int
    batch_size: int
    lr: float
    seed: int
    rounds: int
    objective: Objective
    optimiser: Optimiser
    rates: Schedule
    clip_norm: float
    steps: int                    # where not 0, a client takes so many in a round, whatever epochs that makes
    augment: Augmentation | None


class Worker:
    """One rank's resident model and vectors. Clients hold nothing between rounds but their data and the last mask: what
    they keep comes with their jobs and goes with their answers, so that any rank can play them."""

    def __init__(self, build, pick_device):
        """``build(options, shape, outputs) -> WorkerParts``; ``pick_device(name, local_rank) -> torch.device``."""
        self.build, self.pick_device = build, pick_device

    # ------------------------------------------------------------- messages

    def receive(self, meta, arrays):
        """Take a message for every worker: ``data``, the node's shared arrays, see ``Samples``; ``setup``, the options;
        ``round``, the model of a round; ``previous``, the one before; ``tested``, the model of clients' own tests;
        ``cohort``, what coalitions are formed from; ``models``, what the server's own compute looks at."""
        take = {"data": self._take_data, "setup": self._take_setup, "round": self._take_model,
                "previous": self._take_previous, "tested": self._take_tested, "cohort": self._take_cohort,
                "models": self._take_models}
        take[meta["kind"]](meta, arrays)

    def _take_data(self, meta, arrays):
        self.data, self.local_rank = arrays, meta["local_rank"]

    def _take_setup(self, meta, arrays):
        options = meta["options"]
        parts = self.build(options, meta["shape"], meta["outputs"])
        self.device = self.pick_device(options["device"], self.local_rank)
        self.home = home(parts.model, parts.objective.loss, self.device, options, meta, arrays["frozen"],
                         parts.strategy.personal)
        self.layout = self.home.layout
        self.parts = parts._replace(codec=fitted(parts.codec, len(self.layout.tail)))
        self.samples = shards.samples(self.data, meta, parts, self.device)
        self.known = positions.decode(meta["known"], arrays["known"], self.layout.Q)
        self.received = self.previous = self.many = self.wide = self.cohort = None
        self.tested = self.networks = None
        self.t, self.given, self.residents, self.measures = 0, {}, {}, {}
        self.sums = answers.no_sums(self.layout, parts.strategy.answers, self.device) if meta["sums"] else None
        # Whether the server wants single updates.
        self.single = meta["values"]

    def _take_model(self, meta, arrays):
        """Take the model that the whole cohort trains. Where clients differ it comes with their jobs, and no values
        come here."""
        if meta["layout"] != self.layout.digest:
            raise WireError(f"the server's model has layout {meta['layout']}, this worker's {self.layout.digest}")
        self.t = meta["t"]
        if self.sums is not None:
            answers.clear(self.sums)
        if "mask" in meta:
            self.received, self.known = decoded(self.home, self.parts.codec, meta, arrays, self.known, self.received)
        self.given = self._given(meta, arrays, self.received)

    def _given(self, meta, arrays, received):
        """What the strategy sends to all clients beside the model, by name, on the device."""
        sent = {name: self.parts.strategy.sends[name] for name in meta.get("given", ())}
        if not sent:
            return {}
        support = received.support
        tensors = fields.decoded(sent, arrays, "given/", self.parts.codec.down, len(support))
        return spread(self.home, sent, tensors, support)

    def _take_tested(self, meta, arrays):
        """Take the model by which clients are tested on their own test parts."""
        last = self.tested.received if self.tested else None
        received, known = decoded(self.home, self.parts.codec, meta, arrays, last=last)
        given = self._given(meta, arrays, received)
        self.tested = own_models.Tested(meta["t"], meta["at_once"], received, known, given)
        self.places = {}

    def place(self, number):
        """The ``Place`` in which clients that train the network ``number`` are tested; None: the run's only one."""
        if number not in self.places:
            self.places[number] = self._place(number)
        return self.places[number]

    def _place(self, number):
        tested, home, received, server = self.tested, self.home, self.tested.received, None
        if number is not None:
            network = self.resident(number)
            home, received = network.home, kinds.cut_out(network, received)
            server = kinds.server_network(self.home, tested.received)
        if number not in self.measures:
            self.measures[number] = by_sample(home.model, home.x, self.parts.objective, tested.at_once)
        return own_models.Place(home, received, self.measures[number], server)

    def _take_previous(self, meta, arrays):
        self.previous = torch.from_numpy(arrays["values"].copy()).to(self.device)

    def _take_cohort(self, meta, arrays):
        self.cohort = taken(meta, arrays)

    def _take_models(self, meta, arrays):
        self.models = torch.from_numpy(arrays["models"])

    def resident(self, number):
        """The ``Resident`` of one of the networks that clients train, see ``fedmpi.client.kinds``."""
        if number not in self.residents:
            self.residents[number] = kinds.resident(self.home, number, self.parts.objective.loss)
        return self.residents[number]

    def ensemble(self):
        """``evaluate(X (M, P), inputs, labels)`` of many models at once, see ``fedmpi.compute.forward``."""
        self.many = self.many or ensemble(self.home.model, self.layout, self.parts.objective)
        return self.many

    # ------------------------------------------------------------- jobs

    def run(self, job, arrays):
        """The answer to a job: to evaluate coalitions, to tell a client's loss, to train a client, or a team of them. A
        training that raises is an answer, too: what becomes of it is the server's decision."""
        if "coalitions" in job:
            return evaluated(self.parts, self.home, self.samples, self.cohort, self.ensemble(), job)
        if "own" in job:
            return own_models.tested(self.parts, self.samples, self.tested, self.place, job, arrays)
        if "lab" in job:
            return lab.answer(self, job, arrays)
        if "team" in job:
            return joined(self._train_team(job["team"], parted(arrays, len(job["team"]))))
        if "loss" in job:
            return self.tried(job, lambda: self.tell_loss(job))
        return self.tried(job, lambda: self.train(job, arrays))

    def tried(self, job, work):
        """What ``work()`` returns, or the answer that it failed."""
        try:
            return work()
        except FedError:
            raise
        except Exception as error:
            memory = isinstance(error, torch.cuda.OutOfMemoryError)
            meta = {"kind": "failed", "t": job.get("t", self.t), "client": job.get("client", job.get("loss")),
                    "row": job["row"], "memory": memory, "trace": traceback.format_exc()}
        # After the traceback has let go of its tensors.
        if memory:
            self.free_memory()
        return meta, {}

    def free_memory(self):
        """Give the memory of the GPU back that nobody needs now."""
        if self.home.recorder:
            self.home.recorder.forget()
        torch.cuda.empty_cache()

    def train(self, job, arrays):
        """Train client ``job["client"]`` and return its answer."""
        begin = time.perf_counter()
        client = self.prepare(job, arrays)
        done = trained(self.parts, self.samples, client.task, job["client"], self.previous)
        return self._answer(job, client, done, begin)

    def prepare(self, job, arrays):
        """The ``Prepared`` client of a job. Its random numbers follow from the present round, unless the job brings a
        model of its own time."""
        job = {"t": self.t} | job
        if "units" in arrays:
            return self._prepare_smaller(job, arrays)
        if "network" in job:
            network = self.resident(job["network"])
            received = kinds.decoded(network, self.parts.codec, job, arrays)
            return prepared(self.parts, network.home, self.samples, job, arrays, received, None, self.given)
        received, known = self.received, self.known
        if "mask" in job:
            received, known = decoded(self.home, self.parts.codec, job, arrays)
        return prepared(self.parts, self.home, self.samples, job, arrays, received, known, self.given)

    def _prepare_smaller(self, job, arrays):
        """The ``Prepared`` client of a job that brings a network without some of its units."""
        self.networks = self.networks or smaller.networks(self.home, self.samples)
        network = smaller.network(self.networks, self.home, arrays["units"])
        received = smaller.decoded(network, self.parts.codec, job, arrays)
        return prepared(self.parts, network.home, self.samples, job, arrays, received, None, self.given)

    def _answer(self, job, client, done, begin):
        job = {"t": self.t} | job
        return answers.answer(self.parts, client.home, self.sums, self.single, job, client, done, begin,
                              partial(self._why_diverged, job["client"], client))

    def _train_team(self, jobs, arrays):
        """The answers to ``jobs``, each that of a client. Those whose training is plain descent train side by side, all
        others one by one; so does a team in which something raises, to tell who is at fault."""
        begin = time.perf_counter()
        try:
            done = side_by_side(self, jobs, arrays)
        except torch.cuda.OutOfMemoryError as error:
            # The team trains again as one.
            done = {row: error for row in range(len(jobs))}
        except FedError:
            raise
        except Exception:
            done = {}
        took = (time.perf_counter() - begin) / max(len(done), 1)
        return [self._team_member(job, part, done.get(row), took) for row, (job, part) in enumerate(zip(jobs, arrays))]

    def _team_member(self, job, arrays, done, took):
        """The answer of one of a team: ``done`` is ``(client, Trained)``, what was raised, or None where it has not
        trained yet; ``took`` are its seconds."""
        if done is None:
            work = partial(self.train, job, arrays)
        elif isinstance(done, Exception):
            work = partial(_raising, done)
        else:
            client, result = done
            work = partial(self._answer, job, client, result, time.perf_counter() - took)
        meta, found = self.tried(job, work)
        if self.home.stage.reuses:
            found = {name: array.copy() for name, array in found.items()}
        return meta, found

    def _why_diverged(self, number, client):
        """What made the update of client ``number`` useless, as far as can be seen: one of ``CAUSES``."""
        if shards.trains_otherwise(self.samples, number):
            return "fault"
        before = mean_loss(self.parts.objective, client.home, self.samples, number, client.received.base)
        return "training" if np.isfinite(before) else "model"

    def tell_loss(self, job):
        """The received model's mean loss over a client's samples."""
        loss = mean_loss(self.parts.objective, self.home, self.samples, job["loss"], self.received.base)
        return {"row": job["row"]}, {"loss": np.array([loss])}

    def total(self, count):
        """(count,) int64: this round's sums, as ``fedmpi.client.answer.joined`` lays them out."""
        K = count
        if self.sums.totals:
            K = len(self.received.support)
        return answers.joined(self.sums, self.parts.strategy.answers, K)


def _raising(error):
    raise error
