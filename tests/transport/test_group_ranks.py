"""Groups of ranks that train one client: on one node where they can, each member on a GPU of its own."""

import pytest

from fedmpi.core.errors import UserError
from fedmpi.transport.groups import check, grouped, leading


def nodes(*numbers):
    """Places of ranks 1, 2, ... on these nodes."""
    return {rank: {"node": node} for rank, node in enumerate(numbers, start=1)}


def test_ranks_of_a_node_make_groups_first():
    assert grouped(nodes(0, 0, 0, 0), 2) == [(1, 2), (3, 4)]
    # Round robin.
    assert grouped(nodes(0, 3, 0, 3), 2) == [(1, 3), (2, 4)]
    # Rank 0 takes a place of the first node, and one group lies on both.
    assert grouped(nodes(0, 0, 0, 4, 4, 4), 2) == [(1, 2), (4, 5), (3, 6)]
    assert grouped({3: {}, 1: {}, 2: {}, 4: {}}, 4) == [(1, 2, 3, 4)]


def test_as_many_groups_work_as_the_cores_allow():
    groups = [(3, 4), (1, 2), (5, 6)]
    assert leading(groups, range(1, 7), 2) == [1, 3, 5]
    assert leading(groups, range(1, 4), 2) == [1]
    assert leading(groups, [1], 2) == [1]


def test_members_that_share_a_gpu_are_refused():
    def place(gpu):
        gpus = [{"name": "H200", "uuid": name} for name in "ab"]
        return {"gpu": gpu, "gpus": gpus, "host": "node07"}

    check([(1, 2)], {1: place(0), 2: place(1)})
    check([(1, 2)], {1: place(0), 2: place(None)})
    check([(1, 2), (3, 4)], {rank: place(rank % 2) for rank in range(1, 5)})
    with pytest.raises(UserError, match="ranks 1 and 3 of a client share the GPU H200 of node07"):
        check([(1, 2, 3)], {1: place(0), 2: place(1), 3: place(0)})
