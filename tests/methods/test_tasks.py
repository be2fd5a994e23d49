"""Tasks: known answers, what fits them, and runs of each from end to end."""

import itertools
import math
import pathlib
import re

import contracts
import h5py
import numpy as np
import pytest
import torch

import fedmpi as package
from fedmpi.build.parts import made
from fedmpi.build.population import population
from fedmpi.build.setup import dealt_out
from fedmpi.build.options import DEFAULTS
from fedmpi.build.usual import with_usual_parts
from fedmpi.catalog import TASKS
from fedmpi.plugins.spec import make
from fedmpi.compute.sgd import dense_gradient, descend
from fedmpi.compute.stacked import stacked
from fedmpi.core.errors import DataError, UserError
from fedmpi.core.layout import bind
from fedmpi.core.parts import Objective, Round, Task
from fedmpi.laws import training
from fedmpi.methods.datasets.dataset import Dataset, checked, num_outputs
from fedmpi.methods.datasets.hdf5 import hdf5
from fedmpi.methods.datasets.synthetic import synthetic
from fedmpi.methods.optimisers.sgd import sgd
from fedmpi.methods.tasks.outputs import check_outputs, reduced, require_targets
from fedmpi.server import loop
from fedmpi.store import read_run

SPECS = [*TASKS, "regression:loss=huber,delta=0.5", "multi-label:headline=exact_match"]
VALUES = {"dataset": "synthetic:targets=values,classes=2,samples=120,size=4,noise=0.3", "task": "regression",
          "model": "logistic", "lr": 0.02, "validation": 0.3}
LABELS = VALUES | {"dataset": "synthetic:targets=labels,classes=3,samples=120,size=4,noise=0.3",
                   "task": "multi-label"}


@pytest.mark.parametrize("spec", SPECS)
def test_every_task_obeys_the_contract(spec):
    training.task(spec)


def gaussian():
    """A mean and a logarithm of the variance for each value: minus the log density, without its constant."""

    def densities(outputs, targets):
        mean, log_variance = outputs.float().chunk(2, dim=1)
        return ((targets - mean).square() * (-log_variance).exp() + log_variance).mean(1) / 2

    def loss(outputs, targets, reduction="mean"):
        return reduced(densities(outputs, targets), reduction)

    def mae(outputs, targets):
        return (outputs.float().chunk(2, dim=1)[0] - targets).abs().mean(1)

    def width(targets, classes):
        return 2 * targets.shape[1] if targets.ndim == 2 else 2

    def check(outputs, targets, classes, option):
        fits = targets.is_floating_point() and targets.ndim == 2
        require_targets(fits, option, "gaussian", "values (n, d)", targets, "say targets=values")
        check_outputs(outputs, (len(targets), width(targets, classes)), "moments", option, "give two a value")

    return Objective(loss, {"mae": mae}, "mae", check, higher=False, worst=1e6, outputs=width)


def wordless():
    """A task whose check takes nothing."""
    return gaussian()._replace(outputs=lambda targets, classes: 5)


def test_a_task_says_how_many_outputs_its_model_needs():
    """With inputs that tell nothing, the best mean and variance are those of the targets."""
    training.task(f"{__name__}:gaussian")
    options = VALUES | {"task": f"{__name__}:gaussian", "lr": .3, "rounds": 40, "strategy": "fedavg",
                        "optimiser": "sgd", "pruner": "dense", "dataset": f"{__name__}:mute", "clients": 2,
                        "validation": 0, "seed": 1, "batch_size": 1000, "local_epochs": 5}
    run, state = contracts.assembled(**options)
    states, _ = contracts.run_rounds(run, state, 40)
    y = mute("").y_train
    [bias] = [slot.of(states[-1]["x"]) for slot in run.layout.slots if slot.name.endswith("bias")]
    mean, log_variance = bias.tolist()
    assert mean == pytest.approx(y.mean(), abs=.02) and math.exp(log_variance) == pytest.approx(y.var(), rel=.05)


def mute(data_dir):
    """Targets of mean 2 and variance 1/4 to inputs of 0."""
    gen = np.random.default_rng(0)
    y = (2 + gen.standard_normal((100, 1)) / 2).astype(np.float32)
    x = np.zeros((100, 3), np.float32)
    return Dataset(x, y, x, y, 0, mean=(0.,), std=(1.,))


def test_a_task_that_takes_no_targets_hears_why():
    with pytest.raises(AssertionError, match="for values it says: --model: expected a tensor \\(7, 6\\) of moments"):
        training.task(f"{__name__}:wordless")


def test_only_tasks_know_cross_entropy():
    """What a strategy trains on of its own stands beside it, and is refused for other tasks; benches hold plain
    programs against this one."""
    root = pathlib.Path(package.__file__).parent
    words = re.compile(r"cross_entropy|log_softmax|nll_loss")
    found = {str(path.relative_to(root)) for path in root.rglob("*.py")
             if words.search(path.read_text(encoding="utf-8"))}
    outside = {path for path in found if not path.startswith(("methods/tasks/", "bench/", "laws/"))}
    assert outside == {"methods/strategies/thesis.py", "methods/strategies/fedpcl.py",
                       "methods/strategies/fedgkt.py"}
    assert all(make_strategy(name).classes for name in ("thesis-code", "fedpcl", "fedgkt"))


def make_strategy(name):
    from fedmpi.catalog import STRATEGIES
    return make(STRATEGIES, name)


# ---------------------------------------------------------------- known answers


def test_regression_on_values_by_hand():
    part = make(TASKS, "regression")
    outputs, targets = torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor([[0.0, 4.0], [0.0, 1.0]])
    assert part.loss(outputs, targets, reduction="none").tolist() == [2.5, 2.0]
    assert part.loss(outputs, targets).item() == 2.25 and part.metrics["mse"](outputs, targets).tolist() == [2.5, 2.0]
    assert part.metrics["mae"](outputs, targets).tolist() == [1.5, 1.0]
    assert (part.headline, part.higher) == ("mae", False)
    huber = make(TASKS, "regression:loss=huber,delta=1.5,headline=mse")
    # |e| of 1, 2, 0 and 2: 1/2, 1.5 * (2 - 0.75), 0, 1.875
    assert huber.loss(outputs, targets, reduction="none").tolist() == [1.1875, 0.9375] and huber.headline == "mse"


def test_one_value_a_sample_is_not_spread_over_all_others():
    part = make(TASKS, "regression")
    outputs, targets = torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([1.0, 2.0, 3.0])
    assert part.loss(outputs, targets, reduction="none").tolist() == [0.0, 1.0, 4.0]
    assert part.metrics["mae"](outputs, targets).tolist() == [0.0, 1.0, 2.0]


def test_several_labels_by_hand():
    part = make(TASKS, "multi-label")
    outputs = torch.tensor([[1.0, -1.0, 2.0], [-1.0, -2.0, -3.0], [3.0, 1.0, -1.0]])
    targets = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 1]], dtype=torch.uint8)
    assert part.metrics["f1"](outputs, targets).tolist() == [1.0, 1.0, 0.5]
    assert part.metrics["exact_match"](outputs, targets).tolist() == [True, True, False]
    assert part.metrics["label_accuracy"](outputs, targets).tolist() == pytest.approx([1.0, 1.0, 1 / 3])
    sigmoid = 1 / (1 + np.exp(-outputs.double().numpy()))
    right = np.where(targets.numpy() == 1, sigmoid, 1 - sigmoid)
    assert part.loss(outputs, targets, reduction="none").tolist() == pytest.approx((-np.log(right)).mean(1).tolist())


def quadratic(n=12, seed=0):
    """``(task, X (n, 3), y (n, 2), w (2, 3), b (2,))`` of a linear model on values, all samples in one batch."""
    gen = torch.Generator().manual_seed(seed)
    X, y = torch.randn(n, 3, generator=gen), torch.randn(n, 2, generator=gen)
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2))
    w, b = (each.detach().clone() for each in model.parameters())
    layout, x, g = bind(model)
    task = Task(model, layout, x, g, x.clone(), layout.full_mask(), torch.ones(layout.R), X, y, 1, n, 0.1,
                np.random.default_rng(0), Round(1, 1), optimiser=sgd(), objective=make(TASKS, "regression"))
    return task, X, y, w, b


def test_a_step_on_a_quadratic_is_the_closed_form():
    task, X, y, w, b = quadratic()
    error = X @ w.T + b - y
    loss = descend(task).loss
    assert loss == pytest.approx(float(error.square().mean()))
    torch.testing.assert_close(task.model[1].weight.detach(), w - 0.1 * error.T @ X / len(X))
    torch.testing.assert_close(task.model[1].bias.detach(), b - 0.1 * error.mean(0))


def test_descent_on_a_quadratic_ends_at_least_squares():
    task, X, y, _, _ = quadratic()
    descend(task._replace(epochs=800))
    whole = torch.cat([X, torch.ones(len(X), 1)], dim=1)
    solution = torch.linalg.lstsq(whole, y).solution
    torch.testing.assert_close(task.model[1].weight.detach(), solution[:3].T, rtol=1e-3, atol=1e-3)


def test_a_dense_gradient_is_that_of_the_objective():
    task, X, y, w, b = quadratic()
    error = X @ w.T + b - y
    gradient = dense_gradient(task, 1)
    torch.testing.assert_close(gradient[task.layout.weights[0].span].view(2, 3), error.T @ X / len(X))


@pytest.mark.parametrize("spec", ["regression", "regression:loss=huber", "multi-label"])
def test_clients_side_by_side_learn_what_they_learn_alone(spec):
    objective = make(TASKS, spec)
    tasks = []
    for seed in range(3):
        task = quadratic(n=10 + seed)[0]
        y = (task.labels > 0).to(torch.uint8) if spec == "multi-label" else task.labels
        tasks.append(task._replace(labels=y, batch_size=4, gen=np.random.default_rng(seed), objective=objective))
    first = tasks[0]
    together = stacked(first.model, first.layout)(
        [task._replace(gen=np.random.default_rng(seed)) for seed, task in enumerate(tasks)])
    for task, (vector, found) in zip(tasks, together):
        first.x.copy_(task.base)
        alone = descend(task._replace(model=first.model, x=first.x, g=first.g, layout=first.layout))
        torch.testing.assert_close(vector, first.x, rtol=1e-5, atol=1e-6)
        assert found.loss == pytest.approx(alone.loss, rel=1e-5)


# ---------------------------------------------------------------- data


def features(n=6):
    return np.arange(n * 3, dtype=np.float32).reshape(n, 3)


def dataset(y, classes=0):
    return Dataset(features(len(y)), y, features(len(y)), y, classes, (0.0,), (1.0,))


@pytest.mark.parametrize("y, outputs", [
    (np.zeros(6, np.float32), 1), (np.zeros((6, 4), np.float32), 4), (np.ones((6, 5), np.uint8), 5)])
def test_targets_need_not_be_classes(y, outputs):
    assert num_outputs(checked(dataset(y), "mine")) == outputs


@pytest.mark.parametrize("y, message", [
    (np.zeros(6), "y_train must be values (N,) or (N, d) float32"),
    (np.full(6, np.nan, np.float32), "y_train must be finite"),
    (np.full((6, 2), 2, np.uint8), "y_train must be 0 or 1 for each label, got 2"),
    (np.zeros((6, 2, 2), np.float32), "got (6, 2, 2) float32"),
    (np.zeros(6, np.int64), "or say how many classes there are")])
def test_targets_that_are_none_are_told(y, message):
    with pytest.raises(DataError, match=re.escape(message)):
        checked(dataset(y), "mine")


@pytest.mark.parametrize("targets, kind, shape", [("values", np.float32, (8, 3)), ("labels", np.uint8, (8, 3)),
                                                  ("classes", np.int64, (8,))])
def test_synthetic_data_of_every_kind_of_target(targets, kind, shape):
    made = synthetic("", samples=8, classes=3, targets=targets)
    assert made.y_train.dtype == kind and made.y_train.shape == shape and num_outputs(made) == 3
    again = synthetic("", samples=8, classes=3, targets=targets)
    assert np.array_equal(made.x_train, again.x_train) and np.array_equal(made.y_train, again.y_train)


def test_synthetic_values_are_linear_in_the_inputs():
    made = synthetic("", samples=400, classes=3, targets="values", noise=0)
    x = made.x_train.reshape(400, -1)
    solution = np.linalg.lstsq(x, made.y_train, rcond=None)[0]
    np.testing.assert_allclose(x @ solution, made.y_train, atol=1e-4)


def own_file(path, y):
    with h5py.File(path, "w") as file:
        file["x_train"], file["y_train"] = features(), y
        file["x_test"], file["y_test"] = features(), y
    return str(path)


def test_own_data_of_values_and_of_labels(tmp_path):
    path = own_file(tmp_path / "a.h5", np.linspace(0, 1, 6))
    made = hdf5("", file=path, targets="values")
    assert made.y_train.dtype == np.float32 and made.classes == 0 and made.y_train[-1] == 1
    path = own_file(tmp_path / "b.h5", np.eye(6)[:, :4] + np.eye(6)[:, 1:5])
    made = hdf5("", file=path, targets="labels")
    assert made.y_train.dtype == np.uint8 and made.y_train.sum(axis=0).tolist() == [2, 2, 2, 2]
    whole = hdf5("", file=own_file(tmp_path / "c.h5", np.arange(6)), targets="values")
    assert whole.y_train.tolist() == [0, 1, 2, 3, 4, 5] and whole.y_train.dtype == np.float32


@pytest.mark.parametrize("y, targets, message", [
    (np.linspace(0, 1, 6), "classes", "or say targets=values and --task regression"),
    (np.ones((6, 3)), "classes", "several labels a row for targets=labels"),
    (np.full((6, 3), 0.5), "labels", "must be rows of 0 and 1, (N, labels), got (6, 3) float64"),
    (np.zeros((6, 3, 2)), "values", "must be values (N,) or (N, d), got (6, 3, 2)"),
    (np.full(6, np.inf), "values", "must be finite in float32")])
def test_own_targets_of_another_kind_are_told(tmp_path, y, targets, message):
    with pytest.raises(DataError, match=re.escape(message)):
        hdf5("", file=own_file(tmp_path / "a.h5", y), targets=targets)


def test_classes_say_nothing_of_other_targets(tmp_path):
    with pytest.raises(ValueError, match="classes has no effect with targets=values; leave it out"):
        hdf5("", file=own_file(tmp_path / "a.h5", np.linspace(0, 1, 6)), targets="values", classes=3)


# ---------------------------------------------------------------- what does not go together


def refusal(**options):
    with pytest.raises(UserError) as caught:
        contracts.assembled(**VALUES | options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("options, message", [
    ({"partition": "dirichlet"}, "--partition dirichlet: it deals by class, and these data have no classes"),
    ({"partition": "shards"}, "--partition shards: it deals by class"),
    ({"partition": "classes"}, "--partition classes: it deals by class"),
    ({"noise": "symmetric"}, "--noise symmetric: it changes classes, and these data have none; leave it out"),
    ({"fault": ["label-flip"]}, "--fault label-flip: it changes classes, and these data have none; leave it out"),
    ({"features": "restyle"}, "--features restyle: it restyles classes, and these data have none"),
    ({"contribution": "shapfed"}, "--contribution shapfed is made for one class a sample, and --task regression has"),
    ({"observe": ["focus"]}, "--contribution focus is made for one class a sample"),
    ({"strategy": "thesis-code"}, "--strategy thesis-code is made for one class a sample"),
    ({"task": "classification"}, "--task classification needs classes as targets, got float32 of shape (2,) a sample"),
    ({"task": "multi-label"}, "--task multi-label needs labels (n, C) of 0 and 1 as targets"),
    ({"dataset": LABELS["dataset"]}, "--task regression needs values, float32 as targets, got uint8"),
    ({"dataset": contracts.SMALL["dataset"]}, "--task regression needs values, float32 as targets, got int64 a")])
def test_what_needs_classes_is_refused_where_there_are_none(options, message):
    assert message in refusal(**options)


@pytest.mark.parametrize("partition", ["iid", "quantity", "lognormal"])
def test_partitions_by_size_deal_out_any_targets(partition):
    run, state = contracts.assembled(**LABELS | {"partition": partition, "features": "gaussian",
                                                 "fault": ["duplicate:share=0.4", "feature-noise:share=0.4"]})
    assert math.isfinite(contracts.run_rounds(run, state, 1)[1][0]["val_f1"])


def test_data_without_classes_are_dealt_out_alike_where_nobody_says_how():
    options, parts = made(DEFAULTS | VALUES | {"noise": "none", "partition": None, "clients": 4})
    data = dealt_out(options, parts)[0]
    assert options["partition"] == "iid" and not data.noise.any()
    assert "labels" not in population(options, data)


# ---------------------------------------------------------------- runs


def test_a_row_holds_loss_and_every_metric():
    run, state = contracts.assembled(**VALUES)
    states, rows = contracts.run_rounds(run, state, 3)
    loss, metrics = loop.finish(run.test(loop.model_tested(run, states[-1])))
    assert rows[-1]["loss"] == loss == pytest.approx(metrics["mse"])
    assert {name: rows[-1][name] for name in metrics} == metrics and set(metrics) == {"mae", "mse"}
    assert rows[-1]["mae_before"] == rows[-1]["mae"] and rows[-1]["val_mae"] > 0
    assert rows[-1]["mae"] < rows[0]["mae"], "it learns"


def test_classification_has_the_columns_that_it_always_had():
    run, _ = contracts.assembled(validation=0.3)
    from fedmpi.server import record
    names = [column.name for column in record.columns(run)[0]]
    assert names[:6] == ["round", "accuracy", "loss", "accuracy_before", "val_accuracy", "val_loss"]


@pytest.mark.parametrize("options", [VALUES, LABELS])
def test_shapley_values_of_any_headline_are_those_of_the_definition(options):
    """Of the headline with its sign: less error is more worth."""
    run, state = contracts.assembled(**options | {"contribution": "shapley:of=headline", "weighting": "relu"})
    clients, updates = contracts.first_cohort(run, state)
    from fedmpi.core.parts import Cohort
    from fedmpi.core.rng import Purpose, stream
    from fedmpi.server import recruit
    from fedmpi.server.score import Utility
    x = loop.model_on(state["x"], run.layout.support(state["mask"]), run.layout)
    cohort = Cohort(clients, updates, Round(1, run.rounds), recruit.present(state, clients), x, run.layout)
    utility = Utility(run.transport, run.derivatives, run.block, cohort, state["strategy"])
    part = next(iter(run.contributions.values()))
    phi = part.score({}, cohort, utility, stream(0, Purpose.CONTRIBUTION, 1)).phi

    sign = 1 if run.objective.higher else -1

    def worth(members):
        model, chosen = x, torch.zeros(3, dtype=torch.bool)
        chosen[list(members)] = True
        if members:
            weights = cohort.shares[chosen] / cohort.shares[chosen].sum()
            _, model = run.strategy.merge(state["strategy"], x, updates.rows(chosen), weights)
        return sign * loop.finish(run.validate(model))[1][run.objective.headline]

    expected = [0.0] * 3
    for order in itertools.permutations(range(3)):
        for place, client in enumerate(order):
            expected[client] += (worth(order[: place + 1]) - worth(order[:place])) / 6
    assert phi.tolist() == pytest.approx(expected, abs=1e-5) and bool(phi.abs().sum() > 0)
    assert torch.equal(utility(torch.ones(1, 3, dtype=torch.bool), "headline"),
                       utility(torch.ones(1, 3, dtype=torch.bool), "accuracy"))


def test_a_coalition_that_explodes_is_worth_the_worst():
    run, state = contracts.assembled(**VALUES | {"contribution": "loo:of=headline", "lr": 0.01})
    clients, updates = contracts.first_cohort(run, state)
    from fedmpi.core.parts import Cohort
    from fedmpi.server import recruit
    from fedmpi.server.score import Utility
    cohort = Cohort(clients, updates._replace(U=updates.U * 1e30), Round(1, 8), recruit.present(state, clients),
                    state["x"], run.layout)
    utility = Utility(run.transport, run.derivatives, run.block, cohort, state["strategy"])
    everybody = torch.ones(1, 3, dtype=torch.bool)
    assert float(utility(everybody)) == -run.objective.worst == float(utility(everybody, "headline"))


@pytest.mark.parametrize("options", [VALUES, LABELS])
def test_the_same_bits_on_any_number_of_ranks(fedmpi, tmp_path, options):
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    for ranks in (1, 3):
        fedmpi(ranks, "train", *words, "--strategy", "fedavg", "--pruner", "rigl:every=2,sparsity=0.4",
               "--contribution", "shapley:of=headline", "--observe", "loo", "--observe", "influence",
               "--clients", 5, "--rounds", 3,
               "--out", tmp_path / f"{ranks}.h5")
    told = fedmpi(1, "verify", tmp_path / "1.h5", tmp_path / "3.h5")
    assert "agree in every recorded number" in told
    run = read_run(tmp_path / "1.h5")
    objective = make(TASKS, options["task"])
    assert run.attrs["objective"]["headline"] == objective.headline
    assert run.attrs["objective"]["higher"] == objective.higher and run.attrs["options"]["task"] == options["task"]
    assert np.isfinite(run.rounds[f"val_{objective.headline}"]).all()


# ---------------------------------------------------------------- the user's own


OWN = '''
import torch
from fedmpi.core.parts import Objective


def signs(fault: str = ""):
    """Whether outputs have the targets' sign."""
    def loss(outputs, targets, reduction="mean"):
        each = torch.nn.functional.softplus(-outputs * targets).mean(1)
        if fault == "mean only":
            return each.mean()
        return each if reduction == "none" else each.mean() if reduction == "mean" else each.sum()

    def right(outputs, targets):
        values = (outputs * targets > 0).float()
        return values if fault == "wide" else values.mean(1)

    def check(outputs, targets, classes, option):
        pass

    name = {"name": "Right!", "taken": "sparsity"}.get(fault, "right")
    headline = "wrong" if fault == "headline" else name
    return Objective(loss, {name: right}, headline, check, worst=float("inf") if fault == "worst" else 9.0)
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "signs_task.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_task_of_the_users_plays(own):
    run, state = contracts.assembled(**VALUES | {"task": "signs_task:signs", "contribution": "loo"})
    _, rows = contracts.run_rounds(run, state, 3)
    assert rows[-1]["right"] > rows[0]["right"] - 0.05 and 0 <= rows[-1]["val_right"] <= 1


@pytest.mark.parametrize("fault, message", [
    ("mean only", "expected the loss with reduction=none as a tensor (1,) of floats, got a tensor () float32"),
    ("wide", "expected the metric right as a tensor (1,) of floats, got a tensor (1, 2) float32"),
    ("name", "expected names of metrics in small letters, digits and _, got 'Right!'"),
    ("headline", "expected a headline among the metrics right, got 'wrong'"),
    ("worst", "expected worst as a finite number > 0, got inf")])
def test_a_task_that_breaks_its_contract_is_one_line(own, fault, message):
    assert message in refusal(task=f"signs_task:signs:fault={fault}")


def test_a_metric_cannot_take_the_name_of_another_column(own):
    from fedmpi.server import record
    run, _ = contracts.assembled(**VALUES | {"task": "signs_task:signs:fault=taken"})
    with pytest.raises(UserError, match="a metric sparsity, which is the name of another column"):
        record.columns(run)


# ---------------------------------------------------------------- readers


@pytest.fixture(scope="module")
def run_files(fedmpi, tmp_path_factory):
    """``{name: path}`` of small runs of two tasks."""
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    for name, options, seed in (("a", VALUES, 0), ("b", VALUES, 1), ("labels", LABELS, 0)):
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        found[name] = str(folder / f"{name}.h5")
        fedmpi(1, "train", *words, "--strategy", "fedavg", "--pruner", "dense", "--clients", 3, "--rounds", 4,
               "--seed", seed, "--out", found[name])
    return found


def test_the_chosen_round_is_that_of_the_least_error(run_files):
    from fedmpi.read.report.metrics import chosen, final_metrics
    run = read_run(run_files["a"])
    run.rounds["val_mae"] = np.array([0.5, 0.2, 0.2, 0.9])
    found = final_metrics(run)
    assert chosen(run) == 1 and found["chosen_round"] == 2 and found["chosen_mae"] == run.rounds["mae"][1]
    assert "final_accuracy" not in found and found["final_mse"] == pytest.approx(found["final_loss"])


def test_runs_are_compared_by_their_headline_in_its_direction(fedmpi, run_files):
    told = fedmpi(1, "compare", run_files["a"], run_files["b"], "--accuracy", "0.8")
    assert "mae at best validation" in told and "to reach a test mae of 0.8" in told and "accuracy" not in told
    from fedmpi.read.report.series import to_reach
    run = read_run(run_files["a"])
    run.rounds["mae"] = np.array([0.9, 0.5, 0.7, 0.4])
    assert to_reach(run, "rounds", 0.5) == 2 and to_reach(run, "rounds", 0.45) == 4


def test_runs_of_other_tasks_are_not_compared(fedmpi, run_files):
    told = fedmpi(1, "compare", run_files["a"], run_files["labels"], "--other-data", code=2)
    assert "these runs have different tasks, which cannot be compared: mae (less is better), f1 (more" in told


def test_runs_whose_tasks_differ_in_options_or_source_are_told_apart(run_files):
    """The losses of two quantiles have one name, and are two functions."""
    from fedmpi.read import report
    from fedmpi.read.headline import task_lines
    one, other = read_run(run_files["a"]), read_run(run_files["b"])
    assert task_lines([one, other]) == []
    usual = one.attrs["options"]["task"] + ":loss=mse"
    said = one._replace(attrs=one.attrs | {"options": one.attrs["options"] | {"task": usual}})
    assert task_lines([one, said]) == []
    old = one._replace(attrs={name: value for name, value in one.attrs.items() if name != "parts"})
    assert task_lines([old, other]) == []

    def as_task(run, spec, **changes):
        parts = [part | changes if part["kind"] == "task" else part for part in run.attrs["parts"]]
        return run._replace(attrs=run.attrs | {"parts": parts, "options": run.attrs["options"] | {"task": spec}})

    low = as_task(one, spec="my:quantile:tau=0.5", options={"tau": 0.5}, source="ab" * 32)
    high = as_task(other, spec="my:quantile:tau=0.9", options={"tau": 0.9}, source="ab" * 32)
    found = report.comparison(report.grouped({"a.h5": low, "b.h5": high}))
    told = report.comparison_text(found)
    assert "different tasks: --task my:quantile:tau=0.5, --task my:quantile:tau=0.9" in told
    assert "their mae may be, too" in told
    edited = as_task(read_run(run_files["b"]), spec="my:quantile:tau=0.5", options={"tau": 0.5}, source="cd" * 32)
    assert "(source abababab), --task my:quantile:tau=0.5 (source cdcdcdcd)" in task_lines([low, edited])[0]


@pytest.mark.parametrize("name, word", [("a", "mae"), ("labels", "f1")])
def test_every_reader_tells_the_headline(fedmpi, tmp_path, run_files, name, word):
    path = run_files[name]
    assert f"\n{word} " in fedmpi(1, "show", path) and word in fedmpi(1, "watch", path)
    assert f"test {word} 0." in fedmpi(1, "export-model", path, "--out", tmp_path / "m.safetensors")
    fedmpi(1, "report", path, "--out", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert f"Test {word}" in page and "ccuracy" not in page.replace("label accuracy", "").replace("label_accuracy", "")
    fedmpi(1, "plot", path, "--out", tmp_path / "a.svg")
    assert (tmp_path / "a.svg").stat().st_size


def test_a_study_measures_the_headline(run_files):
    from fedmpi.study.measures import measure
    run = read_run(run_files["a"])
    assert measure(run, "accuracy") == run.rounds["mae"][-1]
    assert measure(run, "accuracy_decline") >= 0 or measure(run, "accuracy_best") > measure(run, "accuracy")
    assert math.isnan(measure(run, "learned"))
    run.rounds["val_mae"] = np.array([0.9, 0.5, 0.7, 0.4])
    assert measure(run, "rounds_to:0.6") == 2


def test_data_without_classes_are_described(fedmpi, tmp_path):
    told = fedmpi(1, "data", "--dataset", VALUES["dataset"], "--clients", 3, "--picture", tmp_path / "p.png")
    assert "2 values a sample" in " ".join(told.split()) and "entropy" not in told
    assert (tmp_path / "p.png").stat().st_size


def test_the_usual_parts_go_with_every_task():
    options = with_usual_parts(DEFAULTS | {"task": "regression"})
    assert options["pruner"] and options["contribution"]
