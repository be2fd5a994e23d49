"""From options to the server's parts: the federation of data, the evaluators, the Fed."""

import hashlib
import math
from typing import NamedTuple

import numpy as np
import torch

from fedmpi import catalog
from fedmpi.build import footprint, held_out, server_data, smaller
from fedmpi.build.held_out import HeldOut
from fedmpi.plugins import fit
from fedmpi.transport import place
from fedmpi.build.named import estimators, faults, model
from fedmpi.methods.datasets.dataset import (Dataset, as_they_are, digest, inputs, inputs_text,
                                             laid, model_dtype, taken_as_ids, whole_numbers)
from fedmpi.compute.derivatives import derivatives
from fedmpi.compute.forward import IMAGES, MODELS
from fedmpi.core.errors import UserError
from fedmpi.compute.evaluate import EVALUATED, evaluator
from fedmpi.core.layout import bind
from fedmpi.core.flops import costs, outputs
from fedmpi.methods.noise.corrupt import apply
from fedmpi.build.natural import kept_clients, settled
from fedmpi.methods.partition.natural import Natural
from fedmpi.core.parts import Descent, Facts
from fedmpi.core.rng import Purpose, stream
from fedmpi.server.fold import still
from fedmpi.server.loop import Fed
from fedmpi.compute.sgd import length
from fedmpi.compute.stacked import refusal
from fedmpi.core.tensors import fixed, mode, moving_buffers, normalises_batches
from fedmpi.wire import positions
from fedmpi.methods.codecs.values import fitted

MODEL_VALUES = 1 << 24      # of the coalition models that one job forms: 64 MiB


class Federation(NamedTuple):
    """A data set dealt out to N clients, the server's validation samples taken from the training data first."""

    dataset: Dataset
    validation: np.ndarray        # indices into x_train
    offsets: np.ndarray           # (N + 1,) int64: client n holds rows offsets[n]:offsets[n + 1] of what follows
    indices: np.ndarray           # int64 into x_train
    labels: np.ndarray            # int64, as the clients see them
    noise: np.ndarray             # (N,) fraction of labels that are wrong
    features: np.ndarray          # (N,) level of feature skew
    faults: np.ndarray            # (F, N) bool: who has which fault
    source: np.ndarray            # (N,) int64: the client whose samples this one duplicates, -1 for none
    quality: np.ndarray           # (N,) in [0, 1]: what an estimator of contributions ought to find
    digest: str                   # of the data, the partition, the labels and all that is done to them
    client_names: tuple = ()      # N texts, where clients are those of the data set
    held_out: HeldOut | None = None     # clients' own test parts
    server: np.ndarray = np.empty(0, np.int64)     # indices into x_train of what the server works with itself

    @property
    def sizes(self):
        return np.diff(self.offsets)

    @property
    def shape(self):
        return self.dataset.x_train.shape[1:]


def loaded(options):
    """``(options, Federation)``: what nobody named and the data decide is decided in the
    options."""
    dataset = catalog.make(catalog.DATASETS, options["dataset"], options["data_dir"])
    options = settled(options, dataset.client, dataset.client_names)
    return options, federation(options, dataset)


def federation(options, dataset=None):
    """The ``Federation`` that the options describe; the same for the same options, wherever it is
    made. Their ``dataset`` is loaded where it is not given."""
    if dataset is None:
        dataset = catalog.make(catalog.DATASETS, options["dataset"], options["data_dir"])
    dataset = _as_model_takes(options, dataset)
    partition = catalog.make(catalog.PARTITIONS, options["partition"])
    owner, names = _natural(options, partition, dataset)
    validation, pool = _split(options, dataset, partition, owner)
    spare = None if owner is None else lambda order: partition.spare(owner[order])
    server, pool = server_data.taken(options, dataset, pool, len(pool) + len(validation), spare)
    of_pool = dataset.y_train[pool] if owner is None else owner[pool]
    shards = [pool[shard] for shard in _dealt(options, partition, of_pool)]
    shards, tests = held_out.parted(shards, options["client_test"], options["seed"])
    given, faulty = faults(options), _faulty(options)
    if sum(fault.shards is not None for fault in given) > 1:
        raise UserError("--fault duplicate may be given once: a copy of a copy would not be what it is recorded as")
    source = np.full(len(shards), -1)
    for number, (fault, who) in enumerate(zip(given, faulty)):
        if fault.shards is not None:
            gen = stream(options["seed"], Purpose.FAULT, number, len(shards), 1)
            shards, copied = _named(f"--fault {options['fault'][number]}", fault.shards, shards, who, gen)
            source = np.where(copied >= 0, copied, source)
    labels, noise = _labels(options, dataset, shards, source, given, faulty)
    skew = catalog.make(catalog.FEATURES, options["features"])
    features = skew.levels(len(shards), stream(options["seed"], Purpose.FEATURES, len(shards)))
    tests = held_out.held_out(tests, features, options["client_test"])
    features = np.where(source >= 0, features[source], features)         # a duplicate sees what its source sees
    quality = np.min([1 - noise] + [np.where(who, fault.quality, 1) for fault, who in zip(given, faulty)], axis=0)
    offsets = np.concatenate([[0], np.cumsum([len(shard) for shard in shards])]).astype(np.int64)
    indices, labels = np.concatenate(shards), np.concatenate(labels)
    name = hashlib.sha256(digest(dataset).encode())
    for array in (validation, server, offsets, indices, labels, features, faulty):
        name.update(array)
    for array in tests or ():
        name.update(array)
    return Federation(dataset, validation, offsets, indices, labels, noise, features, faulty, source, quality,
                      name.hexdigest(), names, tests, server)


def _as_model_takes(options, dataset):
    """The data set, not normalised where its samples may be ids and the model looks them up in an
    embedding; as it is where no model is named."""
    if not dataset.ids or as_they_are(dataset) or options["model"] is None:
        return dataset
    network = model(options, dataset.x_train.shape[1:], dataset.classes)
    if not fit.looks_up(network):
        return dataset._replace(ids=False)
    return taken_as_ids(dataset)


def data_lines(options, fed_data):
    """Lines about data of the user's own: how they were read, and what reaches the model."""
    dataset = fed_data.dataset
    if not dataset.told and options["dataset"].partition(":")[0] != "hdf5":
        return []
    return [*dataset.told, f"inputs: {inputs_text(dataset)}"]


def _natural(options, partition, dataset):
    """``(owner (N,), names)`` of the data set's own clients, an owner of -1 is left out; ``(None,
    ())`` where the partition is another one."""
    if not isinstance(partition, Natural):
        return None, ()
    owner, kept = kept_clients(options, partition, dataset.client, dataset.client_names)
    return owner, tuple(dataset.client_names[client] for client in kept)


def _split(options, dataset, partition, owner):
    """``(validation, pool)``: sorted indices of the training samples that the server keeps, and of
    those dealt out. Natural clients, each sample's ``owner``, keep what they need."""
    if options["train_samples"] > len(dataset.y_train):
        raise UserError(f"--train-samples {options['train_samples']}: {options['dataset']} has {len(dataset.y_train)}")
    order = stream(options["seed"], Purpose.SPLIT).permutation(len(dataset.y_train))
    if owner is not None:
        order = order[owner[order] >= 0]
    order = order[: options["train_samples"] or None]
    held_back = round(options["validation"] * len(order))
    if owner is None:
        return np.sort(order[:held_back]), np.sort(order[held_back:])
    kept = order[partition.spare(owner[order])][:held_back]
    if held_back and not len(kept):
        raise UserError(f"--validation {options['validation']}: every client needs all of its "
                        "samples; give --validation 0")
    return np.sort(kept), np.setdiff1d(order, kept)


def _dealt(options, partition, labels):
    """Index arrays into ``labels`` (of natural clients: whose each sample is), one a client."""
    deal = partition.dealt if isinstance(partition, Natural) else partition
    return _named(f"--partition {options['partition']}", deal, labels, options["clients"],
                  stream(options["seed"], Purpose.PARTITION))


def _named(option, function, *arguments):
    """``function(*arguments)``; where it refuses them, the user is told by which option."""
    try:
        return function(*arguments)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from error


def _faulty(options):
    """(F, N) bool: which clients have which fault."""
    N = options["clients"]
    return np.array([fault.who(N, stream(options["seed"], Purpose.FAULT, number, N))
                     for number, fault in enumerate(faults(options))], bool).reshape(-1, N)


def _labels(options, dataset, shards, source, given, faulty):
    """``(labels as each client sees them, fraction of them that is wrong)``: noise first, which a duplicate shares with
    its ``source (N,)``, then the faults that flip."""
    seed, true = options["seed"], [dataset.y_train[shard] for shard in shards]
    labels, _ = _named(f"--noise {options['noise']}", apply, catalog.make(catalog.NOISES, options["noise"]), true,
                       dataset.classes, lambda client: stream(seed, Purpose.NOISE, client))
    for client in np.flatnonzero(source >= 0):
        of = source[client]
        order = np.argsort(shards[of])
        place = np.searchsorted(shards[of], shards[client], sorter=order).clip(max=len(order) - 1)
        labels[client] = np.where(shards[of][order[place]] == shards[client], labels[of][order[place]], labels[client])
    for number, (fault, who) in enumerate(zip(given, faulty)):
        if fault.labels is not None:
            for client in np.flatnonzero(who):
                labels[client] = _named(f"--fault {options['fault'][number]}", fault.labels, labels[client],
                                        dataset.classes, stream(seed, Purpose.FAULT, number, client))
    wrong = [np.count_nonzero(seen != right) / max(len(right), 1) for seen, right in zip(labels, true)]
    return labels, np.array(wrong)


def dealt(options, fed_data):
    """How the data are dealt out and what is wrong with them, for people: ``partition iid, noise none (no label is
    changed)``."""
    low, high = 100 * fed_data.noise.min(), 100 * fed_data.noise.max()
    wrong = f"{low:.0f} to {high:.0f} % of a client's labels are wrong" if high else "no label is changed"
    more = [f"{name} {options[name]}" for name in ("features",) if options[name] != "none"]
    more += [f"fault {spec}" for spec in options["fault"]]
    told = [f"partition {options['partition']}", f"noise {options['noise']}", *more]
    return f"{', '.join(told)} ({wrong})"


def population(fed_data, options):
    """What the run file records about every client, as ``{name: (array, unit, description, dimension of a second
    axis)}``: all that was injected."""
    owner = np.repeat(np.arange(len(fed_data.sizes)), fed_data.sizes)

    def histogram(labels):
        counts = np.zeros((len(fed_data.sizes), fed_data.dataset.classes), np.int64)
        np.add.at(counts, (owner, labels), 1)
        return counts

    found = {
        "samples": (fed_data.sizes, "1", "training samples"),
        "noise": (fed_data.noise, "1", "fraction of labels that are wrong, as injected"),
        "features": (fed_data.features, "1", f"level of feature skew, see fedmpi list features {options['features']}"),
        "quality": (fed_data.quality, "1",
                    "1 - noise, at most what its faults leave: what a contribution ought to find"),
        "duplicate_of": (fed_data.source, "1", "the client whose samples it duplicates, -1 for none"),
        "labels": (histogram(fed_data.labels), "1", "samples by label as the client sees them, noise included",
                   "class"),
        "true_labels": (histogram(fed_data.dataset.y_train[fed_data.indices]), "1", "samples by true label", "class"),
    }
    if fed_data.client_names:
        texts = np.array([name.encode() for name in fed_data.client_names])
        found["name"] = texts, "", "what the data set calls the client"
    if fed_data.held_out is not None:
        found["test_samples"] = fed_data.held_out.sizes, "1", "samples of its own test part, see --client-test"
    for number, (spec, who) in enumerate(zip(options["fault"], fed_data.faults)):
        found[f"fault_{number}"] = (who, "1", f"whether the client is faulty by {spec}")
    return found


def shared_arrays(fed_data):
    """What every rank of a node shares; the last two shards are the server's validation samples and those that it works
    with itself."""
    dataset, kept, own = fed_data.dataset, fed_data.validation, fed_data.server
    ends = fed_data.offsets[-1] + np.cumsum([len(kept), len(own)])
    return {"x_train": dataset.x_train, "true_labels": dataset.y_train,
            "offsets": np.append(fed_data.offsets, ends),
            "indices": np.concatenate([fed_data.indices, kept, own]),
            "labels": np.concatenate([fed_data.labels, dataset.y_train[kept], dataset.y_train[own]]),
            "features": fed_data.features, "faults": fed_data.faults, "source": fed_data.source,
            **held_out.shared(fed_data.held_out)}


def without_pixels(fed_data):
    """The federation without the training pixels, which every node then has once, in its shared file."""
    x = fed_data.dataset.x_train
    return fed_data._replace(dataset=fed_data.dataset._replace(x_train=np.empty((0, *x.shape[1:]), x.dtype)))


def cut(fed_data, most):
    """The federation with at most ``most`` samples a client."""
    spans = zip(fed_data.offsets[:-1], fed_data.offsets[1:])
    kept = [np.arange(begin, min(end, begin + most)) for begin, end in spans]
    rows = np.concatenate(kept)
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in kept])]).astype(np.int64)
    return fed_data._replace(offsets=offsets, indices=fed_data.indices[rows], labels=fed_data.labels[rows])


def setup_message(fed_data, fed, options, state):
    """``(meta, arrays)`` from which a worker builds its parts; it also holds the mask of the last model message, so
    that a resumed run sends the same bytes as one never stopped."""
    dataset = fed_data.dataset
    known, array = positions.encode(state["sent"].numpy())
    return {"kind": "setup", "shape": list(fed_data.shape), "classes": dataset.classes, "mean": list(dataset.mean),
            "std": list(dataset.std), "options": options, "known": known, "sums": fed.sums, "values": fed.values,
            "statistics": [slot.name for slot in fed.layout.buffers], "constants": fed.fixed.constants
            }, {"known": array, "frozen": fed.fixed.frozen}


def fitting(options, fed_data):
    """The run's network, checked on samples of the data; on the CPU."""
    network = model(options, fed_data.shape, fed_data.dataset.classes)
    _check_fit(options, network, fed_data)
    return network


def _check_fit(options, network, fed_data):
    """UserError where the network does not fit the data."""
    _check_takes(options, network, fed_data)
    fit.check_outputs(network, sample(fed_data, 2), fed_data.dataset.classes, f"--model {options['model']}")


def server_parts(options, fed_data, device):
    """``(Fed, x)``: the server's parts, its transport still missing, and the initial model vector on the CPU."""
    network = model(options, fed_data.shape, fed_data.dataset.classes)
    # A pass may register more, such as a table that is made when it is first looked at: workers do not have that yet.
    buffers = {name for name, _ in network.named_buffers()}
    _check_fit(options, network, fed_data)
    network = network.to(device)
    layout, x = bound(options, fed_data, network)
    strategy = catalog.make(catalog.STRATEGIES, options["strategy"])
    if strategy.fits is not None:
        _named(f"--strategy {options['strategy']}", strategy.fits, network, sample(fed_data).to(device))
    layout = _named(f"--strategy {options['strategy']}", layout.with_personal, strategy.personal)
    first = x.cpu().clone()
    test, validate, slopes = evaluators(fed_data, network, layout, x, device)
    weighting = catalog.make(catalog.WEIGHTINGS, options["weighting"])
    pruner, contributions = catalog.make(catalog.PRUNERS, options["pruner"]), estimators(options)
    aggregation = catalog.make(catalog.AGGREGATIONS, options["aggregation"])
    sums, normalises = adds_up(strategy, pruner, weighting, aggregation), normalises_batches(network)
    schedule, steps = catalog.make(catalog.SCHEDULES, options["schedule"]), int(lengths(options, fed_data)[1].max())
    fed = Fed(layout=layout, strategy=strategy, pruner=pruner, contributions=contributions, weighting=weighting,
              codec=fitted(catalog.make(catalog.CODECS, options["codec"]), len(layout.tail)),
              sampler=catalog.make(catalog.SAMPLERS, options["sampler"]),
              devices=catalog.make(catalog.DEVICES, options["devices"]), aggregation=aggregation,
              transport=None, test=test, validate=validate, sums=sums,
              values=not sums or any(part.updates for part in contributions.values()),
              on_error=options["on_error"], quorum=options["quorum"], every=options["evaluate_every"],
              server=server_data.holdings(options, strategy, fed_data),
              least=least(options, fed_data, normalises), derivatives=slopes, block=block(layout.P),
              stale=any(fault.stale for fault in faults(options)),
              sizes=torch.from_numpy(fed_data.sizes.astype(np.float64)), together=options["together"],
              cohort=options["cohort"] or options["clients"],
              rounds=options["rounds"], seed=options["seed"],
              costs=costs(network, layout, sample(fed_data).to(device)), fixed=fixed(network, layout, buffers),
              batch_norm=normalises,
              lr=lambda now: options["lr"] * schedule.rate(now, 0, steps),
              structure=smaller.structure(options, pruner, network, layout, x,
                                          sample(fed_data, 2).to(device)))
    trained = aggregation.buffer or fed.cohort
    tests = held_out.own_tests(options, fed_data, trained, network, sample(fed_data).to(device))
    return fed._replace(own_tests=tests), first


def sample(fed_data, count=1):
    """``count`` inputs (count, ...) as models get them: the first of the test samples, again where those are fewer."""
    dataset = fed_data.dataset
    raw = dataset.x_test[np.arange(count) % len(dataset.x_test)]
    return laid(inputs(torch.from_numpy(raw), dataset.mean, dataset.std))


def bound(options, fed_data, network):
    """``(layout, x (P,))`` of the network, which now lives in ``x``."""
    device = next(network.parameters()).device
    option = f"--model {options['model']}"
    moving = _named(option, moving_buffers, network, sample(fed_data, 2).to(device))
    layout, x, _ = _named(option, bind, network, moving)
    return layout, x


def _check_takes(options, network, fed_data):
    """UserError where the samples are whole numbers and the network takes the same as floats
    only."""
    if model_dtype(fed_data.dataset) == torch.float32:
        return
    samples = sample(fed_data)
    why = _failure(network, samples)
    if why and not _failure(network, samples.float()):
        raise UserError(f"--model {options['model']} takes floats, and the data set's samples are "
                        f"whole numbers, which reach it as {inputs_text(fed_data.dataset)} "
                        f"({why}); say normalise=true of the data set, or take a model that looks "
                        "them up in an nn.Embedding")


def _failure(network, samples):
    """The first line of what the network says to the samples; empty where it takes them."""
    try:
        with torch.no_grad(), mode(network, training=False):
            network(samples)
    except (RuntimeError, TypeError, IndexError) as error:
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return ""


def block(P):
    """Coalition models of P values that one job evaluates."""
    return max(1, min(MODELS, MODEL_VALUES // P))


def adds_up(strategy, pruner, weighting, aggregation):
    """Whether workers may add up the updates of their clients: the merge is a weighted mean, its weights are known
    before training, all train the same mask, and all answers are waited for. It follows from how updates are merged,
    not from the ranks or from who observes, and so do the bits."""
    waits = not aggregation.buffer and not aggregation.over and aggregation.deadline == math.inf
    same = pruner.masks is None and pruner.units is None and not pruner.moves
    return strategy.additive and weighting.fixed and same and waits


def least(options, fed_data, normalises=False):
    """float64 (N,): how many samples each client's training sees at least; 0 where a fault may cut it short.
    ``normalises``: whether the model normalises over batches."""
    bent = np.zeros(len(fed_data.sizes), bool)
    for fault, who in zip(faults(options), fed_data.faults):
        bent |= who & (fault.local is not None)
    return torch.from_numpy(np.where(bent, 0.0, lengths(options, fed_data, normalises)[2]))


def lengths(options, fed_data, normalises=False):
    """int64 (3, N): epochs, the last perhaps cut short, steps and samples of each client's training in a round;
    ``normalises``: whether the model normalises over batches."""
    found = {n: length(n, options["batch_size"], options["local_epochs"], options["local_steps"], normalises)
             for n in np.unique(fed_data.sizes).tolist()}
    return np.array([found[n] for n in fed_data.sizes.tolist()]).T


def evaluators(fed_data, network, layout, x, device):
    """``(test, validate, derivatives)``; the last two are None where the validation share is 0."""
    dataset, kept = fed_data.dataset, fed_data.validation

    def on(make, pixels, labels, *arguments):
        samples = laid(inputs(torch.from_numpy(pixels).to(device), dataset.mean, dataset.std))
        return make(network, *arguments, x, samples, torch.from_numpy(labels).to(device))

    test = on(evaluator, dataset.x_test, dataset.y_test)
    if not len(kept):
        return test, None, None
    return (test, on(evaluator, dataset.x_train[kept], dataset.y_train[kept]),
            on(derivatives, dataset.x_train[kept], dataset.y_train[kept], layout))


def check(options, fed_data, fed, x):
    """Raise UserError for what cannot work on this federation, before any worker trains."""
    N = len(fed_data.sizes)
    if not 1 <= fed.cohort <= N:
        raise UserError(f"--cohort must be between 1 and the {N} clients, got {fed.cohort}")
    wanting = [name for name, part in fed.contributions.items() if part.validated]
    if wanting and fed.validate is None:
        raise UserError(f"{wanting[0]} needs validation samples; give --validation 0.1, say")
    server_data.check(options, fed.strategy, len(fed_data.server))
    for line in fed.strategy.refuses(_facts(options, fed_data, fed)):
        raise UserError(f"--strategy {options['strategy']}: {line}")
    check_time(options, fed)
    smaller.check_run(options, fed, faults(options))
    _check_whole(options, fed_data)
    _check_images(options, fed_data)
    if fed.together > 1 and (why := apart(options, fed_data)):
        raise UserError(f"--together {fed.together} trains clients side by side, but {why}; take --together 1")
    largest = N if next(iter(fed.contributions.values())).opening else fed.aggregation.buffer or fed.cohort
    for name, part in fed.contributions.items():
        if part.check is not None:
            part.check(largest, fed.layout)
    if fed.pruner.check is not None:
        fed.pruner.check(N, fed.layout)
    if fed.batch_norm:
        _check_batches(options, fed_data, fed)
    _rehearse(options, fed_data, fed, x)


def _check_batches(options, fed_data, fed):
    """UserError where batch norm would get a batch of one sample, which has no variance."""
    smallest, kept = int(fed_data.sizes.min()), len(fed_data.server)
    instead = "or take a model without batch normalisation"
    if options["batch_size"] < 2:
        raise UserError(f"--batch-size {options['batch_size']}: batch normalisation cannot train on batches of one "
                        f"sample: give 2 or more, {instead}")
    if smallest < 2:
        raise UserError(f"a client holds {smallest} sample, which batch normalisation cannot train on: ask the "
                        f"partition for min_size=2 or more, {instead}")
    if kept == 1:
        raise UserError(f"--strategy {options['strategy']} works with the server's {kept} sample, on which batch "
                        f"normalisation cannot train: give a larger --server-data, {instead}")


def _check_whole(options, fed_data):
    """UserError for what would change the values of inputs that are ids: another one is not a
    little noisier. Plug-ins may know what they do."""
    if not whole_numbers(fed_data.dataset):
        return
    changing = [f"--features {options['features']}"] * bool(fed_data.features.any())
    for spec, fault, who in zip(options["fault"], faults(options), fed_data.faults):
        changing += [f"--fault {spec}"] * bool(fault.inputs is not None and who.any())
    for option in changing:
        if catalog.split(option.partition(" ")[2])[0] in (*catalog.FEATURES, *catalog.FAULTS):
            raise UserError(f"{option} changes the values of inputs, and these are whole numbers "
                            "that reach the model as they are; leave it out, or say normalise=true "
                            "of the data set")


def _check_images(options, fed_data):
    """UserError where augmentation would get what is no image, or ids."""
    if not options["augment"]:
        return
    shape, option = fed_data.shape, f"--augment {','.join(options['augment'])}"
    if len(shape) != 3:
        raise UserError(f"{option} changes images (channels, height, width), and the samples are of shape "
                        f"{tuple(shape)}; leave it out")
    if model_dtype(fed_data.dataset) != torch.float32 or whole_numbers(fed_data.dataset):
        raise UserError(f"{option} changes images, and these samples are whole numbers that reach the model as they "
                        "are; leave it out")


def apart(options, fed_data):
    """Why no two clients of this run can be trained side by side: half a line, empty where some can."""
    if not isinstance(catalog.make(catalog.STRATEGIES, options["strategy"]).local, Descent):
        return f"--strategy {options['strategy']} has a way of training of its own"
    if not least(options, fed_data).any():
        return "all of them are at fault and train in ways of their own"
    aggregation = catalog.make(catalog.AGGREGATIONS, options["aggregation"])
    if (aggregation.concurrency or options["cohort"] or options["clients"]) == 1:
        return "only one is at work at a time"
    network = model(options, fed_data.shape, fed_data.dataset.classes)
    layout, _ = bound(options, fed_data, network)
    why = refusal(network, layout, sample(fed_data, 2))
    return why and f"not those of --model {options['model']}: {why}"


def check_time(options, fed):
    """UserError for samplers and ways of aggregation that do not go with the rest."""
    name, buffer = options["aggregation"], fed.aggregation.buffer
    at_work, N = fed.aggregation.concurrency or fed.cohort, len(fed.sizes)
    refused = {
        f"--sampler {options['sampler']} asks clients for the loss of one common model; --pruner {options['pruner']} "
        "gives everybody a model of their own": fed.sampler.candidates and fed.pruner.masks is not None,
        f"--aggregation {name} leaves the slow out, which needs a model of time: --devices drawn, say":
            options["devices"] == "none" and (fed.aggregation.over > 0 or fed.aggregation.deadline < math.inf),
        f"--aggregation {name} merges as answers arrive, which needs a model of time: --devices drawn, say":
            buffer and options["devices"] == "none",
        f"--aggregation {name}: {at_work} clients at work and {buffer} answers a merge need --clients "
        f"{at_work + buffer - 1} at least, got {N}: nobody counts twice in a merge":
            buffer and at_work + buffer - 1 > N,
        f"--aggregation {name} with --sampler {options['sampler']}: there is no cohort to choose":
            buffer and fed.sampler.candidates,
        f"--cohort {options['cohort']} with --aggregation {name}: its concurrency is how many are at work":
            buffer and options["cohort"] and fed.aggregation.concurrency,
        f"--aggregation {name} with --sampler {options['sampler']}: its candidates are already more than are needed":
            fed.aggregation.over and fed.sampler.candidates,
        f"--aggregation {name} asks more clients than are needed, but all {N} are asked already: give a --cohort below "
        "that, or no over": fed.aggregation.over and fed.cohort == N,
        f"--aggregation {name} with --pruner {options['pruner']}: its clients report on rounds, which asynchronous "
        "clients do not share; take static, set, residual or dense": buffer and (fed.pruner.probe or fed.pruner.masks),
        f"--aggregation {name} with --strategy {options['strategy']}: the server's own update belongs to a round":
            buffer and fed.strategy.before,
        f"--aggregation {name} with a stale free-rider: there is no common round before": buffer and fed.stale,
        f"--aggregation {name} with --contribution {options['contribution']}, which wants everybody in round 1":
            buffer and next(iter(fed.contributions.values())).opening,
    }
    for line, wrong in refused.items():
        if wrong:
            raise UserError(line)
    if fed.sampler.check is not None:
        fed.sampler.check(1 if buffer else fed.cohort, N)


def _rehearse(options, fed_data, fed, x):
    """One merge of a cohort that changed nothing and the feature skew of one sample, for what they refuse."""
    C = fed.aggregation.buffer or fed.cohort
    nothing = still(fed.layout, fed.strategy, C, len(fed.sizes))
    _named(f"--strategy {options['strategy']}", fed.strategy.merge, fed.strategy.init(fed.layout), x, nothing,
           torch.full((C,), 1 / C, dtype=torch.float64))
    if fed_data.features.any():
        sample = torch.zeros(1, *fed_data.shape, dtype=model_dtype(fed_data.dataset))
        _named(f"--features {options['features']}", catalog.make(catalog.FEATURES, options["features"]).apply, sample,
               torch.zeros(1, dtype=torch.int64), float(fed_data.features.max()), fed_data.dataset.classes,
               stream(options["seed"], Purpose.FEATURES, 0))


def warnings(options, fed_data, fed):
    """What the user may not have meant, a line each: nothing that is wrong."""
    yield from _without_effect(options, fed_data)
    yield from held_out.remarks(options, fed_data)
    yield from _notes(options, fed_data, fed)
    for spec, who in zip(options["fault"], fed_data.faults):
        if not who.any():
            yield f"--fault {spec} hits none of the {len(who)} clients: its share rounds to 0"
    if fed.strategy.chooses and options["weighting"] != "uniform":
        yield (f"--strategy {options['strategy']} takes one client's update: --weighting {options['weighting']} "
               "decides at most who is left out")
    everybody = fed.cohort == len(fed.sizes) and not fed.aggregation.buffer
    if everybody and catalog.split(options["sampler"])[0] != "uniform":
        yield (f"--sampler {options['sampler']} has no effect: all {len(fed.sizes)} clients take part in every round; "
               "give a --cohort below that")
    if fed.aggregation.buffer == 1:
        yield (f"--aggregation {options['aggregation']} merges single answers: --weighting {options['weighting']} "
               "plays no part, and remembered scores, by which --sampler contribution draws, do not move")
    yield from unused(fed)


def unused(fed):
    """A line where prunable weights are in no product that one sample's forward pass takes: their FLOPs count as 0."""
    names = [slot.name for slot, uses in zip(fed.layout.weights, fed.costs.uses) if not uses]
    if names:
        more = f" and {len(names) - 3} more" * (len(names) > 3)
        yield (f"{', '.join(names[:3])}{more} of the model are in no matrix product or convolution of a forward pass: "
               "their FLOPs count as 0; a parameter with the attribute prunable = False is left dense")


def _without_effect(options, fed_data):
    """Lines about options of the run that change nothing in it."""
    injected = (("noise", fed_data.noise, "label"), ("features", fed_data.features, "input"))
    for option, levels, what in injected:
        if options[option] != "none" and not levels.any():
            yield f"--{option} {options[option]} has no effect: no client has a changed {what}"
    until, rounds = options["until"], options["rounds"]
    if until >= rounds:
        yield f"--until {until} has no effect: the run ends after --rounds {rounds}"
    estimated = [options["contribution"]]
    for spec in options["observe"]:
        if spec in estimated:
            yield f"--observe {spec} is estimated already: it costs as much again, for nothing new"
        estimated.append(spec)


def _facts(options, fed_data, fed):
    """What parts may know of this run."""
    epochs, steps, _ = lengths(options, fed_data).max(axis=1).tolist()
    estimators_by_option = zip(("contribution", *["observe"] * len(options["observe"])),
                               (options["contribution"], *options["observe"]), fed.contributions.values())
    return Facts(
        fed.layout,
        judged=tuple(f"--{option} {spec}" for option, spec, part in estimators_by_option
                     if part.updates or part.validated),
        fixed_masks=fed.pruner.fixed,
        candidates=fed.sampler.candidates > 0,
        coded=not fed.codec.exact,
        own_tests=fed.own_tests is not None,
        rounds=fed.rounds,
        epochs=epochs,
        steps=steps,
        cohort=fed.aggregation.buffer or fed.cohort,
        everybody=fed.cohort == len(fed.sizes) and not fed.aggregation.buffer,
        own_masks=(fed.pruner.masks is not None or fed.pruner.units is not None or fed.pruner.moves
                   or fed.aggregation.buffer > 0))


def _notes(options, fed_data, fed):
    """What the parts themselves tell of this run, see ``parts.Facts``."""
    facts = _facts(options, fed_data, fed)
    weighing, *observing = fed.contributions.values()
    parts = [("strategy", options["strategy"], fed.strategy),
             ("schedule", options["schedule"], catalog.make(catalog.SCHEDULES, options["schedule"])),
             ("pruner", options["pruner"], fed.pruner),
             ("weighting", options["weighting"], fed.weighting)]
    yield from _told(parts, facts)
    judge = [("contribution", options["contribution"], weighing)]
    yield from _told(judge, facts._replace(scored=not fed.weighting.fixed))
    observed = [("observe", spec, part) for spec, part in zip(options["observe"], observing)]
    yield from _told(observed, facts._replace(scored=False))


def _told(parts, facts):
    """The notes of ``[(option of the run, what it says, part)]``; each part knows which of its own options are
    given."""
    for option, spec, part in parts:
        kind = "contribution" if option == "observe" else option
        given = frozenset(catalog.parse(catalog.KINDS[kind], spec)[1])
        for line in part.notes(facts._replace(given=given)):
            yield f"--{option} {spec}: {line}"


def fits(options, fed_data, fed, places):
    """Lines about nodes whose memory may not do for the ranks at ``places``; UserError for a GPU that cannot hold
    its."""
    layers = outputs(model(options, fed_data.shape, fed_data.dataset.classes), sample(fed_data))
    P, batch_size = fed.layout.P, options["batch_size"]
    refused = list(footprint.gpu_refusals(_shares(options, places), *gpu_needs(options, fed_data, P, layers)))
    if refused:
        raise UserError(refused[0])
    data_bytes = fed_data.dataset.x_train.nbytes
    for ranks in place.by_node(places).values():
        need = footprint.host_need(P, layers, batch_size=batch_size, cohort=fed.cohort, data_bytes=data_bytes,
                                ranks=len(ranks), first=0 in ranks, together=min(fed.together, fed.cohort),
                                memories=len(fed.sizes) * fed.codec.feedback)
        left = min(places[rank]["memory_bytes"] for rank in ranks)
        if need > left:
            yield (f"{places[ranks[0]]['host']} has {left / 1e9:.1f} GB of memory left, its {len(ranks)} ranks may "
                   f"need {need / 1e9:.1f} GB more: take fewer ranks a node, or a smaller --batch-size")


def planned_needs(options):
    """``gpu_needs`` before there is anything; loads the data and builds the model, on the CPU. DataError without
    data."""
    fed_data = federation(options)
    network = fitting(options, fed_data)
    layers = outputs(network, sample(fed_data))
    return gpu_needs(options, fed_data, bound(options, fed_data, network)[0].P, layers)


def gpu_needs(options, fed_data, P, layers):
    """``(worker, server)``: the ``Need`` of either on a GPU, for a model of P values that puts out ``layers``."""
    sample = model_dtype(fed_data.dataset).itemsize * int(np.prod(fed_data.shape))
    held = len(fed_data.dataset.y_test) + 2 * len(fed_data.validation)
    return (footprint.worker_need(P, layers, batch_size=options["batch_size"], block=block(P), images=IMAGES,
                               samples_bytes=int(fed_data.sizes.max()) * sample,
                               together=min(options["together"] or 1, options["cohort"] or options["clients"])),
            footprint.server_need(P, layers, samples_bytes=held * sample, batch_size=EVALUATED))


def _shares(options, places):
    """``[(name, free bytes, workers, whether the server is there)]`` of every GPU in use whose memory is known."""
    for ranks in place.by_node(places).values():
        known = place.free_of(places, ranks)
        for name, users in place.by_gpu(places, ranks).items():
            gpu = place.gpu_of(places[users[0]])
            free = known.get(gpu["uuid"], gpu["total_bytes"])
            workers = len(users) - (0 in users) if len(places) > 1 else int(options["device"] == "cuda")
            yield (f"gpu {name} ({gpu['name']}) of {places[users[0]]['host']}", free, workers,
                   0 in users and options["server_device"] == "cuda")
