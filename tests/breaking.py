"""Federations in which something goes wrong, or takes its time, as tests want it."""

import torch

from fedmpi.core.parts import Devices, Fleet


def fleet(N, **changes):
    """A ``Fleet`` whose devices are infinitely fast but for ``changes``, numbers or lists."""
    endless = torch.full((N,), torch.inf, dtype=torch.float64)
    none = torch.zeros(N, dtype=torch.float64)
    found = Fleet(endless, endless, endless, none, none, torch.ones(N, dtype=torch.bool))
    return found._replace(**{name: torch.as_tensor(value, dtype=getattr(found, name).dtype).expand(N)
                             for name, value in changes.items()})


def devices(N, **changes):
    return Devices(lambda seconds, N, draw: fleet(N, **changes))


def breaking(run, when, how):
    """The same run whose worker answers ``how(answer)`` to those jobs for which ``when(job, times asked)`` holds."""
    worker, times = run.transport.worker, {}
    train = worker.train

    def bent(job, arrays):
        times[job["client"]] = times.get(job["client"], 0) + 1
        if when(job, times[job["client"]]):
            return how(lambda: train(job, arrays))
        return train(job, arrays)

    worker.train = bent
    return run


def raising(answer):
    raise ZeroDivisionError("a client's own bug")


def without_memory(answer):
    raise torch.cuda.OutOfMemoryError("CUDA out of memory")
