"""Many clients trained at once: each gets what it would get alone, up to rounding, whoever is beside it."""

import copy

import contracts
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedmpi import catalog
from fedmpi.plugins.spec import make
from fedmpi.build import choose
from fedmpi.server import loop
from fedmpi.server.answers import Outcome
from fedmpi.core.layout import bind
from fedmpi.methods.tasks.classification import classification
from fedmpi.compute.augment import joined
from fedmpi.compute.sgd import descend, train
from fedmpi.methods.models.lenet5 import lenet5
from fedmpi.methods.models.logistic import logistic
from fedmpi.methods.models.mlp2nn import mlp2nn
from fedmpi.methods.models.pfl_cnn import pfl_cnn
from fedmpi.methods.models.small_cnn import small_cnn
from fedmpi.core.parts import Descent, Round, Task
from fedmpi.methods.optimisers.sgd import sgd
from fedmpi.compute.stacked import stacked
from fedmpi.compute.stacked_forward import refusal
from fedmpi.store import read_run, verify
from fedmpi.transport.team import teams

SHAPE, CLASSES = (2, 8, 8), 5
SIZES = (23, 5, 31, 12, 1, 20)            # clients of 5, 1, 7, 3, 1 and 4 batches an epoch


def plain_cnn(shape, classes):
    return pfl_cnn(shape, classes, dropout=False)


def normed(shape, classes):
    """Batch norm before and after Flatten, with and without its own weights, one that averages by a counter."""
    return nn.Sequential(
        nn.BatchNorm2d(shape[0]), nn.Conv2d(shape[0], 6, 3, bias=False), nn.BatchNorm2d(6, momentum=None), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(6, 4, 2, groups=2), nn.BatchNorm2d(4, affine=False, track_running_stats=False),
        nn.Tanh(), nn.Flatten(), nn.Linear(16, 9, bias=False), nn.BatchNorm1d(9, momentum=0.3), nn.ReLU(),
        nn.Linear(9, classes))


class Residual(nn.Module):
    """No chain, but torch.func can map it."""

    def __init__(self, shape, classes, norm=False):
        super().__init__()
        self.enter, self.norm = nn.Conv2d(shape[0], 4, 3, padding=1), nn.BatchNorm2d(4) if norm else nn.GroupNorm(2, 4)
        self.inner, self.leave = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4 * shape[1] * shape[2], classes)

    def forward(self, x):
        h = torch.relu(self.norm(self.enter(x)))
        return self.leave((h + self.inner(h)).flatten(1))


class Choosy(nn.Module):
    """Which way a sample goes depends on its values."""

    def __init__(self, shape, classes):
        super().__init__()
        self.leave = logistic(shape, classes)

    def forward(self, x):
        return self.leave(x if bool(x.sum() > 0) else -x)


CHAINS = [logistic, mlp2nn, lenet5, small_cnn, plain_cnn, normed]
MODELS = [*CHAINS, Residual]


def half(layout, gen):
    return layout.full_mask() & (torch.rand(layout.Q, generator=gen) < 0.5)


def tasks_of(make, sizes=SIZES, epochs=2, batch_size=5, lr=0.02, mask=None, own=False):
    """Tasks of one model; ``own`` gives each a mask and received values of its own."""
    torch.manual_seed(0)
    model = make(SHAPE, CLASSES)
    layout, x, g = bind(model)
    gen, made = torch.Generator().manual_seed(1), []
    for client, n in enumerate(sizes):
        if own or not made:
            kept = layout.full_mask() if mask is None else mask(layout, gen)
            base = x + 0.01 * own * torch.randn(layout.P, generator=gen) * layout.real
            base[: layout.Q] *= kept
            live = torch.ones(layout.R)
            live[: layout.Q] = kept
        made.append(Task(model, layout, x, g, base, kept, live, torch.randn(n, *SHAPE, generator=gen),
                         torch.randint(0, CLASSES, (n,), generator=gen), epochs, batch_size, lr,
                         np.random.default_rng(client), Round(1, 10), optimiser=sgd(),
                         objective=classification()))
    return made


def ruled(task, momentum=0.0, weight_decay=0.0, **options):
    """``(task, descent)``: the task with SGD by these options, the others of the Descent."""
    if momentum or weight_decay:
        task = task._replace(optimiser=sgd(momentum, weight_decay))
    return task, Descent(**options)


def alone(task, **options):
    """``(x, Trained)`` of a client trained alone on the bound model; its counters start anew, as a worker's do."""
    for buffer in task.model.buffers():
        if not buffer.is_floating_point():
            buffer.zero_()
    task.x.copy_(task.base)
    trained = descend(*ruled(task._replace(gen=copy.deepcopy(task.gen)), **options))
    return task.x.clone(), trained


def together(tasks, **options):
    for buffer in tasks[0].model.buffers():
        if not buffer.is_floating_point():
            buffer.zero_()
    fresh = [ruled(task._replace(gen=copy.deepcopy(task.gen)), **options) for task in tasks]
    return stacked(tasks[0].model, tasks[0].layout)([task for task, _ in fresh], fresh[0][1])


def agree(tasks, rtol=1e-3, atol=2e-5, **options):
    before = [copy.deepcopy(task.base) for task in tasks]
    got = together(tasks, **options)
    for task, (x, trained), base in zip(tasks, got, before, strict=True):
        want, told = alone(task, **options)
        assert torch.equal(task.base, base) and not x[~task.layout.real].any()
        assert float((want - base).abs().max()) > 100 * atol                  # it has moved by far more
        torch.testing.assert_close(x, want, rtol=rtol, atol=atol)
        assert trained.loss == pytest.approx(told.loss, rel=1e-4)
        assert trained[1:3] == told[1:3]
        assert trained.travelled == pytest.approx(told.travelled, nan_ok=True)


def sizes_for(make):
    return [size for size in SIZES if size > 1 or make is not normed]


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "weight_decay": 1e-2}, {"mu": 0.5}, {"shuffle": False}])
@pytest.mark.parametrize("make", MODELS)
def test_each_client_gets_what_it_gets_alone(make, options):
    agree(tasks_of(make, sizes_for(make)), **options)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("make", MODELS)
def test_under_one_mask_and_under_masks_of_their_own(make, own):
    tasks = tasks_of(make, sizes_for(make), mask=half, own=own)
    agree(tasks, momentum=0.9, weight_decay=1e-2, mu=0.1)
    for task, (x, _) in zip(tasks, together(tasks, momentum=0.9, weight_decay=1e-2)):
        assert not x[: task.layout.Q][~task.mask].any()


def test_another_loss():
    def doubled(logits, labels, reduction="mean"):
        return F.cross_entropy(2 * logits.tanh(), labels, reduction=reduction)

    agree(tasks_of(lenet5), loss=doubled)


@pytest.mark.parametrize("make", [lenet5, normed, Residual])
def test_all_batches_as_large_and_a_single_client(make):
    agree(tasks_of(make, (10, 10, 10)), momentum=0.9)
    agree(tasks_of(make, (13,)), momentum=0.9)


@pytest.mark.parametrize("make", MODELS)
def test_the_same_bits_each_time_and_nothing_left_behind(make):
    tasks = tasks_of(make, sizes_for(make))
    state = copy.deepcopy(tasks[0].model.state_dict())
    first = together(tasks, momentum=0.9)
    assert all(torch.equal(value, tasks[0].model.state_dict()[name]) for name, value in state.items())
    second = together(tasks, momentum=0.9)
    assert all(torch.equal(a, b) and told == again for (a, told), (b, again) in zip(first, second))


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_client_that_diverges_harms_nobody_else(make, poison):
    tasks = tasks_of(make, sizes_for(make))
    sound = together(tasks)
    tasks[2].inputs.fill_(poison)
    for position, ((x, loss), (y, again)) in enumerate(zip(sound, together(tasks), strict=True)):
        assert (torch.equal(x, y) and loss == again) == (position != 2)


class Dropped(nn.Module):
    def __init__(self, shape, classes, rate):
        super().__init__()
        self.rate, self.leave = rate, logistic(shape, classes)

    def forward(self, x):
        return self.leave(F.dropout(x, self.rate, self.training))


def chained(shape, classes, rate):
    wide = shape[0] * shape[1] * shape[2]
    return nn.Sequential(nn.Dropout(rate), nn.Flatten(), nn.Dropout(0.0), nn.Linear(wide, classes))


@pytest.mark.parametrize("make", [chained, Dropped])
def test_dropout_is_each_clients_own_and_follows_from_the_seed(make):
    """One step from 0 on equal samples: the gradient is linear in what dropout leaves, which shows how much that is."""
    def steps(rate, seed=3):
        tasks = tasks_of(lambda *given: make(*given, rate), (5,) * 40, epochs=1)
        tasks = [task._replace(base=torch.zeros_like(task.base), inputs=torch.ones_like(task.inputs),
                               labels=tasks[0].labels, gen=np.random.default_rng(0)) for task in tasks]
        torch.manual_seed(seed)
        slot = tasks[0].layout.weights[0]
        return torch.stack([x[slot.span] for x, _ in together(tasks)])

    whole, left = steps(0.0), steps(0.25)
    assert torch.equal(left, steps(0.25)) and not torch.equal(left, steps(0.25, seed=4))
    assert len({tuple(row.tolist()) for row in left}) == 40 and len({tuple(row.tolist()) for row in whole}) == 1
    torch.testing.assert_close(left.mean(0), whole[0], rtol=0.5, atol=0.002)
    assert float((left * whole).sum() / whole.square().sum()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("make, why", [
    *((make, "") for make in MODELS), (lambda *given: Residual(*given, norm=True), "statistics that training moves"),
    (Choosy, "vmap cannot map"),
    (lambda *given: nn.Sequential(nn.InstanceNorm2d(2), Residual(*given)), "statistics that training moves")])
def test_what_cannot_be_stacked_is_refused(make, why):
    model = make(SHAPE, CLASSES)
    layout, x, g = bind(model)
    before = x.clone()
    said = refusal(model, layout, torch.zeros(2, *SHAPE))
    assert (why in said) and bool(said) == bool(why)
    assert torch.equal(x, before) and not g.any()


@pytest.mark.parametrize("name", [name for name in catalog.STRATEGIES if name not in ("fedpcl", "fedgkt")])
def test_what_a_strategy_says_of_its_local_training_is_what_it_does(name):
    strategy = make(catalog.STRATEGIES, name)
    task = tasks_of(small_cnn, (12,), mask=half)[0]
    task = task._replace(message={field: torch.ones_like(task.x) for field in strategy.sends})
    assert isinstance(strategy.local, Descent)
    want, told = alone(task, **strategy.local._asdict())
    task.x.copy_(task.base)
    assert train(strategy.local, task._replace(gen=copy.deepcopy(task.gen))) == told
    assert torch.equal(task.x, want)
    agree([task], **strategy.local._asdict())


# --- rounds ---

def test_teams_follow_the_order():
    assert teams([0, 3, 1, 2], 3) == [[0, 3, 1], [2]]
    assert teams([1, 0], 1) == [[1], [0]] and teams([], 3) == []


@pytest.mark.parametrize("options", [
    {}, {"weighting": "relu", "contribution": "cosine"}, {"strategy": "thesis", "pruner": "rigl:every=1"},
    {"pruner": "adaptive:by=size"}, {"strategy": "fltrust", "contribution": "focus"},
    {"fault": ["free-rider:share=0.4", "label-flip:share=0.2"]},
    {"pruner": "set:every=1", "strategy": "fedprox:mu=0.3"},
    {"timing": "fedbuff:buffer=3", "devices": "drawn", "cohort": 4}])
def test_rounds_of_teams_are_those_of_single_clients(options):
    """The same clients, bytes, samples and FLOPs; losses and the model up to rounding."""
    options = {"clients": 7, "partition": "quantity", "validation": 0.1, "lr": 0.05} | options
    (run, state), (other, twin) = (contracts.assembled(**options, together=G) for G in (1, 3))
    for t in (1, 2):
        state, row, clients = loop.evaluated_round(run, state, t)
        twin, side, beside = loop.evaluated_round(other, twin, t)
        for name in ("client", "samples", "up_bytes", "down_bytes", "outcome", "sim_s"):
            np.testing.assert_array_equal(clients[name], beside[name])
        np.testing.assert_allclose(clients["loss"], beside["loss"], rtol=1e-4)
        assert all(row[name] == side[name] for name in ("flops_rigl", "accuracy", "up_bytes"))
        torch.testing.assert_close(state["x"], twin["x"], rtol=1e-3, atol=2e-5)
    assert not torch.equal(state["x"], twin["x"])


def test_clients_whose_steps_are_watched_train_one_by_one_to_the_same_bits():
    options = {"clients": 4, "strategy": "feddst", "pruner": "feddst:every=1"}
    (run, state), (other, twin) = (contracts.assembled(**options, together=G) for G in (1, 4))
    assert torch.equal(loop.evaluated_round(run, state, 1)[0]["x"], loop.evaluated_round(other, twin, 1)[0]["x"])


@pytest.mark.parametrize("pruner", ["dense", "feddst:every=1"])
def test_a_team_whose_updates_pass_through_one_buffer_keeps_each(pruner):
    """As on a GPU; beside each other and, under feddst, one by one."""
    options = {"clients": 4, "strategy": "feddst", "pruner": pruner, "together": 4}
    (run, state), (other, twin) = (contracts.assembled(**options) for _ in range(2))
    worker = other.transport.worker
    buffer = torch.empty(worker.layout.P)
    stage = worker.home.stage._replace(down=lambda values: buffer[: len(values)].copy_(values), reuses=True)
    worker.home = worker.home._replace(stage=stage)
    assert torch.equal(loop.evaluated_round(run, state, 1)[0]["x"], loop.evaluated_round(other, twin, 1)[0]["x"])


def failing(error, whom, times):
    """A federation of 5 in teams of 3, and how often client ``whom`` raises ``error`` when it gets ready."""
    count, sizes = [0], []

    def report(task):
        # Their numbers of samples tell clients apart.
        if len(task.labels) == sizes[whom]:
            count[0] += 1
            if not times or count[0] <= times:
                raise error
        return {}

    run, state = contracts.assembled(
        of_worker={"reports": {"raising": report}}, clients=5, partition="quantity:beta=5,min_size=12", together=3,
        on_error="retry" if times else "drop")
    sizes += run.sizes.tolist()
    assert len(set(sizes)) == 5
    return run, state, count


def test_only_who_is_at_fault_fails():
    run, state, count = failing(ZeroDivisionError("a bug"), 1, 0)
    after, row, clients = loop.evaluated_round(run, state, 1)
    assert [int(outcome) for outcome in clients["outcome"]] == [0, Outcome.FAILED, 0, 0, 0] and count[0] == 2
    run, state, count = failing(ZeroDivisionError("a bug"), 1, 2)
    assert loop.evaluated_round(run, state, 1)[1]["merged"] == 5 and count[0] == 3


def test_a_team_without_memory_trains_again_as_it_was_to_the_same_bits():
    run, state, count = failing(torch.cuda.OutOfMemoryError("CUDA out of memory"), 1, 1)
    lines = []
    after, row, clients = loop.evaluated_round(run._replace(tell=lines.append), state, 1)
    whole = contracts.assembled(clients=5, partition="quantity:beta=5,min_size=12", together=3)
    assert row["merged"] == 5 and any(" clients ran out of GPU memory" in line for line in lines)
    assert torch.equal(after["x"], loop.evaluated_round(*whole, 1)[0]["x"])


# --- the command ---

SMALL = ("--rounds", 2, "--clients", 6, "--model", "small-cnn:width=4", "--local-epochs", 1)


@pytest.mark.parametrize("arguments, why", [
    (("--model", "torchvision:name=resnet18"), "name=resnet18: the model has statistics that training moves"),
    (("--fault", "free-rider:share=1"), "all of them are at fault"), (("--cohort", 1), "only one is at work"),
    (("--strategy", "own_strategy:made"), "has a way of training of its own")])
def test_together_is_refused_where_nothing_can_be(fedmpi, tmp_path, monkeypatch, arguments, why):
    (tmp_path / "own_strategy.py").write_text(
        "from fedmpi.compute.sgd import train\nfrom fedmpi.methods.strategies.fedavg import fedavg\n"
        "def made(rate: float = 1.0):\n"
        "    return fedavg()._replace(local=lambda task: train(fedavg().local, task))\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    told = fedmpi(1, "train", *SMALL, *arguments, "--together", 3, "--out", tmp_path / "run.h5", code=2)
    assert told.startswith("error: --together 3") and why in told and told.strip().endswith("take --together 1")
    if "--model" not in arguments:
        told = fedmpi(1, "train", *SMALL, *arguments, "--together", 0, "--out", tmp_path / "run.h5")
        assert why in told and read_run(tmp_path / "run.h5").attrs["options"]["together"] == 1


def test_what_was_timed_is_recorded_and_kept(fedmpi, tmp_path, monkeypatch):
    out = tmp_path / "run.h5"
    monkeypatch.setattr(choose, "SIZES", (3,))
    monkeypatch.setattr(choose, "timing", lambda *arguments: lambda G, before: (1.0, 0.5))
    assert "--together 0: 3 on cpu (milliseconds a client of 4 steps: 1e+03 for 1, 500 for 3)" in fedmpi(
        1, "train", *SMALL, "--together", 0, "--out", out, "--until", 1)
    monkeypatch.setattr(choose, "timing", None)
    fedmpi(1, "train", "--resume", out, "--together", 0)
    assert read_run(out).attrs["options"]["together"] == 3
    assert "--together 2 (the run has 3)" in fedmpi(1, "train", "--resume", out, "--together", 2, code=2)
    fedmpi(1, "train", *SMALL, "--together", 3, "--out", tmp_path / "named.h5")
    assert verify(out, tmp_path / "named.h5") == []


@pytest.mark.parametrize("seconds, workers, best", [
    ({8: 0.9, 25: 0.9, 50: 0.9}, 1, 1), ({8: 0.9, 25: 0.5, 50: 0.6}, 1, 25),
    ({8: 0.5, 25: 0.3, 50: 0.2}, 1, 50), ({8: 0.5, 25: 0.6, 50: 0.1}, 1, 8), ({8: 2.0, 25: 0.1, 50: 0.1}, 1, 1),
    ({8: 0.5, 25: 0.3, 50: 0.2}, 4, 8), ({8: 0.5, 25: 0.3, 50: 0.2}, 64, 1)])
def test_the_choice_by_timing(monkeypatch, seconds, workers, best):
    monkeypatch.setattr(choose, "timing", lambda *arguments: lambda G, before: (1.0, seconds.get(G, 9.0)))
    monkeypatch.setattr(choose, "apart", lambda *arguments: "")
    setup, lines = ({"cohort": 50}, None, None, None, None), []
    assert choose.together(setup, torch.device("cpu"), workers, lines.append) == best and len(lines) == 1


def test_timing_times_both(fedmpi):
    options, parts, data, *_ = contracts.small()
    one, side = choose.timing(options, parts, data, torch.device("cpu"))(3, 0)
    assert 0 < one < 1 and 0 < side < 1


def test_the_bench_measures_all_sides(fedmpi, tmp_path):
    told = fedmpi(1, "bench", "together", "--users", 6, "--cohort", 4, "--samples", 6, "--batch-size", 3,
                  "--repeats", 1, "--model", "small-cnn:width=2", "--together", 1, "--together", 3,
                  "--data-dir", tmp_path, "--device", "cpu")
    last = told.strip().splitlines()[-1]
    assert "4 of 6 clients a round, 6 samples each, batch 3" in last and "1 worker on a CPU" in last
    assert all(name in last for name in ("loop ", "G=1 ", "G=3 ", " times the loop"))
    assert told.count("rounds/s loop") == 2


@pytest.mark.parametrize("steps", [1, 4, 11])
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "mu": 0.2}])
def test_as_many_local_steps_for_all(steps, options):
    tasks = [task._replace(steps=steps) for task in tasks_of(small_cnn)]
    agree(tasks, atol=1e-5, **options)
    assert [trained.steps for _, trained in together(tasks)] == [steps] * len(tasks)


@pytest.mark.parametrize("spec", ["linear:over=steps", "cosine:over=steps,warmup=2", "step:every=2"])
def test_each_client_follows_its_own_schedule(spec):
    rates = make(catalog.SCHEDULES, spec)
    agree([task._replace(rates=rates) for task in tasks_of(small_cnn)], momentum=0.9)


@pytest.mark.parametrize("network", [lenet5, Residual])
def test_augmentation_is_drawn_alike(network):
    part = joined([make(catalog.AUGMENTATIONS, spec) for spec in ("flip", "crop:pad=1")])
    agree([task._replace(augment=part) for task in tasks_of(network)])
