"""Sums of updates: of a rank's clients, and of a node's."""

import numpy as np
import pytest
import torch

from fedmpi.client import sums as module
from fedmpi.client.node_model import node_model
from fedmpi.client.sums import of_node, of_rank
from fedmpi.core.exact_sum import magnitude
from fedmpi.transport.base import own_room

P = 1000


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(module, "PIECE", 64)


def updates(seed, count, K=P):
    gen = torch.Generator().manual_seed(seed)
    return [torch.randn(K, generator=gen) for _ in range(count)]


def added(total, t, vectors):
    total.begin(t)
    for vector in vectors:
        total.add(vector, 0.25, magnitude(vector))


def test_sums_of_a_node_are_those_of_a_rank():
    mine, shared = of_rank(P, torch.device("cpu")), of_node(P, own_room)
    # A smaller support leaves the end unused; the next round finds no trace of the last one.
    for t, K in ((1, P), (2, 700), (3, 30), (4, P)):
        for total in (mine, shared):
            added(total, t, updates(t, 3, K))
        assert (shared.part(0, K) == mine.part(0, K)).all()
        assert (shared.part(10, 20) == mine.part(10, 20)).all()


def test_a_round_without_an_update_has_sums_of_zero():
    total = of_node(P, own_room)
    added(total, 1, updates(1, 1))
    total.begin(2)
    assert not total.part(0, P).any()


def test_workers_of_a_node_add_to_one_sum():
    room = own_room(8 * (P + -(-P // 64)))
    first = of_node(P, lambda num_bytes: room)
    second = of_node(P, lambda num_bytes: room._replace(is_first=False))
    vectors = updates(5, 4)
    for total in (first, second):
        total.begin(1)
    added_by_both = ((first, vectors[:1]), (second, vectors[1:3]), (first, vectors[3:]))
    for total, some in added_by_both:
        for vector in some:
            total.add(vector, 0.25, magnitude(vector))
    alone = of_rank(P, torch.device("cpu"))
    added(alone, 1, vectors)
    assert second.part(0, P) is None
    assert (first.part(0, P) == alone.part(0, P)).all()


def test_a_nodes_model_is_written_once_a_round():
    written = []
    model_of = node_model(8, own_room)

    def write(value, into):
        written.append(value)
        into.fill_(value)

    for t, value in ((1, 3.0), (1, 4.0), (2, 5.0)):
        model = model_of(t, lambda into: write(value, into))
        assert model.dtype == torch.float32 and len(model) == 8
    assert written == [3.0, 5.0]
    assert np.allclose(model, 5.0)
