"""A model as it comes over the wire: where its vectors lie, and their values."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fedmpi.client import received as module
from fedmpi.client.node_model import node_model
from fedmpi.client.received import decoded
from fedmpi.compute.staging import staging
from fedmpi.core.layout import arranged
from fedmpi.core.support import digest, gathered, is_one_entry
from fedmpi.methods.codecs.float32 import float32
from fedmpi.transport.base import own_room
from fedmpi.wire import positions
from fedmpi.wire.codecs import fitted

CPU = torch.device("cpu")
CODEC = fitted(float32(), 16)


def home_of(num_others):
    layout = arranged([("w", (8, 8))], [("b", (num_others,))], [])
    return SimpleNamespace(layout=layout, stage=staging(layout.P, CPU), device=CPU)


def message(home, mask, x, t):
    support = home.layout.compact(mask)
    code, bits = positions.encode(mask.numpy())
    arrays = {"mask": bits, "values": gathered(x, support).numpy().copy()}
    return {"t": t, "mask": code, "support": digest(support)}, arrays


def test_a_dense_model_stays_in_its_message(monkeypatch):
    monkeypatch.setattr(module, "LARGE", 0)
    home = home_of(16)
    x = torch.arange(80.0)
    meta, arrays = message(home, home.layout.full_mask(), x, 1)
    received, kept = decoded(home, CODEC, meta, arrays)
    assert torch.equal(received.base, x)
    assert np.shares_memory(received.base.numpy(), arrays["values"])
    # An entry in place of all.
    assert is_one_entry(received.trainable) and is_one_entry(received.mask)
    assert kept.all() and len(kept) == 64 and received.trainable.sum() == 80
    again, _ = decoded(home, CODEC, *message(home, received.mask, -x, 2), kept, received)
    assert torch.equal(again.base, -x) and torch.equal(received.base, x)


@pytest.mark.parametrize("num_others", [16, 3])
def test_a_nodes_workers_share_a_model_that_has_to_be_decoded(num_others, monkeypatch):
    monkeypatch.setattr(module, "LARGE", 0)
    home = home_of(num_others)
    P = home.layout.P
    room = own_room(64 + 4 * P)
    workers = [node_model(P, lambda num_bytes: room) for _ in range(2)]
    last = [None, None]
    for t in range(1, 5):
        gen = torch.Generator().manual_seed(t // 2)
        mask = torch.rand(64, generator=gen) < 0.5
        x = torch.randn(P, generator=gen)
        meta, arrays = message(home, mask, x, t)
        alone, _ = decoded(home, CODEC, meta, arrays)
        for number, model_of in enumerate(workers):
            last[number], _ = decoded(home, CODEC, meta, arrays, None, last[number], model_of)
            assert torch.equal(last[number].base, alone.base)
            assert torch.equal(last[number].trainable, alone.trainable)
        assert np.shares_memory(last[0].base.numpy(), last[1].base.numpy())
