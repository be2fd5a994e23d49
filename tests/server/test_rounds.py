"""What becomes of clients that fail, diverge, drop out or come late; sums on the workers; asynchronous rounds."""

import re

import contracts
import numpy as np
import pytest
import torch
from breaking import breaking, devices, fleet, raising, without_memory

from fedmpi.build.notes import warnings
from fedmpi.client.train import RESIDUAL
from fedmpi.server import answers, asynchronous, client_states, exchange, loop, recruit
from fedmpi.client.stats import Stats
from fedmpi.core.errors import DivergedError, FedError, UserError, WorkerError
from fedmpi.server.answers import Outcome
from fedmpi.core.reduce import average
from fedmpi.compute.sgd import train
from fedmpi.core.parts import Devices, Sampler, Timing, Training, Updates
from fedmpi.methods.strategies.fedavg import fedavg
from fedmpi.core.exact_sum import LARGEST, QUANTUM, add_small


# --- sums on the workers ---

def test_sums_are_the_weighted_mean():
    run, state = contracts.assembled(clients=5, partition="quantity")
    assert run.sums_on_workers and not run.wants_single_updates
    after, row, rows = loop.evaluated_round(run, state, 1)
    other, twin = contracts.assembled(clients=5, partition="quantity", weighting="relu")
    assert not other.sums_on_workers and other.wants_single_updates
    clients, updates = contracts.first_cohort(other, twin)
    _, expected = average({}, state["x"], updates, run.sizes / run.sizes.sum())
    torch.testing.assert_close(after["x"], expected, rtol=0, atol=3e-7)
    assert (rows["weight"] == (run.sizes / run.sizes.sum()).numpy()).all()


def test_bytes_are_the_same_whether_values_stay_on_the_worker_or_not():
    rows = [loop.evaluated_round(*contracts.assembled(**options), 1)[2]
            for options in ({"contribution": "size"}, {"contribution": "size", "observe": ["cosine"]})]
    assert (rows[0]["up_bytes"] == rows[1]["up_bytes"]).all() and (rows[0]["down_bytes"] == rows[1]["down_bytes"]).all()
    single = loop.evaluated_round(*contracts.assembled(contribution="size", weighting="relu"), 1)[2]
    assert (np.abs(rows[0]["up_bytes"] - single["up_bytes"]) == 0).all()


def test_who_observes_changes_no_bit_of_the_sums():
    runs = [contracts.assembled(observe=observe) for observe in ([], ["cosine", "loo"])]
    states = [contracts.run_rounds(*started, 2)[0][-1] for started in runs]
    assert torch.equal(states[0]["x"], states[1]["x"])


def test_the_order_of_adding_changes_no_bit():
    gen = torch.Generator().manual_seed(0)
    parts = torch.randn(50, 1000, generator=gen) * torch.logspace(-6, 3, 50)[:, None]
    units = (parts.double() * (0.02 / QUANTUM)).round().long()
    assert torch.equal(units.sum(0), units[torch.randperm(50, generator=gen)].sum(0))
    exact = parts.double().mul(0.02).sum(0)
    assert (units.sum(0).double() * QUANTUM - exact).abs().max() <= 25 * QUANTUM + 1e-12


@pytest.mark.parametrize("options, sums", [
    ({}, True), ({"strategy": "thesis-text", "weighting": "thesis:gamma=1"}, True), ({"strategy": "thesis"}, False),
    ({"strategy": "median", "weighting": "size"}, False), ({"pruner": "feddst"}, False),
    ({"pruner": "adaptive:by=size"}, False),
    ({"timing": "sync:over=0.5", "devices": "drawn", "cohort": 2}, False), ({"weighting": "softmax"}, False),
    ({"pruner": "rigl"}, True)])
def test_where_updates_add_up(options, sums):
    run, _ = contracts.assembled(**options)
    assert run.sums_on_workers == sums


def test_fedavg_and_the_thesis_with_nothing_but_data_shares_are_the_same_bits():
    a = contracts.run_rounds(*contracts.assembled(), 3)[0][-1]
    b = contracts.run_rounds(*contracts.assembled(strategy="thesis-text", pruner="dense", contribution="cosine",
                                            weighting="thesis:gamma=1"), 3)[0][-1]
    assert torch.equal(a["x"], b["x"])


# --- clients that fail or diverge ---

@pytest.mark.parametrize("weighting", ["size", "relu"])
def test_a_diverged_update_is_rejected_and_the_others_count(weighting):
    def spoil(answer):
        meta, arrays = answer()
        arrays["numbers"][Stats.LOSS] = float("nan")
        return meta, arrays

    run, state = contracts.assembled(clients=4, weighting=weighting, contribution="size")
    after, row, rows = loop.evaluated_round(breaking(run, lambda job, n: job["client"] == 2, spoil), state, 1)
    assert (row["asked"], row["merged"], row["rejected"]) == (4, 3, 1)
    assert rows["outcome"].tolist() == [0, 0, Outcome.REJECTED, 0]
    assert rows["weight"][2] == 0 and np.isnan(rows["contribution"][2]) and rows["weight"].sum() == pytest.approx(1)
    if weighting == "relu":
        others, twin = contracts.assembled(clients=4, weighting="relu", contribution="size")
        clients, updates = contracts.first_cohort(others, twin)
        chosen = torch.tensor([True, True, False, True])
        _, expected = average({}, state["x"], updates.rows(chosen), torch.full((3,), 1 / 3, dtype=torch.float64))
        torch.testing.assert_close(after["x"], expected)


@pytest.mark.parametrize("options", [
    {}, {"weighting": "relu", "contribution": "cosine"},
    {"codec": "float16"}, {"codec": "float16", "weighting": "relu", "contribution": "cosine"}])
def test_a_client_whose_update_is_too_large_is_rejected_whatever_the_codec(options):
    """By the worker where it adds updates up, else by the server; float16 would make 65504 of it."""
    plain = fedavg()
    trained = []

    def local(task):
        done = train(plain.local, task)
        if trained[-1] == 1:
            task.x[3] = 2 * LARGEST
        return done

    def around(job, work):
        trained.append(job["client"])
        return work()

    large = {"strategy": plain._replace(local=local)}
    run, state = contracts.assembled(of_worker=large, around=around, clients=4, **options)
    after, row, rows = loop.evaluated_round(run, state, 1)
    assert row["rejected"] == 1 and rows["outcome"][1] == Outcome.REJECTED and after["x"].abs().max() < 100


def test_what_a_client_owes_is_no_way_round_the_bound_on_updates():
    run, state = contracts.assembled(clients=4, codec="int8:feedback=true")
    owed = torch.zeros(len(run.layout.support(state["mask"])))
    owed[3] = 2 * LARGEST
    state["clients"] = {1: client_states.kept(0, state["mask"], {RESIDUAL: owed}, None, 1)}
    after, row, rows = loop.evaluated_round(run, state, 1)
    assert run.sums_on_workers and rows["outcome"].tolist() == [0, Outcome.REJECTED, 0, 0]
    assert after["x"].abs().max() < 100


def test_too_few_sound_answers_end_the_run():
    def spoil(answer):
        meta, arrays = answer()
        arrays["numbers"][Stats.LOSS] = float("inf")
        return meta, arrays

    run, state = contracts.assembled(clients=4, weighting="relu", contribution="size", quorum=0.5)
    with pytest.raises(DivergedError, match="round 1: 1 of 4 clients .*3 diverged, 0 failed.*--quorum asks for "
                                            "0.5.*--lr"):
        loop.evaluated_round(breaking(run, lambda job, n: job["client"] > 0, spoil), state, 1)
    run, state = contracts.assembled(clients=4, weighting="relu", contribution="size", quorum=0.25)
    assert loop.evaluated_round(breaking(run, lambda job, n: job["client"] > 0, spoil), state, 1)[1]["merged"] == 1


def test_nobody_fit_ends_the_run_whatever_the_quorum():
    run, state = contracts.assembled(on_error="drop", quorum=0.0)
    with pytest.raises(FedError, match="(?s)0 of 3 clients.*ZeroDivisionError"):
        loop.evaluated_round(breaking(run, lambda job, n: True, raising), state, 1)


@pytest.mark.parametrize("mode, outcome, tries", [("drop", Outcome.FAILED, 1), ("retry", Outcome.MERGED, 2)])
def test_a_training_that_raises_is_left_out_or_tried_again(mode, outcome, tries):
    lines, asked = [], []
    run, state = contracts.assembled(on_error=mode)
    run = run._replace(tell=lines.append)
    run = breaking(run, lambda job, n: job["client"] == 1 and (asked.append(n) or n == 1), raising)
    after, row, rows = loop.evaluated_round(run, state, 1)
    assert rows["outcome"][1] == outcome and row["failed"] == (mode == "drop") and len(asked) == tries
    assert lines and "client 1 failed on rank 0: ZeroDivisionError: a client's own bug" in lines[0]
    if mode == "retry":
        assert torch.equal(after["x"], loop.evaluated_round(*contracts.assembled(), 1)[0]["x"])


def test_a_training_that_raises_ends_the_run_unless_told_otherwise():
    run, state = contracts.assembled()
    with pytest.raises(WorkerError, match="ZeroDivisionError"):
        loop.evaluated_round(breaking(run, lambda job, n: job["client"] == 1, raising), state, 1)


def test_out_of_gpu_memory_trains_again_one_at_a_time_and_says_so():
    lines, order = [], []
    run, state = contracts.assembled(clients=4)
    run = run._replace(tell=lines.append)
    run = breaking(run, lambda job, n: order.append(job["client"]) or job["client"] in (1, 3) and n == 1,
                   without_memory)
    after, row, rows = loop.evaluated_round(run, state, 1)
    assert order[4:] == [1, 3] and row["merged"] == 4
    assert any("2 clients ran out of GPU memory" in line for line in lines)
    assert torch.equal(after["x"], loop.evaluated_round(*contracts.assembled(clients=4), 1)[0]["x"])


def test_out_of_gpu_memory_twice_ends_the_run():
    run, state = contracts.assembled(clients=4)
    with pytest.raises(WorkerError, match="out of GPU memory"):
        loop.evaluated_round(breaking(run, lambda job, n: job["client"] == 1, without_memory), state, 1)


def test_a_users_mistake_in_a_task_is_no_clients_fault():
    def mistaken(answer):
        raise UserError("no such thing")

    run, state = contracts.assembled(on_error="drop")
    with pytest.raises(UserError, match="no such thing"):
        loop.evaluated_round(breaking(run, lambda job, n: True, mistaken), state, 1)


# --- devices: dropping out, coming late ---

def test_who_drops_out_trains_nothing_and_counts_for_nothing():
    run, state = contracts.assembled(clients=4)
    run = run._replace(devices=devices(4, dropout=[0, 1, 0, 1]))
    after, row, rows = loop.evaluated_round(run, state, 1)
    assert (row["dropped"], row["merged"]) == (2, 2) and rows["outcome"].tolist() == [0, Outcome.DROPPED] * 2
    assert rows["up_bytes"].tolist()[1::2] == [0, 0] and np.isnan(rows["loss"][1])
    assert rows["rank"].tolist() == [0, -1, 0, -1]
    assert rows["weight"].tolist() == [0.5, 0, 0.5, 0] and after["last_round_of"].tolist() == [1, 0, 1, 0]


def test_a_round_that_nobody_answers_changes_nothing():
    run, state = contracts.assembled(clients=4, pruner="set:every=1")
    run = run._replace(devices=devices(4, dropout=1.0))
    after, row, rows = loop.evaluated_round(run, state, 1)
    assert torch.equal(after["x"], state["x"]) and after["mask"] is state["mask"] and row["merged"] == 0
    assert np.isnan(row["train_loss"]) and row["flops_rigl"] == 0 and row["up_bytes"] == 0


def test_virtual_time_by_hand():
    run, state = contracts.assembled(clients=3)
    run = run._replace(devices=devices(3, speed=1e6, down=1e3, up=500.0, latency=0.25))
    after, row, rows = loop.evaluated_round(run, state, 1)
    work = row["flops_rigl"] / 3                                            # clients are alike
    expected = 0.5 + rows["down_bytes"] / 1e3 + work / 1e6 + rows["up_bytes"] / 500
    assert rows["sim_s"] == pytest.approx(expected, rel=1e-9)
    assert row["sim_s"] == after["now"] == row["sim_total_s"] == pytest.approx(max(expected))
    after, row, _ = loop.evaluated_round(run, after, 2)
    assert row["sim_total_s"] == after["now"] > row["sim_s"] > 0


def test_a_deadline_leaves_the_slow_out():
    run, state = contracts.assembled(clients=3, timing="sync:deadline=5", devices="drawn")
    run = run._replace(devices=devices(3, latency=[0.5, 4.0, 1.0]))
    after, row, rows = loop.evaluated_round(run, state, 1)
    assert rows["outcome"].tolist() == [0, Outcome.LATE, 0] and row["late"] == 1 and row["sim_s"] == 5
    assert rows["sim_s"].tolist() == [1.0, 8.0, 2.0] and rows["up_bytes"][1] > 0       # it sent, in vain


def test_of_more_than_are_needed_the_first_count():
    run, state = contracts.assembled(clients=6, cohort=2, timing="sync:over=1", devices="drawn")
    run = run._replace(devices=devices(6, latency=[6.0, 5, 4, 3, 2, 1]))
    after, row, rows = loop.evaluated_round(run, state, 1)
    assert row["asked"] == 4 and row["merged"] == 2 and row["late"] == 2
    fastest = sorted(rows["sim_s"])[:2]
    assert sorted(rows["sim_s"][rows["outcome"] == 0]) == fastest and row["sim_s"] == fastest[-1]


def test_only_those_available_are_asked_and_the_server_waits_for_somebody():
    run, state = contracts.assembled(clients=4)
    some = torch.tensor([False, True, False, True])
    run = run._replace(devices=Devices(lambda s, N, draw: fleet(4)._replace(available=some & (s >= 100))))
    after, row, rows = loop.evaluated_round(run, state, 1)
    assert rows["client"].tolist() == [1, 3] and after["now"] == 120.0
    run = run._replace(devices=devices(4, available=False))
    with pytest.raises(FedError, match="no client has been available for 7 days"):
        loop.evaluated_round(run, state, 1)


def test_candidates_tell_their_loss_and_the_largest_train():
    def choose(count, clients, losses):
        return clients[torch.argsort(losses, descending=True)[:count]]

    run, state = contracts.assembled(clients=6, cohort=2)
    run = run._replace(devices=devices(6, latency=1.0),
                       sampler=Sampler(lambda gen, count, known: torch.arange(count), candidates=5, choose=choose))
    after, row, rows = loop.evaluated_round(run, state, 1)
    trained = rows["client"][rows["outcome"] == 0]
    assert row["asked"] == 5 and row["merged"] == 2 and (rows["outcome"] == Outcome.PASSED).sum() == 3
    assert (rows["up_bytes"] > 0).all() and row["sim_s"] == 4.0                       # two ways there and back
    run.transport.worker.receive({"kind": "round", "t": 1, "layout": run.layout.digest} |
                                 exchange.model_message(run, state, 1, state["mask"])[0],
                                 exchange.model_message(run, state, 1, state["mask"])[1])
    losses = [float(run.transport.worker.run({"loss": client, "row": 0}, {})[1]["loss"][0]) for client in range(5)]
    assert sorted(trained) == sorted(np.argsort(losses)[-2:])


# --- asynchronous rounds ---

def asynchronous_start(timing, clients, **options):
    """``(run, state)`` of a federation without rounds, in which no option names the ``timing``."""
    asynchronously = {"timing": timing, "sums_on_workers": False, "wants_single_updates": True}
    return contracts.assembled(
        of_server=asynchronously, clients=clients, weighting="uniform", contribution="uniform", **options)


def asynchronous_run(rounds, timing, clients=6, latency=None, **options):
    latency = latency or [1.0 + 0.37 * n for n in range(clients)]
    run, state = asynchronous_start(timing, clients, **options)
    run = run._replace(devices=devices(clients, latency=latency, speed=1e9, up=1e6, down=1e6))
    states, rows = [], []
    for t in range(1, rounds + 1):
        state, row, client_rows = loop.evaluated_round(run, state, t)
        states.append(state)
        rows.append((row, client_rows))
    return run, states, rows


def flat(staleness):
    return torch.ones_like(staleness)


def test_answers_are_merged_in_the_order_of_virtual_time():
    run, states, rows = asynchronous_run(8, Timing(buffer=1, concurrency=3, discount=flat))
    times = [row["sim_total_s"] for row, _ in rows]
    assert times == sorted(times) and all(row["merged"] == 1 for row, _ in rows)
    assert all(len(state["flight"]["models"]) <= 3 for state in states)
    first = rows[0][1]
    assert first["sim_s"][0] == times[0]


def test_a_buffer_takes_so_many_answers_and_nobody_twice():
    run, states, rows = asynchronous_run(5, Timing(buffer=3, concurrency=3, discount=flat))
    for row, clients in rows:
        assert row["merged"] == 3 == len(set(clients["client"]))
        assert clients["weight"].tolist() == pytest.approx([1 / 3] * 3)


def test_staleness_counts_merges_since_the_start():
    seen = []

    def discount(staleness):
        seen.extend(staleness.tolist())
        return torch.ones_like(staleness)

    asynchronous_run(6, Timing(buffer=1, concurrency=2, discount=discount), clients=4,
                     latency=[1.0, 1.0, 1.0, 30.0])
    assert seen[0] == 0 and max(seen) >= 1 and all(s >= 0 for s in seen)


def test_mixing_takes_the_mean_of_models():
    """FedAsync: x <- (1 - alpha) x + alpha x_n, whatever model client n has started from."""
    run, state = contracts.assembled(clients=4, weighting="uniform", contribution="uniform")
    support = run.layout.support(state["mask"])
    base = loop.model_on(state["x"] + 0.5, support, run.layout)
    own = torch.randn(len(support), generator=torch.Generator().manual_seed(0))
    run = run._replace(timing=Timing(buffer=1, discount=lambda s: 0.6 * (1 + s) ** -0.5, mixing=True))
    answer = answers.Update(own - base[support], support, False, np.ones(8), {}, {}, 0, 0, 0)
    update = asynchronous.aged(run, state, base, answer, 3, support)
    updates = Updates(update.values[None], None, support, torch.ones(1).double(), len(support))
    _, x = average({}, state["x"], updates, torch.ones(1).double())
    torch.testing.assert_close(x[support], 0.7 * state["x"][support] + 0.3 * own)


def test_an_asynchronous_run_goes_on_from_its_checkpoint_to_the_same_bits(tmp_path):
    from fedmpi.store.checkpoint import load_checkpoint, save_checkpoint
    how = Timing(buffer=2, concurrency=3, discount=lambda s: (1 + s) ** -0.5)
    run, states, rows = asynchronous_run(6, how, pruner="set:every=2", on_error="drop")
    save_checkpoint(tmp_path, states[2], 3, run_id="a")
    state, _ = load_checkpoint(tmp_path, run_id="a")
    for t in range(4, 7):
        state, row, clients = loop.evaluated_round(run, state, t)
        assert all(row[name] == rows[t - 1][0][name] for name in ("weights_digest", "sim_total_s"))
        assert (clients["client"] == rows[t - 1][1]["client"]).all()


def test_asynchronous_clients_that_drop_out_leave_their_place():
    run, states, rows = asynchronous_run(1, Timing(buffer=2, concurrency=2, discount=flat))
    run = run._replace(devices=devices(6, dropout=[1.0, 0, 1, 0, 0, 1], latency=1.0, speed=1e9))
    _, state = contracts.assembled(clients=6, weighting="uniform", contribution="uniform")
    state["flight"] = asynchronous.nobody(2)
    after, row, clients = loop.evaluated_round(run, state, 1)
    assert row["merged"] == 2 and row["dropped"] == (clients["outcome"] == Outcome.DROPPED).sum()
    assert set(clients["client"][clients["outcome"] == Outcome.DROPPED]) <= {0, 2, 5}


def test_in_flight_are_trained_together():
    run, state = asynchronous_start(Timing(buffer=1, concurrency=4, discount=flat), 6)
    calls = []
    plain = run.transport.map
    run.transport.map = lambda jobs, *rest: plain(calls.append(len(jobs)) or jobs, *rest)
    run = run._replace(devices=devices(6, latency=1.0, speed=1e9))
    for t in range(1, 9):
        state, _, _ = loop.evaluated_round(run, state, t)
    assert calls[0] == 4 and sum(calls) < 8 + 4 and len(calls) < 8


# --- what a review found ---

def test_a_client_that_fails_does_not_arrive_before_it_could():
    """Virtual time never runs backwards."""
    run, state = asynchronous_start(
        Timing(buffer=1, concurrency=2, discount=flat), 4, on_error="drop", quorum=0.0)
    run = run._replace(devices=devices(4, latency=[0.2, 0.3, 0.2, 0.25], speed=[1e5, 1e4, 1e5, 1e5]))
    run = breaking(run, lambda job, n: job["client"] == 1, raising)
    now = 0.0
    for t in range(1, 9):
        state, row, rows = loop.evaluated_round(run, state, t)
        started = state["flight"]["start"][state["flight"]["client"] >= 0]
        assert row["sim_total_s"] >= now and (started <= row["sim_total_s"]).all()
        now = row["sim_total_s"]


def test_a_buffer_that_cannot_fill_takes_what_came():
    run, states, rows = asynchronous_run(1, Timing(buffer=3, concurrency=2, discount=flat), clients=4)
    run = run._replace(devices=devices(4, dropout=[1.0, 1.0, 0, 0], latency=1.0, speed=1e9))
    _, state = contracts.assembled(clients=4, weighting="uniform", contribution="uniform")
    state["flight"] = asynchronous.nobody(2)
    after, row, clients = loop.evaluated_round(run, state, 1)
    assert row["merged"] == 2 and row["dropped"] == 2 and row["sim_total_s"] < 60


def test_who_drops_out_is_replaced_at_once():
    run, states, rows = asynchronous_run(1, Timing(buffer=2, concurrency=2, discount=flat), clients=8)
    run = run._replace(devices=devices(8, dropout=[1.0] * 5 + [0.0] * 3, latency=1.0, speed=1e9))
    _, state = contracts.assembled(clients=8, weighting="uniform", contribution="uniform")
    state["flight"] = asynchronous.nobody(2)
    after, row, clients = loop.evaluated_round(run, state, 1)
    assert row["merged"] == 2 and row["sim_total_s"] < 10


def test_mixing_holds_for_what_a_pruner_keeps_off_the_mask():
    run, state = contracts.assembled(clients=4, weighting="uniform", contribution="uniform",
                                     pruner="residual:sparsity=0.5")
    old = run.layout.support(state["mask"])
    mask = state["mask"].clone()
    mask[torch.nonzero(mask).flatten()[:5]] = False                     # pruned since the client started; x remembers
    support = run.layout.support(mask)
    run = run._replace(timing=Timing(buffer=1, discount=lambda s: 0.25 * torch.ones_like(s), mixing=True))
    own = torch.randn(len(old), generator=torch.Generator().manual_seed(0))
    answer = answers.Update(own - state["x"][old], old, False, np.ones(8), {}, {}, 0, 0, 0)
    update = asynchronous.aged(run, state | {"mask": mask}, state["x"], answer, 1, support)
    torch.testing.assert_close(state["x"][old] + update.values, 0.75 * state["x"][old] + 0.25 * own)


def test_a_server_whose_own_training_fails_says_so():
    run, state = contracts.assembled(strategy="fltrust", on_error="drop")
    diverging = run.strategy._replace(before=lambda state, x, mask: Training(x, mask, lr=1e30))
    with pytest.raises(FedError, match="the server's own training"):
        loop.evaluated_round(run._replace(strategy=diverging), state, 1)


def chosen_by_loss(dropout=0.0, **changes):
    run, state = contracts.assembled(clients=3, sampler="power-of-choice:candidates=3", devices="drawn", **changes)
    return run._replace(devices=devices(3, down=100.0, latency=[1.0, 2.0, 8.0], dropout=dropout)), state


def test_without_a_choice_the_model_is_still_on_its_way():
    run, state = chosen_by_loss(cohort=2, dropout=[0.0, 1.0, 0.0])          # of three candidates two answer
    rows = loop.evaluated_round(run, state, 1)[2]
    there = [0, 2]
    assert rows["outcome"].tolist() == [Outcome.MERGED, Outcome.DROPPED, Outcome.MERGED]
    assert rows["sim_s"][there] == pytest.approx(rows["down_bytes"][there] / 100 + 2 * np.array([1.0, 8.0]))


def test_candidates_that_are_not_chosen_took_their_own_time():
    run, state = chosen_by_loss(cohort=1)
    rows = loop.evaluated_round(run, state, 1)[2]
    passed = rows["outcome"] == Outcome.PASSED
    assert passed.sum() == 2 and len(set(rows["sim_s"][passed])) == 2


def test_a_candidate_whose_loss_fails_is_left_out():
    def around(job, work):
        return raising(None) if job.get("loss") == 1 else work()

    run, state = chosen_by_loss(cohort=1, on_error="drop", around=around)
    row, rows = loop.evaluated_round(run, state, 1)[1:]
    assert rows["outcome"][1] == Outcome.FAILED and row["merged"] == 1


def test_the_server_waits_for_an_answer_before_it_rejects_it():
    def spoil(answer):
        meta, arrays = answer()
        arrays["numbers"][Stats.LOSS] = float("nan")
        return meta, arrays

    run, state = contracts.assembled(clients=3, devices="drawn")
    run = run._replace(devices=devices(3, latency=[1.0, 50.0, 1.0]))
    row = loop.evaluated_round(breaking(run, lambda job, n: job["client"] == 1, spoil), state, 1)[1]
    assert row["rejected"] == 1 and row["sim_s"] == 100.0


def test_a_sampler_hears_only_of_those_that_were_merged():
    run, state = contracts.assembled(clients=3, on_error="drop")
    after = loop.evaluated_round(breaking(run, lambda job, n: job["client"] == 1, raising), state, 1)[0]
    known = recruit.client_records(run, after, torch.ones(3, dtype=torch.bool))
    assert known.scores.isnan().tolist() == [False, True, False] == known.losses.isnan().tolist()


def test_what_a_client_was_sent_twice_counts_twice():
    options = {"pruner": "adaptive:by=size", "on_error": "retry"}
    once = loop.evaluated_round(*contracts.assembled(**options), 1)[2]
    run, state = contracts.assembled(**options)
    twice = loop.evaluated_round(breaking(run, lambda job, n: job["client"] == 1 and n == 1, raising), state, 1)[2]
    more = twice["down_bytes"] - once["down_bytes"]
    assert more[1] > 400 and more[[0, 2]].tolist() == [0, 0]


@pytest.mark.parametrize("options, line", [
    ({"timing": "fedbuff"}, "needs a model of time"),
    ({"timing": "sync:over=1"}, "needs a model of time"),
    ({"timing": "fedbuff:buffer=3,concurrency=2", "devices": "drawn"}, "--clients 4 at least, got 3"),
    ({"timing": "fedasync:concurrency=2", "cohort": 1, "devices": "drawn"},
     "says how many clients are at work, and so does --cohort 1"),
    ({"timing": "sync:over=1", "devices": "drawn", "sampler": "power-of-choice"}, "more than are needed"),
    ({"timing": "fedasync:concurrency=2", "devices": "drawn", "pruner": "rigl"}, "report on rounds"),
    ({"timing": "fedasync:concurrency=2", "devices": "drawn", "fault": ["free-rider:kind=stale"]},
     "stale free-rider"),
    ({"sampler": "power-of-choice", "pruner": "adaptive:by=size"}, "a model of their own"),
    ({"sampler": "power-of-choice:candidates=2"}, "all 3 clients do: give a --cohort below"),
    ({"sampler": "power-of-choice:remembered=true", "cohort": 3}, "all 3 clients do: give a --cohort below"),
    ({"sampler": "power-of-choice:candidates=1", "cohort": 2}, "candidates=1 are fewer than the cohort of 2.*=4, say"),
    ({"sampler": "power-of-choice:candidates=1,remembered=true", "cohort": 2}, "fewer than the cohort of 2"),
    ({"timing": "sync:over=1", "devices": "drawn"}, "all 3 are asked already: give a --cohort below"),
    ({"timing": "fedbuff:buffer=30,concurrency=3", "devices": "drawn", "clients": 40, "contribution": "shapley",
      "validation": 0.2}, "30")])
def test_what_does_not_go_together_is_refused(options, line):
    with pytest.raises(UserError, match=line):
        contracts.assembled(**options)


@pytest.mark.parametrize("options, warned", [
    ({"sampler": "size"}, True), ({"sampler": "contribution:floor=1", "cohort": 3}, True), ({}, False),
    ({"sampler": "size", "cohort": 2}, False),
    ({"sampler": "size", "devices": "drawn", "timing": "fedbuff:buffer=1"}, False)])
def test_a_sampler_that_has_nobody_to_leave_out_is_warned_of(options, warned):
    lines = warnings(contracts.small(**options))
    found = [line for line in lines if "--sampler" in line and "no effect" in line]
    assert len(found) == warned


@pytest.mark.parametrize("arguments, warned", [
    (("--task-limit", 9), ["--task-limit 9"]), (("--silence", 9), ["--silence 9"]), ((), []), (("--silence", 60), [])])
def test_limits_for_other_ranks_are_warned_of_where_there_are_none(fedmpi, tmp_path, arguments, warned):
    output = fedmpi(1, "train", "--clients", 2, "--rounds", 1, "--out", tmp_path / "a.h5", *arguments)
    assert re.findall(r"warning: (\S+ \S+) has no effect in one process", output) == warned


@pytest.mark.parametrize("timing", ["sync", "fedbuff:buffer=1"])
def test_a_round_that_merges_nobody_is_told_once(timing):
    run, state = contracts.assembled(devices="drawn", timing=timing)
    told = []
    run = run._replace(devices=devices(3, dropout=[1.0, 1.0, 1.0]), tell=told.append)
    loop.evaluated_round(run, state, 1)
    assert told == ["warning: round 1 merged nobody's update, the model stays: of 3 asked 3 dropped; see --devices, "
                    "--timing"]
    run = run._replace(devices=devices(3))
    loop.evaluated_round(run, state, 1)
    assert len(told) == 1


def test_evaluations_come_when_they_are_due_and_at_the_end():
    run, state = contracts.assembled(rounds=5, validation=0.2, evaluate_every=2)
    states, rows = contracts.run_rounds(run, state, 5)
    assert [bool(np.isfinite(row["accuracy"])) for row in rows] == [False, True, False, True, True]
    assert np.isnan(rows[0]["val_loss"]) and np.isfinite(rows[4]["val_loss"])
    every = contracts.run_rounds(*contracts.assembled(rounds=5, validation=0.2), 5)
    assert torch.equal(every[0][-1]["x"], states[-1]["x"]) and every[1][4]["accuracy"] == rows[4]["accuracy"]


@pytest.mark.parametrize("arguments, line", [
    (("--quorum", "nan"), "--quorum must be a finite number"), (("--lr", "inf"), "--lr must be a finite number"),
    (("--silence", "0.01"), "--silence must be 0"), (("--devices", "constant:dropout=1"), "nobody would ever answer")])
def test_numbers_that_would_switch_a_guard_off_are_refused(fedmpi, arguments, line):
    assert line in fedmpi(1, "train", *arguments, code=2)


def test_a_path_that_cannot_be_is_one_line(fedmpi, tmp_path):
    output = fedmpi(1, "sbatch", "--script", tmp_path / "nowhere" / "a.sbatch", code=2)
    assert output.splitlines()[-1].endswith("a.sbatch: No such file or directory") and "Traceback" not in output


@pytest.mark.parametrize("share", [1.0, 1 / 3, 1e-4, 2.0 ** -41])
def test_sums_of_updates_round_as_doubles_do(share):
    """The quick way and the one for large updates, also at halves, of which the even neighbour is taken."""
    gen = torch.Generator().manual_seed(0)
    values = torch.cat([torch.randn(40_000, generator=gen) * 10.0 ** e for e in (-14, -9, -3, 0, 2)]
                       + [torch.tensor([0.0, -0.0]), QUANTUM * torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5]) / share])
    quick = torch.arange(len(values))
    expected = quick + (values.double() * (share / QUANTUM)).round().long()
    add_small(quick.numpy(), values.numpy(), share / QUANTUM)
    assert torch.equal(quick, expected)
