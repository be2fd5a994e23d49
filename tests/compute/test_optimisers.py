"""Optimisers of clients: torch's own to the last bit, the same on rows side by side, and masks that hold."""

import copy

import pytest
import torch
from test_sgd import conv_net, half, task_of
from test_stacked import agree, tasks_of, together
from test_stacked import half as drawn_half
from torch import nn

from fedmpi import catalog
from fedmpi.plugins.spec import make
from fedmpi.compute.sgd import descend
from fedmpi.core.errors import UserError
from fedmpi.core.layout import bind
from fedmpi.methods.models.lenet5 import lenet5
from fedmpi.methods.models.small_cnn import small_cnn
from fedmpi.core.parts import Descent

TORCHS = {
    "sgd": (torch.optim.SGD, {}),
    "sgd:momentum=0.9,weight_decay=0.01": (torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.01}),
    "sgd:momentum=0.9,nesterov=true,weight_decay=0.01": (
        torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "sgd:momentum=0.9,dampening=0.5": (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.5}),
    "adam": (torch.optim.Adam, {}),
    "adam:beta1=0.8,beta2=0.95,eps=1e-5,weight_decay=0.1": (
        torch.optim.Adam, {"betas": (0.8, 0.95), "eps": 1e-5, "weight_decay": 0.1}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.01}),
    "adamw:weight_decay=0.3": (torch.optim.AdamW, {"weight_decay": 0.3}),
}
SPECS = pytest.mark.parametrize("spec", TORCHS)


def made(spec):
    return make(catalog.OPTIMISERS, spec)


def by_torch(spec, model, task, clip_norm=0.0):
    """The same training by torch's optimiser and its clipping, on a model of its own."""
    kind, options = TORCHS[spec]
    optimiser = kind(model.parameters(), lr=task.lr, fused=True, **options)
    gen = copy.deepcopy(task.gen)
    for _ in range(task.epochs):
        for rows in torch.from_numpy(gen.permutation(len(task.labels))).split(task.batch_size):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(task.inputs[rows]), task.labels[rows]).backward()
            if clip_norm:
                nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            optimiser.step()


def assert_same(model, twin):
    for have, want in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(have, want)


@SPECS
def test_alone_it_is_torchs_own_to_the_last_bit(spec):
    model, twin = conv_net(), conv_net()
    task = task_of(model, lr=0.02)._replace(optimiser=made(spec))
    by_torch(spec, twin, task)
    descend(task)
    assert_same(model, twin)
    assert bool((task.x != task.base).any())


@SPECS
def test_side_by_side_it_is_the_same_up_to_rounding(spec):
    # With a small eps, Adam makes a whole step of a gradient that is next to nothing but rounding.
    smooth = spec + (",eps=0.001" if ":" in spec else ":eps=0.001") * spec.startswith("adam")
    part = made(smooth.replace("eps=1e-5,", ""))
    agree([task._replace(optimiser=part, lr=0.005) for task in tasks_of(lenet5)], rtol=2e-3)


@SPECS
def test_rows_and_the_fused_kernel_agree_step_by_step(spec):
    """The arithmetic itself: the same gradients into both."""
    part, gen = made(spec), torch.Generator().manual_seed(0)
    x = torch.randn(3, 40, generator=gen)
    rows, alone = x.clone(), [row.clone() for row in x]
    state, states = part.init(rows), [part.init(row) for row in alone]
    for _ in range(5):
        g = torch.randn(3, 40, generator=gen)
        part.step(rows, g.clone(), state, 0.03)
        for row, each, own in zip(alone, g, states):
            views = {name: [tensor] if tensor.shape == row.shape else tensor for name, tensor in own.items()}
            part.fused([row], [each.clone()], views, 0.03)
        torch.testing.assert_close(rows, torch.stack(alone), rtol=1e-5, atol=1e-6)
    assert bool((rows - x).abs().min() > 0)


@SPECS
@pytest.mark.parametrize("lr", [torch.tensor(0.03), torch.full((3, 1), 0.03)])
def test_a_rate_that_is_a_tensor_is_that_number(spec, lr):
    part = made(spec)
    x = torch.arange(12.0).view(3, 4)
    one, other, g = x.clone(), x.clone(), torch.ones(3, 4)
    for y, rate in ((one, 0.03), (other, lr)):
        state = part.init(y)
        for _ in range(2):
            part.step(y, g.clone(), state, rate)
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@SPECS
def test_pruned_weights_stay_exactly_zero(spec):
    task = task_of(conv_net(), mask=half, lr=0.01)._replace(optimiser=made(spec))
    descend(task)
    assert not task.x[: task.layout.Q][~task.mask].any()
    assert not task.x[~task.layout.real].any()
    tasks = [each._replace(optimiser=made(spec)) for each in tasks_of(small_cnn, mask=drawn_half, own=True)]
    for each, (x, _) in zip(tasks, together(tasks)):
        assert not x[: each.layout.Q][~each.mask].any()
        assert not x[~each.layout.real].any()


@SPECS
def test_an_optimiser_without_a_fused_kernel_trains_alike(spec):
    task, twin = (task_of(conv_net(), mask=half, lr=0.01)._replace(optimiser=made(spec)) for _ in range(2))
    descend(task)
    trained = descend(twin._replace(optimiser=twin.optimiser._replace(fused=None), clip_norm=1e6))
    torch.testing.assert_close(task.x, twin.x, rtol=1e-4, atol=1e-5)
    assert not twin.g.any() and trained.steps == 15


def test_adam_by_hand():
    """One weight, gradients 2 and -1: m and v by the rule, corrected by 1 - beta^steps."""
    x, part = torch.tensor([1.0]), made("adam:beta1=0.5,beta2=0.75,eps=1e-12")
    state = part.init(x)
    part.step(x, torch.tensor([2.0]), state, 0.1)
    assert float(x) == pytest.approx(0.9)                      # m / (1 - .5) = 2, sqrt(v / .25) = 2
    part.step(x, torch.tensor([-1.0]), state, 0.1)
    # m = .5 - .5 = 0, v = .75 + .25 = 1: nothing moves
    assert float(x) == pytest.approx(0.9)
    part.step(x, torch.tensor([0.0]), state, 0.1)
    assert float(state["square"]) == pytest.approx(0.75) and float(state["steps"]) == 3


@pytest.mark.parametrize("spec", ["sgd", "sgd:momentum=0.9", "sgd:momentum=0.9,nesterov=true",
                                  "sgd:momentum=0.5,dampening=0.25"])
def test_what_a_constant_gradient_travels(spec):
    part, x, lrs = made(spec), torch.zeros(1), [0.5, 0.5, 0.25, 0.1]
    state = part.init(x)
    for lr in lrs:
        part.step(x, torch.ones(1), state, lr)
    assert part.travelled(lrs) == pytest.approx(-float(x), rel=1e-6)


def test_momentum_travels_as_its_sum_says():
    """1 + 1.5 + 1.75 after three steps of momentum one half and rate 1."""
    assert made("sgd:momentum=0.5").travelled([1.0, 1.0, 1.0]) == pytest.approx(4.25)
    assert made("adam").travelled is None


@pytest.mark.parametrize("spec, message", [
    ("sgd:momentum=1", "momentum must be in"), ("sgd:weight_decay=-1", "weight_decay must be >= 0"),
    ("sgd:nesterov=true", "nesterov needs momentum > 0"), ("sgd:dampening=0.5", "dampening must be 0 without"),
    ("sgd:momentum=0.9,nesterov=true,dampening=0.1", "nesterov needs"), ("adam:beta1=1", "beta1 and beta2 must be"),
    ("adam:eps=0", "eps must be > 0"), ("adamw:weight_decay=-1", "weight_decay must be >= 0")])
def test_impossible_options_are_refused(spec, message):
    with pytest.raises(UserError, match=message):
        made(spec)


# --- clipping ---

@pytest.mark.parametrize("clip_norm", [0.05, 1e6])
def test_clipping_is_torchs_to_the_last_bit(clip_norm):
    model, twin = conv_net(), conv_net()
    task = task_of(model)._replace(optimiser=made("sgd:momentum=0.9,weight_decay=0.01"), clip_norm=clip_norm)
    by_torch("sgd:momentum=0.9,weight_decay=0.01", twin, task, clip_norm)
    descend(task)
    assert_same(model, twin)


def test_a_step_of_plain_sgd_is_never_longer_than_the_norm():
    task = task_of(conv_net(), mask=half, epochs=1, batch_size=23)._replace(optimiser=made("sgd"), clip_norm=0.01)
    descend(task)
    assert float((task.x - task.base).norm()) == pytest.approx(0.1 * 0.01, rel=1e-3)


@pytest.mark.parametrize("options", [{}, {"mu": 0.5}])
def test_each_row_is_clipped_by_its_own_norm(options):
    tasks = [task._replace(clip_norm=0.1) for task in tasks_of(small_cnn, mask=drawn_half, own=True)]
    agree(tasks, atol=2e-6, momentum=0.9, **options)
    loose = together([task._replace(clip_norm=0.0) for task in tasks])
    assert not torch.allclose(loose[0][0], together(tasks)[0][0], atol=1e-6)


# --- a constant vector in every gradient ---

def shift(task):
    """A vector of its own for each client, not 0 on padding and pruned weights."""
    return torch.full((task.layout.R,), 0.02) * (1 + len(task.labels) / 30)


def test_a_shift_is_added_to_every_gradient_on_live_weights():
    task = task_of(conv_net(), mask=half, epochs=1, batch_size=23)._replace(optimiser=made("sgd"))
    twin = task_of(conv_net(), mask=half, epochs=1, batch_size=23)._replace(optimiser=made("sgd"))
    descend(task)
    descend(twin, Descent(shift=shift))
    R = task.layout.R
    expected = task.x[:R] - 0.1 * shift(task) * task.trainable * task.layout.real[:R]
    torch.testing.assert_close(twin.x[:R], expected, rtol=0, atol=1e-7)
    assert not twin.g.any()


@pytest.mark.parametrize("options", [{}, {"mu": 0.3, "momentum": 0.9}])
def test_a_shift_is_the_same_side_by_side(options):
    agree(tasks_of(small_cnn, mask=drawn_half, own=True), shift=shift, **options)


# --- the command ---

SMALL = ("--dataset", "synthetic:samples=60,size=4", "--model", "logistic", "--clients", 3, "--rounds", 2)


def test_a_strategy_that_is_given_an_optimisers_options_tells_the_way_out(fedmpi):
    told = fedmpi(1, "train", *SMALL, "--strategy", "fedavg:momentum=0", code=2)
    assert told.strip().splitlines() == [
        "error: fedavg has no option 'momentum': that is the optimiser's, say "
        "--optimiser sgd:momentum=0,weight_decay=0.001. It takes (no options)"]


def test_the_run_file_says_what_the_optimiser_was(fedmpi, tmp_path):
    from fedmpi.store import read_run
    fedmpi(1, "train", *SMALL, "--strategy", "fedavg", "--out", tmp_path / "a.h5")
    fedmpi(1, "train", *SMALL, "--strategy", "fedavg", "--optimiser", "adam", "--out", tmp_path / "b.h5")
    usual, other = (read_run(tmp_path / name).attrs for name in ("a.h5", "b.h5"))
    assert usual["options"]["optimiser"] == "sgd:momentum=0.9,weight_decay=0.001"
    assert other["options"]["optimiser"] == "adam"
    part = next(part for part in usual["parts"] if part["kind"] == "optimiser")
    assert part["options"] == {"momentum": 0.9, "weight_decay": 0.001, "nesterov": False, "dampening": 0.0}


# --- weights that grow ---

@pytest.mark.parametrize("fresh, length", [("zero", 0.1 / 0.001 ** 0.5), ("median", 0.1)])
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_first_step_of_a_weight_that_grows_is_bounded(name, fresh, length):
    """After many steps of gradients 1 a weight grows: its step is (1 - beta1) / sqrt(1 - beta2), or 1 - beta1."""
    layout, x, g = bind(nn.Linear(8, 2, bias=False))
    optimiser = made(f"{name}:fresh={fresh}")
    mask = torch.ones(16, dtype=torch.bool)
    state = optimiser.init(x)
    state["steps"].fill_(100_000)
    for kind in ("mean", "square"):
        state[kind].fill_(1)
        state[kind][5] = 0
    if optimiser.grown is not None:
        optimiser.grown(state, layout, mask)
    x.zero_()
    optimiser.step(x, torch.ones(16), state, 0.01)
    assert x[5].item() == pytest.approx(-0.01 * length, rel=1e-3)
    assert x[4].item() == pytest.approx(-0.01, rel=1e-3)


def test_the_median_is_that_of_the_layers_kept_weights_with_a_past():
    layout, x, _ = bind(nn.Sequential(nn.Linear(16, 1, bias=False), nn.Linear(1, 16, bias=False)))
    optimiser = made("adamw:fresh=median")
    state = optimiser.init(x)
    first, second = layout.weights
    state["square"][first.span][:5] = torch.tensor([9.0, 1.0, 2.0, 3.0, 8.0])
    mask = torch.zeros(layout.Q, dtype=torch.bool)
    mask[first.span][:8] = True
    mask[second.span] = True
    optimiser.grown(state, layout, mask)
    assert state["square"][first.span].tolist() == [9, 1, 2, 3, 8, 3, 3, 3] + [0] * 8
    # A layer without a past has no median.
    assert not state["square"][second.span].any()


@pytest.mark.parametrize("pruner, strategy, told", [
    ("set:every=1", "fedavg", "optimisers begin anew each round"), ("set:every=1", "diloco", "")])
def test_fresh_says_where_it_has_no_effect(fedmpi, tmp_path, pruner, strategy, told):
    output = fedmpi(1, "train", *SMALL, "--strategy", strategy, "--pruner", pruner, "--optimiser", "adamw:fresh=median",
                    "--out", tmp_path / "a.h5")
    assert told in output and ("no effect of fresh" in output) == bool(told)


# --- a batch in parts ---

@pytest.mark.parametrize("count", [2, 5, 7])
def test_a_batch_in_parts_makes_the_same_steps_but_for_rounding(count):
    whole, parts = conv_net(), conv_net()
    results = []
    for model, accumulate in ((whole, 1), (parts, count)):
        task = task_of(model, batch_size=7)._replace(
            optimiser=made("sgd:momentum=0.9"), accumulate=accumulate, clip_norm=0.5)
        results.append((task, descend(task)))
    (task, trained), (other, in_parts) = results
    torch.testing.assert_close(task.x, other.x, rtol=0, atol=1e-5)
    assert in_parts.loss == pytest.approx(trained.loss, abs=1e-5) and in_parts[1:3] == trained[1:3]


@pytest.mark.parametrize("options, told", [
    (("--batch-size", 4, "--accumulate", 5), "a batch of 4 samples has at most so many parts"),
    (("--accumulate", 2, "--together", 4), "--accumulate cuts their batches in parts"),
    (("--accumulate", 2, "--model", "normed_for_parts:net"), "batch normalisation would see")])
def test_parts_of_batches_are_refused_where_they_cannot_be(fedmpi, tmp_path, monkeypatch, options, told):
    (tmp_path / "normed_for_parts.py").write_text(
        "from torch import nn\n\n\ndef net(shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 4), nn.BatchNorm1d(4), nn.Linear(4, classes))\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert told in fedmpi(1, "train", "--dataset", "synthetic:samples=200,size=32,channels=3", "--model", "logistic",
                          "--strategy", "fedavg", "--partition", "iid", "--clients", 8, *options, "--out",
                          tmp_path / "a.h5", code=2)
