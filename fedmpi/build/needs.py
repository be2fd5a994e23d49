"""The memory that a run needs, on each of its nodes and GPUs."""

import math

import numpy as np
import torch

from fedmpi.catalog import TASKS
from fedmpi.plugins.spec import make
from fedmpi.build import footprint
from fedmpi.build.parts import network_of, of_data
from fedmpi.build.network import network
from fedmpi.build.server import block
from fedmpi.build.setup import dealt_out
from fedmpi.compute.evaluate import evaluated
from fedmpi.compute.forward import IMAGES
from fedmpi.core.errors import UserError
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
        has_first = 0 in ranks
        need = host_need(setup, len(ranks), first=has_first)
        # Each rank reports the memory that it may still get.
        left = min(places[rank]["memory_bytes"] for rank in ranks)
        if need <= left:
            continue
        host = places[ranks[0]]["host"]
        left_gb = left / 1e9
        need_gb = need / 1e9
        yield (f"{host} has {left_gb:.1f} GB of memory left, its {len(ranks)} ranks may need "
               f"{need_gb:.1f} GB more: take fewer ranks a node, or a smaller --batch-size")


def host_need(setup, ranks, first):
    """Bytes that this many ranks of one node will still take; ``first``: rank 0 is one of them."""
    run = setup.run
    network = setup.network
    together = min(run.together or 1, run.cohort)
    memories = len(run.sizes) * _kept_vectors(run)
    return footprint.host_need(
        network.layout.P,
        network.output_bytes,
        batch_size=_at_once(setup.options),
        cohort=run.cohort,
        # Ranks of a node share both.
        data_bytes=setup.data.dataset.x_train.nbytes + _frozen_bytes(network.layout),
        ranks=ranks,
        first=first,
        together=together,
        memories=memories)


def _kept_vectors(run):
    """How many values a weight each client keeps between its rounds, unless they lie in files."""
    if client_states.spills(run.kept_fields, run.layout, len(run.sizes)):
        return 0
    return sum(field.on == "support" for field in run.kept_fields.values())


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
