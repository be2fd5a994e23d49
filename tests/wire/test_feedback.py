"""Feedback of the error in whole rounds: who remembers what, what is billed for it, and that signs then converge."""

import contracts
import pytest
import torch
from breaking import breaking, devices, raising

from fedmpi.server import loop
from fedmpi.client.train import RESIDUAL
from fedmpi.server.answers import Outcome
from fedmpi.server.exchange import state_of_client

SIGNS = {"codec": "sign:block=50", "pruner": "static:sparsity=0.5"}


def on_support(run, state, vector):
    return vector.index_select(0, run.layout.support(state["mask"]))


def owed_to(run, state, client):
    """(K,): what encoding the client's updates has lost, on the support of the present mask."""
    return state_of_client(run, state, client, state["mask"])[RESIDUAL]


def test_what_is_merged_and_what_is_remembered_add_up_to_the_update():
    run, state = contracts.assembled(**SIGNS, clients=1)
    exact, twin = contracts.assembled(**SIGNS | {"codec": "float32"}, clients=1)
    owed = torch.zeros(len(run.layout.support(state["mask"])))
    for t in (1, 2, 3):
        update = on_support(run, state, loop.evaluated_round(exact, twin | {"x": state["x"]}, t)[0]["x"] - state["x"])
        after = loop.evaluated_round(run, state, t)[0]
        merged = on_support(run, state, after["x"] - state["x"])
        left = owed_to(run, after, 0)
        torch.testing.assert_close(merged + left, update + owed, rtol=0, atol=1e-6)
        assert left.abs().max() > 1e-4 and not left[-len(run.layout.dense_positions):].any()
        state, owed = after, left


@pytest.mark.parametrize("codec", ["sign", "int8:feedback=true"])
def test_memories_are_not_billed(codec):
    bytes_of = {}
    for spec in (codec, codec.partition(":")[0] + ":feedback=false"):
        run, state = contracts.assembled(**SIGNS | {"codec": spec})
        for t in (1, 2, 3):
            state, _, rows = loop.evaluated_round(run, state, t)
            bytes_of.setdefault(t, []).append((rows["up_bytes"].tolist(), rows["down_bytes"].tolist()))
        assert ("clients" in state) == (spec == codec)
    for plain, remembering in bytes_of.values():
        assert plain == remembering


def test_signs_cost_about_a_bit_a_weight_up_and_float32_down():
    run, state = contracts.assembled(**SIGNS | {"codec": "sign"}, model="mcmahan-cnn", local_epochs=1,
                                     dataset="synthetic:samples=60,size=28")
    _, row, rows = loop.evaluated_round(run, state, 1)
    kept, tail = int(state["mask"].sum()), 4 * len(run.layout.dense_positions)
    assert (rows["up_bytes"] < 1.04 * kept / 8 + tail + 1000).all() and (rows["down_bytes"] > 4 * kept).all()


def test_who_was_not_merged_keeps_its_memory():
    run, state = contracts.assembled(**SIGNS, clients=5, timing="sync:deadline=5", devices="drawn",
                                     on_error="drop", quorum=0.1)
    state = loop.evaluated_round(run._replace(devices=devices(5)), state, 1)[0]
    assert sorted(state["clients"]) == [0, 1, 2, 3, 4]

    def infinite(answer):
        meta, arrays = answer()
        arrays["scales"][:] = torch.inf
        return meta, arrays

    breaking(run, lambda job, n: job["client"] == 3, raising)
    breaking(run, lambda job, n: job["client"] == 4, infinite)
    run = run._replace(devices=devices(5, latency=[0.5, 4.0, 1, 1, 1], dropout=[0, 0, 1, 0, 0]))
    after, _, rows = loop.evaluated_round(run, state, 2)
    assert rows["outcome"].tolist() == [Outcome.MERGED, Outcome.LATE, Outcome.DROPPED, Outcome.FAILED, Outcome.REJECTED]
    assert not torch.equal(owed_to(run, after, 0), owed_to(run, state, 0))
    assert all(after["clients"][client] is state["clients"][client] for client in (1, 2, 3, 4))


@pytest.mark.parametrize("pruner", ["set:every=1", "feddst:every=1", "adaptive:every=1,spread=0.2"])
def test_where_the_mask_changes_what_is_owed_to_pruned_weights_is_forgotten(pruner):
    run, state = contracts.assembled(codec="sign", pruner=pruner, clients=4, cohort=2, strategy="fedavg",
                                     contribution="cosine")
    for t in (1, 2, 3, 4):
        after = loop.evaluated_round(run, state, t)[0]
        support, old = run.layout.support(after["mask"]), set(run.layout.support(state["mask"]).tolist())
        absent = [client for client in state["clients"] if after["last_round_of"][client] != t]
        for client in after["clients"]:
            assert owed_to(run, after, client).shape == support.shape
        for client in absent:
            for place, value in zip(support.tolist(), owed_to(run, after, client).tolist()):
                assert place in old or value == 0
        state = after
    assert len(state["clients"]) > 2


def test_the_servers_own_samples_remember_nothing():
    run, state = contracts.assembled(codec="sign", strategy="fltrust", contribution=None)
    assert sorted(loop.evaluated_round(run, state, 1)[0]["clients"]) == [0, 1, 2]


@pytest.mark.parametrize("timing", ["fedasync", "fedbuff:buffer=2,concurrency=3"])
def test_asynchronous_clients_remember_what_they_last_lost(timing):
    run, state = contracts.assembled(codec="sign", clients=5, timing=timing, devices="drawn",
                                     model="logistic", lr=0.1)
    states, rows = contracts.run_rounds(run, state, 8)
    assert len(states[-1]["clients"]) >= 3 and rows[-1]["accuracy"] > 0.8
    merged = [after["clients"] for after in states]
    for before, after in zip(merged, merged[1:]):
        changed = [client for client in after if client not in before or after[client].t != before[client].t]
        assert 1 <= len(changed) <= 2


def test_signs_with_feedback_converge_as_float32_does():
    final = {}
    for codec in ("float32", "sign", "sign:feedback=false"):
        run, state = contracts.assembled(codec=codec, pruner="static:sparsity=0.5", lr=0.05, rounds=30,
                                         dataset="synthetic:samples=300,size=4,noise=0.3,classes=4")
        final[codec] = contracts.run_rounds(run, state, 30)[1][-1]["train_loss"]
    assert final["sign"] < 1.25 * final["float32"] + 0.01
    assert final["sign"] < final["sign:feedback=false"]
