"""How many ranks a run takes, without torch."""

from fedmpi.core.errors import UserError
from fedmpi.core.words import plural


def check_ranks(options, ranks):
    """UserError unless the workers among so many ``ranks`` make whole groups."""
    size = options["ranks_per_client"]
    workers = ranks - 1
    if size == 1 or (workers and workers % size == 0):
        return
    groups = max(1, workers // size)
    fewer = groups * size + 1
    raise UserError(
        f"--ranks-per-client {size}: rank 0 and groups of {size} workers are needed, got "
        f"{plural(ranks, 'rank')}; start mpirun -n {fewer}, say, or take --ranks-per-client 1")


def wanted(clients, size):
    """Ranks for so many clients at once, ``size`` workers each, and rank 0."""
    return clients * size + 1
