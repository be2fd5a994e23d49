"""The round: what the server and a worker say to each other, and what they refuse."""

import contracts
import pytest
from engine import assembled

from fedmpi.server import answers, exchange, loop
from fedmpi.client.stats import Stats
from fedmpi.core.errors import WireError
from fedmpi.core.support import digest

def message(run, state, t=1):
    known = exchange.common_mask(run, state, t, contracts.sampled(run, state, t))
    meta, arrays = exchange.model_message(run, state, 1, state["mask"], known)
    return meta | {"kind": "round", "t": t, "layout": run.layout.digest}, arrays


def test_a_model_of_another_layout_is_refused():
    run, state = assembled()
    meta, arrays = message(run, state)
    with pytest.raises(WireError, match="layout"):
        run.transport.publish(meta | {"layout": "00000000"}, arrays)


def test_a_model_on_another_support_is_refused():
    run, state = assembled()
    meta, arrays = message(run, state)
    with pytest.raises(WireError, match="support"):
        run.transport.publish(meta | {"support": 1}, arrays)


def test_an_answer_on_another_support_or_round_is_refused():
    run, state = assembled()
    support, asked = run.layout.support(state["mask"]), exchange.Ask(0, 1, state["mask"], {}, {})
    run.transport.publish(*message(run, state))
    reply = next(run.transport.map([{"client": 0, "row": 0}]))
    answers.read(run, reply, asked, support, *[digest(support)] * 2)
    with pytest.raises(WireError, match="support"):
        answers.read(run, reply, asked, support, 1, 1)
    with pytest.raises(WireError, match="round 1 .* expected round 2"):
        answers.read(run, reply, asked._replace(t=2), support, *[digest(support)] * 2)


@pytest.mark.parametrize("where", ["loss", "value"])
def test_an_answer_that_is_not_finite_is_refused(where):
    run, state = assembled(weighting="relu")
    support, asked = run.layout.support(state["mask"]), exchange.Ask(0, 1, state["mask"], {}, {})
    run.transport.publish(*message(run, state))
    reply = next(run.transport.map([{"client": 2, "row": 2}]))
    if where == "loss":
        reply.arrays["numbers"][Stats.LOSS] = float("nan")
    else:
        reply.arrays["values"][5] = float("inf")
    answer = answers.read(run, reply, asked, support, *[digest(support)] * 2)
    assert answer.outcome == answers.Outcome.REJECTED and "round 1: client 2 diverged" in answer.why


def test_positions_travel_only_where_they_cannot_be_known():
    run, state = assembled()
    same, flips = [], []
    for t in range(1, 7):
        mask = message(run, state, t)[0]["mask"]
        same.append("same" in mask)
        flips.append("flips" in mask)
        state, row, _ = loop.evaluated_round(run, state, t)
        assert (row["mask_changed"] > 0) == (t % 2 == 0)
    assert same == [False, True, False, True, False, True]                       # the mask of the round before
    assert flips == [False, False, True, False, True, False]                     # its changes; the first time all of it


def test_a_client_that_was_away_is_sent_all_positions():
    run, state = assembled(clients=4, cohort=1, pruner="rigl:every=1")
    seen = set()
    for t in range(1, 9):
        client = int(contracts.sampled(run, state, t)[0])
        held = int(state["last_round_of"][client])
        mask = message(run, state, t)[0]["mask"]
        whole = "same" not in mask and "flips" not in mask
        assert whole == (held != t - 1 or t == 1)
        seen.add(whole)
        state, _, _ = loop.evaluated_round(run, state, t)
    assert seen == {True, False}


def test_bytes_are_those_of_the_messages():
    run, state = assembled(pruner="static:sparsity=0.5")
    kept = int(state["mask"].sum()) + len(run.layout.dense_positions)
    for t in (1, 2):
        state, row, rows = loop.evaluated_round(run, state, t)
    assert (rows["up_bytes"] >= 4 * kept).all() and (rows["up_bytes"] < 4 * kept + 700).all()
    assert (rows["down_bytes"] >= 4 * kept).all() and (rows["down_bytes"] < 4 * kept + 900).all()
    assert row["up_bytes"] == rows["up_bytes"].sum() and row["down_bytes"] == rows["down_bytes"].sum()
    assert row["dense_bytes"] == 2 * 4 * 4 * run.layout.num_values


def test_many_clients_on_one_worker():
    run, state = assembled(clients=200, cohort=20, partition="iid", dataset="synthetic:samples=1000")
    state, row, rows = loop.evaluated_round(run, state, 1)
    assert len(rows["client"]) == 20 == len(set(rows["client"]))
    assert (state["last_round_of"] == 1).sum() == 20
