"""A round in memory before work starts, for runs with methods of the user's: what breaks its
contract is told then.

The round has the run's own cohort, up to CLIENTS, one epoch of SAMPLES each, and no evaluation: a
large network must not keep anybody waiting.
Estimators of the catalogue give way to one that asks for nothing. It is played on the CPU of rank 0
and leaves no trace. Exceptions of a client's training are left to the run, which tells whose they
are and has an option for them.
"""

import torch

from fedmpi import catalog
from fedmpi.build import assemble
from fedmpi.server import loop
from fedmpi.build.named import worker_parts
from fedmpi.client.worker import Worker
from fedmpi.core.errors import DivergedError, FedError, UserError, WorkerError
from fedmpi.build.options import SEVERAL
from fedmpi.transport.local import Local

KINDS = ("strategy", "optimiser", "schedule", "pruner", "contribution", "weighting", "codec",
         "devices", "sampler", "aggregation", "features")
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
    return catalog.is_own(catalog.KINDS[kind], catalog.split(spec)[0])


def rehearse(options, data, fed, x):
    """Play the round where a method of the run is the user's; UserError where one breaks its
    contract, FedError with its traceback where the server's part of one raises."""
    if not own_methods(options):
        return
    options = options | {"device": "cpu", "local_epochs": 1, "local_steps": 0}
    data, fed = _small(data), _quick(options, fed)
    fed = fed._replace(sizes=fed.sizes.new_tensor(data.sizes.astype(float)),
                       least=torch.zeros_like(fed.least))
    with torch.random.fork_rng(devices=[]):
        _play(options, data, fed, x)


def _small(data):
    """The federation with few samples a client, and few for validation."""
    cut = assemble.cut(data, SAMPLES)
    return cut._replace(validation=data.validation[:FEW], server=data.server[:FEW])


def _quick(options, fed):
    """The Fed whose rounds are not evaluated, of which only the user's own estimators ask for
    anything."""
    size = catalog.make(catalog.CONTRIBUTIONS, "size")
    specs = [options["contribution"], *options["observe"]]
    contributions = {
        label: part if _is_own("contribution", spec) else size
        for spec, (label, part) in zip(specs, fed.contributions.items())
    }
    cohort = fed.cohort if fed.aggregation.buffer else min(fed.cohort, CLIENTS)
    rounds = max(2, fed.rounds)
    return fed._replace(contributions=contributions, cohort=cohort, rounds=rounds, every=rounds + 1,
                        tell=lambda line: None, together=1)


def _play(options, data, fed, x):
    worker = Worker(worker_parts, lambda name, local_rank: torch.device("cpu"))
    fed = fed._replace(transport=Local(worker))
    state = loop.start(fed, x)
    fed.transport.share({"kind": "data", "goes_on": ""}, assemble.shared_arrays(data))
    fed.transport.publish(
        *assemble.setup_message(assemble.without_pixels(data), fed, options, state))
    try:
        loop.play(fed, state, 1)
    except UserError:
        raise
    except (WorkerError, DivergedError):    # a client's: the run tells
        return
    except FedError:
        if options["on_error"] == "fatal":    # else it is that too few could be merged
            raise
