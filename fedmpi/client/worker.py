"""The worker: a rank that trains clients, evaluates models, and keeps no client's state."""

import time
import traceback
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from fedmpi.client import answer as answers
from fedmpi.client import kinds, lab, smaller
from fedmpi.client import own_model as own_models
from fedmpi.client import samples as shards
from fedmpi.client.cohort import taken
from fedmpi.client.evaluate import evaluated, mean_loss
from fedmpi.client.home import home
from fedmpi.client.jobs import Job, job_of
from fedmpi.client.node_model import node_model
from fedmpi.client.received import decoded
from fedmpi.client.team import side_by_side
from fedmpi.client.train import prepared, seed, spread, trained
from fedmpi.compute.evaluate import by_sample
from fedmpi.compute.forward import ensemble
from fedmpi.compute.kernels import chosen
from fedmpi.core.allocator import LARGE, give_back
from fedmpi.core.errors import FedError, WireError
from fedmpi.core.parts import Augmentation, Codec, Objective, Optimiser, Pruner, Schedule, Strategy
from fedmpi.wire.codecs import fitted
from fedmpi.transport.team import joined, parted
from fedmpi.wire import fields, positions

# Kinds of messages that only ranks with answers of their own need.
FOR_LEADERS = ("tested", "cohort", "models")


class WorkerParts(NamedTuple):
    """The parts of a worker's trainings, built from the set-up message."""

    model: torch.nn.Module
    strategy: Strategy
    pruner: Pruner
    codec: Codec
    reports: dict                 # {label: report(task)} for estimators of contributions
    weighs: str                   # the label of the estimator that weighs
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
    accumulate: int               # parts of a batch, one after the other
    steps: int                    # steps of a client in a round; 0: as many as its epochs make
    augment: Augmentation | None
    kernels: dict = {}            # see Task.kernels


class Worker:
    """One rank: its resident model, and the last messages of the server.

    Clients keep nothing here between rounds but their data and the last mask. Their states come
    with their jobs and go with their answers, so that any rank can play any client.
    """

    def __init__(self, build, pick_device, around=lambda job, work: work()):
        """``build(options, shape, outputs) -> WorkerParts``.

        ``pick_device(name, local_rank) -> torch.device``. ``around(job, work)`` gives the answer to
        a job about one client, which is ``work()``: a hook for tests of your own, with clients
        that fail, or answer something else.
        """
        self.build, self.pick_device = build, pick_device
        self.around = around
        # compute.divided.Group of the ranks that train a client with this one, if there are any.
        self.group = None

    def join(self, group):
        """Train clients together with the other ranks of the ``group``, see ``compute.divided``."""
        self.group = group

    @property
    def follows(self):
        """Whether another rank leads this one, and answers for both."""
        return self.group is not None and self.group.member > 0

    # ------------------------------------------------------------- messages for every worker

    def receive(self, meta, arrays):
        """Take a message that goes to every worker; ``meta["kind"]`` tells its kind."""
        if self.follows and meta["kind"] in FOR_LEADERS:
            return
        take = {
            # The node's shared arrays, see ``Samples``.
            "data": self._take_data,
            # The options of the run.
            "setup": self._take_setup,
            # The model of a round, and that of the round before.
            "round": self._take_model,
            "previous": self._take_previous,
            # The model for clients' own tests.
            "tested": self._take_tested,
            # The cohort's updates, for the models of coalitions.
            "cohort": self._take_cohort,
            # Models for the server's own compute.
            "models": self._take_models,
        }
        take[meta["kind"]](meta, arrays)

    def _take_data(self, meta, arrays):
        self.data = arrays
        self.local_rank = meta["local_rank"]
        self.memory = meta["memory"]

    def _take_setup(self, meta, arrays):
        options = meta["options"]
        parts = self.build(options, meta["shape"], meta["outputs"])
        strategy = parts.strategy
        self.device = self.pick_device(options["device"], self.local_rank)
        self.home = home(
            model=parts.model,
            loss=parts.objective.loss,
            device=self.device,
            options=options,
            meta=meta,
            shared=self.data,
            personal=strategy.personal,
            first=_copied(arrays, "first"),
            unsent=_copied(arrays, "unsent"),
            in_part=strategy.travels is not None)
        self.layout = self.home.layout
        # Changes of the base that this rank has made.
        self.merges = meta["merges"]
        # Codecs treat dense positions by themselves.
        codec = fitted(parts.codec, self.layout.num_dense, self.layout.num_averages)
        kernels = chosen(options["kernel"], self.layout)
        self.parts = parts._replace(codec=codec, kernels=kernels)
        self.samples = shards.samples(self.data, meta, parts, self.device)
        self._forget_rounds()
        code, array = meta["last_sent_mask"], arrays["last_sent_mask"]
        self.last_mask = positions.decode(code, array, self.layout.Q)
        self.model_of = node_model(self.layout.P, self.memory)
        if self.layout.base:
            # Each rank lays its own base into the model.
            self.model_of = None
        self.accumulator = None
        if meta["sums_on_workers"]:
            self.accumulator = answers.empty_accumulator(
                self.layout, strategy.answers, self.device, self.memory, adds=not self.follows)
        # Besides their sum.
        self.wants_single_updates = meta["wants_single_updates"]
        give_back()

    def _forget_rounds(self):
        """Forget the messages of all rounds, and networks built for them."""
        self.t = 0
        # Messages: the model of the round, with the strategy's own part, and others.
        self.received = self.previous = self.tested = self.cohort = None
        self.message = {}
        # Functions and networks, built when they are first needed.
        self.many = self.wide = self.networks = None
        self.residents, self.measures = {}, {}

    def _take_model(self, meta, arrays):
        """Take the model of a round; if clients' models differ it comes with their jobs instead."""
        if meta["layout"] != self.layout.digest:
            raise WireError(f"the server's model has layout {meta['layout']}, this worker's "
                            f"{self.layout.digest}")
        self.t = meta["t"]
        if self.accumulator is not None:
            answers.clear(self.accumulator, self.t)
        if "mask" in meta:
            self.received, self.last_mask = decoded(
                self.home, self.parts.codec, meta, arrays, self.last_mask, self.received,
                self.model_of, self.parts.strategy)
        self.message = self._message(meta, arrays, self.received)
        self._absorb(self.message)
        if self.received is not None:
            self._lay_base(self.received)

    def _message(self, meta, arrays, received):
        """``{name: tensor}`` on the device: the strategy's message to all clients."""
        names = meta.get("given", ())
        if not names:
            return {}
        parts = self.parts
        # Without a model, no part of the message is on its support.
        support = received.support if received else self.layout.dense_positions
        named = {name: parts.strategy.sends[name] for name in names}
        tensors = fields.decoded(named, arrays, "given/", parts.codec.down, len(support))
        return spread(self.home, named, tensors, support)

    def _absorb(self, message):
        """Repeat the last merge's change of the base, unless this rank has made it before."""
        strategy = self.parts.strategy
        if strategy.absorb is None:
            return
        merges = int(message["merges"])
        if merges == self.merges:
            return
        if merges != self.merges + 1:
            raise WireError(f"the server has changed the base {merges} times, this worker "
                            f"{self.merges} times")
        strategy.absorb(self.layout, self.home.initial, message)
        self.merges = merges

    def _lay_base(self, received):
        """Write this rank's base to a received model, in place: no message brings it."""
        if self.layout.base:
            places = self.layout.base_positions
            values = self.home.initial[places]
            received.base[places.to(self.device)] = values.to(self.device)

    def _take_previous(self, meta, arrays):
        # Copy: the message's own memory is free again.
        values = torch.from_numpy(arrays["values"].copy())
        self.previous = values.to(self.device)

    def _take_tested(self, meta, arrays):
        """Take the model by which clients are tested on their own test parts."""
        last = None
        if self.tested:
            last = self.tested.received
        received, last_mask = decoded(self.home, self.parts.codec, meta, arrays, last=last)
        message = self._message(meta, arrays, received)
        self._absorb(message)
        self._lay_base(received)
        self.tested = own_models.Tested(
            t=meta["t"],
            at_once=meta["at_once"],
            received=received,
            last_mask=last_mask,
            message=message)
        self.places = {}

    def _take_cohort(self, meta, arrays):
        self.cohort = taken(meta, arrays)

    def _take_models(self, meta, arrays):
        self.models = torch.from_numpy(arrays["models"])

    # ------------------------------------------------------------- networks, built at first use

    def place(self, number):
        """The ``Place`` for tests of clients with the network ``number``; None: the only one."""
        if number not in self.places:
            self.places[number] = self._place(number)
        return self.places[number]

    def _place(self, number):
        home, received = self.home, self.tested.received
        server = None
        if number is not None:
            network = self.resident(number)
            home = network.home
            received = kinds.cut_out(network, self.tested.received)
            server = kinds.server_network(self.home, self.tested.received)
        if number not in self.measures:
            at_once = self.tested.at_once
            self.measures[number] = by_sample(home.model, home.x, self.parts.objective, at_once)
        measure = self.measures[number]
        return own_models.Place(home, received, measure, server)

    def resident(self, number):
        """The ``Resident`` of the network ``number``, see ``fedmpi.client.kinds``."""
        if number not in self.residents:
            self.residents[number] = kinds.resident(self.home, number, self.parts.objective.loss)
        return self.residents[number]

    def ensemble(self):
        """``evaluate(X (M, P), inputs, labels)`` of many models, see ``fedmpi.compute.forward``."""
        if self.many is None:
            self.many = ensemble(self.home.model, self.layout, self.parts.objective)
        return self.many

    # ------------------------------------------------------------- jobs

    def run(self, job, arrays):
        """The answer to a job, ``(meta, arrays)``, by what ``Job`` it is.

        A training that raises gives an answer, too: the server decides about its end.
        """
        kind = job_of(job)
        parts, samples = self.parts, self.samples
        if kind is Job.TRAIN:
            work = partial(self.train, job, arrays)
            if self.group is not None:
                # The others may wait for this rank in the middle of a step: an error ends the run.
                return self.around(job, work)
            return self.tried(job, work)
        if kind is Job.TEAM:
            jobs = job["team"]
            members = self._train_team(jobs, parted(arrays, len(jobs)))
            return joined(members)
        if kind is Job.LOSS:
            work = partial(self.tell_loss, job)
            return self.tried(job, work)
        if kind is Job.COALITIONS:
            many = self.ensemble()
            return evaluated(parts, self.home, samples, self.cohort, many, job)
        if kind is Job.OWN_TESTS:
            return own_models.tested(parts, samples, self.tested, self.place, job, arrays)
        return lab.answer(self, job, arrays)

    def tried(self, job, work):
        """The result of ``work()``, or the answer that it failed."""
        try:
            return self.around(job, work)
        except FedError:
            raise
        except Exception as error:
            out_of_memory = isinstance(error, torch.cuda.OutOfMemoryError)
            meta = {
                "kind": "failed",
                "t": job.get("t", self.t),
                "client": job.get("client", job.get("loss")),
                "row": job["row"],
                "out_of_memory": out_of_memory,
                "trace": traceback.format_exc(),
            }
        # Now that the traceback has let go of its tensors.
        if out_of_memory:
            self.free_memory()
        return meta, {}

    def free_memory(self):
        """Give the GPU's unused memory back."""
        if self.home.recorder:
            self.home.recorder.forget()
        torch.cuda.empty_cache()

    def train(self, job, arrays):
        """Train client ``job["client"]`` and return its answer."""
        begin = time.perf_counter()
        client = self.prepare(job, arrays)
        done = self._trained(job, client)
        if client.home.layout.P >= LARGE:
            # The update takes the place of the gradients, which small layers leave in holes.
            give_back()
        return self._answer(job, client, done, begin)

    def divides(self, job):
        """Whether all ranks of this one's group work at a job: they train, and nothing else."""
        return job_of(job) is Job.TRAIN

    def assist(self, job, arrays):
        """Train the client of a job of this rank's leader, who answers."""
        client = self.prepare(job, arrays)
        # Dropout draws otherwise for the samples of another member.
        seed(self.home.device, torch.initial_seed() + self.group.member)
        self._trained(job, client)

    def _trained(self, job, client):
        """The ``Trained`` of a prepared ``client``, by all ranks of the group if there is one."""
        return trained(
            parts=self.parts,
            samples=self.samples,
            task=client.task,
            client=job["client"],
            previous=self.previous,
            group=self.group)

    def prepare(self, job, arrays):
        """The ``Prepared`` client of a job, with the model of the round or of its job.

        Its random numbers follow from the present round, unless the job names another one.
        """
        job = {"t": self.t} | job
        home, received, last_mask = self.home, self.received, self.last_mask
        codec = self.parts.codec
        if "units" in arrays:
            network = self._smaller(arrays["units"])
            home, last_mask = network.home, None
            received = smaller.decoded(network, codec, job, arrays)
        elif "network" in job:
            network = self.resident(job["network"])
            home, last_mask = network.home, None
            received = kinds.decoded(network, codec, job, arrays)
        elif "mask" in job:
            received, last_mask = decoded(home, codec, job, arrays)
            self._lay_base(received)
        return prepared(
            parts=self.parts,
            home=home,
            samples=self.samples,
            job=job,
            arrays=arrays,
            received=received,
            last_mask=last_mask,
            message=self.message)

    def _smaller(self, units):
        """The ``Smaller`` network with the ``units``, uint8: packed bits."""
        if self.networks is None:
            self.networks = smaller.networks(self.home, self.samples)
        return smaller.network(self.networks, self.home, units)

    def _answer(self, job, client, done, begin):
        """The answer of a client whose training is ``done``; ``begin`` is when its work began."""
        job = {"t": self.t} | job
        # Asked only about an update that is of no use, as it takes a pass over the samples.
        cause = partial(self._why_diverged, job["client"], client)
        return answers.answer(
            parts=self.parts,
            home=client.home,
            accumulator=self.accumulator,
            wants_single_updates=self.wants_single_updates,
            job=job,
            client=client,
            trained=done,
            begin=begin,
            cause=cause)

    def _train_team(self, jobs, arrays):
        """The answers to ``jobs``, a client each.

        Clients whose training is plain descent train side by side, the others one by one. If
        something raises, all train one by one, to tell the client at fault.
        """
        begin = time.perf_counter()
        try:
            done = side_by_side(self, jobs, arrays)
        except torch.cuda.OutOfMemoryError as error:
            # The server sends the same team again.
            done = dict.fromkeys(range(len(jobs)), error)
        except FedError:
            raise
        except Exception:
            done = {}
        # Clients that trained together took equal shares of the time.
        took_s = (time.perf_counter() - begin) / max(len(done), 1)
        members = []
        for row, (job, part) in enumerate(zip(jobs, arrays)):
            member = self._team_member(job, part, done.get(row), took_s)
            members.append(member)
        return members

    def _team_member(self, job, arrays, done, took_s):
        """The answer of a client in a team.

        ``done`` is ``(Prepared, Trained)``, the error of the team, or None if the client has not
        trained yet; ``took_s`` are the seconds of its training.
        """
        if done is None:
            work = partial(self.train, job, arrays)
        elif isinstance(done, Exception):
            work = partial(_raising, done)
        else:
            client, result = done
            begin = time.perf_counter() - took_s
            work = partial(self._answer, job, client, result, begin)
        meta, arrays = self.tried(job, work)
        if self.home.stage.reuses or self.home.layout.P >= LARGE:
            # The next answer is written to the same buffers.
            arrays = {name: array.copy() for name, array in arrays.items()}
        return meta, arrays

    def _why_diverged(self, number, client):
        """The likely cause of a useless update of client ``number``: a key of ``CAUSES``."""
        if shards.trains_otherwise(self.samples, number):
            return "fault"
        base = client.received.base
        before = mean_loss(self.parts.objective, client.home, self.samples, number, base)
        if np.isfinite(before):
            return "training"
        return "model"

    def tell_loss(self, job):
        """The answer with the received model's mean loss over a client's samples."""
        client = job["loss"]
        base = self.received.base
        objective = self.parts.objective
        loss = mean_loss(objective, self.home, self.samples, client, base)
        meta = {"row": job["row"]}
        return meta, {"loss": np.array([loss])}

    def total(self, start, stop):
        """int64: this round's sums from ``start`` to ``stop``, see ``fedmpi.client.answer.joined``."""
        K = stop
        if self.accumulator.totals:
            # The sums of the strategy's answers come behind those of the K weights.
            K = len(self.received.support)
        return answers.joined(self.accumulator, self.parts.strategy.answers, K, start, stop)


def _copied(arrays, name):
    """The tensor of this name in a set-up message, or None."""
    if name not in arrays:
        return None
    # Copy: the message's own memory is free again.
    return torch.from_numpy(arrays[name].copy())


def _raising(error):
    raise error
