"""Which ranks take jobs where a node has more of them than cores.

Ranks that share a core take each other's place in it, and in its caches, every few milliseconds: with 32 workers on 2
cores a round took 1.3 times as long as with 2. As any rank can play any client, as many as there are cores take all
jobs, unless the environment's FEDMPI_ALL_RANKS is set on rank 0.
"""

import os
from collections import defaultdict


def at_work(places):
    """The ranks that take jobs, of ``{rank: place}`` of the workers: all, but on a node whose ranks have told fewer
    cores and no GPU, on which they would work at once, the first ones, a rank a core."""
    nodes = defaultdict(list)
    if os.environ.get("FEDMPI_ALL_RANKS"):
        return sorted(places)
    for rank, place in sorted(places.items()):
        nodes[place.get("node", 0)].append(rank)
    return sorted(rank for ranks in nodes.values() for rank in ranks[: _cores([places[rank] for rank in ranks])])


def _cores(places):
    """How many cores there are for workers at these ``places`` of one node; None where they do not tell or have a
    GPU."""
    if not all(place.get("cores") and place["gpu"] is None for place in places):
        return None
    quotas = [max(1, int(place["quota"])) for place in places if place["quota"]]
    return min([len(set().union(*(place["cores"] for place in places))), *quotas])
