"""The memory that a run needs, on each of its nodes and GPUs."""

import math

import numpy as np
import torch

from fedmpi.catalog import TASKS
from fedmpi.plugins.spec import make
from fedmpi.build import footprint, vectors
from fedmpi.build.parts import network_of, of_data
from fedmpi.build.network import network
from fedmpi.build.server import block
from fedmpi.build.setup import dealt_out
from fedmpi.compute.evaluate import evaluated
from fedmpi.compute.forward import IMAGES
from fedmpi.core.allocator import LARGE
from fedmpi.core.errors import UserError
from fedmpi.core.parts import Round
from fedmpi.core.rng import Purpose, stream
from fedmpi.core.words import plural
from fedmpi.methods.datasets.dataset import model_dtype, num_test
from fedmpi.server import client_states
from fedmpi.transport import place


def fits(setup, places):
    """Lines about nodes that may have too little memory for their ranks at ``places``. UserError
    for such a GPU."""
    needs = gpu_needs(setup.options, setup.data, setup.network)
    shares = _shares(setup.options, places)
    for refusal in footprint.gpu_refusals(shares, *needs):
        raise UserError(refusal)
    for ranks in place.by_node(places).values():
        # Each rank reports the memory that it may still get.
        left = min(places[rank]["memory_bytes"] for rank in ranks)
        host = places[ranks[0]]["host"]
        warning = host_fits(setup, len(ranks), 0 in ranks, left, host)
        if warning:
            yield warning


def host_fits(setup, ranks, first, left, host):
    """A line about too little memory for so many ranks of a node, empty if it may do.

    ``first``: rank 0 is one of them. ``left``: bytes that they may still get on ``host``. UserError
    if the vectors of the model alone take more.
    """
    need = host_need(setup, ranks, first)
    if need.total <= left:
        return ""
    left_gb = left / 1e9
    there = f"{host} has {left_gb:.1f} GB of memory left, its {plural(ranks, 'rank')}"
    layout = setup.run.layout
    # A small model's estimate is too rough to refuse by.
    if layout.P >= LARGE and need.vectors > left:
        raise UserError(
            f"{there} need {need.vectors / 1e9:.1f} GB more for vectors of {layout.num_values:,} "
            f"values ({in_words(setup, ranks, first)}): take fewer ranks a node, more nodes, a "
            "smaller model, or an optimiser with fewer vectors")
    return (f"{there} may need {need.total / 1e9:.1f} GB more: take fewer ranks a node, or a "
            "smaller --batch-size")


def in_words(setup, ranks, first):
    """``2 workers 2 GB each, rank 0 2 GB, shared 2 GB``: the vectors of the ranks of a node."""
    held = vectors_of(setup)
    P = setup.run.layout.P
    own, served, shared = (P * sum(purposes.values()) / 1e9 for purposes in held)
    workers = _workers_of(ranks, first)
    parts = [f"{plural(workers, 'worker')} {own:.2g} GB each"]
    if first:
        parts.append(f"rank 0 {served:.2g} GB")
    parts.append(f"shared {shared:.2g} GB")
    return ", ".join(parts)


def host_need(setup, ranks, first):
    """The ``Hosted`` of this many ranks of one node; ``first``: rank 0 is one of them."""
    run = setup.run
    network = setup.network
    return footprint.host_need(
        vectors_of(setup),
        network.layout.P,
        network.output_bytes,
        batch_size=_at_once(setup.options),
        # Ranks of a node share both.
        data_bytes=setup.data.dataset.x_train.nbytes + _frozen_bytes(network.layout),
        workers=_workers_of(ranks, first),
        first=first,
        together=min(run.together or 1, run.cohort))


def _workers_of(ranks, first):
    """The workers among the ranks of a node; a process alone is rank 0 and a worker."""
    return max(1, ranks - first)


def vectors_of(setup):
    """The ``Held`` of a run: vectors of its ranks, by purpose."""
    run, parts = setup.run, setup.parts
    layout = run.layout
    # Of one value: which of the optimiser's tensors are vectors.
    moments = sum(tensor.ndim > 0 for tensor in parts.optimiser.init(torch.zeros(1)).values())
    strategy = run.strategy
    kept = _on_support(run.kept_fields)
    inner = _on_support(run.inner)
    memories = kept * len(run.sizes)
    if client_states.spills(run.kept_fields, layout, len(run.sizes)):
        # They lie in files.
        memories = 0
    return vectors.held(vectors.Run(
        P=layout.P,
        kept_frac=_kept_frac(setup),
        moments=moments,
        kept=kept - inner,
        inner=inner,
        memories=memories,
        server=_server_vectors(run),
        sent=_on_support(strategy.sends),
        answers=_on_support(strategy.answers),
        sums=run.sums_on_workers,
        in_pieces=strategy.in_pieces,
        singles=run.wants_single_updates,
        cohort=run.cohort))


def _kept_frac(setup):
    """The part of the model's values that travels at the start."""
    run = setup.run
    gen = stream(run.seed, Purpose.MASK)
    _, mask = run.pruner.init(run.layout, setup.network.first, Round(0, run.rounds), gen)
    return len(run.layout.compact(mask)) / run.layout.num_values


def _server_vectors(run):
    """How many vectors of the model's length the strategy keeps on rank 0."""
    # Of the real layout, as some strategies look for names; without memory.
    with torch.device("meta"):
        state = run.strategy.init(run.layout)
    shape = run.layout.P,
    return sum(isinstance(entry, torch.Tensor) and entry.shape == shape for entry in state.values())


def _on_support(fields):
    """How many of the ``{name: Field}`` are a value a weight."""
    return sum(field.on == "support" for field in fields.values())


def planned_needs(options):
    """``gpu_needs`` of a run that is not set up: loads the data and builds the model on the CPU.

    DataError if the data set's files are not here.
    """
    options, parts = of_data(options)
    parts = parts._replace(network=network_of(options))
    data, model = dealt_out(options, parts)
    task = make(TASKS, options["task"])
    cpu = torch.device("cpu")
    on_cpu = network(options, data, model, cpu, task)
    return gpu_needs(options, data, on_cpu)


def gpu_needs(options, data, network):
    """``(worker, server)``: the ``Need`` of each on a GPU."""
    P = network.layout.P
    layers = network.output_bytes
    values = int(np.prod(data.shape))
    dtype = model_dtype(data.dataset)
    sample_bytes = dtype.itemsize * values
    on_server = num_test(data.dataset) + 2 * len(data.validation)
    cohort = options["cohort"] or options["clients"]
    worker = footprint.worker_need(
        P,
        layers,
        batch_size=_at_once(options),
        block=block(P),
        images=IMAGES,
        samples_bytes=int(data.sizes.max()) * sample_bytes,
        together=min(options["together"] or 1, cohort))
    server = footprint.server_need(
        P,
        layers,
        samples_bytes=on_server * sample_bytes,
        batch_size=evaluated(data.shape, dtype))
    frozen_bytes = _frozen_bytes(network.layout)
    return _with_frozen(worker, frozen_bytes), _with_frozen(server, frozen_bytes)


def _with_frozen(need, frozen_bytes):
    """The ``Need`` of a rank whose GPU holds frozen parameters, too."""
    return need._replace(model=need.model + frozen_bytes)


def _frozen_bytes(layout):
    """Bytes of the parameters outside the vector, as float32."""
    count = sum(math.prod(shape) for _, shape in layout.frozen)
    return footprint.FLOAT_BYTES * count


def _at_once(options):
    """The number of samples that go through a client's network at once."""
    return -(-options["batch_size"] // options["accumulate"])


def _shares(options, places):
    """Yield ``(name, free bytes, workers, whether the server is there)`` of every GPU in use."""
    serves_on_gpu = options["server_device"] == "cuda"
    for ranks in place.by_node(places).values():
        free_bytes = place.free_of(places, ranks)
        for name, users in place.by_gpu(places, ranks).items():
            first_user, *_ = users
            first = places[first_user]
            gpu = place.gpu_of(first)
            model = gpu["name"]
            host = first["host"]
            shown = f"gpu {name} ({model}) of {host}"
            # Without an answer of the driver, all of the memory counts as free.
            free = free_bytes.get(gpu["uuid"], gpu["total_bytes"])
            workers = _workers(options, places, users)
            served = serves_on_gpu and 0 in users
            yield shown, free, workers, served


def _workers(options, places, users):
    """The number of workers among the ``users`` of a GPU. Rank 0 alone counts, too, if clients
    train there."""
    if len(places) > 1:
        return len(users) - (0 in users)
    # In one process, rank 0 is the worker.
    return int(options["device"] == "cuda")
