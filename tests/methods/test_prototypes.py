"""FedPCL: known losses, prototypes and bytes; models that never travel; what cannot be combined with it."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import contracts
from fedmpi.client.samples import of_client
from fedmpi.core.errors import UserError
from fedmpi.core.parts import Facts, Updates
from fedmpi.methods.strategies import fedpcl
from fedmpi.server.round import run_round
from fedmpi.server.slices import finish
from fedmpi.server.exchange import state_of_client

FEDPCL = dict(strategy="fedpcl", contribution=None, partition="classes", clients=4, lr=0.01, client_test=0.3,
              client_test_every=1, model="2nn:hidden=16")
YES = torch.ones(2, dtype=torch.bool)


def of_one(z, prototypes):
    """The loss of a sample of class 0 against one client's prototypes of two classes."""
    return float(fedpcl.contrast(torch.tensor([z]), torch.tensor([0]), YES, torch.tensor([prototypes]), 0.07))


def test_known_losses():
    assert of_one([1.0, 0.0], [[1.0, 0.0], [0.0, 1.0]]) == pytest.approx(math.log1p(math.exp(-1 / 0.07)), rel=0.05)
    exact = fedpcl.contrast(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), YES, torch.eye(2)[None], 0.25)
    assert float(exact) == pytest.approx(math.log1p(math.exp(-4)), rel=1e-5)
    assert of_one([0.6, 0.8], [[0.6, 0.8], [0.6, 0.8]]) == pytest.approx(math.log(2))
    # Features are brought to length 1, prototypes are taken as they are.
    assert of_one([5.0, 0.0], [[0.07, 0.0], [0.0, 0.07]]) == pytest.approx(math.log1p(math.exp(-1)), rel=1e-6)


def test_the_loss_is_a_sum_over_clients_and_a_mean_over_samples():
    z, labels = torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
    first, second = torch.randn(1, 2, 3), torch.randn(1, 2, 3)
    alone = [fedpcl.contrast(z, labels, YES, each, 0.5) for each in (first, second)]
    together = fedpcl.contrast(z, labels, YES, torch.cat([first, second]), 0.5)
    torch.testing.assert_close(together, sum(alone))
    single = [fedpcl.contrast(z[row: row + 1], labels[row: row + 1], YES, first, 0.5) for row in range(5)]
    torch.testing.assert_close(alone[0], torch.stack(single).mean())


def test_what_a_client_lacks_is_the_mean_and_what_everybody_lacks_is_left_out():
    owned = torch.tensor([[True, False, True, False], [True, False, False, False]])
    rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    means = fedpcl.means_of(owned, rows)
    assert means.tolist() == [[2, 0], [0, 1]]
    has_prototype, prototypes = fedpcl.filled(owned, rows, means)
    assert has_prototype.tolist() == [True, False, True, False]
    assert prototypes.tolist() == [[[1, 0], [0, 1]], [[3, 0], [0, 1]]]
    # The second sample's class has no prototype.
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    both = fedpcl.contrast(z, torch.tensor([2, 1]), has_prototype, prototypes, 1.0)
    one = fedpcl.contrast(z[:1], torch.tensor([2]), has_prototype, prototypes, 1.0)
    assert float(both) == pytest.approx(float(one) / 2)


def test_the_server_keeps_the_last_prototypes_of_those_who_take_no_part():
    def answers(*clients):
        parts = {"classes": [torch.tensor(classes) for _, classes, _ in clients],
                 "prototypes": [torch.tensor(rows) for _, _, rows in clients]}
        ones = torch.ones(len(clients), dtype=torch.float64)
        return Updates(torch.empty(len(clients), 0), None, torch.empty(0), ones, 0, parts=parts,
                       clients=torch.tensor([client for client, _, _ in clients]))

    strategy, x, weights = fedpcl.fedpcl(), torch.zeros(3), torch.ones(1)
    state, _ = strategy.merge(strategy.init(None), x, answers(
        (3, [True, False], [[1.0]]), (1, [True, True], [[5.0], [7.0]])), weights)
    state, after = strategy.merge(state, x, answers((3, [False, True], [[9.0]])), weights)
    assert after is x and state["clients"].tolist() == [1, 3]
    assert state["owned"].tolist() == [[True, True], [False, True]] and state["rows"].tolist() == [[5], [7], [9]]
    assert strategy.send(state)["means"].tolist() == [[5], [8]]


def test_the_nearest_prototype_wins_and_classes_without_one_never_do():
    z = F.normalize(torch.tensor([[1.0, 0.1], [-1.0, 0.0]]), dim=1)
    has_prototype = torch.tensor([False, True, False, True])
    outputs = fedpcl.nearness(z, has_prototype, torch.tensor([[1.0, 0.0], [0.0, 0.5]]))
    assert outputs.argmax(1).tolist() == [1, 3] and (outputs[:, ~has_prototype] < outputs[:, has_prototype].min()).all()
    assert torch.isfinite(outputs).all()
    assert float(outputs[1, 3]) == pytest.approx(-0.5 * (1 + 0.25))


@pytest.fixture(scope="module")
def played():
    """``(run, rounds played)``: partial participation, so that some keep what they have."""
    run, state = contracts.assembled(**FEDPCL | {"cohort": 3})
    rounds = []
    for t in range(1, 5):
        rounds.append(run_round(run, state, t))
        state = rounds[-1].state
    return run, rounds


def test_no_weight_travels_and_bytes_are_those_of_prototypes(played):
    run, rounds = played
    assert not run.layout.travels and not len(run.layout.dense_positions)
    d, C, header = 16, 4, 3 * 512
    for before, now in zip(rounds, rounds[1:]):
        state = before.state["strategy"]
        values = len(state["rows"]) + int(state["owned"].any(0).sum())
        down = 3 * (values * d * 4 + len(state["clients"]) * C)
        assert 0 < now.row["down_bytes"] - down < header
        cohort = [row for row, client in enumerate(now.state["strategy"]["clients"].tolist())
                  if client in now.clients["client"]]
        up = int(now.state["strategy"]["owned"][cohort].sum()) * d * 4 + 3 * C
        assert 0 < now.row["up_bytes"] - up < header
    # The model has 400 weights in front of its features alone.
    assert rounds[-1].row["up_bytes"] < 3 * 400 * 4 / 2


def test_round_1_collects_and_later_ones_train_models_of_the_clients_own(played):
    run, rounds = played
    first, second = rounds[0].row, rounds[1].row
    assert first["train_loss"] == 0 and first["flops_dense"] == 0 and second["train_loss"] > 0
    assert torch.equal(rounds[-1].state["x"], rounds[0].state["x"])
    own = [state_of_client(run, rounds[-1].state, client, rounds[-1].state["mask"]) for client in range(4)]
    assert all(not torch.equal(own[0]["_personal"], other["_personal"]) for other in own[1:])
    state = rounds[-1].state["strategy"]
    rows = state["rows"].split(state["owned"].sum(1).tolist())
    assert all(torch.equal(kept["prototypes"], sent) for kept, sent in zip(own, rows))


def test_prototypes_are_the_means_of_what_the_clients_model_makes(played):
    run, rounds = played
    state, worker = rounds[-1].state, run.transport.worker
    client = int(rounds[-1].clients["client"][0])
    worker.home.x[run.layout.personal_positions] = state_of_client(run, state, client, state["mask"])["_personal"]
    inputs, labels = of_client(worker.samples, client)
    layers = list(worker.home.model.eval())
    with torch.no_grad():
        z = inputs
        for layer in layers[:-1]:
            z = layer(z)
    z = F.normalize(z, dim=1)
    expected = torch.stack([z[labels == c].mean(0) for c in labels.unique()])
    row = state["strategy"]["clients"].tolist().index(client)
    sent = state["strategy"]["rows"].split(state["strategy"]["owned"].sum(1).tolist())[row]
    torch.testing.assert_close(sent, expected)


def test_the_server_has_no_model_to_test(played):
    _, rounds = played
    last = finish(rounds[-1].evaluation)
    assert all(np.isnan(last[name]) for name in ("accuracy", "loss", "accuracy_before"))
    assert rounds[-1].row["own_accuracy"] >= rounds[0].row["own_accuracy"]
    assert rounds[-1].row["own_loss"] < rounds[0].row["own_loss"] / 2


def test_clients_may_train_before_there_are_prototypes():
    run, state = contracts.assembled(**FEDPCL | {"strategy": "fedpcl:first=train"})
    assert contracts.run_rounds(run, state, 1)[1][0]["train_loss"] > 0


@pytest.mark.parametrize("predict, least", [("own", 0.9), ("global", 0.8)])
def test_digits_of_few_classes_are_told_apart(predict, least):
    """By all clients' prototypes chance is a tenth; by its own, of two classes, it is half."""
    run, state = contracts.assembled(**FEDPCL | {
        "strategy": f"fedpcl:predict={predict}", "dataset": "digits", "clients": 5, "train_samples": 500, "rounds": 10,
        "model": "2nn:hidden=32", "lr": 0.003, "client_test_every": 10, "local_epochs": 2})
    for t in range(1, 11):
        result = run_round(run, state, t)
        state = result.state
    assert result.row["own_accuracy"] > least


@pytest.mark.parametrize("options, message", [
    ({"contribution": "cosine"}, "fedpcl: clients send no update of a model, which --contribution cosine would judge"),
    ({"observe": ["shapley"]}, "which --observe shapley would judge"),
    ({"pruner": "rigl"}, "from which the pruner's next mask would follow; take --pruner dense, or static"),
    ({"sampler": "power-of-choice:candidates=4", "cohort": 2}, "the server has no model whose loss"),
    ({"model": "logistic"}, "nothing that is trained comes before its features"),
    ({"strategy": "fedpcl:before=nowhere"}, "the model has no module nowhere"),
    ({"strategy": "fedpcl:temperature=0"}, "temperature must be > 0"),
    ({"strategy": "fedpcl:predict=both"}, "predict must be own or global, got both")])
def test_what_does_not_go_with_prototypes_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        contracts.assembled(**FEDPCL | options)


def test_a_static_mask_prunes_the_clients_models():
    run, state = contracts.assembled(**FEDPCL | {"pruner": "static:sparsity=0.5"})
    states, _ = contracts.run_rounds(run, state, 2)
    own = state_of_client(run, states[-1], 0, states[-1]["mask"])["_personal"]
    whole = torch.zeros(run.layout.P)
    whole[run.layout.personal_positions] = own
    assert not whole[: run.layout.Q][~state["mask"]].any() and whole.any()


def test_what_comes_to_nothing_is_told():
    facts = Facts(None, {"codec": "--codec int8", "weighting": "--weighting size"}, coded=True)
    said = " ".join(fedpcl.fedpcl().notes(facts))
    assert "give --client-test 0.2" in said and "--codec int8 has no effect" in said
    assert "--weighting size has no effect" in said
    assert not list(fedpcl.fedpcl().notes(facts._replace(coded=False, own_tests=True, even=True)))
