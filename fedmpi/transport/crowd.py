"""The ranks taking jobs on a node with more ranks than cores.

Ranks sharing a core displace each other from it, and from its caches, every few milliseconds: with 32 workers on 2
cores a round took 1.3 times as long as with 2. Any rank can play any client, so as many ranks as cores take all jobs,
unless FEDMPI_ALL_RANKS is set in rank 0's environment.
"""

import os
from collections import defaultdict


def at_work(places):
    """The ranks taking jobs, sorted, of ``{rank: place}`` of the workers.

    All, except on a node with known cores, fewer than ranks, and no GPU: there only the first ranks, one a core."""
    if os.environ.get("FEDMPI_ALL_RANKS"):
        return sorted(places)
    nodes = defaultdict(list)
    for rank, place in sorted(places.items()):
        nodes[place.get("node", 0)].append(rank)
    working = []
    for ranks in nodes.values():
        num_cores = _num_cores([places[rank] for rank in ranks])
        working += ranks[:num_cores]
    return sorted(working)


def _num_cores(places):
    """The number of cores for the workers at these ``places`` of one node; None if unknown, or if they have a GPU."""
    for place in places:
        if not place.get("cores") or place["gpu"] is not None:
            return None
    cores = set().union(*(place["cores"] for place in places))
    quotas = [max(1, int(place["quota"])) for place in places if place["quota"]]
    return min([len(cores), *quotas])
