"""Merging the workers' sums piece by piece: the same bits, and no second vector."""

import pytest
import torch
from engine import assembled

from fedmpi.catalog import STRATEGIES
from fedmpi.plugins.spec import make
from fedmpi.server import loop, pieces


def merges_in_pieces(name):
    return make(STRATEGIES, name).in_pieces


IN_PIECES = [name for name in STRATEGIES if merges_in_pieces(name)] + ["diloco:outer=adam", "thesis:clip=0"]
PRUNERS = ("dense", "rigl:sparsity=0.5,every=1")


def rounds(run, state, num_rounds=2):
    digests = []
    for t in range(1, num_rounds + 1):
        state, row, _ = loop.evaluated_round(run, state, t)
        digests.append(row["weights_digest"])
    return digests, state


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("name", IN_PIECES)
def test_a_strategy_merges_pieces_to_the_bits_of_the_whole(name, pruner, monkeypatch):
    options = dict(strategy=name, pruner=pruner, weighting="uniform", contribution="uniform")
    whole, state = rounds(*assembled(**options))
    run, start = assembled(**options)
    assert run.sums_on_workers
    monkeypatch.setattr(pieces, "MERGED", 97)
    monkeypatch.setattr("fedmpi.transport.base.PIECE", 300)
    assert pieces.merges_in_pieces(run, run.layout.compact(start["mask"]))
    digests, in_pieces = rounds(run, start)
    assert digests == whole and same(in_pieces["strategy"], state["strategy"])
    over = run._replace(may_overwrite=lambda: True)
    digests, _ = rounds(over, assembled(**options)[1])
    assert digests == whole


def test_vectors_are_overwritten_only_if_nobody_needs_the_state_before(monkeypatch):
    monkeypatch.setattr(pieces, "MERGED", 100)
    options = dict(strategy="diloco", pruner="dense", rounds=3)
    run, state = assembled(**options)
    x, velocity = state["x"], state["strategy"]["velocity"]
    before = x.clone()
    after, _, _ = loop.evaluated_round(run, state, 1)
    assert after["x"] is not x and torch.equal(x, before) and not velocity.any()

    run = run._replace(may_overwrite=lambda: True)
    # The pruner may go back to a vector that it has kept.
    kept = state | {"pruner": {"first": x}}
    after, _, _ = loop.evaluated_round(run, kept, 1)
    assert after["x"] is not x and torch.equal(x, before)
    after, _, _ = loop.evaluated_round(run._replace(needs_previous_model=True), state | {"previous": x.clone()}, 1)
    assert after["x"] is not x and torch.equal(x, before)

    after, _, _ = loop.evaluated_round(run, state, 1)
    assert after["x"] is x and after["strategy"]["velocity"] is velocity and velocity.any()


def test_a_state_is_overwritten_once_it_is_saved(monkeypatch, tmp_path):
    """Rank 0 needs the state before until the checkpoint after it is on the disk."""
    monkeypatch.setattr(pieces, "MERGED", 100)
    heard = []
    for save_every in (1, 2):
        run, state = assembled(strategy="fedavg", pruner="dense", rounds=5)
        store = Recorder()
        after = loop.simulate(run, state, store, 1, 5, save_every=save_every)
        heard.append((store.saved, after["x"] is state["x"]))
        store.digests.append(after["x"].sum().item())
        heard.append(store.digests[-1])
    (every, is_first), once, (second, _), twice = heard
    assert every == [1, 2, 3, 4, 5] and is_first
    # Rounds 1, 3 and 5 follow saved states; 2 and 4 must not write over them.
    assert second == [2, 4, 5] and once == twice


class Recorder:
    """A store that keeps nothing but the rounds saved."""

    shelf = None

    def __init__(self):
        self.saved, self.digests = [], []

    def append(self, row, clients, own):
        pass

    def save(self, state, t, keep):
        self.saved.append(t)

    def settle(self):
        pass
