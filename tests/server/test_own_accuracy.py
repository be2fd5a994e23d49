"""Clients' models on clients' own test parts."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import contracts
from fedmpi.build.parts import network_of
from fedmpi.build.options import DEFAULTS
from fedmpi.client import samples, train
from fedmpi.compute.evaluate import by_sample, evaluator
from fedmpi.methods.tasks.classification import classification
from fedmpi.core.layout import bind
from fedmpi.core.parts import Field
from fedmpi.methods.strategies.fedavg import fedavg
from fedmpi.core.support import gathered, scattered
from fedmpi.methods.datasets.dataset import inputs
from fedmpi.server import loop, own_accuracy, record
from fedmpi.server.round import run_round
from fedmpi.server.slices import Slices, finish
from fedmpi.store import MemoryStore

TESTED = dict(client_test=0.25, client_test_every=1, clients=2)


def test_the_worst_tenth_is_rounded_up():
    values = np.array([0.5, 0.1, 0.9, 0.3])
    assert own_accuracy.worst(values) == 0.1 and own_accuracy.worst(values, higher=False) == 0.9
    assert own_accuracy.worst(np.arange(25.0)) == 1.0                        # of 0, 1, 2
    assert own_accuracy.worst(np.arange(20.0)) == 0.5


def test_means_over_clients_and_over_samples():
    row = own_accuracy.summary(np.array([1.0, 0.5, 0.0]), np.array([0.25, 1.0, 4.75]), np.array([2, 4, 2]))
    assert row == {"own_accuracy": 0.5, "own_accuracy_weighted": 0.5, "own_accuracy_worst": 0.0, "own_loss": 2.0}
    row = own_accuracy.summary(np.array([1.0, 0.5]), np.zeros(2), np.array([3, 1]))
    assert row["own_accuracy"] == 0.75 and row["own_accuracy_weighted"] == 0.875


def test_jobs_are_cut_by_samples():
    tests = own_accuracy.OwnTests(np.array([1, 2, 4, 7, 8, 9]), np.array([500, 12, 1, 511, 2000, 3]), 1)
    assert [block.tolist() for block in own_accuracy.blocks(tests)] == [[1, 2], [4, 7], [8], [9]]


def test_values_of_samples_add_up_to_the_evaluation():
    network = network_of(DEFAULTS | contracts.SMALL)((1, 4, 4), 4)
    _, x, _ = bind(network)
    images, labels = torch.randn(50, 1, 4, 4), torch.arange(50) % 4
    vector = torch.randn(len(x)) / 4
    values = by_sample(network, x, classification(), 16)(vector, images, labels)
    loss, metrics = finish(evaluator(network, x, images, labels, classification())(vector))
    assert values.shape == (50, 2) and values[:, 1].mean() == metrics["accuracy"]
    assert abs(values[:, 0].mean() - loss) < 1e-6


def by_hand(options, *models):
    """``(accuracies, losses)`` of a model (P,) on every client's own test part, or of a model a client."""
    options = DEFAULTS | contracts.SMALL | options
    data = contracts.dealt(options)
    network = network_of(options)(data.shape, data.dataset.classes)
    _, vector, _ = bind(network)
    network.eval()
    found, held = [], data.held_out
    models = models * len(held.sizes) if len(models) == 1 else models
    for client in range(len(held.sizes)):
        index = held.indices[held.offsets[client]: held.offsets[client + 1]]
        pixels = inputs(torch.from_numpy(data.dataset.x_train[index]), data.dataset.mean, data.dataset.std)
        labels = torch.from_numpy(data.dataset.y_train[index])
        vector.copy_(models[client])
        with torch.no_grad():
            logits = network(pixels)
        found.append((float((logits.argmax(1) == labels).double().mean()), float(F.cross_entropy(logits, labels))))
    return np.array(found).T


@pytest.mark.parametrize("options", [
    {}, {"pruner": "rigl:every=1,sparsity=0.5"}, {"noise": "symmetric:rate=1.0", "fault": ["label-flip:share=1.0"]},
    {"clients": 5, "together": 2}])
def test_plain_fedavg_is_tested_as_by_hand(options):
    """True labels, and no fault; the model that is tested is the merged and pruned one."""
    options = TESTED | options
    run, state = contracts.assembled(**options)
    for t in (1, 2):
        played = run_round(run, state, t)
        state, row, own = played.state, played.row, played.own
        accuracies, losses = by_hand(options, state["x"])
        assert own["accuracy"].tolist() == accuracies.tolist() and np.allclose(own["loss"], losses, atol=1e-6)
        assert own["client"].tolist() == list(range(len(accuracies))) and (own["round"] == t).all()
        assert row["own_accuracy"] == accuracies.mean() and row["own_accuracy_worst"] == accuracies.min()
        assert row["own_s"] > 0
        assert played.evaluation.ended and finish(played.evaluation)["accuracy"] >= 0     # rank 0, meanwhile


@pytest.mark.parametrize("pruner", ["dense", "rigl:every=1,sparsity=0.5"])
def test_personal_tensors_are_laid_over_what_clients_would_be_sent(pruner):
    """A client that has not taken part yet has those of the first model."""
    options = TESTED | {"strategy": "fedper", "clients": 4, "cohort": 2, "pruner": pruner}
    run, state = contracts.assembled(**options)
    own, first = run.layout.personal_positions, state["x"].clone()
    for t in (1, 2):
        played = run_round(run, state, t)
        state, models = played.state, []
        for client in range(4):
            x = state["x"].clone()
            kept = state["clients"].get(client)
            x[own] = kept.values[train.OWN] if kept else run.transport.worker.home.initial[own]
            x[: run.layout.Q] *= state["mask"]
            models.append(x)
        accuracies, losses = by_hand(options, *models)
        assert played.own["accuracy"].tolist() == accuracies.tolist()
        assert np.allclose(played.own["loss"], losses, atol=1e-6)
        assert len(set(losses)) == 4 and (t > 1 or len(state["clients"]) == 2)
    assert not torch.equal(first[own], models[int(played.clients["client"][0])][own])


def test_a_strategy_may_make_the_model_that_a_client_is_tested_by():
    def own_model(task):
        if task.message["factor"] == 1:
            return None                                    # as it is
        assert torch.equal(task.x, task.base)
        task.x.mul_(float(task.message["factor"]))           # in place, as training would
        return task.x

    def send_to(state, client):
        return {"factor": torch.tensor([client / 2.0])}

    options = TESTED | {"clients": 3, "partition": "quantity:beta=5,min_size=20"}
    part = {"strategy": fedavg()._replace(own_model=own_model, send_to=send_to, sends={"factor": Field(on=(1,))})}
    played = run_round(*contracts.assembled(of_server=part, of_worker=part, **options), 1)
    x = played.state["x"]
    plain = by_hand(options, x)[1]
    made = by_hand(options, x * 0, x / 2, x)[1]
    assert np.allclose(played.own["loss"], made, atol=1e-6)
    assert abs(made[0] - math.log(4)) < 1e-6 and made[1] != plain[1]


def test_own_tests_change_nothing_else():
    runs = [contracts.assembled(**TESTED | {"client_test_every": every}) for every in (1, 3)]
    rows = [contracts.run_rounds(*started, 3)[1] for started in runs]
    for one, other in zip(*rows):
        same = [name for name in one if not name.endswith(("_s", "_bytes")) and name != "recorded"]
        assert {name: one[name] for name in same if not name.startswith("own_")} == {
            name: other[name] for name in same if not name.startswith("own_")}
    assert [math.isnan(row["own_accuracy"]) for row in rows[1]] == [True, True, False]
    assert rows[0][2]["own_accuracy"] == rows[1][2]["own_accuracy"]


def test_clients_are_tested_on_what_the_codec_lets_through():
    options = TESTED | {"codec": "float16"}
    run, state = contracts.assembled(**options)
    played = run_round(run, state, 1)
    support = run.layout.support(played.state["mask"])
    values = gathered(played.state["x"], support)
    sent = run.codec.down.decode(run.codec.down.encode(values), len(support))
    got = scattered(sent, support, torch.zeros_like(played.state["x"]))
    assert np.allclose(played.own["loss"], by_hand(options, got)[1], atol=1e-7)


def test_a_test_part_has_the_skew_of_its_client_and_no_fault():
    """Clients turned by quarter turns are tested on turned images; noise as a fault stays out."""
    options = TESTED | {"clients": 4, "features": "rotation", "fault": ["feature-noise:share=1.0"]}
    run, state = contracts.assembled(**options)
    data = contracts.dealt(DEFAULTS | contracts.SMALL | options)
    worker = run.transport.worker
    for client in range(4):
        index = data.held_out.indices[data.held_out.offsets[client]: data.held_out.offsets[client + 1]]
        plain = inputs(torch.from_numpy(data.dataset.x_train[index]), data.dataset.mean, data.dataset.std)
        got, labels = samples.own_test(worker.samples, client)
        assert torch.equal(got, torch.rot90(plain, client, (2, 3)))
        assert labels.tolist() == data.dataset.y_train[index].tolist()


def test_rows_of_own_tests_are_stored_with_their_round():
    run, state = contracts.assembled(rounds=3, **TESTED | {"client_test_every": 2})
    store = MemoryStore({}, *record.columns(run), {}, ([0], []), record.own_columns(run))
    loop.simulate(run, state, store, 1, 3)
    stored = store.run()
    assert stored.own["round"].tolist() == [2, 2, 3, 3] and stored.own_ends.tolist() == [0, 2, 4]
    assert stored.rounds["own_accuracy"][2] == stored.own["accuracy"][2:].mean()


def test_slices_of_work_keep_their_result():
    def work():
        yield
        return 7

    slices = Slices(work())
    assert len(list(slices)) == 1 and finish(slices) == 7 and finish(slices) == 7
