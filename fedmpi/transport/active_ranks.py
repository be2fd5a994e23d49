"""The ranks taking jobs on a node with more ranks than cores.

Ranks sharing a core displace each other from it, and from its caches, every few milliseconds: with
32 workers on 2 cores a round took 1.3 times as long as with 2. Any rank can play any client, so as
many ranks as cores take all jobs, unless FEDMPI_ALL_RANKS is set in rank 0's environment.
"""

import os
from collections import defaultdict


def active_ranks(places):
    """The ranks taking jobs, sorted, of ``{rank: place}`` of the workers.

    All, except on a node with known cores, fewer than ranks, and no GPU: there only the first
    ranks, one a core.
    """
    if os.environ.get("FEDMPI_ALL_RANKS"):
        return sorted(places)
    nodes = defaultdict(list)
    for rank, place in sorted(places.items()):
        node = place.get("node", 0)
        nodes[node].append(rank)
    active = []
    for ranks in nodes.values():
        on_node = [places[rank] for rank in ranks]
        num_cores = _num_cores(on_node)
        # All of them if it is None.
        active += ranks[:num_cores]
    return sorted(active)


def _num_cores(places):
    """The number of cores for the workers at these ``places`` of one node.

    None if it is unknown, or if they have a GPU.
    """
    cores = set()
    for place in places:
        own_cores = place.get("cores")
        if not own_cores or place["gpu"] is not None:
            return None
        cores.update(own_cores)
    num_cores = len(cores)
    for place in places:
        # A cgroup may allow less time than there are cores.
        quota = place["quota"]
        if quota:
            num_cores = min(num_cores, max(1, int(quota)))
    return num_cores
