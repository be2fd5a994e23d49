"""Whose turn it is: where a node has more ranks than cores, jobs are given to as many ranks as can run.

Ranks that share a core take each other's place in it, and in its caches, every few milliseconds. On 2 cores a client cost
0.178 s of processor time among 32 at once, 0.14 to 0.17 s in turns; what turns save of a round's seconds is not settled.
"""

from collections import defaultdict, deque

SPARE = 1                 # ranks beyond the cores that hold a job: one runs while another's answer and next job travel


def abreast(places):
    """``{node: ranks that hold jobs at a time}`` of ``{rank: place}`` of the workers, for the nodes where that is less than
    all: those whose ranks have told fewer cores, and no GPU, on which they would work at once."""
    found = {}
    for node, ranks in _by_node({rank: place.get("node", 0) for rank, place in places.items()}).items():
        here = [places[rank] for rank in ranks]
        if all(place.get("cores") and place["gpu"] is None for place in here):
            cores = len(set().union(*(place["cores"] for place in here)))
            cores = min([cores, *(max(1, int(place["quota"])) for place in here if place["quota"])])
            found |= {node: cores + SPARE} if cores + SPARE < len(ranks) else {}
    return found


class Turns:
    """The ranks of each node in turn. ``node_of`` is ``{rank: node}`` in the order of first turns, ``abreast`` as above."""

    def __init__(self, node_of, abreast):
        self.node_of, self.abreast = node_of, abreast
        self.waiting = {node: deque(ranks) for node, ranks in _by_node(node_of).items()}

    def first(self):
        """The ranks that begin."""
        begin = {node: [ranks.popleft() for _ in range(min(self.abreast.get(node, len(ranks)), len(ranks)))]
                 for node, ranks in self.waiting.items()}
        return [rank for rank in self.node_of if rank in begin[self.node_of[rank]]]

    def after(self, rank):
        """The rank of the same node whose turn it is when ``rank`` has ended its own."""
        ranks = self.waiting[self.node_of[rank]]
        ranks.append(rank)
        return ranks.popleft()


def _by_node(node_of):
    ranks = defaultdict(list)
    for rank, node in node_of.items():
        ranks[node].append(rank)
    return ranks
