"""A small run in this process, for tests of the engine."""

import torch

from fedmpi.build import assemble
from fedmpi.build.options import DEFAULTS
from fedmpi.build.usual import with_usual_parts
from fedmpi.run import launch
from fedmpi.server import loop
from fedmpi.transport.local import Local

OPTIONS = DEFAULTS | {"clients": 4, "rounds": 20, "model": "small-cnn:width=4", "local_epochs": 1, "strategy": "fedavg",
                      "pruner": "rigl:every=2", "contribution": "size", "dataset": "synthetic:samples=200",
                      "partition": "iid", "noise": "none", "device": "cpu"}


def assembled(**changes):
    """``(fed, state)`` of a small run in this process."""
    options = with_usual_parts(OPTIONS | changes)
    data = assemble.federation(options)
    transport = Local(launch.worker())
    fed, x = assemble.server_parts(options, data, torch.device("cpu"))
    fed = fed._replace(transport=transport)
    transport.share({"kind": "data"}, assemble.shared_arrays(data))
    state = loop.start(fed, x)
    transport.publish(*assemble.setup_message(data, fed, options, state))
    return fed, state
