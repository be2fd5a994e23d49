"""The origin of a run, recorded in its file: versions, commit, command, hosts."""

import datetime
import json
import os
import shlex
import subprocess
import sys
from importlib.metadata import version

import fedmpi
from fedmpi.run.launcher import launcher
from fedmpi.transport import place


def attrs(setup, transport):
    """The attributes of a new run file, by name."""
    import numpy as np

    from fedmpi.build import server_data, settings
    from fedmpi.methods.datasets.dataset import inputs_record
    from fedmpi.server import record
    options, data, run = setup.options, setup.data, setup.run
    layout, dataset = run.layout, data.dataset
    inputs = inputs_record(dataset, setup.parts.task)
    if dataset.classes:
        inputs["test_labels"] = np.bincount(dataset.y_test, minlength=dataset.classes)
    weights = zip(layout.weights, run.costs.macs_per_weight)
    return {
        "options": options,
        "command": shlex.join(sys.argv),
        "created": now(),
        "status": "running",
        "error": "",
        "seed": options["seed"],
        "parts": settings.of(options),
        "data_digest": data.digest,
        "devices_digest": run.devices.digest,
        "layout_digest": layout.digest,
        "weights": layout.num_parameters,
        "prunable": layout.num_weights,
        "frozen": layout.num_frozen,
        "fixed_digest": run.fixed.digest,
        "init_digest": setup.network.init_digest,
        "layers": [[slot.name, list(slot.shape), macs] for slot, macs in weights],
        "flops_other": {"dense": run.costs.dense, "frozen": run.costs.frozen},
        "statistics": [slot.name for slot in layout.buffers],
        "inputs": inputs,
        "objective": record.of_objective(run.objective),
        "server_data": server_data.recorded(run.strategy, dataset, data.server),
        "versions": versions(transport),
        "git_commit": git_commit(),
        "hosts": sorted(set(transport.hosts)),
        "ranks": transport.size,
        "launcher": launcher(),
        "kernels": list(setup.kernels),
        "estimators": _estimators(options, run.contributions)
    }


def session(setup, places, before, done):
    """A row of the run file's sessions: a run begins, or goes on after round ``done``.

    ``before`` is the number of rounds that the user had asked for in the session before.
    """
    from fedmpi.store import this_process
    transport = setup.run.transport
    return {
        "time": now(),
        "ranks": transport.size,
        "launcher": launcher(),
        "hosts": ",".join(sorted(set(transport.hosts))),
        "git_commit": git_commit(),
        "command": shlex.join(sys.argv),
        "versions": json.dumps(versions(transport)),
        "places": place.recorded(places),
        "process": this_process(),
        "done": done,
        "rounds": setup.run.rounds,
        "rounds_before": before
    }


def versions(transport):
    """``{name: version}`` of the libraries that decide the bits and the file's form."""
    libraries = {name: version(name) for name in ("torch", "numpy", "h5py")}
    python = sys.version.split()[0]
    return libraries | transport.versions | {"fedmpi": fedmpi.__version__, "python": python}


def now():
    """This moment as text, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def git_commit():
    """The commit of the running code, empty outside a checkout."""
    package = os.path.dirname(os.path.abspath(fedmpi.__file__))
    checkout = os.path.dirname(package)
    if not os.path.isdir(os.path.join(checkout, ".git")):
        return ""
    # Of a broken checkout the answer is empty.
    command = ["git", "-C", package, "rev-parse", "HEAD"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def _estimators(options, contributions):
    """``{label: {spec, sees, cumulative}}`` of the estimators of contributions."""
    specs = [options["contribution"], *options["observe"]]
    return {
        label: {"spec": spec, "sees": part.sees, "cumulative": part.cumulative}
        for spec, (label, part) in zip(specs, contributions.items())
    }
