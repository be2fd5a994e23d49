"""On a real GPU: every part runs there, to the bits that number of ranks and resuming do not change, near the CPU's.

Without a GPU nothing here runs. With one, the rest of the suite takes it too, as ``--device auto`` does."""

from functools import partial

import numpy as np
import pytest
import torch
from training import ruled, sgd

from fedmpi import catalog
from fedmpi.plugins.spec import make
from fedmpi.compute import graphs, staging
from fedmpi.core import exact_sum
from fedmpi.run.devices import pick_device
from fedmpi.core.layout import bind
from fedmpi.compute.sgd import casting, descend
from fedmpi.methods.models.zoo import torchvision
from fedmpi.core.parts import Round, Task
from fedmpi.methods.tasks.classification import classification
from fedmpi.compute.stacked import stacked
from fedmpi.compute.stacked_forward import refusal
from fedmpi.store import read_run, verify

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
SMALL = ("--rounds", 3, "--clients", 6, "--model", "small-cnn:width=4", "--lr", 0.1, "--local-epochs", 1)


@pytest.fixture(scope="module")
def gpu():
    return pick_device("cuda", 0)


def task_of(make, shape, device, n=23, precision="float32", sparsity=0.5):
    """A client's task of a model whose weights and samples are the same on every device."""
    torch.manual_seed(0)
    model = make(shape, 5)
    gen = torch.Generator().manual_seed(1)
    inputs, labels = torch.randn(n, *shape, generator=gen), torch.randint(0, 5, (n,), generator=gen)
    layout, x, g = bind(model.to(device))
    mask = (layout.full_mask() & (torch.rand(layout.Q, generator=gen) > sparsity)).to(device)
    live = torch.ones(layout.R, device=device)
    live[: layout.Q] = mask
    x[: layout.R] *= live
    return Task(model, layout, x, g, x.clone(), mask, live, inputs.to(device), labels.to(device), 1, 5, 0.01,
                np.random.default_rng(0), Round(1, 1), casting=casting(precision, device),
                objective=classification())


@pytest.mark.parametrize("name", sorted(name for name in catalog.MODELS if name != "torchvision"))
def test_every_model_trains_to_what_the_cpu_makes_of_it(gpu, name):
    made = partial(make, catalog.MODELS, name)
    here, there = task_of(made, (3, 32, 32), gpu), task_of(made, (3, 32, 32), torch.device("cpu"))
    for task in (here, there):
        for module in task.model.modules():
            if isinstance(module, torch.nn.modules.dropout._DropoutNd):
                module.p = 0.0
    losses = sgd(here, momentum=0.9), sgd(there, momentum=0.9)
    moved = (there.x - there.base).norm()
    assert losses[0] == pytest.approx(losses[1], rel=5e-3)
    assert float((here.x.cpu() - there.x).norm()) < 0.02 * float(moved)
    assert not here.x[: here.layout.Q][~here.mask].any()


def test_a_residual_network_with_batch_norm_trains(gpu):
    here, there = (task_of(torchvision, (3, 32, 32), device, n=10) for device in (gpu, torch.device("cpu")))
    assert sgd(here) == pytest.approx(sgd(there), rel=2e-2)


def trained(task, recorder, **rule):
    """``(x, losses)`` of three clients, one after the other, each with the random numbers of its own."""
    losses, found = [], []
    for client in range(3):
        task.x.copy_(task.base)
        torch.cuda.manual_seed(client)
        losses.append(sgd(task._replace(recorder=recorder, epochs=3, gen=np.random.default_rng(client)), **rule))
        found.append(task.x.clone())
    return torch.stack(found), losses


@pytest.mark.parametrize("optimiser", ["sgd:momentum=0.9", "adam", "adamw"])
def test_a_recorded_step_survives_a_schedule(gpu, optimiser):
    """One recording for all rates, over steps and from round to round, to the bits of steps that are not recorded."""
    task = task_of(partial(make, catalog.MODELS, "small-cnn"), (3, 32, 32), gpu, n=20)
    part, rates = (make(table, spec) for table, spec in (
        (catalog.OPTIMISERS, optimiser), (catalog.SCHEDULES, "cosine:over=steps,warmup=2")))
    recorder, found = graphs.recorder(task.model, gpu, classification().loss), []
    for kept in (None, recorder):
        for lr in (0.01, 0.005):
            task.x.copy_(task.base)
            trained = descend(task._replace(recorder=kept, epochs=6, gen=np.random.default_rng(1), optimiser=part,
                                            rates=rates, lr=lr, clip_norm=0.5))
            found.append((task.x.clone(), trained.loss))
    assert all(torch.equal(x, y) and a == b for (x, a), (y, b) in zip(found[:2], found[2:]))
    assert recordings(recorder) == 1 and not torch.equal(found[0][0], found[1][0])


def recordings(recorder):
    return sum(len(step.graphs) for step, _ in recorder.made.values())


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("sparsity", [0.0, 0.5])
@pytest.mark.parametrize("name", sorted(catalog.MODELS))
def test_recorded_steps_have_the_bits_of_those_taken_one_by_one(gpu, name, sparsity, precision):
    """The last batch of an epoch, which is smaller, too."""
    task = task_of(partial(make, catalog.MODELS, name), (3, 32, 32), gpu, precision=precision,
                   sparsity=sparsity)
    recorder = graphs.recorder(task.model, gpu, classification().loss)
    rule = {"momentum": 0.9, "weight_decay": 1e-3, "mu": 0.1 * (sparsity == 0)}
    plain, losses = trained(task, None, **rule)
    recorded, again = trained(task, recorder, **rule)
    assert torch.equal(plain, recorded) and losses == again
    assert recordings(recorder) == 2
    assert not torch.equal(plain[0], plain[1])


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", sorted(name for name in catalog.MODELS if name != "torchvision"))
@pytest.mark.parametrize("spec", ["sgd:momentum=0.9,weight_decay=0.001", "adam"])
def test_recorded_steps_of_clients_side_by_side_have_the_same_bits(gpu, name, precision, spec):
    """Of as many samples each, and of some with fewer, who finish before the others."""
    task = task_of(partial(make, catalog.MODELS, name), (3, 32, 32), gpu, precision=precision)
    recorder, found = graphs.recorder(task.model, gpu, classification().loss), []
    optimiser = make(catalog.OPTIMISERS, spec)
    for kept in (None, recorder):
        wide = stacked(task.model, task.layout, kept)
        for sizes in ((23, 23, 23), (23, 20, 7), (23, 23, 23)):
            torch.cuda.manual_seed(0)
            same, descent = ruled(task, momentum=0.9, weight_decay=1e-3, mu=0.1)
            team = [same._replace(epochs=8, gen=np.random.default_rng(client), inputs=task.inputs[:n],
                                  labels=task.labels[:n], optimiser=optimiser) for client, n in enumerate(sizes)]
            found.append(wide(team, descent))
    for before, after in zip(found[:3], found[3:]):
        assert all(torch.equal(x, y) and a == b for (x, a), (y, b) in zip(before, after))
    assert recordings(recorder) >= 2


def test_steps_that_wait_for_the_gpu_or_are_not_known_are_not_recorded(gpu):
    class Looking(torch.nn.ReLU):
        def forward(self, x):
            return super().forward(x) if float(x.sum()) > 0 else x

    Looking.__module__ = "torch.nn"                        # as if it were torch's own
    task = task_of(lambda shape, classes: torch.nn.Sequential(torch.nn.Flatten(), Looking(), torch.nn.Linear(
        3 * 32 * 32, classes)), (3, 32, 32), gpu)
    recorder = graphs.recorder(task.model, gpu, classification().loss)
    plain, recorded = trained(task, None), trained(task, recorder)
    assert torch.equal(plain[0], recorded[0]) and recordings(recorder) == 0

    class Mine(torch.nn.ReLU):
        pass

    assert graphs.recorder(torch.nn.Sequential(torch.nn.Linear(2, 2), Mine()), gpu, classification().loss) is None


def test_samples_that_stay_on_the_gpu_are_those_on_the_host(gpu, monkeypatch):
    gen = np.random.default_rng(0)
    data = {"x_train": gen.integers(0, 256, (1000, 3, 8, 8), np.uint8), "indices": gen.permutation(1000)[:900],
            "labels": gen.integers(0, 9, 900)}
    data["x_train"].flags.writeable = False
    monkeypatch.setattr(staging, "PIECE", 10_000)
    held = staging.resident(data, gpu)
    assert all((getattr(held, name).cpu().numpy() == data[name]).all() for name in data)
    monkeypatch.setattr(staging, "PART", 1e-9)
    assert staging.resident(data, gpu) is None


def test_a_recording_that_runs_out_of_memory_leaves_training_as_it_was(gpu, monkeypatch):
    task = task_of(partial(make, catalog.MODELS, "cnn"), (3, 32, 32), gpu)
    recorder = graphs.recorder(task.model, gpu, classification().loss)
    plain = trained(task, None)

    def greedy(step, batch, fixed, usual=graphs.record):
        monkeypatch.setattr(graphs, "record", usual)       # once

        def more(*batch):
            step(*batch)
            torch.empty(1 << 45, dtype=torch.uint8, device=gpu)

        return usual(more, batch, fixed)

    monkeypatch.setattr(graphs, "record", greedy)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        trained(task, recorder)
    torch.cuda.empty_cache()
    again = trained(task, recorder)
    assert torch.equal(plain[0], again[0]) and plain[1] == again[1]


@pytest.mark.parametrize("precision, near", [("float32", 1e-3), ("bf16", 0.1)])
def test_side_by_side_is_near_one_by_one(gpu, monkeypatch, precision, near):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)                        # which rounds to 10 bits

    def made(shape, classes):
        return make(catalog.MODELS, "pfl-cnn:dropout=false", shape, classes)

    task = task_of(made, (3, 32, 32), gpu, precision=precision, sparsity=0.0)
    assert refusal(task.model, task.layout, torch.zeros(2, 3, 32, 32)) == ""
    task, _ = ruled(task)
    generators = [np.random.default_rng(seed) for seed in range(4)]
    wide = stacked(task.model, task.layout)
    side = wide([task._replace(gen=gen) for gen in generators])
    again = wide([task._replace(gen=np.random.default_rng(seed)) for seed in range(4)])
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(side, again))
    for seed, (x, told) in enumerate(side):
        task.x.copy_(task.base)
        alone = sgd(task._replace(gen=np.random.default_rng(seed)))
        moved = float((task.x - task.base).norm())
        assert told.loss == pytest.approx(alone, rel=1e-2) and float((x - task.x).norm()) < near * moved


@pytest.mark.parametrize("pruner", sorted(catalog.PRUNERS))
def test_every_pruner_runs_with_the_server_on_the_gpu(fedmpi, tmp_path, pruner):
    fedmpi(1, "train", *SMALL, "--pruner", pruner, "--device", "cuda", "--server-device", "cuda",
           "--out", tmp_path / "run.h5")
    assert len(read_run(tmp_path / "run.h5").rounds["round"]) == 3


@pytest.mark.parametrize("strategy", sorted(catalog.STRATEGIES))
def test_every_strategy_runs(fedmpi, tmp_path, strategy):
    wants = make(catalog.STRATEGIES, strategy).server_data
    own = ("--server-data", 0.1) if wants else ()
    fedmpi(1, "train", *SMALL, "--strategy", strategy, *own, "--device", "cuda", "--out", tmp_path / "run.h5")


def test_every_estimator_runs_on_the_gpu(fedmpi, tmp_path):
    names = sorted(set(catalog.CONTRIBUTIONS) - {"shapley"})
    observed = [word for name in names for word in ("--observe", name)]
    fedmpi(1, "train", *SMALL, "--contribution", "shapley", *observed, "--device", "cuda", "--server-device", "cuda",
           "--out", tmp_path / "run.h5")


@pytest.mark.parametrize("more", [(), ("--precision", "bf16"), ("--together", 3), ("--codec", "int8:feedback=true")])
def test_ranks_that_share_a_gpu_give_the_same_bits(fedmpi, tmp_path, more):
    """Also stopped after a round and resumed."""
    usual = ("train", *SMALL, "--strategy", "fedavg", "--pruner", "rigl:every=2", *more, "--device", "cuda")
    fedmpi(1, *usual, "--out", tmp_path / "one.h5")
    fedmpi(1, *usual, "--out", tmp_path / "parts.h5", "--until", 1)
    fedmpi(1, "train", "--resume", tmp_path / "parts.h5")
    fedmpi(3, *usual, "--out", tmp_path / "many.h5")
    for name in ("parts.h5", "many.h5"):
        assert verify(tmp_path / "one.h5", tmp_path / name) == []


def test_a_client_without_memory_trains_again_and_the_run_goes_on(fedmpi, tmp_path, gpu, monkeypatch):
    """A real allocation that fails, once."""
    from fedmpi.client import worker
    usual, failed = worker.Worker.prepare, []

    def greedy(self, job, arrays):
        if not failed:
            failed.append(job["client"])
            torch.empty(1 << 45, dtype=torch.uint8, device=self.device)
        return usual(self, job, arrays)

    monkeypatch.setattr(worker.Worker, "prepare", greedy)
    told = fedmpi(1, "train", *SMALL, "--device", "cuda", "--out", tmp_path / "run.h5")
    assert failed and "ran out of GPU memory" in told


def test_sums_of_updates_have_the_same_bits_on_any_device(gpu):
    gen = torch.Generator().manual_seed(0)
    values, totals = torch.randn(3, 100_003, generator=gen), []
    for device in (gpu, torch.device("cpu")):
        total = torch.zeros(100_003, dtype=torch.int64, device=device)
        for row, share in zip(values, (0.2, 0.3, 0.5)):
            exact_sum.add(total, row.to(device), share, exact_sum.magnitude(row))
        totals.append(total.cpu())
    assert torch.equal(*totals) and totals[0].any()


def test_the_plan_and_the_doctor_tell_of_the_gpu(fedmpi, tmp_path):
    told = fedmpi(1, "train", *SMALL, "--device", "cuda", "--dry-run")
    assert torch.cuda.get_device_name() in told, told
    told = fedmpi(1, "doctor", "--out", tmp_path)
    assert torch.cuda.get_device_name() in told, told
