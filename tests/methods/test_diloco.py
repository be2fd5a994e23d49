"""DiLoCo against known answers: the outer step, and the inner optimiser that goes on or begins anew."""

import contracts
import numpy as np
import pytest
import torch
from torch import nn

from fedmpi import catalog
from fedmpi.client.train import INNER
from fedmpi.compute.sgd import descend
from fedmpi.core.errors import UserError
from fedmpi.core.layout import bind
from fedmpi.core.parts import Descent, Facts, Round, Task, Updates
from fedmpi.methods.optimisers.adamw import adamw
from fedmpi.methods.strategies.diloco import diloco
from fedmpi.plugins.spec import make
from fedmpi.server import loop
from fedmpi.server.exchange import state_of_client

ADAMW = "adamw:beta2=0.95,weight_decay=0.1"
SMALL = {"strategy": "diloco", "contribution": "uniform", "pruner": "dense", "model": "logistic", "local_steps": 4,
         "optimiser": ADAMW, "lr": 0.01}


def outer(spec, updates):
    """The displacements of one weight after each of these mean updates."""
    strategy = make(catalog.STRATEGIES, spec)
    layout, x, _ = bind(nn.Linear(1, 1, bias=False))
    state, x = strategy.init(layout), torch.zeros(layout.P)
    ways = []
    for update in updates:
        came = Updates(torch.tensor([[update]]), None, torch.zeros(1, dtype=torch.int32), torch.ones(1), 1)
        state, x = strategy.merge(state, x, came, torch.ones(1, dtype=torch.float64))
        ways.append(float(x[0]))
    return ways


# --- the outer step ---

def test_nesterov_goes_as_far_as_the_note_says():
    """Identical updates of 1: .7 (1.9 + 2.71 + 3.439) = .7 * 8.049."""
    assert outer("diloco", [1., 1., 1.])[-1] == pytest.approx(5.6343, abs=1e-4)


@pytest.mark.parametrize("spec, options", [
    ("diloco", {"lr": .7, "momentum": .9, "nesterov": True}), ("diloco:outer=heavy", {"lr": .7, "momentum": .9}),
    ("diloco:outer=sgd,server_lr=0.5", {"lr": .5}),
    ("diloco:server_lr=1,momentum=0.5", {"lr": 1., "momentum": .5, "nesterov": True})])
def test_the_outer_step_is_torchs(spec, options):
    updates = torch.randn(6, generator=torch.Generator().manual_seed(0)).tolist()
    weight = torch.zeros(1, requires_grad=True)
    optimiser, ways = torch.optim.SGD([weight], **options), []
    for update in updates:
        weight.grad = torch.tensor([-update])
        optimiser.step()
        ways.append(weight.item())
    assert outer(spec, updates) == pytest.approx(ways, rel=1e-5)


def test_adam_is_fedadams():
    updates = [.3, -.1, .2]
    assert outer("diloco:outer=adam,server_lr=0.01", updates) == outer("fedadam:server_lr=0.01", updates)


@pytest.mark.parametrize("options, message", [
    ("server_lr=0", "server_lr must be"), ("momentum=1", "momentum and beta2 must be"), ("tau=0", "tau must be"),
    ("outer=rms", "outer must be"), ("inner=half", "inner must be"),
    ("outer=sgd,momentum=0.5", "momentum has no effect with outer=sgd"),
    ("beta2=0.9", "beta2 has no effect with outer=nesterov"), ("tau=0.1", "tau has no effect")])
def test_impossible_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        make(catalog.STRATEGIES, f"diloco:{options}")


def test_a_state_that_does_not_exist_is_told():
    facts = Facts(None, {"optimiser": "--optimiser sgd"}, user_options=frozenset(["inner"]))
    assert list(diloco(inner="keep").notes(facts)) == [
        "inner=keep has no effect: --optimiser sgd has no state to keep"]
    assert not list(diloco(inner="keep").notes(facts._replace(optimiser_state=("mean",)))) and not list(diloco().notes(
        facts._replace(user_options=frozenset())))


# --- one step, plain SGD ---

@pytest.mark.parametrize("steps", [1, 3])
def test_with_plain_steps_it_is_fedavg_to_the_bit(steps):
    """With one step it is FedSGD: sgd inside, an outer step of 1, equal shards."""
    plain = {"optimiser": "sgd:momentum=0,weight_decay=0", "local_steps": steps, "lr": .1, "clients": 4,
             "contribution": "size", "pruner": "static:sparsity=0.5", "dataset": "synthetic:samples=160"}
    runs = []
    for strategy in ("diloco:outer=sgd,server_lr=1", "fedavg"):
        run, state = contracts.assembled(**plain, strategy=strategy, partition="iid", validation=0.0)
        assert len(set(run.sizes.tolist())) == 1
        runs.append(contracts.run_rounds(run, state, 3)[0][-1]["x"])
    assert torch.equal(*runs)


# --- the inner optimiser ---

def task_of(model, layout, x, g, inputs, labels, steps, inner, start):
    x.copy_(start)
    return Task(model, layout, x, g, start.clone(), layout.full_mask(), torch.ones(layout.R), inputs, labels, 10**6,
                len(labels), .01, np.random.default_rng(0), Round(1, 1), steps=steps,
                optimiser=adamw(beta2=.95, weight_decay=.1), inner=inner,
                objective=make(catalog.TASKS, "classification"))


def data(n=8):
    gen = torch.Generator().manual_seed(1)
    return torch.randn(n, 5, generator=gen), torch.randint(0, 3, (n,), generator=gen)


def by_torch(model, inputs, labels, steps, restarts=()):
    """The parameters after so many steps of torch's AdamW, begun anew before the steps ``restarts``."""
    def new():
        return torch.optim.AdamW(model.parameters(), lr=.01, betas=(.9, .95), weight_decay=.1, fused=True)

    optimiser = new()
    for step in range(steps):
        if step in restarts:
            optimiser = new()
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimiser.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("resumes", [True, False])
def test_two_trainings_that_resume_are_one_to_the_bit(resumes):
    """The optimiser's state goes on: 5 and 5 steps are 10 of torch's AdamW; without it, it begins anew."""
    inputs, labels = data()
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    torch.manual_seed(0)
    twin = nn.Linear(5, 3)
    layout, x, g = bind(model)
    inner = {}
    for _ in range(2):
        trained = descend(task_of(model, layout, x, g, inputs, labels, 5, inner, x.clone()), Descent(
            shuffle=False, resumes=resumes))
        assert trained.state.keys() == ({"mean", "square", "steps"} if resumes else set())
        inner = trained.state
    wanted = by_torch(twin, inputs, labels, 10, restarts=() if resumes else (5,))
    got = torch.cat([slot.of(x).flatten() for name in ("weight", "bias") for slot in layout.slots if slot.name == name])
    assert torch.equal(got, wanted)


def one_client(inner, rounds, steps):
    run, state = contracts.assembled(**SMALL | {
        "strategy": f"diloco:outer=sgd,server_lr=1,inner={inner}", "clients": 1, "local_steps": steps,
        "dataset": "synthetic:samples=60", "batch_size": 1000, "rounds": rounds})
    return contracts.run_rounds(run, state, rounds)[0][-1]["x"], run


def test_one_client_that_keeps_its_state_trains_as_if_there_were_no_rounds():
    """Two rounds of 5 steps on the whole shard are one of 10; an optimiser that begins anew makes another model."""
    whole, run = one_client("keep", 1, 10)
    kept, _ = one_client("keep", 2, 5)
    reset, _ = one_client("reset", 2, 5)
    torch.testing.assert_close(kept, whole, rtol=0, atol=1e-6)
    assert float((reset - whole).abs().max()) > 1e-3 and not one_client("reset", 1, 1)[1].kept_fields
    assert run.kept_fields.keys() == {INNER + name for name in ("mean", "square", "steps")}


def test_the_state_stays_with_its_client_and_is_not_billed():
    bytes_of = []
    for inner in ("keep", "reset"):
        run, state = contracts.assembled(**SMALL | {"strategy": f"diloco:inner={inner}"}, clients=3)
        for t in (1, 2):
            state, _, rows = loop.evaluated_round(run, state, t)
        bytes_of.append((rows["up_bytes"].tolist(), rows["down_bytes"].tolist()))
        if inner == "keep":
            own = [state_of_client(run, state, client, state["mask"]) for client in range(3)]
            assert [int(values[INNER + "steps"]) for values in own] == [8, 8, 8]
            means = [values[INNER + "mean"] for values in own]
            assert not torch.equal(means[0], means[1]) and all(map(torch.any, means))
    assert bytes_of[0] == bytes_of[1]


def test_moments_of_weights_that_were_cut_are_forgotten():
    run, state = contracts.assembled(**SMALL | {"pruner": "set:every=1,sparsity=0.5", "model": "2nn"}, clients=2)
    seen = 0
    for t in (1, 2, 3):
        before = state["mask"]
        state, _, _ = loop.evaluated_round(run, state, t)
        grown = state["mask"] & ~before
        support = run.layout.support(state["mask"])
        whole = torch.zeros(run.layout.P)
        whole[support.long()] = state_of_client(run, state, 0, state["mask"])[INNER + "square"]
        assert not whole[: run.layout.Q][grown].any() and whole[: run.layout.Q][before & state["mask"]].any()
        seen += int(grown.sum())
    assert seen


@pytest.mark.parametrize("together", [1, 3])
def test_a_weight_that_grows_may_begin_at_its_layers_median(together):
    """Nothing has grown in round 1: the runs part later."""
    ends = []
    for fresh in ("zero", "median"):
        options = {"pruner": "set:every=2,sparsity=0.5", "model": "2nn", "optimiser": f"{ADAMW},fresh={fresh}"}
        run, state = contracts.assembled(**SMALL | options, clients=3, together=together)
        xs = []
        for t in (1, 2, 3):
            state, _, _ = loop.evaluated_round(run, state, t)
            xs.append(state["x"].clone())
        ends.append(xs)
    before, after = ends
    assert torch.equal(before[0], after[0]) and not torch.equal(before[2], after[2])
    assert after[2].isfinite().all()


@pytest.mark.parametrize("optimiser", [ADAMW, "sgd:momentum=0.9"])
def test_side_by_side_a_client_keeps_what_it_keeps_alone(optimiser):
    ends = []
    for together in (1, 4):
        run, state = contracts.assembled(**SMALL | {"optimiser": optimiser}, clients=4, together=together)
        for t in (1, 2, 3):
            state, _, _ = loop.evaluated_round(run, state, t)
        ends.append([state["x"]] + [state_of_client(run, state, client, state["mask"]) for client in range(4)])
    torch.testing.assert_close(ends[0][0], ends[1][0], rtol=1e-3, atol=1e-5)
    for alone, beside in zip(ends[0][1:], ends[1][1:]):
        assert alone.keys() == beside.keys() != set()
        for name in alone:
            torch.testing.assert_close(alone[name], beside[name], rtol=1e-3, atol=1e-5)


def test_a_client_that_trains_nothing_has_no_state():
    run, state = contracts.assembled(**SMALL, clients=2, fault=["free-rider:share=0.5,kind=zero"])
    for t in (1, 2):
        state, _, _ = loop.evaluated_round(run, state, t)
    assert len(state["clients"]) == 1


def test_plain_sgd_keeps_nothing():
    run, state = contracts.assembled(**SMALL | {"optimiser": "sgd"})
    assert not run.kept_fields and "clients" not in state


@pytest.mark.parametrize("outer", ["sgd", "heavy", "nesterov", "adam"])
def test_it_learns_with_every_outer_step(outer):
    options = {"outer": outer} | ({"server_lr": .02} if outer == "adam" else {})
    spec = "diloco:" + ",".join(f"{name}={value}" for name, value in options.items())
    run, state = contracts.assembled(**SMALL | {"strategy": spec, "rounds": 12}, clients=3)
    losses = [row["loss"] for row in contracts.run_rounds(run, state, 12)[1]]
    assert losses[-1] < .8 * losses[0]
