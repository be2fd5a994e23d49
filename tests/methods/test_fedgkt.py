"""FedGKT: known losses and bytes, the server's training by hand, clients that teach and are taught."""

import copy

import pytest
import torch
from torch.nn import functional as F

import contracts
from fedmpi.client.samples import of_client
from fedmpi.core.errors import UserError
from fedmpi.core.kinds import part
from fedmpi.core.parts import Facts
from fedmpi.methods.strategies import fedgkt
from fedmpi.server.round import run_round

FEDGKT = dict(strategy="fedgkt", contribution=None, clients=4, lr=0.02, client_test=0.3, client_test_every=1,
              model="2nn:hidden=16", server_model="2nn:hidden=24", optimiser=None, local_epochs=2)


def test_known_distillations():
    z = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]])
    assert float(fedgkt.distillation(z, z, 3.0)) == pytest.approx(0, abs=1e-5)
    assert float(fedgkt.distillation(z, z + 7, 3.0)) == pytest.approx(0, abs=1e-5)
    teacher, student = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    # 4 * (ln .5 - (ln sigmoid(.5) + ln sigmoid(-.5)) / 2)
    assert float(fedgkt.distillation(teacher, student, 2.0)) == pytest.approx(0.1237, abs=1e-4)


def test_at_a_high_temperature_it_is_the_squared_distance_of_centred_logits():
    a, b = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    centred = (a - b) - (a - b).mean(dim=1, keepdim=True)
    wanted = centred.square().sum() / (2 * 4 * 5)
    assert float(fedgkt.distillation(a, b, 3000.0)) - 9e6 * 4 * fedgkt.LEAST == pytest.approx(float(wanted), rel=0.05)


def test_losses_weigh_the_labels_on_the_server_and_the_teacher_on_clients():
    outputs, teacher, labels = torch.randn(6, 3), torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    targets = fedgkt.beside(teacher, labels)
    ce, kd = F.cross_entropy(outputs, labels), fedgkt.distillation(teacher, outputs, 4.0)
    torch.testing.assert_close(fedgkt.client_loss(outputs, targets, 0.3, 4.0), ce + 0.3 * kd)
    torch.testing.assert_close(fedgkt.server_loss(outputs, targets, 0.3, 4.0), kd + 0.3 * ce)


def test_bytes_up_are_features_outputs_and_labels_and_down_outputs_from_the_second_time_on():
    run, state = contracts.assembled(**FEDGKT)
    first = run_round(run, state, 1)
    second = run_round(run, first.state, 2)
    n = run.sizes.numpy()
    for played, down in ((first, 0 * n), (second, n * 4 * 4)):
        rows = played.clients
        # A message's frame and what it says of the client take some hundred bytes.
        assert (0 <= rows["up_bytes"] - n * ((16 + 4) * 4 + 1)).all() and (
            rows["up_bytes"] - n * ((16 + 4) * 4 + 1) < 900).all()
        assert (0 <= rows["down_bytes"] - down).all() and (rows["down_bytes"] - down < 500).all()


def test_the_server_trains_as_torch_would_in_the_order_of_clients_and_answers_the_last_outputs():
    options = FEDGKT | {"strategy": "fedgkt:alpha=0.7,temperature=5,server_epochs=2,server_lr=0.1",
                        "optimiser": "sgd:momentum=0.9", "local_steps": 0, "batch_size": 8}
    run, state = contracts.assembled(**options)
    network = copy.deepcopy(run.own_network.model)
    parameters, layout = dict(network.named_parameters()), run.kinds.server.layout
    start = part(run.kinds.server, state["x"])
    for slot in layout.trained:
        parameters[slot.name].data = start[slot.span].view(slot.shape).clone()
    seen = []
    after = run.strategy.after

    def watched(strategy, x, updates, lab):
        seen.append(updates.parts)
        return after(strategy, x, updates, lab)

    played = run_round(run._replace(strategy=run.strategy._replace(after=watched)), state, 1)
    parts, = seen
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        outputs = []
        for features, logits, labels in zip(parts["features"], parts["logits"], parts["labels"]):
            for rows in torch.arange(len(labels)).split(8):
                made = network(features[rows])
                teacher = F.softmax(logits[rows] / 5, dim=1) + 1e-7
                kd = 25 * F.kl_div(F.log_softmax(made / 5, dim=1), teacher, reduction="batchmean")
                optimiser.zero_grad()
                (kd + 0.7 * F.cross_entropy(made, labels[rows].long())).backward()
                optimiser.step()
                outputs.append(made.detach())
    after_x = part(run.kinds.server, played.state["x"])
    for slot in layout.trained:
        made = after_x[slot.span].view(slot.shape)
        torch.testing.assert_close(made, parameters[slot.name].detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(played.state["strategy"]["logits"], torch.cat(outputs), rtol=1e-4, atol=1e-5)
    assert played.row["flops_server"] > 0


def test_clients_train_by_labels_alone_at_first_and_then_are_taught():
    run, state = contracts.assembled(**FEDGKT | {"strategy": "fedgkt:alpha=0"})
    taught_fed, _ = contracts.assembled(**FEDGKT | {"strategy": "fedgkt:alpha=1"})
    plain, taught = run_round(run, state, 1), run_round(taught_fed, state, 1)
    for client in range(4):
        a, b = (played.state["clients"][client].values["_personal"] for played in (plain, taught))
        assert torch.equal(a, b)
    plain, taught = (run_round(each, played.state, 2) for each, played in ((run, plain), (taught_fed, taught)))
    assert not torch.equal(*(each.state["clients"][0].values["_personal"] for each in (plain, taught)))


def test_features_are_those_of_the_trained_client_in_evaluation_mode():
    run, state = contracts.assembled(**FEDGKT)
    worker = run.transport.worker
    seen = []

    def watched(state, x, updates, lab):
        seen.append(updates)
        return run.strategy.after(state, x, updates, lab)

    played = run_round(run._replace(strategy=run.strategy._replace(after=watched)), state, 1)
    client = 1
    own = played.state["clients"][client].values["_personal"]
    kind = run.kinds.of_client(client)
    home = worker.resident(0).home
    vector = torch.zeros(kind.layout.P)
    vector[kind.layout.personal_positions] = own
    home.x.copy_(vector)
    home.model.eval()
    inputs, labels = of_client(worker.samples, client)
    with torch.no_grad():
        torch.testing.assert_close(seen[0].parts["logits"][client], home.model(inputs))
        features = fedgkt.fedgkt().features(home.model, inputs)
    torch.testing.assert_close(seen[0].parts["features"][client], features)
    assert seen[0].parts["labels"][client].tolist() == labels.tolist()


def test_two_kinds_of_clients_teach_one_network_and_everybody_learns():
    run, state = contracts.assembled(**FEDGKT | {
        "model": "2nn:hidden=24", "also_model": ["small_net:net"], "dataset": "digits", "clients": 6,
        "train_samples": 900, "strategy": "fedgkt:temperature=4", "server_model": "2nn:hidden=64", "lr": 0.05,
        "client_test_every": 8, "rounds": 8})
    assert sorted(set(run.kinds.of.tolist())) == [0, 1]
    for t in range(1, 9):
        played = run_round(run, state, t)
        state = played.state
    assert played.row["own_accuracy"] > 0.8
    assert played.row["server_loss"] > 0 and not played.row.get("accuracy", 0) > 0


@pytest.fixture(autouse=True)
def small_net(tmp_path, monkeypatch):
    """A convolutional network with as many features as ``2nn:hidden=24``."""
    (tmp_path / "small_net.py").write_text("""
from torch import nn

def net(shape, classes):
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 24), nn.ReLU(),
                         nn.Linear(24, classes))
""")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize("options, message", [
    ({"server_model": None}, "the server trains a network of its own on the clients' features; say by --server-model"),
    ({"strategy": "fedavg"}, "--server-model 2nn:hidden=24 has no effect"),
    ({"also_model": ["2nn:hidden=5"]}, r"features of one shape, and --model 2nn:hidden=16 gives \(16,\), --also-model "
                                       r"2nn:hidden=5 gives \(5,\)"),
    ({"contribution": "cosine"}, "clients send no update of a model|compares updates"),
    ({"pruner": "rigl"}, "gives clients masks of their own, or asks them for reports"),
    ({"model": "logistic"}, "nothing that is trained comes before its features"),
    ({"strategy": "fedgkt:cut=nowhere"}, "the model has no module nowhere"),
    ({"strategy": "fedgkt:temperature=0"}, "temperature must be > 0"),
    ({"strategy": "fedgkt:alpha=-1"}, "alpha must be >= 0"),
    ({"strategy": "fedgkt:server_epochs=-1"}, "server_epochs and server_lr must be >= 0")])
def test_what_cannot_work_is_refused(options, message):
    with pytest.raises((UserError, ValueError), match=message):
        contracts.assembled(**FEDGKT | options)


def test_what_comes_to_nothing_is_told():
    facts = Facts(None, {"codec": "--codec int8", "weighting": "--weighting size"}, coded=True)
    said = " ".join(fedgkt.fedgkt().notes(facts))
    assert "give --client-test 0.2" in said and "--codec int8 has no effect" in said
    assert "--weighting size has no effect" in said
    assert not list(fedgkt.fedgkt().notes(facts._replace(coded=False, own_tests=True, even=True)))
