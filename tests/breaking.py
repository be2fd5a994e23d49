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
    """The same run, whose worker answers ``how(answer)`` to trainings for which ``when(job, times asked)`` holds."""
    worker, times = run.transport.worker, {}
    before = worker.around

    def around(job, work):
        def answer():
            return before(job, work)

        # A candidate's loss names its client otherwise.
        client = job.get("client")
        times[client] = times.get(client, 0) + 1
        if client is not None and when(job, times[client]):
            return how(answer)
        return answer()

    worker.around = around
    return run


def raising(answer):
    raise ZeroDivisionError("a client's own bug")


def without_memory(answer):
    raise torch.cuda.OutOfMemoryError("CUDA out of memory")
