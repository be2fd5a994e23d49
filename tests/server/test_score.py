"""Coalitions and the estimators that ask for them, in real rounds."""

import contracts
import numpy as np
import pytest
import torch

from fedmpi.build.notes import warnings
from fedmpi.server import exchange, loop, recruit
from fedmpi.build import parts
from fedmpi.core.errors import DivergedError, UserError
from fedmpi.server.score import Utility
from fedmpi.client.samples import of_client
from fedmpi.compute.coalitions import coalition_models
from fedmpi.core.parts import Cohort, Round
from fedmpi.transport.base import watched


def first_round(**options):
    """``(run, state, cohort)`` of a first round that everybody trained, before it is judged."""
    run, state = contracts.assembled(**{"validation": 0.3, "weighting": "relu"} | options)
    clients, updates = contracts.first_cohort(run, state)
    received = loop.model_on(state["x"], run.layout.support(state["mask"]), run.layout)
    return run, state, Cohort(clients, updates, Round(1, run.rounds), recruit.present(state, clients), received,
                              run.layout)


def utility_of(run, state, cohort):
    return Utility(run.transport, run.derivatives, run.block, cohort, state["strategy"])


def every_coalition(C):
    return torch.from_numpy((np.arange(1 << C)[:, None] >> np.arange(C) & 1).astype(bool))


@pytest.mark.parametrize("options", [
    {"strategy": "fedavg"}, {"strategy": "thesis:server_momentum=0.5", "pruner": "rigl"}, {"strategy": "median"},
    {"strategy": "feddst", "pruner": "feddst:every=1"}, {"strategy": "thesis-text", "pruner": "residual"},
    {"strategy": "fltrust"}, {"strategy": "fedavg", "pruner": "adaptive:by=size"}])
def test_a_coalition_is_worth_what_its_merged_model_scores(options):
    run, state, cohort = first_round(**options)
    coalitions = every_coalition(3)
    utility = utility_of(run, state, cohort)
    loss, accuracy = -utility(coalitions), utility(coalitions, "accuracy")
    for chosen, got, right in zip(coalitions, loss, accuracy):
        model = cohort.x
        if chosen.any():
            weights = cohort.shares[chosen] / cohort.shares[chosen].sum()
            _, model = run.strategy.merge(state["strategy"], cohort.x, cohort.updates.rows(chosen), weights)
        expected = loop.finish(run.validate(model))
        assert float(got) == pytest.approx(expected[0], rel=1e-5)
        assert float(right) == pytest.approx(expected[1]["accuracy"])
    assert utility.calls == 8


def test_no_coalition_is_evaluated_twice():
    run, state, cohort = first_round()
    utility = utility_of(run, state, cohort)
    jobs = []
    plain = run.transport.map
    run.transport.map = lambda given, arrays=None: plain(jobs.extend(given) or given, arrays)
    some = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1]], dtype=torch.bool)
    first = utility(some)
    assert float(first[0]) == float(first[2]) and utility.calls == 2
    assert torch.equal(utility(some.flip(0)), first.flip(0)) and utility.calls == 2
    utility(torch.tensor([[1, 1, 1], [0, 1, 0]], dtype=torch.bool))
    assert utility.calls == 3 == sum(len(job["coalitions"]) for job in jobs)


def test_many_coalitions_go_out_as_blocks():
    run, state, cohort = first_round(clients=6, dataset="synthetic:samples=240,size=4,noise=0.3,classes=4")
    jobs, plain = [], run.transport.map
    run.transport.map = lambda given, arrays=None: plain(jobs.extend(given) or given, arrays)
    values = utility_of(run, state, cohort)(every_coalition(6))
    assert [len(job["coalitions"]) for job in jobs] == [8] * 8
    alone = utility_of(run._replace(block=1), state, cohort)(every_coalition(6))
    torch.testing.assert_close(values, alone, rtol=1e-5, atol=1e-6)


def test_the_game_of_other_updates_is_another_one():
    run, state, cohort = first_round()
    utility = utility_of(run, state, cohort)
    everybody = torch.ones(1, 3, dtype=torch.bool)
    v = utility(everybody)
    other = utility.on(cohort.updates._replace(U=cohort.updates.U * 0), cohort.x)
    assert float(other(everybody)) == pytest.approx(float(utility(torch.zeros(1, 3, dtype=torch.bool))))
    assert float(utility(everybody)) == float(v) and utility.calls == 3
    fresh = torch.tensor([[1, 1, 0]], dtype=torch.bool)    # the workers hold the other game: it is handed out anew
    assert float(utility(fresh)) != float(other(fresh))


def test_what_is_asked_of_another_game_counts_for_who_asks():
    _, rows = contracts.run_rounds(*contracts.assembled(observe=["or-shapley:every=2"]), 2)
    assert [row["calls_or-shapley"] for row in rows] == [0, 8] == [row["utility_calls"] for row in rows]


def test_a_model_that_diverged_is_bad_not_the_end():
    run, state, cohort = first_round()
    U = cohort.updates.U.clone()
    U[1] = float("inf")
    v = utility_of(run, state, cohort._replace(updates=cohort.updates._replace(U=U)))(every_coalition(3))
    assert bool(v.isfinite().all()) and v[2] == -100


@pytest.mark.parametrize("spec", ["thesis", "median"])
def test_shares_decide_what_members_weigh(spec):
    run, state, cohort = first_round(strategy=spec)
    shares = torch.tensor([.6, .3, .1], dtype=torch.float64)
    chosen = torch.tensor([[1, 0, 1]], dtype=torch.bool)
    model = coalition_models(run.strategy, state["strategy"], cohort.x, cohort.updates, shares, chosen)[0]
    weights = torch.tensor([.6, .1], dtype=torch.float64) / .7
    assert torch.equal(model,
                       run.strategy.merge(state["strategy"], cohort.x, cohort.updates.rows(chosen[0]), weights)[1])


@pytest.mark.parametrize("strategy", ["median", "trimmed-mean", "krum", "multi-krum:byzantine=0.4", "geometric-median",
                                      "fedavg", "thesis", "fltrust"])
def test_members_of_weight_zero_are_none(strategy):
    run, state, cohort = first_round(strategy=strategy)
    none = cohort._replace(shares=torch.tensor([0, 0, 1.], dtype=torch.float64))
    v = utility_of(run, state, none)(every_coalition(3))
    assert v[0] == v[1] == v[2] == v[3] and bool(v.isfinite().all())
    assert float(v[4]) == pytest.approx(float(v[7]), rel=1e-6) and (v > -100).all()


def test_clients_that_have_lost_all_weight_share_alike():
    run, state = contracts.assembled(clients=4, cohort=2, contribution="loss-gain", weighting="relu:floor=0,memory=0",
                                     noise="symmetric:rate=0.9,share=0.5", rounds=12)
    for t in range(1, 9):
        state, _, rows = loop.evaluated_round(run, state, t)
        assert np.isfinite(rows["contribution"]).all() and (rows["contribution"] > -50).all()
    state["weighting"]["weights"].zero_()
    assert recruit.present(state, torch.tensor([0, 2])).tolist() == [0.5, 0.5]


def test_nobody_is_worth_what_the_servers_momentum_makes():
    """A client that sends nothing adds nothing to nobody, whatever the server's velocity does."""
    for strategy in ("thesis:server_momentum=0.9", "thesis:server_momentum=0.9,clip=0"):
        run, state, cohort = first_round(strategy=strategy)
        moving = {"velocity": torch.randn(run.layout.P) * 0.1}
        U = cohort.updates.U.clone()
        U[1] = 0
        v = utility_of(run, state | {"strategy": moving}, cohort._replace(updates=cohort.updates._replace(U=U)))
        nobody, lazy = v(torch.tensor([[0, 0, 0], [0, 1, 0]], dtype=torch.bool)).tolist()
        still = utility_of(run, state, cohort)(torch.zeros(1, 3, dtype=torch.bool))
        assert nobody == pytest.approx(lazy) and nobody != float(still)


def test_what_observers_ask_of_clients_is_no_cost_of_the_method():
    (a, plain), (b, watched) = (contracts.run_rounds(*contracts.assembled(observe=observe), 2)
                                for observe in ([], ["information-gain", "focus", "robust-volume"]))
    assert [row["up_bytes"] for row in plain] == [row["up_bytes"] for row in watched]
    _, weighed = contracts.run_rounds(*contracts.assembled(contribution="information-gain", weighting="size"), 2)
    assert weighed[0]["up_bytes"] > plain[0]["up_bytes"] + 3 * 4 * 16


def test_estimators_are_numbered_by_their_own_name():
    specs = ["shapley", "shapley-mc", "shapley:of=accuracy", "loo", "loo-cosine", "loo", "shapley"]
    assert parts.labels(specs) == ["shapley", "shapley-mc", "shapley-2", "loo", "loo-cosine", "loo-2", "shapley-3"]


def test_what_does_nothing_is_told():
    def told(**options):
        return list(warnings(contracts.small(**options)))

    assert told() == [] and told(strategy="krum", contribution=None, clients=5) == []
    assert "hits none of the 3 clients" in told(fault=["sign-flip:share=0.1"])[0]
    assert "takes one client's update" in told(strategy="krum", contribution="loo", clients=5)[0]
    assert "last round only" in told(contribution="or-shapley")[0] and told(contribution="or-shapley:every=2") == []


def test_the_servers_own_training_is_counted_apart():
    rows = [contracts.run_rounds(*contracts.assembled(strategy=name, server_data=own), 1)[1][0]
            for name, own in (("fedavg", "0"), ("fltrust", "24"))]
    assert rows[0]["flops_server"] == 0 and all("flops_lab" not in row for row in rows)
    clients = 3 * 28                                       # of 120 samples 12 are for validation
    assert rows[1]["flops_server"] / 24 == pytest.approx(rows[1]["flops_rigl"] / clients)


def test_who_trains_nothing_costs_nothing():
    run, state = contracts.assembled(strategy="prunefl", pruner="prunefl:every=1", fault=["free-rider:share=1"])
    assert contracts.run_rounds(run, state, 1)[1][0]["flops_rigl"] == 0


def test_own_masks_are_tested_at_the_budget_and_before_at_their_union():
    run, state = contracts.assembled(pruner="adaptive:sparsity=0.6,spread=0.3,every=1,by=size", clients=4,
                                     partition="lognormal:min_size=8", rounds=9)
    states, rows = contracts.run_rounds(run, state, 4)
    nominal = run.pruner.nominal(states[-1]["pruner"], states[-1]["mask"], run.layout)
    assert int(nominal.sum()) == round(0.4 * run.layout.num_weights) < int(states[-1]["mask"].sum())
    assert not (nominal & ~states[-1]["mask"]).any()

    def loss(mask):
        return loop.finish(run.test(loop.model_on(states[-1]["x"], run.layout.support(mask), run.layout)))[0]

    assert rows[-1]["loss"] == pytest.approx(loss(nominal))
    assert rows[-1]["loss"] != loss(states[-1]["mask"])


def test_who_only_observes_changes_nothing():
    def played(**options):
        run, state = contracts.assembled(contribution="loo", cohort=2, **options)
        return contracts.run_rounds(run, state, 4)

    (alone, rows), (watched, more) = played(), played(observe=["shapley", "cosine", "loo", "gtg-shapley"])
    assert all(torch.equal(a["x"], b["x"]) and torch.equal(a["weighting"]["score"], b["weighting"]["score"])
               for a, b in zip(alone, watched))
    assert [row["weights_digest"] for row in rows] == [row["weights_digest"] for row in more]
    assert all(row["calls_loo-2"] == row["calls_loo"] == 3 <= row["utility_calls"] for row in more)
    assert set(watched[-1]["contribution"]) == {"loo", "shapley", "cosine", "loo-2", "gtg-shapley"}


def test_scores_by_size_change_nothing_about_training():
    (a, _), (b, _) = (contracts.run_rounds(*contracts.assembled(contribution=name, weighting="size"), 3)
                      for name in ("size", "loo"))
    assert torch.equal(a[-1]["x"], b[-1]["x"])


def test_long_work_tells_how_far_it_is():
    lines = []
    answers = watched(iter(range(5)), 5, lines.append, "coalitions", every_s=0.0)
    assert list(answers) == [0, 1, 2, 3, 4] and lines == [f"coalitions {n} of 5" for n in range(1, 5)]


# --- clients that are faulty, in real rounds ---

def step(**options):
    """``(x before round 1, x after it)``."""
    run, state = contracts.assembled(**options)
    return state["x"], loop.evaluated_round(run, state, 1)[0]["x"]


@pytest.mark.parametrize("kind", ["zero", "stale"])
def test_where_all_ride_free_the_model_stands_still(kind):
    run, state = contracts.assembled(fault=[f"free-rider:kind={kind},share=1"])
    states, rows = contracts.run_rounds(run, state, 3)
    assert all(torch.equal(s["x"], state["x"]) for s in states)
    assert all(row["flops_rigl"] == 0 and row["train_loss"] > 0 for row in rows)


def test_a_stale_client_repeats_the_step_that_it_has_seen():
    run, state = contracts.assembled(clients=2, fault=["free-rider:kind=stale,share=0.5"], contribution="cosine",
                                    weighting="uniform")
    states, _ = contracts.run_rounds(run, state, 2)
    data = run.transport.worker.data
    lazy = int(np.flatnonzero(data["faults"][0])[0])
    run.transport.worker.receive({"kind": "previous"}, {"values": state["x"].numpy()})
    x = states[0]["x"]
    meta, arrays = exchange.model_message(run, states[0], 1, states[0]["mask"])
    run.transport.publish({"kind": "round", "t": 2, "layout": run.layout.digest} | meta, arrays)
    reply = next(run.transport.map([{"client": lazy, "row": 0}]))
    live = run.layout.support(states[0]["mask"])[: -len(run.layout.dense_positions) or None]
    sent = run.codec.decode(reply.arrays, len(run.layout.support(states[0]["mask"])))[: len(live)]
    torch.testing.assert_close(sent, (x - state["x"])[live], rtol=1e-5, atol=1e-7)


def test_scaled_updates_move_the_model_further():
    start, honest = step()
    _, scaled = step(fault=["scaled:share=1,factor=3"])
    _, flipped = step(fault=["sign-flip:share=1,scale=2"])
    torch.testing.assert_close(scaled - start, 3 * (honest - start), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(flipped - start, -2 * (honest - start), rtol=1e-4, atol=1e-6)


def test_a_duplicate_sends_what_its_source_would_learn():
    run, _ = contracts.assembled(clients=4, fault=["duplicate:share=0.25"], noise="symmetric:rate=0.5",
                                 features="gaussian:sigma=3")
    data = run.transport.worker.data
    who = int(np.flatnonzero(data["faults"][0])[0])
    shard = [sorted(zip(data["indices"][a:b].tolist(), data["labels"][a:b].tolist()))
             for a, b in zip(data["offsets"], data["offsets"][1:])]
    source = int(data["source"][who])
    assert shard[who] == shard[source] and data["features"][who] == data["features"][source]
    same = [of_client(run.transport.worker.samples, n)[0] for n in (who, source)]
    assert torch.equal(*(x.flatten(1).sum(dim=1).sort().values for x in same)) or data["features"][source] > 0
    with pytest.raises(UserError, match="may be given once"):
        contracts.assembled(fault=["duplicate", "duplicate"])


@pytest.mark.parametrize("features", ["gaussian:sigma=4", "rotation", "restyle"])
def test_skewed_features_change_what_clients_learn(features):
    start, plain = step()
    _, skewed = step(features=features)
    assert not torch.equal(plain, skewed) and bool(skewed.isfinite().all())


def test_everybody_opens_where_an_estimator_wants_that():
    run, state = contracts.assembled(clients=5, cohort=2, contribution="comfedsv")
    _, rows = contracts.run_rounds(run, state, 2)
    assert [len(contracts.sampled(run, state, t)) for t in (1, 2)] == [5, 2]
    run, state = contracts.assembled(clients=5, cohort=2, observe=["comfedsv"])    # who only observes takes what comes
    contracts.run_rounds(run, state, 2)
    assert [len(contracts.sampled(run, state, t)) for t in (1, 2)] == [2, 2]


def test_fltrust_follows_the_servers_own_samples():
    run, state = contracts.assembled(strategy="fltrust", validation=0.3, fault=["sign-flip:share=0.34"])
    states, rows = contracts.run_rounds(run, state, 3)
    run, state = contracts.assembled(strategy="fedavg", validation=0.3, fault=["sign-flip:share=0.34"])
    _, alone = contracts.run_rounds(run, state, 3)
    assert rows[-1]["train_loss"] != alone[-1]["train_loss"] and rows[0]["up_bytes"] == alone[0]["up_bytes"]


def test_out_of_gpu_memory_evaluates_one_model_at_a_time_and_says_so():
    lines = []
    run, state, cohort = first_round()
    coalitions = every_coalition(3)
    expected = utility_of(run, state, cohort)(coalitions)
    worker = run.transport.worker
    many = worker.many

    def tight(models, x, labels):
        if len(models) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return many(models, x, labels)

    worker.many = tight
    got = Utility(run.transport, run.derivatives, run.block, cohort, state["strategy"], lines.append)(coalitions)
    torch.testing.assert_close(got, expected)
    assert lines and "ran out of GPU memory with" in lines[0]


def test_scores_that_are_not_finite_end_the_run_only_where_they_weigh():
    def bad(run, label):
        part = run.contributions[label]
        nothing = torch.full((3,), torch.nan).double()
        worse = part._replace(score=lambda *given: part.score(*given)._replace(phi=nothing))
        return run._replace(contributions=run.contributions | {label: worse})

    lines = []
    run, state = contracts.assembled(contribution="cosine", observe=["loo-cosine"])
    after, row, rows = loop.evaluated_round(bad(run, "loo-cosine")._replace(tell=lines.append), state, 1)
    assert np.isnan(rows["score_loo-cosine"]).all() and "loo-cosine found scores that are not finite" in lines[0]
    assert torch.equal(after["x"], loop.evaluated_round(*contracts.assembled(contribution="cosine"), 1)[0]["x"])
    with pytest.raises(DivergedError, match="cosine found scores"):
        loop.evaluated_round(bad(run, "cosine"), state, 1)
