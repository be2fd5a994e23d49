"""Clients that train several networks: one vector for all, merges inside a kind, bytes and FLOPs of a client's own."""

import numpy as np
import pytest
import torch

import contracts
from fedmpi.build.choose import decided
from fedmpi.core import flops, kinds
from fedmpi.core.errors import FedError, UserError
from fedmpi.core.layout import bind
from fedmpi.read.trained import trained
from fedmpi.server.model import model_on
from fedmpi.server.round import run_round
from fedmpi.server.slices import finish
from fedmpi.store import read_run

TWO = dict(model="small-cnn:width=4", also_model=["2nn:hidden=6"], clients=6, cohort=0)


def batches_normed(shape, classes):
    return torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Flatten(),
                               torch.nn.Linear(12, classes))


def of_other_inputs(shape, classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(7, classes))


def test_a_networks_own_vector_is_three_slices_of_the_common_one():
    run, state = contracts.assembled(**TWO)
    x = torch.arange(run.layout.P).float()
    for one in run.kinds.kinds:
        alone = kinds.part(one, x)
        assert len(alone) == one.layout.P
        for slot in one.layout.slots:
            common, = (each for each in run.layout.slots if each.name == f"{one.name}.{slot.name}")
            assert torch.equal(alone[slot.span], x[common.span])
        assert torch.equal(kinds.with_part(one, torch.zeros_like(x), alone)[one.spans[0]], x[one.spans[0]])
        own = one.layout.support(one.layout.full_mask())
        assert torch.equal(x[kinds.positions(one, own).long()], alone[own.long()])
    everywhere = torch.cat([kinds.positions(one, one.layout.support(one.layout.full_mask()))
                            for one in run.kinds.kinds])
    assert everywhere.sort().values.tolist() == run.layout.support(run.layout.full_mask()).tolist()


def test_each_network_starts_as_if_it_were_the_only_one():
    run, state = contracts.assembled(**TWO)
    for one, spec in zip(run.kinds.kinds, ("small-cnn:width=4", "2nn:hidden=6")):
        _, alone = contracts.assembled(model=spec, clients=6)
        assert torch.equal(kinds.part(one, state["x"]), alone["x"])


def test_clients_are_dealt_out_evenly_and_a_network_given_twice_gets_twice_as_many():
    run, _ = contracts.assembled(**TWO)
    assert torch.bincount(run.kinds.of).tolist() == [3, 3]
    run, _ = contracts.assembled(**TWO | {"also_model": ["2nn:hidden=6", "2nn:hidden=6"]})
    assert torch.bincount(run.kinds.of).tolist() == [2, 4]
    assert [one.name for one in run.kinds.kinds] == ["small-cnn", "2nn"]
    run, _ = contracts.assembled(**TWO | {"also_model": ["small-cnn:width=5"]})
    assert [one.name for one in run.kinds.kinds] == ["small-cnn", "small-cnn-2"]


@pytest.mark.parametrize("pruner", ["dense", "static:sparsity=0.5"])
def test_a_round_is_that_of_each_kind_by_itself(pruner):
    """Each client's update is the one that it would have sent among clients of its network alone, and a network moves
    by the mean of its own clients' updates, by their samples."""
    run, state = contracts.assembled(**TWO, pruner=pruner, partition="quantity", lr=0.02)
    seen, merge = [], run.strategy.merge

    def watched(strategy, x, updates, weights):
        seen.append((updates, weights))
        return merge(strategy, x, updates, weights)

    run = run._replace(strategy=run.strategy._replace(merge=watched))
    played = run_round(run, state, 1)
    (updates, weights), = seen
    mask = state["mask"]
    for number, spec in enumerate(("small-cnn:width=4", "2nn:hidden=6")):
        one = run.kinds.kinds[number]
        only, own = contracts.assembled(model=spec, clients=6, partition="quantity", lr=0.02, observe=["cosine"])
        own["mask"] = mask[one.weights].clone()
        own["x"] = model_on(own["x"], one.layout.support(own["mask"]), one.layout)
        _, alone = contracts.first_cohort(only, own)
        members = run.kinds.of == number
        columns = torch.searchsorted(updates.support, kinds.positions(one, alone.support))
        assert torch.equal(updates.U[members][:, columns], alone.U[members])
        assert bool(updates.B[members][:, columns].all()) and not bool(updates.B[~members][:, columns].any())
        shares = weights[members] / weights[members].sum()
        wanted = own["x"][alone.support.long()] + shares.float() @ alone.U[members]
        made = kinds.part(one, played.state["x"])[alone.support.long()]
        torch.testing.assert_close(made, wanted)


def test_a_network_of_which_nobody_takes_part_stays():
    run, state = contracts.assembled(**TWO | {"cohort": 1})
    client = int(contracts.sampled(run, state, 1))
    played = run_round(run, state, 1)
    for number, one in enumerate(run.kinds.kinds):
        same = torch.equal(kinds.part(one, played.state["x"]), kinds.part(one, state["x"]))
        assert same == (number != int(run.kinds.of[client]))


def test_bytes_flops_and_sparsity_are_those_of_the_clients_own_network():
    run, state = contracts.assembled(**TWO, pruner="static:sparsity=0.5")
    played = run_round(run, state, 1)
    for row, client in enumerate(played.clients["client"]):
        one = run.kinds.of_client(client)
        values = len(one.layout.support(state["mask"][one.weights]))
        assert 4 * values <= played.clients["up_bytes"][row] < 4 * values + 600
        assert 4 * values <= played.clients["down_bytes"][row] < 4 * values + one.layout.Q / 8 + 600
    kept = [int(state["mask"][one.weights].sum()) / one.layout.num_weights for one in run.kinds.kinds]
    found = {int(run.kinds.of[client]): value
             for client, value in zip(played.clients["client"], played.clients["sparsity"])}
    assert [1 - found[number] for number in (0, 1)] == pytest.approx(kept)
    layouts = [run.kinds.of_client(client).layout for client in range(6)]
    zeros = sum(found[int(run.kinds.of[client])] * layouts[client].num_weights for client in range(6))
    assert played.row["sparsity_all"] == pytest.approx(zeros / sum(one.num_parameters for one in layouts))
    dense = sum(run.kinds.of_client(client).layout.num_values for client in range(6))
    assert played.row["dense_bytes"] == 8 * dense
    wanted = 0
    for number, spec in enumerate(("small-cnn:width=4", "2nn:hidden=6")):
        only, _ = contracts.assembled(model=spec, clients=6)
        members = (run.kinds.of == number).tolist()
        seen = 2 * sum(np.asarray(played.clients["samples"])[members])
        wanted += flops.training(only.layout, only.costs, only.layout.full_mask(), seen, 0, 0)[1]
    assert played.row["flops_dense"] == pytest.approx(wanted)
    assert 0 < played.row["flops_rigl"] < played.row["flops_dense"]


def test_the_headline_is_the_mean_over_clients_and_each_network_has_columns():
    run, state = contracts.assembled(**TWO | {"also_model": ["2nn:hidden=6", "2nn:hidden=6"]}, validation=0.2)
    _, rows = contracts.run_rounds(run, state, 2)
    row = rows[-1]
    for before in ("", "val_"):
        mean = (row[f"{before}accuracy_small-cnn"] * 2 + row[f"{before}accuracy_2nn"] * 4) / 6
        assert row[f"{before}accuracy"] == pytest.approx(mean)
        loss = (row[f"{before}loss_small-cnn"] * 2 + row[f"{before}loss_2nn"] * 4) / 6
        assert row[f"{before}loss"] == pytest.approx(loss)
    only, alone = contracts.assembled(model="2nn:hidden=6", clients=6, validation=0.2)
    vector = kinds.part(run.kinds.kinds[1], state["x"])
    fresh = finish(run.test(state["x"]))[1]["accuracy_2nn"]
    assert fresh == finish(only.test(vector))[1]["accuracy"]


def test_personal_tensors_and_statistics_of_each_network(monkeypatch):
    monkeypatch.setitem(contracts.catalog.MODELS, "normed", f"{__name__}:batches_normed")
    run, state = contracts.assembled(**TWO | {"also_model": ["normed"]}, strategy="fedbn", client_test=0.3,
                                     client_test_every=1)
    played = run_round(run, state, 1)
    normed = run.kinds.kinds[1]
    assert set(normed.layout.personal) == {"1.weight", "1.bias", "1.running_mean", "1.running_var"}
    assert not run.kinds.kinds[0].layout.personal
    kept = played.state["clients"]
    assert {len(kept[client].values["_personal"]) for client in range(6) if run.kinds.of[client] == 1} == {12}
    assert np.isfinite(played.row["own_accuracy"]) and len(played.own["accuracy"]) == 6


def test_own_tests_use_the_clients_network():
    run, state = contracts.assembled(**TWO, client_test=0.4, client_test_every=1)
    played = run_round(run, state, 1)
    for number, spec in enumerate(("small-cnn:width=4", "2nn:hidden=6")):
        only, own = contracts.assembled(model=spec, clients=6, client_test=0.4, client_test_every=1)
        own["x"] = kinds.part(run.kinds.kinds[number], played.state["x"])
        from fedmpi.server import own_accuracy
        _, rows = own_accuracy.evaluate(only, own, own["mask"], 1)
        members = (run.kinds.of == number).numpy()
        assert np.array_equal(rows["loss"][members], played.own["loss"][members])


@pytest.mark.parametrize("options, message", [
    ({"strategy": "thesis"}, "combines whole updates"), ({"strategy": "krum"}, "combines whole updates"),
    ({"strategy": "scaffold"}, "sends more vectors than the model"),
    ({"strategy": "fednova"}, "combines whole updates"),
    ({"strategy": "fedavgm"}, "combines whole updates"), ({"strategy": "feddu"}, "combines whole updates"),
    ({"pruner": "rigl"}, "gives clients masks of their own"), ({"pruner": "adaptive"}, "masks of their own"),
    ({"codec": "int8:feedback=true"}, "remembers what it lost"), ({"codec": "sign"}, "apart from biases"),
    ({"contribution": "cosine"}, "cosine compares updates"), ({"observe": ["shapley"]}, "shapley compares updates"),
    ({"sampler": "power-of-choice:candidates=4", "cohort": 2}, "the loss of one common model"),
    ({"timing": "fedbuff:buffer=2", "devices": "drawn"}, "merges as answers arrive"),
    ({"together": 2}, "take --together 1"), ({"fault": ["free-rider:kind=stale"]}, "whole model of the round")])
def test_what_does_not_go_with_several_networks_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        contracts.assembled(**TWO | options)


def test_a_network_that_does_not_fit_is_named(monkeypatch):
    monkeypatch.setitem(contracts.catalog.MODELS, "wrong", f"{__name__}:of_other_inputs")
    with pytest.raises(FedError, match="--also-model wrong"):
        contracts.assembled(**TWO | {"also_model": ["wrong"]})


def test_the_same_network_again_has_no_effect():
    with pytest.raises(UserError, match="--also-model small-cnn:width=4 has no effect: it is --model itself"):
        contracts.assembled(**TWO | {"also_model": ["small-cnn:width=4"]})


def test_the_common_layout_binds_networks_one_after_the_other():
    from fedmpi.compute.several import Several
    networks = {"a": torch.nn.Linear(3, 5), "b": batches_normed((1, 4, 4), 2)}
    layout, x, _ = bind(Several(networks))
    for name, network in networks.items():
        one = kinds.kind(layout, name)
        own, values, _ = bind(network)
        assert own.digest == one.layout.digest and torch.equal(values, kinds.part(one, x))


def test_a_run_of_several_networks_is_recorded_shown_and_exported(fedmpi, tmp_path):
    out = tmp_path / "run.h5"
    fedmpi(1, "train", "--dataset", "digits", "--train-samples", 200, "--clients", 5, "--rounds", 1, "--strategy",
           "fedavg", "--model", "2nn:hidden=5", "--also-model", "logistic", "--contribution", "size", "--out", out)
    run = read_run(out)
    assert sorted(run.population["network"]) == ["2nn"] * 3 + ["logistic"] * 2
    assert run.attrs["options"]["also_model"] == ["logistic"]
    accuracy = run.rounds["accuracy_2nn"][-1] * 3 / 5 + run.rounds["accuracy_logistic"][-1] * 2 / 5
    assert run.rounds["accuracy"][-1] == pytest.approx(accuracy)
    shown = fedmpi(1, "show", out)
    assert f"2nn {run.rounds['accuracy_2nn'][-1]:.4f} (3 clients), logistic" in " ".join(shown.split())
    names = {name.partition(".")[0] for name in trained(out).state}
    assert names == {"2nn", "logistic"}


@pytest.mark.parametrize("options", [
    TWO, {"strategy": "fedmp", "pruner": None, "contribution": None, "clients": 6, "model": "small-cnn:width=4"}])
def test_the_fastest_number_of_clients_together_is_one_if_their_networks_differ(options):
    setup, lines = contracts.small(**options, together=0), []
    decided_setup = decided(setup, torch.device("cpu"), 1, lines.append)
    assert decided_setup.options["together"] == 1
    assert lines == ["--together 0: they train networks of several kinds: one by one"]
