"""FedMP: smaller networks for clients, and R2SP's merge."""

import math

import contracts
import pytest
import torch

from fedmpi.core.errors import UserError
from fedmpi.core.parts import Fleet
from fedmpi.core.support import scattered
from fedmpi.core.units import flat, entries_of
from fedmpi.methods.pruning.fedmp import by_speed, fedmp
from fedmpi.server import exchange
from fedmpi.server.recruit import drawing

HALF = {"strategy": "fedmp", "pruner": "fedmp:rate=0.5"}
# Weights that follow from scores: workers do not add updates up.
SCORED = {"contribution": "cosine", "weighting": "relu"}


def played(rounds=2, **options):
    run, state = contracts.assembled(**options)
    states, rows = contracts.run_rounds(run, state, rounds)
    return run, [state, *states], rows


def asked(run, state):
    """``(asks, answers)`` of round 1."""
    clients = contracts.sampled(run, state, 1)
    _, asks = exchange.announce(run, state, 1, clients)
    return asks, exchange.collect(run, asks, run.layout.support(state["mask"]))


def test_rate_0_is_fedavg_to_the_bit():
    states, rows = played(strategy="fedmp", pruner="fedmp:rate=0")[1:]
    wanted, wanted_rows = played(strategy="fedavg", pruner="dense")[1:]
    assert torch.equal(states[-1]["x"], wanted[-1]["x"])
    assert rows[-1]["up_bytes"] == wanted_rows[-1]["up_bytes"]


def test_whole_networks_one_by_one_are_fedavg_to_the_bit():
    """At rate .01 no layer loses a unit, and models go with the jobs."""
    states = played(strategy="fedmp", pruner="fedmp:rate=0.01", **SCORED)[1]
    wanted = played(strategy="fedavg", pruner="dense", **SCORED)[1]
    assert torch.equal(states[-1]["x"], wanted[-1]["x"])


def test_with_one_client_its_network_is_embedded_in_the_servers_model():
    run, states, _ = played(rounds=1, clients=1, **HALF)
    (ask,), (answer,) = asked(run, states[0])
    before, after = states[0]["x"], states[1]["x"]
    wanted = scattered(before[ask.support] + answer.values, ask.support, before.clone())
    assert torch.equal(after, wanted)
    outside = torch.ones(run.layout.P, dtype=torch.bool)
    outside[ask.support] = False
    assert torch.equal(after[outside], before[outside]) and bool((answer.values != 0).any())


def test_a_client_gets_and_sends_the_values_of_its_own_network():
    run, (state, *_), rows = played(rounds=1, **HALF)
    (ask, *_), (answer, *_) = asked(run, state)
    kept = run.pruner.units({}, state["x"], run.structure, torch.tensor([0]), None, None)[0]
    entries = entries_of(run.structure, flat(run.structure, kept))
    assert {name: int(part.sum()) for name, part in kept.items()} == {"0": 2, "2": 4}
    assert ask.support.tolist() == torch.nonzero(entries).flatten().tolist()
    assert len(answer.values) == len(ask.arrays["values"]) == int(entries.sum())
    assert torch.equal(ask.mask, entries[: run.layout.Q])
    # Biases of cut filters do not travel, either.
    assert len(ask.support) < int(ask.mask.sum()) + len(run.layout.dense_positions)
    assert rows[0]["kept"] == int(ask.mask.sum())


def test_operations_and_time_are_those_of_the_smaller_network():
    shares = []
    for pruner in ("fedmp:rate=0", "fedmp:rate=0.5"):
        rows = played(rounds=1, strategy="fedmp", pruner=pruner, devices="constant",
                      model="small-cnn:width=16")[2]
        shares.append([rows[0][name] for name in ("flops_rigl", "up_bytes", "sim_s")])
    flops, values, seconds = (half / whole for whole, half in zip(*shares))
    assert flops < 0.35 and values < 0.5 and seconds < 1


def test_the_slowest_train_the_smallest_networks():
    run, (state, *_), _ = played(rounds=1, strategy="fedmp", pruner="fedmp:by=speed", clients=6,
                                 devices="tiers:slow=0.5,slow_factor=0.25,fast=0")
    fleet = run.devices.at(0.0, 6, drawing(run))
    asks, _ = asked(run, state)
    slow = (fleet.speed < fleet.speed.max()).tolist()
    assert 0 < sum(slow) < 6
    assert [ask.support is not None for ask in asks] == slow


def test_rates_by_speed_by_hand():
    speeds = torch.tensor([4.0, 1.0, 0.01], dtype=torch.float64)
    assert by_speed(speeds, speeds, 0.8) == pytest.approx([0, 0.5, 0.8])
    endless = torch.full((2,), math.inf, dtype=torch.float64)
    assert by_speed(endless, endless, 0.8) == [0, 0]


def test_clients_of_one_rate_share_their_network():
    run, (state, *_), _ = played(rounds=1, **HALF)
    fleet = Fleet(*[torch.ones(3, dtype=torch.float64)] * 6)
    kept = run.pruner.units({}, state["x"], run.structure, torch.arange(3), fleet, None)
    first, second, third = kept
    assert first is second is third


def test_smaller_networks_learn():
    run, _, rows = played(rounds=10, model="small-cnn:width=12", lr=0.2, local_epochs=3, **HALF)
    assert rows[-1]["accuracy"] > 0.9 and rows[-1]["loss"] < rows[0]["loss"]


def test_a_model_without_filters_is_refused():
    with pytest.raises(UserError, match="cuts filters and neurons, but --model logistic: the"):
        contracts.assembled(model="logistic", **HALF)


@pytest.mark.parametrize("given, message", [
    ({"rate": 1.0}, r"rate must be in \[0, 1\)"),
    ({"by": "speed", "most": -1.0}, "most must be in"),
    ({"by": "size"}, "by must be fixed or speed"),
    ({"score": "l3"}, "score must be one of l1, norm"),
    ({"most": 0.5}, "most has no effect with by=fixed"),
    ({"by": "speed", "rate": 0.2}, "rate has no effect with")])
def test_options_that_mean_nothing_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        fedmp(**given)


@pytest.mark.parametrize("option, message", [
    ({"codec": "int8:feedback=true"}, "or remembers what it lost: take float32 or float16"),
    ({"strategy": "scaffold"}, "--strategy scaffold sends, asks for or lets clients keep"),
    ({"sampler": "power-of-choice:candidates=3", "cohort": 2}, "asks clients for the loss of one"),
    ({"timing": "fedbuff:buffer=2", "devices": "drawn", "clients": 6, "cohort": 3},
     "merges as answers arrive"),
    ({"together": 2}, "take --together 1"),
    ({"fault": ["free-rider:kind=stale"]}, "leave out free-rider:kind=stale")])
def test_what_does_not_go_with_networks_of_several_sizes_is_refused(option, message):
    with pytest.raises(UserError, match=message):
        contracts.assembled(**HALF | option)


@pytest.mark.parametrize("label", ["loo", "shapley", "cosine", "gtg-shapley"])
def test_clients_of_smaller_networks_are_judged(label):
    rows = played(rounds=2, contribution=label, validation=0.2, strategy="fedmp",
                  pruner="fedmp:rate=0.5")[2]
    assert math.isfinite(rows[-1]["loss"])
