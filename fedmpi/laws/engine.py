"""A small run of the real engine in this process, in which a part is tried."""

import torch

from fedmpi import catalog
from fedmpi.build import assemble
from fedmpi.build.named import worker_parts
from fedmpi.build.options import DEFAULTS
from fedmpi.build.usual import with_usual_parts
from fedmpi.client.worker import Worker
from fedmpi.server import loop
from fedmpi.transport.local import Local

SMALL = {"dataset": "synthetic:samples=120,size=4,noise=0.3,classes=4",
         "model": "small-cnn:width=4", "partition": "iid", "noise": "none", "clients": 3, "rounds": 8,
         "local_epochs": 2, "batch_size": 10, "device": "cpu", "strategy": "fedavg",
         "pruner": "dense", "contribution": "size"}


def assembled(**options):
    """``(fed, state before round 1)`` of a one-process federation, small unless ``options`` say otherwise. The server
    has samples of its own where the strategy works with them."""
    options = with_usual_parts(DEFAULTS | SMALL | options)
    strategy = catalog.make(catalog.STRATEGIES, options["strategy"])
    if strategy.server_data and options["server_data"] == "0":
        options["server_data"] = "0.1"
    data = assemble.federation(options)
    transport = Local(Worker(worker_parts, lambda name, local_rank: torch.device("cpu")))
    fed, x = assemble.server_parts(options, data, torch.device("cpu"))
    fed = fed._replace(transport=transport)
    assemble.check(options, data, fed, x)
    transport.share({"kind": "data"}, assemble.shared_arrays(data))
    state = loop.start(fed, x)
    transport.publish(*assemble.setup_message(data, fed, options, state))
    return fed, state


def play(fed, state, rounds):
    """``(states, rows)`` after each of the first ``rounds`` rounds."""
    states, rows = [], []
    for t in range(1, rounds + 1):
        state, row, _ = loop.play_round(fed, state, t)
        states.append(state)
        rows.append(row)
    return states, rows
