"""The worker: receives the round's model, trains one client at a time or evaluates coalitions of those that trained,
and returns what the server needs."""

import math
import time
import traceback
import zlib
from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from fedmpi.methods.datasets.dataset import inputs, laid
from fedmpi.compute.forward import ensemble
from fedmpi.core.errors import FedError, UserError, WireError
from fedmpi.core.layout import bind, check
from fedmpi.compute.graphs import recorder
from fedmpi.compute.coalitions import coalition_models
from fedmpi.compute.sgd import casting
from fedmpi.core.parts import Codec, Objective, Pruner, Round, Strategy, Task, Updates
from fedmpi.core.rng import Purpose, stream, torch_seed
from fedmpi.compute.stacked import stacked
from fedmpi.compute.staging import resident, staging
from fedmpi.core.exact_sum import LARGEST, add, magnitude
from fedmpi.transport.team import joined, parted
from fedmpi.core.tensors import constants, fixed, set_frozen
from fedmpi.wire import frame, positions
from fedmpi.wire.feedback import carried, encoded
from fedmpi.methods.codecs.values import fitted

CHUNK = 500      # validation samples that a coalition's model sees at once


class Number(IntEnum):
    """Where what an answer says in numbers lies in its ``numbers`` (8,) float64."""

    SAMPLES = 0      # that the client holds
    LOSS = 1         # in the unit of the objective, the mean of the training
    SEEN = 2         # samples that the training saw, all epochs
    EXTRA = 3        # those that went through a pass of their own for the pruner, with a dense gradient
    DENSE = 4        # those of the training whose gradient was dense
    SECONDS = 5      # of the machine's clock
    BYTES = 6        # of the answer, were it sent whole; 0 where it is
    SUMMED = 7       # whether its update is in the worker's sums


CAUSES = {                                       # of a divergence: what the user is told
    "training": "a smaller --lr may help",
    "model": "the model that it received has no finite loss on its samples: look at the model and the inputs",
    "fault": "which its --fault may explain",
}
WORK = slice(Number.SEEN, Number.DENSE + 1)      # what ``flops.training`` takes


def digest(support):
    """A number that changes with the support, for both ends to compare; found once, as nobody writes to a support."""
    if not hasattr(support, "digest"):
        support.digest = zlib.crc32(support.numpy())
    return support.digest


def unbilled(meta, arrays, weighs):
    """The bytes of a client's answer that are there only for estimators that observe, no part of what the method costs,
    and those of its memory, which a real client would keep. ``weighs`` is the label of the one that weighs."""
    billed = {name: array for name, array in arrays.items()
              if not name.startswith(("score/", "memory/")) or name.startswith(f"score/{weighs}/")}
    return 0 if len(billed) == len(arrays) else frame.size(meta, arrays) - frame.size(meta, billed)


def _key(t, client, number):
    """What a training's random numbers follow from: the round, or the ``number`` of its start."""
    return (t, client) if number is None else (number, client, 1)


def _seed(device, seed):
    """Seed torch's generators of the CPU and of ``device``. ``torch.manual_seed`` does so for every kind of device that
    there is, which costs a client a millisecond, and keeps a stack trace a call where the kind is not in use."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


class WorkerParts(NamedTuple):
    """What a worker trains with, built from the set-up message."""

    model: torch.nn.Module
    strategy: Strategy
    pruner: Pruner
    codec: Codec
    objective: Objective
    reports: dict                 # what estimators of contributions want from clients: name -> report(task)
    weighs: str                   # the name of the estimator that weighs
    features: Any                 # fedmpi.methods.features.images.Features
    faults: tuple                 # of fedmpi.methods.fault.training.Fault
    epochs: int
    batch_size: int
    lr: float
    seed: int
    rounds: int


class Received(NamedTuple):
    """A model as it came over the wire."""

    mask: torch.Tensor            # (Q,) bool
    support: torch.Tensor         # (K,) int32
    digest: int                   # of the support
    base: torch.Tensor            # (P,) float32, 0 off the support; on the device
    there: torch.Tensor           # the mask, on the device
    live: torch.Tensor            # (R,) float32, there: 1 for what is trained, 0 for pruned weights


class Worker:
    """One rank's resident model and vectors. Clients hold nothing between rounds but their data and the last mask: what
    they remember comes with their jobs and goes with their answers, so that any rank can play them. Where the server
    needs no single updates, ``sums`` (P,) int64, on the device, holds what this rank's clients brought in."""

    def __init__(self, build, pick_device):
        """``build(options, shape, outputs) -> WorkerParts``; ``pick_device(name, local_rank) -> torch.device``."""
        self.build, self.pick_device = build, pick_device

    def receive(self, meta, arrays):
        """``data``: the node's shared ``x_train``, and ``offsets``, ``indices``, ``labels`` of the partition, whose
        last shard is the server's validation samples, with each client's ``features``, ``faults`` and ``source``.
        ``setup``: the options. ``round``: the model of a round. ``previous``: the one before. ``cohort``: what
        coalitions are formed from."""
        if meta["kind"] == "data":
            self.data, self.local_rank = arrays, meta["local_rank"]
        elif meta["kind"] == "setup":
            self._build(meta, arrays)
        elif meta["kind"] == "round":
            self._take_model(meta, arrays)
        elif meta["kind"] == "previous":
            self.previous = torch.from_numpy(arrays["values"].copy()).to(self.device)
        else:
            self._take_cohort(meta, arrays)

    def run(self, job, arrays):
        """The answer to a job: to evaluate coalitions, to tell a client's loss, to train a client, or a team of them. A
        training that raises is an answer, too: what becomes of it is the server's decision."""
        if "coalitions" in job:
            return self._evaluate(job)
        if "team" in job:
            return joined(self._train_team(job["team"], parted(arrays, len(job["team"]))))
        return self._tried(job, lambda: self._loss(job) if "loss" in job else self._train(job, arrays))

    def _tried(self, job, work):
        """What ``work()`` returns, or the answer that it failed."""
        try:
            return work()
        except FedError:
            raise
        except Exception as error:
            memory = isinstance(error, torch.cuda.OutOfMemoryError)
            meta = {"kind": "failed", "t": self._round(job), "client": job.get("client", job.get("loss")),
                    "row": job["row"], "memory": memory, "trace": traceback.format_exc()}
        if memory:
            if self.recorder:
                self.recorder.forget()
            torch.cuda.empty_cache()                       # after the traceback has let go of its tensors
        return meta, {}

    def total(self, count):
        """(count,) int64: the sums of this round's updates, as ``fedmpi.core.exact_sum`` adds them up."""
        return self.sums[:count].cpu().numpy()

    def _build(self, meta, arrays):
        self.mean, self.std = meta["mean"], meta["std"]
        self.parts = self.build(meta["options"], meta["shape"], meta["outputs"])
        self.classes = meta["classes"]
        self.device = self.pick_device(meta["options"]["device"], self.local_rank)
        self.layout, self.x, self.g = bind(self.parts.model.to(self.device), meta["statistics"])
        check(self.parts.model, self.layout, self.x)
        set_frozen(self.parts.model, arrays["frozen"])
        if fixed(self.parts.model, self.layout).constants != meta["constants"]:
            raise UserError(f"--model {meta['options']['model']} has other constants in its buffers on this rank than "
                            "on rank 0: draw them by torch's generator, which is seeded alike on all ranks")
        self.casting = casting(meta["options"]["precision"], self.device)
        self.recorder = recorder(self.parts.model, self.device, self.parts.objective.loss)
        self.resident = resident(self.data, self.device)
        self.codec = fitted(self.parts.codec, len(self.layout.tail))
        self.stage = staging(self.layout.P, self.device)
        self.counters = [(buffer, buffer.clone()) for _, buffer in constants(self.parts.model, self.layout)]
        self.known = positions.decode(meta["known"], arrays["known"], self.layout.Q)
        self.received, self.previous, self.many, self.wide, self.t = None, None, None, None, 0
        self.sums = torch.zeros(self.layout.P, dtype=torch.int64, device=self.device) if meta["sums"] else None
        self.values = meta["values"]                       # whether the server wants single updates

    def _take_model(self, meta, arrays):
        """The model that the whole cohort trains; where clients differ it comes with their jobs, and no values here."""
        if meta["layout"] != self.layout.digest:
            raise WireError(f"the server's model has layout {meta['layout']}, this worker's {self.layout.digest}")
        self.t = meta["t"]
        if self.sums is not None:
            self.sums.zero_()
        if "mask" in meta:
            self.received, self.known = self._decoded(meta, arrays, self.known, self.received)

    def _decoded(self, meta, arrays, known=None, last=None):
        """``(Received, its mask as numpy's)`` of a message with a mask relative to ``known``; ``last`` is the one that
        this takes the place of, whose vector is written again, and whose mask holds where that did not change."""
        layout, same = self.layout, last if "same" in meta["mask"] else None
        kept = positions.decode(meta["mask"], arrays["mask"], layout.Q, known)
        mask = same.mask if same else torch.from_numpy(kept)
        support = same.support if same else layout.support(mask)
        found = same.digest if same else digest(support)
        if found != meta["support"]:
            raise WireError(f"the server's support is {meta['support']}, this worker decoded {found}")
        into = same.base if same else last.base.zero_() if last else None    # a new one costs as much as filling three
        base = self.stage.up(self.codec.down.decode(arrays, len(support)), support, into)
        if same:
            return same._replace(base=base), kept
        there, live = mask.to(self.device), torch.ones(layout.R, device=self.device)
        live[: layout.Q] = there
        return Received(mask, support, found, base, there, live), kept

    def _train(self, job, arrays):
        """Train client ``job["client"]`` and return its update."""
        start = time.perf_counter()
        ready = self._prepared(job, arrays)
        return self._answer(job, *ready, *self._trained(ready[0], job["client"]), start)

    def _prepared(self, job, arrays):
        """``(task, received, known, more)`` of a job's client, ``more`` what estimators want to know of it and what it
        remembers."""
        client, more = job["client"], {}
        received, known = (self._decoded(job, arrays) if "mask" in job else (self.received, self.known))
        task = self._task(client, received, self._round(job), job.get("number"))
        if "memory/values" in arrays:
            more["memory/values"] = arrays["memory/values"]
        if client < len(self.data["features"]):            # not the server's own samples
            more |= {f"score/{label}/{name}": array for label, report in self.parts.reports.items()
                      for name, array in report(task).items()}
            if self.parts.pruner.probe is not None:
                task = task._replace(probe=self.parts.pruner.probe(task))
        return task, received, known, more

    def _train_team(self, jobs, parts):
        """The answers to ``jobs``, each that of a client. Those whose training is plain SGD train side by side, all
        others one by one; so does a team in which something raises, to tell who is at fault."""
        start, answers = time.perf_counter(), []
        try:
            done = self._side_by_side(jobs, parts)
        except torch.cuda.OutOfMemoryError as error:
            done = {row: error for row in range(len(jobs))}          # the team trains again as one
        except FedError:
            raise
        except Exception:
            done = {}
        took = (time.perf_counter() - start) / max(len(done), 1)
        for row, (job, part) in enumerate(zip(jobs, parts)):
            work = partial(self._found, job, done[row], took) if row in done else partial(self._train, job, part)
            meta, arrays = self._tried(job, work)
            if self.stage.reuses:
                arrays = {name: array.copy() for name, array in arrays.items()}
            answers.append((meta, arrays))
        return answers

    def _found(self, job, found, took):
        """The answer of a client of a team, which took seconds; raises where that is what was found."""
        if isinstance(found, Exception):
            raise found
        return self._answer(job, *found, time.perf_counter() - took)

    def _side_by_side(self, jobs, parts):
        """``{row: (task, received, known, more, loss, epochs)}`` of those jobs whose training is plain SGD."""
        ready = {}
        for row, (job, part) in enumerate(zip(jobs, parts)):
            if not any(who and fault.local is not None for fault, who in self._faults(job["client"])):
                task, received, *rest = self._prepared(job, part)
                if task.probe.step is None and task.probe.epoch is None:
                    ready[row] = task._replace(live=received.live), received, *rest
        if len(ready) < 2:
            return {}
        job = jobs[min(ready)]                             # dropout draws for all from the first one's key
        key = _key(self._round(job), job["client"], job.get("number"))
        _seed(self.device, torch_seed(self.parts.seed, Purpose.TRAIN, *key))
        self.wide = self.wide or stacked(self.parts.model, self.layout, self.recorder)
        trained = self.wide([task for task, *_ in ready.values()], **self.parts.strategy.sgd)
        return {row: (task._replace(x=x), *rest, loss, task.epochs)
                for (row, (task, *rest)), (x, loss) in zip(ready.items(), trained)}

    def _answer(self, job, task, received, known, arrays, loss, epochs, start):
        """A client's update; ``arrays`` what else goes with it, and what it remembers."""
        layout = self.layout
        meta = {"kind": "update", "t": self._round(job), "support": received.digest} | {
            name: job[name] for name in ("client", "row")}
        support = received.support
        if not (task.mask is received.there or torch.equal(task.mask, received.there)):
            mask = task.mask.cpu()
            meta["mask"], arrays["mask"] = positions.encode(mask.numpy(), known)
            support = layout.support(mask)
        update, owed = self.stage.difference(task.x, received.base, support), arrays.pop("memory/values", None)
        size = magnitude(update)
        if not (math.isfinite(loss) and size <= LARGEST):
            meta["cause"] = self._why_diverged(job, received)
        # Check before encoding: a codec may make an exploded value look sound.
        if not size <= LARGEST:
            loss = math.nan
        counted = self.sums is not None and "share" in job
        if self.codec.feedback and job["client"] < len(self.data["features"]):
            if owed is not None:
                owed = carried(torch.from_numpy(owed), received.support, support, layout.P)
            values, owed = encoded(self.codec, self.stage.down(update), owed)
            arrays["memory/values"] = owed.numpy()
        elif counted and self.codec.exact and not self.values:
            values = self.codec.encode(torch.empty(len(update)))       # stays here: only its size is wanted
        else:
            values = self.codec.encode(self.stage.down(update))
        arrays |= values
        for name, array in task.probe.report().items():
            if name == "index":
                meta["index"], array = positions.encode(positions.mask_of(array, layout.Q))
            arrays["report/" + name] = array
        arrays["numbers"] = numbers = np.zeros(len(Number))
        numbers[WORK] = len(task.labels) * epochs, task.probe.extra, task.probe.dense * bool(epochs)
        numbers[Number.SAMPLES], numbers[Number.LOSS] = len(task.labels), loss
        numbers[Number.SECONDS] = time.perf_counter() - start
        if counted:                                        # last of all: what raises has not been added
            numbers[Number.BYTES] = frame.size(meta, arrays) - unbilled(meta, arrays, self.parts.weighs)
            if not self.codec.exact:                       # what is owed went along, and may be larger
                update = self.codec.decode(values, len(support)).to(self.device)
                size = magnitude(update)
            if math.isfinite(loss) and size <= LARGEST:
                add(self.sums[: len(update)], update, job["share"], size)
                numbers[Number.SUMMED] = 1
        if not self.values:                                # they have been measured, and stay here
            arrays = {name: array for name, array in arrays.items() if name not in values}
        return meta, arrays

    def _why_diverged(self, job, received):
        """What made a client's update useless, as far as can be seen: one of ``CAUSES``."""
        if any(has and fault.local is not None for fault, has in self._faults(job["client"])):
            return "fault"
        before = self._mean_loss(job["client"], received.base)
        return "training" if math.isfinite(before) else "model"

    def _loss(self, job):
        """The received model's mean loss over a client's samples."""
        return {"row": job["row"]}, {"loss": np.array([self._mean_loss(job["loss"], self.received.base)])}

    def _mean_loss(self, client, vector):
        """The mean loss of the model ``vector (P,)`` over a client's samples. The model is left at ``vector``."""
        x, labels = self._samples(client)
        self.x.copy_(vector)
        self.parts.model.eval()
        total = 0.0
        with torch.no_grad():
            for start in range(0, len(labels), CHUNK):
                rows = slice(start, start + CHUNK)
                total += float(self.parts.objective.loss(self.parts.model(x[rows]), labels[rows], reduction="sum"))
        return total / len(labels)

    def _round(self, job):
        """The round whose model a job trains: the present one, unless it brings a model of its own time."""
        return job.get("t", self.t)

    def _trained(self, task, client):
        """``(loss, epochs)``: local training as the strategy does it, and as the client's faults bend it."""
        epochs = []

        def train():
            epochs.append(task.epochs)
            return self.parts.strategy.local(task)

        for fault, who in self._faults(client):
            if who and fault.local is not None:
                train = partial(fault.local, task, train, self.previous)
        return train(), sum(epochs)

    def _faults(self, client):
        """``(fault, whether the client has it)`` of each kind of fault; none for the server's own samples."""
        if client >= len(self.data["features"]):
            return []
        return list(zip(self.parts.faults, self.data["faults"][:, client]))

    def _task(self, client, received, t, number):
        """The ``Task`` of round ``t``; its random numbers follow from the round, or from the ``number`` of
        its start."""
        parts, key = self.parts, _key(t, client, number)
        self.x.copy_(received.base)
        for counter, fresh in self.counters:                # no trace of the client before
            counter.copy_(fresh)
        mask, live = received.there, received.live
        if parts.pruner.probe is not None:                  # which may change them
            mask, live = mask.clone(), live.clone()
        inputs, labels = self._samples(client)
        _seed(self.device, torch_seed(parts.seed, Purpose.TRAIN, *key))
        return Task(parts.model, self.layout, self.x, self.g, received.base, mask, live, inputs, labels, parts.epochs,
                    parts.batch_size, parts.lr, stream(parts.seed, Purpose.TRAIN, *key), Round(t, parts.rounds),
                    casting=self.casting, recorder=self.recorder, objective=parts.objective)

    def _shard(self, client, rows=slice(None)):
        """``(inputs, labels, indices)`` of the chosen rows of a shard, before anything is done to the inputs."""
        start, stop = self.data["offsets"][client: client + 2]
        index = self.data["indices"][start:stop][rows]
        if self.resident:
            raw = self.resident.x_train[self.resident.indices[start:stop][rows]]
            labels = self.resident.labels[start:stop][rows]
        else:
            raw = torch.from_numpy(self.data["x_train"][index]).to(self.device)
            labels = torch.from_numpy(self.data["labels"][start:stop][rows]).to(self.device)
        return inputs(raw, self.mean, self.std), labels, index

    def _samples(self, client):
        """``(inputs, labels)`` of a client as its feature skew and its faults have made them."""
        x, labels, index = self._shard(client)
        if client >= len(self.data["features"]):
            return laid(x), labels
        level, seed = float(self.data["features"][client]), self.parts.seed
        if level:
            true = torch.from_numpy(self.data["true_labels"][index]).to(self.device)
            source = int(self.data["source"][client])       # a duplicate's inputs are its source's
            gen = stream(seed, Purpose.FEATURES, client if source < 0 else source)
            x = self.parts.features.apply(x, true, level, self.classes, gen)
        for number, (fault, who) in enumerate(self._faults(client)):
            if who and fault.inputs is not None:
                x = fault.inputs(x, stream(seed, Purpose.FAULT, number, client, 1))
        return laid(x), labels

    def _take_cohort(self, meta, arrays):
        self.many = self.many or ensemble(self.parts.model, self.layout, self.parts.objective)
        held = {name: torch.from_numpy(array) for name, array in arrays.items()}
        self.state = {name.removeprefix("state/"): held[name] for name in held if name.startswith("state/")}
        self.cohort = held
        self.updates = Updates(held["U"], held.get("B"), held["support"], held["n"], meta["trained"], held.get("root"))

    def _evaluate(self, job):
        """Minus the loss, and the headline, of each coalition's model on the server's validation samples: the more the
        better."""
        bits = np.unpackbits(np.stack([np.frombuffer(bytes.fromhex(row), np.uint8) for row in job["coalitions"]]),
                             axis=1)
        C, server = len(self.updates.U), len(self.data["features"])
        coalitions = torch.from_numpy(bits[:, :C].astype(bool))
        models = coalition_models(self.parts.strategy, self.state, self.cohort["x"], self.updates,
                                  self.cohort["shares"], coalitions).to(self.device)
        size = int(self.data["offsets"][server + 1] - self.data["offsets"][server])
        try:
            loss, headline = self._validated(models, server, size)
            crowded = False
        except torch.cuda.OutOfMemoryError:
            crowded = True
        if crowded:                                        # out here, where the attempt's tensors are gone
            torch.cuda.empty_cache()
            loss, headline = map(torch.cat, zip(*(self._validated(model[None], server, size) for model in models)))
        objective = self.parts.objective
        worst = objective.worst
        headline = headline / size
        if not objective.higher:
            headline = -headline
        values = torch.stack([-(loss / size).nan_to_num(worst, worst, worst).clamp(max=worst),
                              headline.nan_to_num(-worst, worst, -worst).clamp(-worst, worst)], dim=1)
        return {"block": job["block"], "crowded": crowded}, {"values": values.numpy()}

    def _validated(self, models, server, size):
        """``(loss (M,) float64, headline (M,))``, sums over the server's validation samples, of ``models (M, P)``."""
        loss, headline = torch.zeros(len(models), dtype=torch.float64), 0
        for start in range(0, size, CHUNK):
            x, labels, _ = self._shard(server, slice(start, start + CHUNK))
            summed, found = self.many(models, x, labels)
            loss += summed.cpu()
            headline = headline + found.cpu()
        return loss, headline
