"""A small run of the real engine in this process, as a trial of a part."""

import torch

from fedmpi import catalog
from fedmpi.build.check import check
from fedmpi.build.options import DEFAULTS
from fedmpi.build.setup import message, set_up, shared_arrays
from fedmpi.build.worker import worker_parts
from fedmpi.client.worker import Worker
from fedmpi.plugins.spec import make, split
from fedmpi.server import loop
from fedmpi.server.run_state import initial_state
from fedmpi.transport.local import Local

SMALL = {
    "dataset": "synthetic:samples=120,size=4,noise=0.3,classes=4",
    "model": "small-cnn:width=4",
    "partition": "iid",
    "noise": "none",
    "clients": 3,
    "rounds": 8,
    "local_epochs": 2,
    "batch_size": 10,
    "device": "cpu",
    "strategy": "fedavg",
    "pruner": "dense",
    "contribution": "size",
}
# A network with places for adapters, and parts that want some.
TRANSFORMER = {"model": "vit:depth=1,width=16,heads=2", "lr": 0.01}
OF_ADAPTERS = ("flora", "ranks")
CPU = torch.device("cpu")


def small(**options):
    """The ``Setup`` of a one-process federation, small unless ``options`` say otherwise.

    The server has samples and a network of its own if the strategy works with them, and the model
    adapters if a part is of adapters alone.
    """
    complete = DEFAULTS | SMALL | options
    names = {split(complete[kind])[0] for kind in ("strategy", "pruner") if complete[kind]}
    if names & set(OF_ADAPTERS) and "adapters" not in options:
        complete |= TRANSFORMER | {"adapters": "lora:rank=8"} | options
    strategy = make(catalog.STRATEGIES, complete["strategy"])
    if strategy.server_data and complete["server_data"] == "0":
        # Without samples, the strategy would be refused.
        complete["server_data"] = "0.1"
    if strategy.features is not None and "server_model" not in options:
        complete["server_model"] = "2nn:hidden=8"
    return set_up(complete, CPU)


def assembled(*, of_server=None, of_worker=None, around=None, **options):
    """``(run, state before round 1)`` of such a federation.

    ``of_server`` and ``of_worker`` are ``{field: value}`` that replace fields of ``RunParts`` and
    ``WorkerParts``, for parts that no option names. ``around`` is the worker's hook.
    """
    setup = small(**options)
    check(setup)
    fields = of_server or {}
    setup = setup._replace(run=setup.run._replace(**fields))

    def build(*arguments):
        own = worker_parts(*arguments)
        return own._replace(**of_worker or {})

    worker = Worker(build, lambda name, local_rank: CPU)
    if around:
        worker.around = around
    # The real transport of one process, not a stand-in.
    transport = Local(worker)
    run = setup.run._replace(transport=transport)
    arrays = shared_arrays(setup)
    transport.share({"kind": "data"}, arrays)
    state = initial_state(run, setup.network.first)
    first_message = message(setup, state)
    transport.publish(*first_message)
    return run, state


def run_rounds(run, state, rounds):
    """``(states, rows)`` after each of the first ``rounds`` rounds."""
    states = []
    rows = []
    numbers = range(1, rounds + 1)
    for t in numbers:
        state, row, _ = loop.evaluated_round(run, state, t)
        states.append(state)
        rows.append(row)
    return states, rows
