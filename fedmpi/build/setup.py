"""A run on rank 0 before its training: all its parts are made."""

from typing import NamedTuple

from fedmpi.build import parts as making
from fedmpi.build.federation import Federation, federation
from fedmpi.build.federation import shared_arrays as arrays_of_data
from fedmpi.build.network import Network, network
from fedmpi.build.parts import Parts
from fedmpi.build.server import server_parts
from fedmpi.build.start import start
from fedmpi.core.tensors import frozen_arrays
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
    # Classes have names, too, which a fine-tuned model may change.
    tokens = parts.dataset.names if parts.dataset.stream else ()
    init_digest = start(model, options, tokens)
    net = network(options, data, model, device, parts.task, parts.strategy.personal)
    net = net._replace(init_digest=init_digest)
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
        "constants": run.fixed.constants,
        "merges": int(state["strategy"].get("merges", 0))
    }
    return meta, {"last_sent_mask": array} | _first_values(setup) | _unsent(setup, state)


def _first_values(setup):
    """``{"first": (P,) float32}``: the values with which clients begin that keep some of their own,
    if they come from a file, which rank 0 alone reads."""
    in_part = setup.parts.strategy.travels is not None
    if not (in_part and setup.options["init_from"]):
        return {}
    return {"first": setup.network.first.numpy()}


def _unsent(setup, state):
    """``{"unsent": (n,) float32}``: the values that no model message brings, if factories on other
    ranks do not make them: of personal tensors and of the base."""
    layout = setup.run.layout
    from_file = layout.personal and setup.options["init_from"]
    if not (layout.base or from_file):
        return {}
    values = state["x"][layout.unsent_positions]
    return {"unsent": values.numpy()}


def shared_arrays(setup):
    """``{name: array}`` that all ranks of a node share: the data, and the frozen parameters."""
    return arrays_of_data(setup.data) | frozen_arrays(setup.network.model)
