"""A small run in this process, for tests of the engine."""

import torch

from fedmpi.build.options import DEFAULTS
from fedmpi.build.setup import message, set_up, shared_arrays
from fedmpi.run import launch
from fedmpi.server.run_state import initial_state
from fedmpi.transport.local import Local

OPTIONS = DEFAULTS | {"clients": 4, "rounds": 20, "model": "small-cnn:width=4", "local_epochs": 1, "strategy": "fedavg",
                      "pruner": "rigl:every=2", "contribution": "size", "dataset": "synthetic:samples=200",
                      "partition": "iid", "noise": "none", "device": "cpu"}


def assembled(**changes):
    """``(run, state)`` of a small run in this process."""
    setup = set_up(OPTIONS | changes, torch.device("cpu"))
    transport = Local(launch.worker())
    run = setup.run._replace(transport=transport)
    transport.share({"kind": "data"}, shared_arrays(setup))
    state = initial_state(run, setup.network.first)
    transport.publish(*message(setup, state))
    return run, state
