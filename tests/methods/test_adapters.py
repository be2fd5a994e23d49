"""Adapters: known answers of the merges, what travels, what stays as it is, what is refused."""

import pytest
import torch
from torch import nn

import contracts
from fedmpi.build import needs
from fedmpi.build.check import check
from fedmpi.core.adapters import adapters_of, merged_state
from fedmpi.core.errors import UserError
from fedmpi.core.layout import bind
from fedmpi.core.parts import Round, Updates
from fedmpi.core.tensors import frozen
from fedmpi.laws.engine import small
from fedmpi.methods.adapters.lora import ffa_lora, lora
from fedmpi.methods.models.gpt import gpt
from fedmpi.methods.strategies.fedavg import fedavg
from fedmpi.methods.strategies.flora import flora

HALVES = torch.tensor([0.5, 0.5], dtype=torch.float64)
VIT = {"model": "vit:depth=1,width=16,heads=2", "lr": 0.01}


def adapted(part, network, base=False):
    """The network with adapters, their chance always the same."""
    return part.attach(network, torch.Generator().manual_seed(0), base)


def updates_to(layout, x, models):
    """``Updates`` of clients that end at ``models``, [{name: tensor}], and elsewhere stay at x."""
    support = layout.support(layout.full_mask())
    rows = []
    for model in models:
        trained = x.clone()
        for slot in layout.slots:
            if slot.name in model:
                slot.of(trained).copy_(model[slot.name])
        rows.append((trained - x)[support])
    return Updates(torch.stack(rows), None, support, n=HALVES, trained=len(support), round=Round(1, 2))


def change(part, strategy, models, shape):
    """The change of the weight of one layer ``shape (d_in, d_out)`` by a merge of two clients."""
    network = adapted(part, nn.Linear(*shape, bias=False), strategy.absorb is not None)
    before = network.weight.detach().clone()
    layout, x, _ = bind(network)
    updates = updates_to(layout, x.clone(), models)
    _, merged = strategy.merge(strategy.init(layout), x.clone(), updates, HALVES)
    x.copy_(merged)
    return merged_state(network)["weight"] - before


# The notes' rank-1 check: A_1 = (1, 0), A_2 = (0, 1), B_1 = 1, B_2 = -1, p = 1/2.
RANK_1 = [{"lora_A": torch.tensor([[1.0, 0.0]]), "lora_B": torch.tensor([[1.0]])},
          {"lora_A": torch.tensor([[0.0, 1.0]]), "lora_B": torch.tensor([[-1.0]])}]


def test_the_mean_of_factors_is_not_the_mean_of_products():
    part = lora(rank=1, alpha=1.0, on="all")
    assert change(part, fedavg(), RANK_1, (2, 1)).tolist() == [[0.0, 0.0]]


def test_flora_adds_the_exact_mean_product():
    part = lora(rank=1, alpha=1.0, on="all")
    torch.testing.assert_close(change(part, flora(), RANK_1, (2, 1)), torch.tensor([[0.5, -0.5]]), rtol=0, atol=1e-7)


def test_a_frozen_A_makes_the_mean_of_B_exact():
    part = ffa_lora(rank=2, alpha=2.0, on="all")
    A = adapted(part, nn.Linear(3, 2, bias=False)).lora_A.detach()
    Bs = [torch.tensor([[1.0, -2.0], [0.5, 4.0]]), torch.tensor([[3.0, 0.0], [-0.5, 1.0]])]
    mean_product = (Bs[0] @ A + Bs[1] @ A) / 2
    got = change(part, fedavg(), [{"lora_B": B} for B in Bs], (3, 2))
    torch.testing.assert_close(got, mean_product, rtol=1e-6, atol=1e-6)


def test_flora_scales_by_alpha_over_rank_and_begins_anew():
    part, strategy = lora(rank=2, alpha=6.0, on="all"), flora()
    network = adapted(part, nn.Linear(3, 2), base=True)
    layout, x, _ = bind(network)
    first_A = network.lora_A.detach().clone()
    models = [{"lora_A": torch.randn(2, 3), "lora_B": torch.randn(2, 2)} for _ in range(2)]
    before = network.weight.clone()
    state, merged = strategy.merge(
        strategy.init(layout), x.clone(), updates_to(layout, x.clone(), models), HALVES)
    exact = 3 * sum(0.5 * model["lora_B"] @ model["lora_A"] for model in models)
    # What a client makes of the message is what the server made.
    absorbed = x.clone()
    strategy.absorb(layout, absorbed, strategy.send(state))
    x.copy_(merged)
    torch.testing.assert_close(network.weight - before, exact, rtol=1e-5, atol=1e-6)
    assert not network.lora_B.any() and not torch.equal(network.lora_A, first_A)
    assert network.lora_A.abs().max() <= 3 ** -0.5
    assert torch.equal(absorbed[layout.base_positions], merged[layout.base_positions])
    assert state["merges"] == 1 and len(state["stack"]) == 2 * 2 * (3 + 2)


@pytest.mark.parametrize("weights", [(0.25, 0.75), (1.0, 0.0)])
def test_a_client_of_lower_rank_adds_its_own_product(weights):
    part, strategy = lora(rank=3, alpha=3.0, on="all"), flora()
    network = adapted(part, nn.Linear(4, 3, bias=False), base=True)
    layout, x, _ = bind(network)
    masks = contracts.make(contracts.catalog.PRUNERS, "ranks:of=3/1").masks({}, None, x, layout, torch.arange(2))
    models = [{"lora_A": torch.randn(3, 4), "lora_B": torch.randn(3, 3)} for _ in range(2)]
    updates = updates_to(layout, x.clone(), models)
    held = torch.stack([mask[updates.support[updates.support < layout.Q].long()] for mask in masks])
    updates = updates._replace(U=updates.U * held, B=held)
    before = network.weight.clone()
    state, merged = strategy.merge(strategy.init(layout), x.clone(), updates, torch.tensor(weights).double())
    x.copy_(merged)
    whole, low = models
    exact = weights[0] * whole["lora_B"] @ whole["lora_A"] + weights[1] * low["lora_B"][:, :1] @ low["lora_A"][:1]
    torch.testing.assert_close(network.weight - before, exact, rtol=1e-5, atol=1e-5)
    assert len(state["stack"]) == (3 + 1) * (4 + 3)


# --- the network ---


def test_adapters_leave_the_model_as_it_is_and_its_tensors_their_names():
    torch.manual_seed(0)
    network = gpt((8,), 11, depth=2, width=16, heads=2)
    tokens = torch.arange(8).view(1, 8)
    before, names = network(tokens).detach(), set(network.state_dict())
    network = adapted(lora(rank=2, on="mlp"), network)
    assert torch.equal(network(tokens), before)
    assert {each.weight for each in adapters_of(network)} == {
        f"blocks.{block}.mlp.{layer}.weight" for block in (0, 1) for layer in ("up", "out")}
    assert set(merged_state(network)) == names


@pytest.mark.parametrize("part, trained", [
    (lora(on="attention.query"), ["attention.query.lora_A", "attention.query.lora_B"]),
    (ffa_lora(on="attention.query"), ["attention.query.lora_B"]),
    (lora(on="attention.query", also="head"),
     ["attention.query.lora_A", "attention.query.lora_B", "head.weight"])])
def test_only_these_are_trained(part, trained):
    network = adapted(part, gpt((8,), 11, depth=1, width=16, heads=2))
    names = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    assert [name.removeprefix("blocks.0.") for name in names] == trained


def test_a_head_gets_no_adapter_and_a_layer_alone_does():
    network = adapted(lora(rank=2, on="all"), gpt((8,), 11, depth=1, width=16, heads=2, tied=True))
    assert not any("head" in each.weight for each in adapters_of(network))
    assert len(adapters_of(adapted(lora(rank=1, on="all"), nn.Linear(2, 1)))) == 1


def test_a_layer_in_two_places_gets_no_adapter():
    twice, once = nn.Linear(4, 4), nn.Linear(4, 4)
    network = adapted(lora(rank=1, on="all"), nn.Sequential(twice, once, twice))
    assert [each.weight for each in adapters_of(network)] == ["1.weight"]


@pytest.mark.parametrize("options, told", [
    ({"rank": 0}, "rank must be >= 1, got 0"), ({"alpha": 0.0}, "alpha must be a number above 0, got 0"),
    ({"on": "("}, r"on must be a regular expression, got '\('")])
def test_impossible_options_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        lora(**options)


@pytest.mark.parametrize("part, told", [
    (lora(on="nowhere"), "on=nowhere fits no linear layer of the model; it has blocks.0.attention.query"),
    (lora(rank=17), "rank must be at most 16, the smaller side of blocks.0.attention.query, got 17"),
    (lora(also="query"), "also names the weight of blocks.0.attention.query, which has an adapter"),
    (lora(also="nothing"), "also=nothing fits no parameter")])
def test_a_network_without_a_place_is_told(part, told):
    with pytest.raises(ValueError, match=told):
        adapted(part, gpt((8,), 11, depth=1, width=16, heads=2))


# --- runs ---


@pytest.mark.parametrize("strategy, adapters", [("fedavg", "lora:rank=2"), ("fedavg", "ffa-lora:rank=2"),
                                                ("diloco", "lora:rank=2"), ("flora", "lora:rank=2")])
def test_a_message_is_as_long_as_the_adapters(strategy, adapters):
    run, state = contracts.assembled(**VIT, strategy=strategy, adapters=adapters, pruner="dense")
    rank, width, layers = 2, 16, 4
    per_layer = rank * width if adapters.startswith("ffa") else rank * 2 * width
    assert len(run.layout.support(state["mask"])) == layers * per_layer == run.layout.num_values
    states, rows = contracts.run_rounds(run, state, 2)
    clients = len(run.sizes)
    up = 4 * layers * per_layer * clients
    assert up <= rows[1]["up_bytes"] <= up + 400 * clients
    stack = 4 * layers * per_layer * clients if strategy == "flora" else 0
    down = (4 * layers * per_layer + stack) * clients
    assert down <= rows[1]["down_bytes"] <= down + 600 * clients
    assert not torch.equal(states[0]["x"], states[1]["x"])


def test_ranks_of_clients_decide_about_their_bytes():
    run, state = contracts.assembled(**VIT, strategy="flora", adapters="lora:rank=4", pruner="ranks:of=4/1")
    _, rows = contracts.run_rounds(run, state, 1)
    values = 4 * 4 * 2 * 16
    N = len(run.sizes)
    full, low = (N + 1) // 2, N // 2
    expected = 4 * values * full + values * low
    assert expected <= rows[0]["up_bytes"] <= expected + 400 * N


def test_the_frozen_model_is_one_copy_in_a_node_and_stays():
    run, state = contracts.assembled(**VIT, strategy="fedavg", adapters="lora:rank=2", pruner="dense")
    home = run.transport.worker.home
    shared = run.transport.worker.data
    for name, parameter in frozen(home.model):
        assert parameter.data_ptr() == shared[f"frozen/{name}"].ctypes.data
    before = {name: parameter.clone() for name, parameter in frozen(home.model)}
    contracts.run_rounds(run, state, 2)
    for name, parameter in frozen(home.model):
        assert torch.equal(parameter, before[name]) and parameter.grad is None


@pytest.mark.parametrize("more", [{}, {"pruner": "ranks:of=2/1"}, {"client_test": 0.3},
                                  {"contribution": "loo", "cohort": 2}])
def test_workers_repeat_every_change_of_the_base(more):
    options = VIT | {"pruner": "dense"} | more
    run, state = contracts.assembled(**options, strategy="flora", adapters="lora:rank=2")
    states, _ = contracts.run_rounds(run, state, 3)
    worker = run.transport.worker
    base = run.layout.base_positions
    last = states[-1]["x"] if more.get("client_test") else states[-2]["x"]
    assert torch.equal(worker.home.initial[base], last[base])
    assert not torch.equal(states[0]["x"][base], states[1]["x"][base])


def test_products_with_the_frozen_model_count_as_frozen():
    plain, _ = contracts.assembled(**VIT, strategy="fedavg", pruner="dense")
    small = 2 * 16
    for strategy in ("fedavg", "flora"):
        run, _ = contracts.assembled(**VIT, strategy=strategy, adapters="lora:rank=1", pruner="dense")
        of_adapters = sum(2 * slot.size * uses for slot, uses in zip(run.layout.weights, run.costs.macs_per_weight))
        of_model = sum(2 * slot.size * uses for slot, uses in zip(plain.layout.weights, plain.costs.macs_per_weight))
        places = plain.costs.macs_per_weight[1]
        assert of_adapters == 4 * 2 * small * places
        assert run.costs.frozen + run.costs.dense == pytest.approx(of_model + plain.costs.dense)


def test_the_plan_counts_the_frozen_model_once_a_node():
    setup = small(**VIT, strategy="fedavg", adapters="lora:rank=2", pruner="dense")
    one, two = (needs.host_need(setup, ranks, first=False) for ranks in (1, 2))
    frozen_bytes = 4 * setup.network.layout.num_frozen
    assert one.shared == two.shared
    assert one.shared >= setup.data.dataset.x_train.nbytes + frozen_bytes


@pytest.mark.parametrize("options, told", [
    ({"strategy": "flora"}, "it merges adapters, and the model has none"),
    ({"strategy": "flora", "adapters": "ffa-lora:rank=2"}, "--adapters ffa-lora:rank=2 does not train A"),
    ({"strategy": "flora", "adapters": "lora:rank=2", "timing": "fedbuff", "devices": "drawn"}, "take --timing sync"),
    ({"adapters": "lora:rank=2", "pruner": "rigl"}, "masks would cut adapters; take --pruner dense, or ranks"),
    ({"pruner": "ranks"}, "it cuts adapters, and the model has none"),
    ({"adapters": "lora:rank=2", "pruner": "ranks:of=4/2"}, "of must be at most 2"),
    ({"adapters": "lora:rank=2", "also_model": ["2nn"]}, "goes with one network"),
    ({"adapters": "lora:rank=2", "strategy": "flora", "together": 2}, "--together 2")])
def test_what_does_not_combine_is_refused(options, told):
    with pytest.raises(UserError, match=told):
        check(small(**VIT | {"strategy": "fedavg", "pruner": "dense", "adapters": "none"} | options))
