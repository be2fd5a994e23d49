"""Estimators that look at derivatives, inputs, features, classes and losses: known answers, naive loops, no rounds."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedmpi.catalog import CONTRIBUTIONS
from fedmpi.plugins.spec import make
from fedmpi.methods.contribution.classwise import class_columns, class_cosines, shapfed
from fedmpi.methods.contribution.focus import credibility, focus
from fedmpi.methods.contribution.influence import dots, influence, influence_hessian, solve
from fedmpi.methods.contribution.information import (exact, information, information_gain,
                                                     penultimate, sampled)
from fedmpi.methods.contribution.volume import (cube_means, log_robust_volume, log_volume,
                                                projected, relative, robust_volume)
from fedmpi.compute.derivatives import derivatives
from fedmpi.core.errors import UserError
from fedmpi.core.layout import bind
from fedmpi.core.parts import Cohort, Facts, Round, Task, Updates
from fedmpi.methods.tasks.classification import classification


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def network(classes=3):
    """A smooth network with a norm, whose statistics are not the initial ones."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
                          nn.Linear(12, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, classes))
    model(torch.randn(50, 1, 4, 4) * 2 + 1)
    return model


def samples(n=40, classes=3, seed=0):
    gen = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 4, 4, generator=gen), torch.randint(classes, (n,), generator=gen)


def task(inputs, labels, model=None):
    model = model or network()
    layout, x, g = bind(model)
    mask = layout.full_mask()
    live = torch.cat([mask.float(), torch.ones(layout.R - layout.Q)])
    return Task(model, layout, x, g, x.clone(), mask, live, inputs, labels, 1, 10, 0.1, np.random.default_rng(0),
                Round(1, 2), objective=classification())


def half(layout):
    """The support of every other weight, and the dense tail."""
    mask = layout.full_mask()
    mask[::2] = False
    return layout.support(mask)


def cohort(layout, x, C=4, support=None, own=False, U=None, reports=()):
    support = half(layout) if support is None else support
    gen = torch.Generator().manual_seed(1)
    U = torch.randn(C, len(support), generator=gen) if U is None else U
    B = torch.rand(C, len(support), generator=gen) < 0.6 if own else None
    sparse = torch.zeros(layout.P)
    sparse[support] = x[support]
    shares = torch.arange(1, C + 1, dtype=torch.float64)
    updates = Updates(U if B is None else U * B, B, support, torch.ones(C, dtype=torch.float64),
                      int((support < layout.R).sum()))
    return Cohort(torch.arange(C), updates, Round(1, 2), shares / shares.sum(), sparse, layout, list(reports))


class Quadratic:
    """The utility of ``L = x A x / 2 - b x`` over the trained entries."""

    def __init__(self, A, b):
        self.A, self.b, self.products = A, b, 0

    def gradient(self, x):
        return (self.A @ x[: len(self.b)].double() - self.b).float()

    def curvature(self, x, v):
        self.products += 1
        return (self.A @ v.double()).float()


def quadratic(layout, shift=1.0):
    gen = torch.Generator().manual_seed(2)
    root = torch.randn(layout.R, layout.R, generator=gen, dtype=torch.float64)
    A = root @ root.T / layout.R + shift * torch.eye(layout.R, dtype=torch.float64)
    return Quadratic(A, torch.randn(layout.R, generator=gen, dtype=torch.float64))


# --- derivatives ---

@pytest.mark.parametrize("batch_size", [7, 500])
def test_derivatives_of_a_logistic_model_are_the_textbooks(batch_size):
    inputs, labels = torch.randn(30, 5, generator=torch.Generator().manual_seed(0)), samples(30)[1]
    model = nn.Sequential(nn.Linear(5, 3))
    layout, x, _ = bind(model)
    gradient, curvature = derivatives(model, layout, x, inputs, labels, F.cross_entropy, batch_size)
    W, b = model[0].weight.detach().double().clone(), model[0].bias.detach().double().clone()
    z = torch.cat([inputs.double(), torch.ones(30, 1, dtype=torch.float64)], dim=1)
    p = (inputs.double() @ W.T + b).softmax(dim=1)
    slope = ((p - F.one_hot(labels, 3)).T @ z) / 30                               # (3, 6), biases last
    H = sum(torch.kron(torch.diag(q) - torch.outer(q, q), torch.outer(row, row)) for q, row in zip(p, z)) / 30
    v = torch.randn(layout.R, generator=torch.Generator().manual_seed(3))
    along = torch.cat([v[:15].view(3, 5), v[layout.Q: layout.Q + 3, None]], dim=1).double()

    def flat(rows):
        whole = torch.zeros(layout.R, dtype=torch.float64)
        whole[:15], whole[layout.Q: layout.Q + 3] = rows[:, :5].flatten(), rows[:, 5]
        return whole

    vector = x.clone()
    torch.testing.assert_close(gradient(vector).double(), flat(slope), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(curvature(vector, v).double(), flat((H @ along.flatten()).view(3, 6)),
                               rtol=1e-5, atol=1e-7)


def test_derivatives_agree_with_differences_in_double_precision():
    model, (inputs, labels) = network(), samples()
    exact = copy.deepcopy(model).double().eval()
    layout, x, g = bind(model)
    gradient, curvature = derivatives(model, layout, x, inputs, labels, F.cross_entropy, batch_size=16)
    slots, weights = layout.weights + layout.others, dict(exact.named_parameters())
    v, w = (torch.randn(layout.R, generator=torch.Generator().manual_seed(k)).double() * layout.real[: layout.R]
            for k in (1, 2))

    def moved(step):
        return {s.name: weights[s.name].detach() + step * v[s.span].view(s.shape) for s in slots}

    def loss(step):
        logits = torch.func.functional_call(exact, moved(step), (inputs.double(),))
        return float(F.cross_entropy(logits, labels))

    def slope_along_w(step):
        at = {name: value.requires_grad_() for name, value in moved(step).items()}
        value = F.cross_entropy(torch.func.functional_call(exact, at, (inputs.double(),)), labels)
        return sum(float((part * w[s.span].view(s.shape)).sum())
                   for s, part in zip(slots, torch.autograd.grad(value, [at[s.name] for s in slots])))

    h = 1e-5
    found = gradient(x.clone()).double(), curvature(x.clone(), v.float()).double()
    assert float(found[0] @ v) == pytest.approx((loss(h) - loss(-h)) / (2 * h), rel=2e-5, abs=1e-6)
    assert float(found[1] @ w) == pytest.approx((slope_along_w(h) - slope_along_w(-h)) / (2 * h), rel=2e-5, abs=1e-5)
    assert not any(part[~layout.real[: layout.R]].any() for part in found)


def test_derivatives_leave_everything_but_the_vector_alone():
    (inputs, labels), asked = samples(), task(*samples())
    gradient, curvature = derivatives(asked.model, asked.layout, asked.x, inputs, labels, F.cross_entropy,
                                      batch_size=16)
    asked.g.normal_()
    g, before, drawn = asked.g.clone(), asked.x.clone(), torch.get_rng_state()
    other = before.clone()
    other[: asked.layout.R] *= 0.5
    first = gradient(other)
    assert torch.equal(asked.x, other)                                            # as evaluator leaves it
    bent = curvature(other, first)
    assert torch.equal(asked.x, other) and torch.equal(asked.g, g) and torch.equal(torch.get_rng_state(), drawn)
    named = dict(asked.model.named_parameters())
    assert all(named[s.name].grad.data_ptr() == asked.g.data_ptr() + 4 * s.offset for s in asked.layout.weights)
    assert all(parameter.requires_grad for parameter in named.values())
    with torch.no_grad():                                                         # wherever it is called from
        assert torch.equal(gradient(other), first) and torch.equal(curvature(other, first), bent)
    assert not torch.equal(gradient(before), first)


def test_the_hessian_is_symmetric_and_batches_do_not_matter():
    model, (inputs, labels) = network(), samples()
    layout, x, _ = bind(model)
    u, v = (torch.randn(layout.R, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    parts = [derivatives(model, layout, x, inputs, labels, F.cross_entropy, size) for size in (500, 13, 1)]
    gradients = [gradient(x.clone()) for gradient, _ in parts]
    bends = [curvature(x.clone(), v) for _, curvature in parts]
    for one, other in zip(gradients[1:] + bends[1:], gradients[:1] * 2 + bends[:1] * 2):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert float(u @ bends[0]) == pytest.approx(float(v @ parts[0][1](x.clone(), u)), rel=1e-3)


# --- influence ---

@pytest.mark.parametrize("own", [False, True])
def test_influence_is_the_slope_along_each_update(own):
    layout, x, _ = bind(network())
    judged, utility = cohort(layout, x, own=own), quadratic(layout)
    phi = influence().score({}, judged, utility, None).phi
    g = utility.gradient(judged.x)
    for n, update in enumerate(judged.updates.U):
        held = [k for k in range(judged.updates.trained) if judged.updates.B is None or judged.updates.B[n, k]]
        naive = -sum(float(g[judged.updates.support[k]]) * float(update[k]) for k in held)
        assert float(phi[n]) == pytest.approx(naive, rel=1e-12)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_influence_hessian_solves_the_system_of_the_support(own, damping):
    layout, x, _ = bind(network())
    judged, utility = cohort(layout, x, own=own), quadratic(layout)
    live = judged.updates.support[: judged.updates.trained].long()
    inner = utility.A[live][:, live] + damping * torch.eye(len(live), dtype=torch.float64)
    s = torch.linalg.solve(inner, utility.gradient(judged.x)[live].double())
    U = judged.updates.U if judged.updates.B is None else judged.updates.U * judged.updates.B
    phi = influence_hessian(damping, 200, 1e-6).score({}, judged, utility, None).phi
    torch.testing.assert_close(phi, -(U[:, : len(live)].double() @ s), rtol=1e-4, atol=1e-5)


def test_the_newton_step_of_a_quadratic_loss_earns_twice_its_decrease():
    """L(x) - L(x - s) = g s / 2 for s = A^-1 g, and phi of the update -s is g A^-1 s = s s."""
    layout, x, _ = bind(network())
    utility, full = quadratic(layout), layout.support(layout.full_mask())
    judged = cohort(layout, x, support=full)
    live = full[: judged.updates.trained].long()
    g = utility.gradient(judged.x)[live].double()
    step = -torch.linalg.solve(utility.A[live][:, live], g)
    U = torch.cat([step.float(), torch.ones(len(full) - len(live))])[None]
    judged = cohort(layout, x, 1, full, U=U)
    assert float(influence().score({}, judged, utility, None).phi) == pytest.approx(float(-g @ step), rel=1e-5)
    assert float(influence_hessian(0, 200, 1e-6).score({}, judged, utility, None).phi) == pytest.approx(
        float(step @ step), rel=1e-4)


def test_conjugate_gradients_stop_where_they_should():
    A, g = torch.diag(double(1, 2, 4)), double(1, 1, 1)
    torch.testing.assert_close(solve(lambda v: A @ v, g, 3, 0), double(1, .5, .25))
    torch.testing.assert_close(solve(lambda v: A @ v, g, 1, 0), g * 3 / 7)        # |g|^2 / g A g
    asked = []
    solve(lambda v: asked.append(0) or A @ v, g, 100, 0.7)
    assert len(asked) == 1                                                        # the first residual is 0.53 |g|
    assert not solve(lambda v: A @ v, g * 0, 5, 0.1).any()


def test_negative_curvature_ends_the_iteration_at_the_last_good_iterate():
    g = double(1, 1)
    assert torch.equal(solve(lambda v: -v, g, 9, 0), g)                           # at once: the slope itself
    B = torch.diag(double(3, -1))                                                 # g B g > 0, then not
    torch.testing.assert_close(solve(lambda v: B @ v, g, 9, 0), g * 2 / 2)
    layout, x, _ = bind(network())
    judged, utility = cohort(layout, x), quadratic(layout, shift=-100.0)
    assert torch.equal(influence_hessian().score({}, judged, utility, None).phi,
                       influence().score({}, judged, utility, None).phi)
    assert utility.products == 1


def test_influence_predicts_the_change_of_the_real_loss():
    model, (inputs, labels) = network(), samples()
    layout, x, _ = bind(model)
    utility = Quadratic(torch.zeros(0, 0), torch.zeros(0))
    utility.gradient, utility.curvature = derivatives(model, layout, x, inputs, labels, F.cross_entropy)
    judged = cohort(layout, x.clone())
    U = judged.updates.U * 1e-3
    U[:, judged.updates.trained:] = 7                                             # running statistics do not count
    judged = judged._replace(updates=judged.updates._replace(U=U))
    phi = influence().score({}, judged, utility, None).phi

    @torch.no_grad()
    def loss(vector):
        x.copy_(vector)
        return float(F.cross_entropy(model.eval()(inputs).double(), labels))

    gains = []
    for update in U:
        step = torch.zeros(layout.P)
        step[judged.updates.support[: judged.updates.trained]] = update[: judged.updates.trained]
        gains.append((loss(judged.x - step) - loss(judged.x + step)) / 2)
    torch.testing.assert_close(phi, double(*gains), rtol=0.01, atol=1e-6)


def test_dots_do_not_depend_on_their_blocks():
    layout, x, _ = bind(network())
    for own in (False, True):
        updates = cohort(layout, x, own=own).updates
        v = torch.randn(updates.trained, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        for block in (1, 13):
            torch.testing.assert_close(dots(updates, v, block), dots(updates, v), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("spec", [
    "influence-hessian:damping=-1", "influence-hessian:iterations=0", "influence-hessian:tolerance=1",
    "robust-volume:dims=0", "robust-volume:omega=0", "information-gain:noise=0", "information-gain:dims=0",
    "information-gain:limit=25", "information-gain:permutations=3"])
def test_options_out_of_range_are_refused(spec):
    with pytest.raises(UserError, match=spec.split(":")[1].split("=")[0]):
        make(CONTRIBUTIONS, spec)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", ["influence", "influence-hessian", "shapfed"])
def test_zero_updates_score_zero(name, own):
    layout, x, _ = bind(network())
    judged, utility = cohort(layout, x, own=own), quadratic(layout)
    U = judged.updates.U.clone()
    U[1] = 0
    for zeroed in (U, U * 0):
        given = judged._replace(updates=judged.updates._replace(U=zeroed))
        phi = make(CONTRIBUTIONS, name).score({}, given, utility, None).phi
        assert phi.dtype == torch.float64 and phi.isfinite().all() and float(phi[1]) == 0
        assert bool(phi.any()) == bool(zeroed.any())
    utility.A, utility.b = utility.A * 0, utility.b * 0                           # no slope, no curvature
    assert make(CONTRIBUTIONS, name).score({}, judged, utility, None).phi.isfinite().all()


# --- what clients report ---

@pytest.mark.parametrize("name", ["robust-volume", "information-gain", "information-gain:dims=4", "focus"])
def test_reports_leave_no_trace(name):
    asked = task(*samples())
    asked.model.train()
    asked.model[1].eval()                                                         # a norm that is frozen
    kept = [asked.x.clone(), asked.g.clone(), torch.get_rng_state(), asked.model[1].num_batches_tracked.clone()]
    twin, modes = copy.deepcopy(asked.gen), [m.training for m in asked.model.modules()]
    report = make(CONTRIBUTIONS, name).report
    first, again = report(asked), report(asked)
    assert first.keys() == again.keys() and all(np.array_equal(first[k], again[k]) for k in first)
    assert all(isinstance(array, np.ndarray) and np.isfinite(array).all() for array in first.values())
    now = [asked.x, asked.g, torch.get_rng_state(), asked.model[1].num_batches_tracked]
    assert all(torch.equal(a, b) for a, b in zip(kept, now))
    assert asked.gen.random() == twin.random() and [m.training for m in asked.model.modules()] == modes
    assert all(not m._forward_pre_hooks for m in asked.model.modules())


@pytest.mark.parametrize("name, blind", [("robust-volume", True), ("information-gain", True), ("focus", False)])
def test_who_is_blind_to_wrong_labels(name, blind):
    inputs, labels = samples()
    report = make(CONTRIBUTIONS, name).report
    right, wrong = report(task(inputs, labels)), report(task(inputs, (labels + 1) % 3))
    assert all(np.array_equal(right[key], wrong[key]) for key in right) == blind


class CalledByName(torch.nn.Module):
    """Its head is declared first, and called last and by keyword."""

    def __init__(self):
        super().__init__()
        self.head, self.inner = torch.nn.Linear(4, 3), torch.nn.Linear(6, 4)

    def forward(self, x):
        return self.head(input=torch.relu(self.inner(x)))


def test_features_are_those_that_enter_the_layer_that_is_called_last():
    model, inputs = CalledByName(), torch.randn(7, 6)
    found = penultimate(task(inputs, torch.zeros(7, dtype=torch.int64))._replace(model=model))
    assert torch.equal(found, torch.relu(model.inner(inputs)).detach())


# --- robust volume ---

def test_volume_by_hand():
    assert log_volume(torch.diag(double(2, 3, 4))) == pytest.approx(math.log(24))
    assert log_volume(double(3, 4)[:, None]) == pytest.approx(math.log(5))
    X = torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert log_volume(X) == pytest.approx(0.5 * float(torch.logdet(X.T @ X)))
    assert log_volume(X[:2]) == log_volume(X[:, [0, 1, 1]]) == log_volume(X * 0) == -math.inf


def test_robust_volume_by_hand():
    X = torch.tensor([[.1, .2], [.3, .4], [1.2, .1], [-.2, .3]], dtype=torch.float64)
    means, counts = cube_means(X, 1.0)
    found = {tuple(row): count for row, count in zip(means.tolist(), counts.tolist())}
    assert {tuple(round(v, 12) for v in key): count for key, count in found.items()} == {
        (.2, .3): 2, (1.2, .1): 1, (-.2, .3): 1}
    a = 1 / 30
    rho = [(1 - a ** (count + 1)) / (1 - a) for count in (2, 1, 1)]
    Y = torch.tensor([[.2, .3], [1.2, .1], [-.2, .3]], dtype=torch.float64)
    expected = float(torch.det(Y.T @ Y).sqrt()) * math.prod(rho)
    assert log_robust_volume(X, 1.0) == pytest.approx(math.log(expected))


def test_copies_hardly_raise_robust_volume_whereas_plain_volume_grows():
    X = projected(samples(30)[0], 5)
    for copies in (2, 5):
        more = X.repeat(copies, 1)
        assert log_volume(more) - log_volume(X) == pytest.approx(2.5 * math.log(copies))
        for omega in (0.1, 1.0):
            cubes = len(cube_means(X, omega)[1])
            gain = log_robust_volume(more, omega) - log_robust_volume(X, omega)
            assert -1e-12 <= gain <= -cubes * math.log1p(-(1 / (10 * cubes)) ** 2) + 1e-12 < 0.011


def test_near_copies_are_merged_by_their_cubes():
    X = projected(samples(30)[0], 5)
    shaken = torch.cat([X, X + 1e-3 * torch.randn(X.shape, generator=torch.Generator().manual_seed(0), dtype=X.dtype)])
    assert log_volume(shaken) - log_volume(X) > 1.7
    assert log_robust_volume(shaken, 1.0) - log_robust_volume(X, 1.0) < 0.2


def test_the_projection_is_the_same_for_all_and_keeps_the_scale():
    inputs = torch.randn(2000, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    X = projected(inputs, 5)
    torch.testing.assert_close(X[300:310], projected(inputs[300:310], 5), rtol=0, atol=1e-12)
    assert X.std(dim=0).sub(1).abs().max() < 0.15
    torch.testing.assert_close(projected(inputs[:600], 5, block=7), X[:600], rtol=0, atol=1e-12)


def test_volume_scores_are_relative_and_finite():
    torch.testing.assert_close(relative([700.0, 700 + math.log(.5), -math.inf]), double(1, .5, 0))
    assert relative([-math.inf] * 2).tolist() == [0, 0]
    part, reports = robust_volume(dims=3), []
    for inputs in (samples(40)[0], samples(40)[0][:20], samples(2)[0], torch.zeros(9, 1, 4, 4)):
        reports.append(part.report(task(inputs, torch.zeros(len(inputs), dtype=torch.int64))))
    layout, x, _ = bind(network())
    phi = part.score({}, cohort(layout, x, reports=reports), None, None).phi
    assert float(phi[0]) == 1 and 0 < float(phi[1]) < 1 and phi[2:].tolist() == [0, 0]


# --- information gain ---

def test_information_by_hand():
    grams = double(3, 8)[:, None, None]
    coalitions = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=torch.bool)
    torch.testing.assert_close(information(grams, coalitions), double(0, math.log(2), math.log(3), math.log(12) / 2))
    phi = exact(lambda coalitions: information(grams, coalitions), 2)
    both, one, two = math.log(12) / 2, math.log(2), math.log(3)
    torch.testing.assert_close(phi, double((one + both - two) / 2, (two + both - one) / 2))


def games(C):
    """Random Gram matrices of ``C`` clients, the last two alike."""
    gen = torch.Generator().manual_seed(C)
    features = torch.randn(C, 3, 5, generator=gen, dtype=torch.float64)
    features[-1] = features[-2]
    grams = features.transpose(1, 2) @ features
    return lambda coalitions: information(grams, coalitions)


def test_exact_shapley_is_the_mean_over_all_orders():
    C, v = 4, games(4)
    naive = torch.zeros(C, dtype=torch.float64)
    for order in itertools.permutations(range(C)):
        joined = torch.zeros(1, C, dtype=torch.bool)
        for n in order:
            before = v(joined)
            joined = joined.clone()
            joined[0, n] = True
            naive[n] += float(v(joined) - before) / math.factorial(C)
    torch.testing.assert_close(exact(v, C), naive)
    assert exact(lambda coalitions: coalitions.double() @ double(3, -1, 2), 3).tolist() == pytest.approx([3, -1, 2])
    assert exact(lambda coalitions: coalitions.double().sum(dim=1) * 5, 1).tolist() == [5]


@pytest.mark.parametrize("C", [1, 2, 6])
def test_shapley_values_sum_to_the_whole_and_treat_equals_alike(C):
    v = games(C) if C > 1 else (lambda coalitions: coalitions.double().sum(dim=1) * 2)
    whole = float(v(torch.ones(1, C, dtype=torch.bool)))
    right = exact(v, C)
    phi, error = sampled(v, C, 400, np.random.default_rng(0))
    assert float(right.sum()) == pytest.approx(whole) and float(phi.sum()) == pytest.approx(whole)
    assert bool(((phi - right).abs() <= 4 * error + 1e-9).all()) and float(error.max()) < 0.05
    if C > 1:
        assert float(right[-1]) == pytest.approx(float(right[-2]))


@pytest.mark.parametrize("dims", [64, 4])
def test_information_gain_from_reports_to_scores(dims):
    asked = [task(*samples(n, seed=n)) for n in (5, 12, 30)]
    part = information_gain(noise=0.5, dims=dims)
    reports = [part.report(one) for one in asked]
    assert all(report["gram"].dtype == np.float32 and report["gram"].shape == (min(dims, 6),) * 2 for report in reports)
    if dims == 64:
        features = asked[1].model.eval()[:-1](asked[1].inputs).detach()
        np.testing.assert_allclose(reports[1]["gram"], (features.T @ features).numpy(), rtol=1e-4, atol=1e-5)
    judged = cohort(asked[0].layout, asked[0].x, 3, reports=reports)
    total = sum(torch.from_numpy(report["gram"]).double() for report in reports) / 0.5
    whole = float(torch.logdet(torch.eye(len(total), dtype=torch.float64) + total)) / 2
    right = part.score({}, judged, None, None)
    assert float(right.phi.sum()) == pytest.approx(whole) and right.error is None
    assert right.phi[0] < right.phi[1] < right.phi[2]                             # more samples tell more
    drawn = information_gain(noise=0.5, dims=dims, limit=2).score({}, judged, None, np.random.default_rng(0))
    assert float(drawn.phi.sum()) == pytest.approx(whole)
    assert bool(((drawn.phi - right.phi).abs() <= 4 * drawn.error + 1e-12).all())
    flipped = judged._replace(clients=judged.clients.flip(0), reports=reports[::-1])
    for spec, found in ((8, right), (2, drawn)):                                  # rows are not players
        again = information_gain(noise=0.5, dims=dims, limit=spec).score({}, flipped, None, np.random.default_rng(0))
        assert torch.equal(again.phi, found.phi.flip(0))


@pytest.mark.parametrize("dims", [20, 100])
def test_mixed_features_keep_their_inner_products(dims):
    """400 features of 60 samples: squares in the mean, and every product up to the mixing's own deviation."""
    inputs = torch.randn(60, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    asked = task(inputs, torch.zeros(60, dtype=torch.int64), nn.Sequential(nn.Flatten(), nn.Linear(400, 3)))
    whole, mixed = (information_gain(dims=d).report(asked)["gram"] for d in (400, dims))
    assert whole.shape == (400, 400) and mixed.shape == (dims, dims)
    assert np.trace(mixed) == pytest.approx(np.trace(whole), rel=4 * (2 / (60 * dims)) ** .5)


def test_information_does_not_depend_on_its_blocks():
    gen = torch.Generator().manual_seed(0)
    features = torch.randn(5, 4, 3, generator=gen, dtype=torch.float64)
    coalitions = torch.rand(20, 5, generator=gen) < 0.5
    grams = features.transpose(1, 2) @ features
    torch.testing.assert_close(information(grams, coalitions, block=1), information(grams, coalitions))


def test_features_need_a_linear_layer():
    bare = nn.Sequential(nn.Conv2d(1, 3, 4), nn.Flatten())
    layout, x, _ = bind(bare)
    for part in (information_gain(), shapfed()):
        assert "linear" in next(iter(part.refuses(Facts(layout, largest=3))))


# --- class-wise cosine ---

def naive_class_cosines(judged, last="8"):
    """The cosines by loops, on dense rows of the last layer of ``network``."""
    updates, layout = judged.updates, judged.layout
    slots = {slot.name: slot for slot in layout.weights + layout.others}
    C, dense = len(updates.U), torch.zeros(len(updates.U), layout.P, dtype=torch.float64)
    held = torch.zeros(C, layout.P, dtype=torch.bool)
    dense[:, updates.support.long()] = updates.U.double()
    held[:, updates.support.long()] = True if updates.B is None else updates.B
    cosines = torch.zeros(C, 3, dtype=torch.float64)
    for c in range(3):
        weight, bias = slots[last + ".weight"], slots[last + ".bias"]
        entries = [weight.offset + c * weight.shape[1] + k for k in range(weight.shape[1])] + [bias.offset + c]
        mean = {}
        for j in entries:
            share = sum(float(judged.shares[m]) for m in range(C) if held[m, j])
            moved = sum(float(judged.shares[m] * dense[m, j]) for m in range(C) if held[m, j])
            mean[j] = moved / share if share else 0.0
        for n in range(C):
            mine = [j for j in entries if held[n, j]]
            norms = math.hypot(*(float(dense[n, j]) for j in mine)) * math.hypot(*(mean[j] for j in mine))
            if norms > 0:
                cosines[n, c] = sum(float(dense[n, j]) * mean[j] for j in mine) / norms
    return cosines


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_class_cosines_equal_the_loops(sparse, own):
    layout, x, _ = bind(network())
    judged = cohort(layout, x, support=None if sparse else layout.support(layout.full_mask()), own=own)
    if own:
        slot = layout.weights[-1]
        nobody = judged.updates.support == slot.offset + 1                        # an entry that nobody holds
        judged.updates.B[:, nobody] = False
        judged.updates.U[:, nobody] = 0
    expected = naive_class_cosines(judged)
    torch.testing.assert_close(class_cosines(judged.updates, judged.shares, layout), expected)
    torch.testing.assert_close(shapfed().score({}, judged, None, None).phi, expected.mean(dim=1))


def test_class_cosines_by_hand():
    layout, x, _ = bind(nn.Sequential(nn.Linear(1, 2)))                           # two classes: weight and bias each
    support = layout.support(layout.full_mask())                                  # w0, w1, b0, b1
    U = torch.tensor([[3., 0, 4, 0], [3, 1, -4, 0], [0, -1, 0, 0]])
    judged = cohort(layout, x, 3, support, U=U)._replace(shares=double(.5, .25, .25))
    # rows of class 0: (3, 4), (3, -4), 0 with mean (2.25, 1); of class 1: 0, (1, 0), (-1, 0) with mean 0
    norm = math.hypot(2.25, 1)
    expected = torch.tensor([[10.75 / 5 / norm, 0], [2.75 / 5 / norm, 0], [0, 0]], dtype=torch.float64)
    torch.testing.assert_close(class_cosines(judged.updates, judged.shares, layout), expected)
    columns, row = class_columns(layout, support)
    assert columns.tolist() == [0, 1, 2, 3] and row.tolist() == [0, 1, 0, 1]


def test_a_last_layer_without_bias_serves_and_layers_below_do_not_count():
    layout, x, _ = bind(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2, bias=False)))
    support = half(layout)
    columns, row = class_columns(layout, support)
    slot = layout.weights[-1]
    assert [int(j) for j in support if slot.offset <= j < slot.offset + 6] == support[columns].tolist()
    assert row.tolist() == [(int(j) - slot.offset) // 3 for j in support[columns]]
    judged = cohort(layout, x)
    U = torch.randn_like(judged.updates.U, dtype=torch.float32)
    U[:, columns] = judged.updates.U[:, columns]
    torch.testing.assert_close(class_cosines(judged.updates._replace(U=U), judged.shares, layout),
                               class_cosines(judged.updates, judged.shares, layout))


# --- FOCUS ---

def test_credibility_by_hand():
    torch.testing.assert_close(credibility(double(0, 0, 0)), double(2, 2, 2) / 3)
    torch.testing.assert_close(credibility(double(3, 1, 2).log()), double(.5, 5 / 6, 2 / 3))
    torch.testing.assert_close(credibility(double(1e6, -1e6)), double(0, 1))
    assert credibility(double(3)).tolist() == [0]


def test_focus_adds_the_clients_loss_and_the_servers():
    asked, (layout, x, _) = task(*samples()), bind(network())
    report = focus().report(asked)
    logits = asked.model.eval()(asked.inputs).detach().double()
    naive = -sum(float(row.log_softmax(0)[label]) for row, label in zip(logits, asked.labels)) / len(logits)
    assert report["loss"].shape == (1,) and float(report["loss"][0]) == pytest.approx(naive)
    own = {(True, False, False): -.5, (False, True, False): -1.0, (False, False, True): -.5}

    def utility(coalitions):
        return double(*[own[tuple(row)] for row in coalitions.tolist()])

    judged = cohort(layout, x, 3, reports=[{"loss": np.array([value])} for value in (.5, 1.0, 1.5)])
    torch.testing.assert_close(focus().score({}, judged, utility, None).phi,
                               1 - torch.tensor([1., 2, 2], dtype=torch.float64).softmax(dim=0))
