"""One round in memory before the run, if a method is the user's own: a broken contract shows early.

The round must be short, even with a large network. It has the run's own cohort, but at most
CLIENTS; each client trains one epoch of SAMPLES, nothing is evaluated, and the catalogue's
estimators give way to one without any work. It is played on the CPU of rank 0 and leaves no trace.
A client's exception does not end it: the run itself names the client, and has an option for such
errors.
"""

from functools import partial

import torch

from fedmpi import catalog
from fedmpi.plugins.entry import is_own
from fedmpi.plugins.spec import split
from fedmpi.build import setup as setups
from fedmpi.build.federation import cut, without_pixels
from fedmpi.server.round import run_round
from fedmpi.server.run_state import initial_state
from fedmpi.build.worker import worker_parts
from fedmpi.client.worker import Worker
from fedmpi.core.errors import DivergedError, FedError, UserError, WorkerError
from fedmpi.build.options import SEVERAL
from fedmpi.methods.contribution.size import size
from fedmpi.transport.local import Local

KINDS = ("task", "strategy", "optimiser", "schedule", "pruner", "contribution", "weighting",
         "codec", "devices", "sampler", "timing", "features")
CLIENTS = 16
# A client's samples: batch norm needs two.
SAMPLES = 2
# Samples of the server, for validation and for its own work.
FEW = 16


def own_methods(options):
    """The specs of the user's own methods that play a part in a round."""
    specs = []
    for kind in KINDS:
        specs.append((kind, options[kind]))
    for name, kind in SEVERAL.items():
        specs += [(kind, spec) for spec in options[name]]
    return [spec for kind, spec in specs if _is_own(kind, spec)]


def _is_own(kind, spec):
    name = split(spec)[0]
    return is_own(catalog.KINDS[kind], name)


def rehearse(setup):
    """Play the round, if a method of the run is the user's own.

    UserError if the method breaks its contract; FedError with a traceback if its server's part
    raises.
    """
    if not own_methods(setup.options):
        return
    options = setup.options | {"device": "cpu", "local_epochs": 1, "local_steps": 0}
    data = _small(setup.data)
    quick = _quick(options, setup.run)
    run = quick._replace(
        sizes=setup.run.sizes.new_tensor(data.sizes.astype(float)),
        min_samples_seen=torch.zeros_like(setup.run.min_samples_seen))
    # The run's own random numbers must not depend on the rehearsal.
    with torch.random.fork_rng(devices=[]):
        _play(setup._replace(options=options, data=data, run=run))


def _small(data):
    """The federation with few samples a client, and few for validation."""
    few = cut(data, SAMPLES)
    validation = data.validation[:FEW]
    server = data.server[:FEW]
    return few._replace(validation=validation, server=server)


def _quick(options, run):
    """The ``RunParts`` of the short round."""
    cohort = run.cohort
    if not run.timing.buffer:
        cohort = min(cohort, CLIENTS)
    # The last round is always evaluated, and round 1 must not be.
    rounds = max(2, run.rounds)
    contributions = _own_estimators(options, run.contributions)
    return run._replace(
        contributions=contributions,
        cohort=cohort,
        rounds=rounds,
        evaluate_every=rounds + 1,
        tell=lambda line: None,
        together=1)


def _own_estimators(options, contributions):
    """``{label: Contribution}``: the user's own, and ``size`` in the place of all others."""
    specs = [options["contribution"], *options["observe"]]
    estimators = {}
    parts = contributions.items()
    for spec, (label, part) in zip(specs, parts):
        estimators[label] = part if _is_own("contribution", spec) else size()
    return estimators


def _play(setup):
    """Play round 1 on a worker in this process."""
    build = partial(worker_parts, parts=setup.parts)
    transport = Local(Worker(build, lambda name, local_rank: torch.device("cpu")))
    run = setup.run._replace(transport=transport)
    state = initial_state(run, setup.network.first)
    arrays = setups.shared_arrays(setup)
    transport.share({"kind": "data", "goes_on": ""}, arrays)
    data = without_pixels(setup.data)
    sent = setup._replace(data=data)
    message = setups.message(sent, state)
    transport.publish(*message)
    try:
        run_round(run, state, 1)
    except UserError:
        raise
    except (WorkerError, DivergedError):
        # A client's error: the run itself tells about it.
        return
    except FedError:
        # With --on-error retry or drop, clients' errors may leave too few answers to merge.
        if setup.options["on_error"] == "fatal":
            raise
