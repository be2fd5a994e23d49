"""A round in memory before work starts, for runs with methods of the user's: what breaks its
contract is told then.

The round has the run's own cohort, up to CLIENTS, one epoch of SAMPLES each, and no evaluation: a
large network must not keep anybody waiting.
Estimators of the catalogue give way to one that asks for nothing. It is played on the CPU of rank 0
and leaves no trace. Exceptions of a client's training are left to the run, which tells whose they
are and has an option for them.
"""

from functools import partial

import torch

from fedmpi import catalog
from fedmpi.plugins.entry import is_own
from fedmpi.plugins.spec import split
from fedmpi.build import setup as setups
from fedmpi.build.federation import cut, shared_arrays, without_pixels
from fedmpi.server import loop
from fedmpi.build.worker import worker_parts
from fedmpi.client.worker import Worker
from fedmpi.core.errors import DivergedError, FedError, UserError, WorkerError
from fedmpi.build.options import SEVERAL
from fedmpi.methods.contribution.size import size
from fedmpi.transport.local import Local

KINDS = ("task", "strategy", "optimiser", "schedule", "pruner", "contribution", "weighting",
         "codec", "devices", "sampler", "aggregation", "features")
CLIENTS = 16
SAMPLES = 2     # of a client: as many as batch norm needs
FEW = 16    # validation samples


def own_methods(options):
    """The specs of the run's methods that are the user's; those whose answers are all there before
    a round, as a partition's are, left out."""
    specs = [(kind, options[kind]) for kind in KINDS]
    specs += [(SEVERAL[name], spec) for name in SEVERAL for spec in options[name]]
    return [spec for kind, spec in specs if _is_own(kind, spec)]


def _is_own(kind, spec):
    return is_own(catalog.KINDS[kind], split(spec)[0])


def rehearse(setup):
    """Play the round where a method of the run is the user's; UserError where one breaks its
    contract, FedError with its traceback where the server's part of one raises."""
    if not own_methods(setup.options):
        return
    options = setup.options | {"device": "cpu", "local_epochs": 1, "local_steps": 0}
    data = _small(setup.data)
    fed = _quick(options, setup.fed)._replace(
        sizes=setup.fed.sizes.new_tensor(data.sizes.astype(float)),
        least=torch.zeros_like(setup.fed.least))
    with torch.random.fork_rng(devices=[]):
        _play(setup._replace(options=options, data=data, fed=fed))


def _small(data):
    """The federation with few samples a client, and few for validation."""
    few = cut(data, SAMPLES)
    return few._replace(validation=data.validation[:FEW], server=data.server[:FEW])


def _quick(options, fed):
    """The Fed whose rounds are not evaluated, of which only the user's own estimators ask for
    anything."""
    specs = [options["contribution"], *options["observe"]]
    contributions = {
        label: part if _is_own("contribution", spec) else size()
        for spec, (label, part) in zip(specs, fed.contributions.items())
    }
    cohort = fed.cohort if fed.aggregation.buffer else min(fed.cohort, CLIENTS)
    rounds = max(2, fed.rounds)
    return fed._replace(contributions=contributions, cohort=cohort, rounds=rounds, every=rounds + 1,
                        tell=lambda line: None, together=1)


def _play(setup):
    build = partial(worker_parts, parts=setup.parts)
    transport = Local(Worker(build, lambda name, local_rank: torch.device("cpu")))
    fed = setup.fed._replace(transport=transport)
    state = loop.start(fed, setup.network.first)
    transport.share({"kind": "data", "goes_on": ""}, shared_arrays(setup.data))
    sent = setup._replace(data=without_pixels(setup.data))
    transport.publish(*setups.message(sent, state))
    try:
        loop.play(fed, state, 1)
    except UserError:
        raise
    except (WorkerError, DivergedError):    # a client's: the run tells
        return
    except FedError:
        if setup.options["on_error"] == "fatal":    # else it is that too few could be merged
            raise
