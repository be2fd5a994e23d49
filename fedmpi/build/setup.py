"""A run on rank 0 before its training: all its parts are made."""

from typing import NamedTuple

from fedmpi.build import parts as making
from fedmpi.build.federation import Federation, federation
from fedmpi.build.network import Network, network
from fedmpi.build.parts import Parts
from fedmpi.build.server import server_parts
from fedmpi.methods.datasets.dataset import num_outputs, sample_shape
from fedmpi.server.run_parts import RunParts
from fedmpi.wire import positions


class Setup(NamedTuple):
    """A run, made from its options."""

    # All decided, but for --together 0 and --kernel auto.
    options: dict
    parts: Parts
    data: Federation
    network: Network
    # Without its transport, which comes when all ranks are ready.
    run: RunParts
    # The timing of --kernel auto, a dict a layer.
    kernels: tuple = ()


def set_up(options, device, dataset=None):
    """The ``Setup`` of a run. The server evaluates on ``device``. Without ``dataset`` the data set
    is loaded.

    Each part is made once, and so is the model. Not checked: whether they fit each other, see
    ``fedmpi.build.check``.
    """
    options, parts = making.made(options, dataset)
    data, model = dealt_out(options, parts)
    net = network(options, data, model, device, parts.task, parts.strategy.personal)
    run = server_parts(options, parts, data, net, device)
    # The period that was chosen becomes an option, so that a resume has it.
    if run.own_tests is not None:
        options = options | {"client_test_every": run.own_tests.test_every}
    return Setup(options, parts, data, net, run)


def dealt_out(options, parts):
    """``(Federation, model)``: the data for this model, and the new model."""
    dataset = parts.dataset
    shape = sample_shape(dataset)
    outputs = num_outputs(dataset, parts.task)
    model = parts.network(shape, outputs)
    data = federation(options, parts, model)
    return data, model


def message(setup, state):
    """``(meta, arrays)``: the set-up message, from which a worker builds its parts.

    It also holds the mask of the last model message. By this a resumed run sends the same bytes as
    one never stopped.
    """
    data = setup.data
    run = setup.run
    dataset = data.dataset
    mask = state["last_sent_mask"].numpy()
    code, array = positions.encode(mask)
    statistics = [slot.name for slot in run.layout.buffers]
    meta = {
        "kind": "setup",
        "shape": list(data.shape),
        "classes": dataset.classes,
        "window": dataset.stream.window if dataset.stream else 0,
        "outputs": data.outputs,
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "options": setup.options,
        "last_sent_mask": code,
        "sums_on_workers": run.sums_on_workers,
        "wants_single_updates": run.wants_single_updates,
        "statistics": statistics,
        "constants": run.fixed.constants
    }
    return meta, {"last_sent_mask": array, "frozen": run.fixed.frozen}
