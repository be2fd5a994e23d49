"""The ranks that work: no more than cores, where ranks have none of their own."""

from fedmpi.transport.active_ranks import active_ranks


def place(cores, quota=None, gpu=None, node=0):
    return {"cores": cores, "quota": quota, "gpu": gpu, "node": node}


def test_as_many_ranks_work_as_there_are_cores(monkeypatch):
    monkeypatch.delenv("FEDMPI_ALL_RANKS", raising=False)
    assert active_ranks({rank: place([0, 1]) for rank in (3, 1, 2)}) == [1, 2]       # in whatever order they arrived
    assert active_ranks({rank: place([0, 1]) for rank in range(1, 6)}) == [1, 2]
    assert active_ranks({rank: place([rank]) for rank in range(1, 6)}) == [1, 2, 3, 4, 5]
    assert active_ranks({rank: place([0, 1], gpu=0) for rank in range(1, 6)}) == [1, 2, 3, 4, 5]
    assert active_ranks({rank: place(list(range(8)), quota=1.5) for rank in range(1, 6)}) == [1]
    assert active_ranks({rank: place([0, 1], node=rank // 3) for rank in range(1, 8)}) == [1, 2, 3, 4, 6, 7]
    assert active_ranks({rank: {} for rank in range(1, 6)}) == [1, 2, 3, 4, 5]
    monkeypatch.setenv("FEDMPI_ALL_RANKS", "1")
    assert active_ranks({rank: place([0, 1]) for rank in (3, 1, 2)}) == [1, 2, 3]
