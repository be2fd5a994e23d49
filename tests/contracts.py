"""Laws that every part of the catalogue obeys, as plain functions of a spec: registering a method is what tests it."""

import copy
import json
import math
from functools import partial

import numpy as np
import pytest
import torch

from fedmpi import catalog
from fedmpi.plugins.entry import entry
from fedmpi.plugins.spec import make
from fedmpi.build.check import check
from fedmpi.build.federation import shared_arrays
from fedmpi.build.parts import made
from fedmpi.build.setup import dealt_out, message, set_up
from fedmpi.server import exchange, fold, loop, recruit
from fedmpi.build.worker import worker_parts
from fedmpi.client.worker import Worker
from fedmpi.compute.evaluate import summed
from fedmpi.core.errors import UserError
from fedmpi.core.layout import bind
from fedmpi.compute.coalitions import coalition_models
from fedmpi.core.mask import budgets
from fedmpi.build.options import DEFAULTS
from fedmpi.core.parts import Cohort, Facts, Round, Task, Updates
from fedmpi.methods.tasks.classification import classification
from fedmpi.transport.local import Local
from fedmpi.wire import positions

SMALL = {"dataset": "synthetic:samples=120,size=4,noise=0.3,classes=4", "model": "small-cnn:width=4",
         "partition": "iid",
         "noise": "none", "clients": 3, "rounds": 8, "local_epochs": 2, "batch_size": 10, "device": "cpu",
         "strategy": "fedavg", "pruner": "dense", "contribution": "size"}


def assembled(**options):
    """``(fed, state before round 1)`` of a real one-process federation, small unless ``options`` say otherwise. The
    server has samples of its own where the strategy works with them."""
    setup = small(**options)
    check(setup)
    transport = Local(Worker(worker_parts, lambda name, local_rank: torch.device("cpu")))
    fed = setup.fed._replace(transport=transport)
    transport.share({"kind": "data"}, shared_arrays(setup.data))
    state = loop.start(fed, setup.network.first)
    transport.publish(*message(setup, state))
    return fed, state


def small(**options):
    """The ``Setup`` of such a federation."""
    options = DEFAULTS | SMALL | options
    if make(catalog.STRATEGIES, options["strategy"]).server_data and options["server_data"] == "0":
        options["server_data"] = "0.1"
    return set_up(options, torch.device("cpu"))


def dealt(options):
    """The ``Federation`` of a run's options."""
    return dealt_out(*made(options))[0]


def play(fed, state, rounds):
    """``(states, rows)`` after each of the first ``rounds`` rounds."""
    states, rows = [], []
    for t in range(1, rounds + 1):
        state, row, _ = loop.play_round(fed, state, t)
        states.append(state)
        rows.append(row)
    return states, rows


def sampled(fed, state, t):
    """The clients that round t asks."""
    return recruit.sample(fed, state, t, recruit.look(fed, state["now"])[1])[1]


def first_cohort(fed, state):
    """``(clients, Updates)`` of a first round that everybody trained."""
    support, clients = fed.layout.support(state["mask"]), sampled(fed, state, 1)
    _, asks = exchange.announce(fed, state, 1, clients)
    answers = exchange.collect(fed, asks, support)
    updates = fold.stack(fed, answers, support)
    if fed.strategy.before is not None:
        updates = updates._replace(root=updates.U.mean(dim=0))
    return clients, updates


def small_layout():
    """``(layout, x)`` of a small convolutional network with a norm: all three regions of the vector."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(),
                                torch.nn.Linear(16, 10))
    layout, x, _ = bind(model)
    return layout, x


def updates_of(layout, mask, clients=3, own=False, seed=0):
    """Random ``Updates``; with ``own`` each client lacks some of the entries, and sends 0 there."""
    gen = torch.Generator().manual_seed(seed)
    support = layout.support(mask)
    U = torch.randn(clients, len(support), generator=gen)
    B = torch.rand(clients, len(support), generator=gen) < 0.7 if own else None
    n = torch.arange(1, clients + 1, dtype=torch.float64) * 10
    return Updates(U if B is None else U * B, B, support, n, int((support < layout.R).sum()))


def frequent(kind, name, every=2):
    """The spec of a method that acts every other round, where it has that option."""
    options = {p.name for p in entry(catalog.KINDS[kind], name).signature.parameters.values()}
    wanted = {"every": every, "sparsity": 0.8} if kind == "pruner" else {}
    return name + ":" * bool(options & set(wanted)) + ",".join(f"{k}={v}" for k, v in wanted.items() if k in options)


# --- codecs ---

def check_codec(spec):
    """A round trip stays within the declared bound, keeps length and dtype, writes nothing, and repeats itself."""
    codec = make(catalog.CODECS, spec)
    for values in codec_samples():
        before = values.clone()
        arrays = codec.encode(values)
        assert all(isinstance(array, np.ndarray) for array in arrays.values())
        back, bound = codec.decode(arrays, len(values)), codec.bound(values)
        assert back.dtype == torch.float32 and back.shape == values.shape == bound.shape
        wrong = torch.nonzero(~((back.double() - values.double()).abs() <= bound.double())).flatten()
        assert not len(wrong), f"{spec}: {values[wrong[:3]]} became {back[wrong[:3]]}, bound {bound[wrong[:3]]}"
        assert torch.equal(values, before)
        again = codec.encode(values)
        assert all(np.array_equal(again[name], array) for name, array in arrays.items())
        zero = codec.decode(codec.encode(torch.zeros(len(values))), len(values))
        assert torch.equal(zero, torch.zeros(len(values)))


def codec_samples():
    """float32 vectors: none, one, odd, more than a block; zeros, denormals, the largest, both signs, mixed scales."""
    gen = torch.Generator().manual_seed(1)
    largest = torch.finfo(torch.float32).max
    for size in (0, 1, 7, 255, 256, 257, 1001):
        normal = torch.randn(size, generator=gen)
        yield from (normal, normal * 1e-3, normal * 1e4, normal.clamp(min=0))
        yield normal * 10.0 ** torch.randint(-30, 30, (size,), generator=gen)
        yield from (normal * scale for scale in (1e-36, 1e-38, 1e-41))          # denormal values, or scales
        yield torch.full((size,), largest) * normal.sign()


# --- positions ---

def check_positions(mask, known=None):
    """A mask comes back, is not written to, and takes hardly more bytes than its bitmap would."""
    before = mask.copy()
    meta, array = positions.encode(mask, known)
    assert array.dtype == np.uint8 and array.nbytes <= -(-len(mask) // 8) + 2 and meta["k"] == mask.sum()
    back = positions.decode(json.loads(json.dumps(meta)), array, len(mask), known)
    assert back.dtype == bool and np.array_equal(back, mask) and np.array_equal(mask, before)


# --- pruners ---



def check_pruner(spec, rounds=8):
    """Counts, the untouched tail, purity, repeatability and off-schedule rounds, in rounds of the real engine."""
    name, every = spec.partition(":")[0], option(spec, "every", 1)
    fed, state = assembled(pruner=spec, rounds=rounds + 2)
    layout, seen = fed.layout, []
    first, again = (make(catalog.PRUNERS, spec).init(layout, state["x"].clone(), Round(0, 10),
                                                             np.random.default_rng(3))[1] for _ in range(2))
    assert torch.equal(first, again)
    assert_counts(layout, name, spec, first, first)

    def evolve(state, mask, x, replies, schedule, gen):
        kept, vector, twin = mask.clone(), x.clone(), copy.deepcopy(gen)
        _, new_mask = result = fed.pruner.evolve(state, mask, x, replies, schedule, gen)
        assert torch.equal(kept, mask) and torch.equal(vector, x)                 # inputs are only read
        _, same_mask = fed.pruner.evolve(state, mask, x, replies, schedule, twin)
        assert torch.equal(new_mask, same_mask)
        assert_counts(layout, name, spec, first, new_mask)
        if schedule.t % every:
            assert new_mask is mask
        seen.append(schedule.t)
        return result

    play(fed._replace(pruner=fed.pruner._replace(evolve=evolve)), state, rounds)
    assert seen == list(range(1, rounds + 1))


def assert_counts(layout, name, spec, first, mask):
    """The mask's shape, its padding and its exact count (a cap where the count is an outcome)."""
    assert mask.dtype == torch.bool and mask.shape == (layout.Q,) and not mask[~layout.real[: layout.Q]].any()
    part = make(catalog.PRUNERS, spec)
    if part.masks is not None:                   # the mask is that of the client pruned least
        assert mask.any()
    elif not part.exact:
        assert int(mask.sum()) <= sum(budgets(layout, option(spec, "sparsity", 0.0)))
    else:
        assert int(mask.sum()) == int(first.sum()) == round((1 - option(spec, "sparsity", 0.0)) * layout.num_weights)


def check_pruned_are_zero(spec, rounds=6):
    """After every round the server's vector is 0 on pruned weights, or keeps them for good where it keeps residuals."""
    fed, state = assembled(pruner=spec, rounds=rounds + 2)
    states, _ = play(fed, state, rounds)
    pruned = [s["x"][: fed.layout.Q][~s["mask"]] for s in states]
    if fed.pruner.residuals:
        assert all(bool(values.any()) for values in pruned)
    else:
        assert [int((values != 0).sum()) for values in pruned] == [0] * rounds


def option(spec, name, default):
    """The number that ``spec`` gives to an option."""
    found = dict(item.split("=") for item in spec.partition(":")[2].split(",") if item)
    return type(default)(found.get(name, default))


# --- strategies ---

def check_strategy(spec):
    """The laws of merging, with and without masks of the clients' own."""
    strategy = make(catalog.STRATEGIES, spec)
    layout, x = small_layout()
    mask = layout.full_mask()
    mask[::3] = False
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    for own in (False, True):
        updates = updates_of(layout, mask, own=own)
        if strategy.before is not None:
            updates = updates._replace(root=updates.U.mean(dim=0))
        state, before, given = strategy.init(layout), x.clone(), copy.deepcopy(updates)
        _, merged = strategy.merge(state, x, updates, weights)
        assert torch.equal(x, before) and torch.equal(updates.U, given.U)         # inputs are only read
        outside = torch.ones(layout.P, dtype=torch.bool)
        outside[updates.support] = False
        assert torch.equal(merged[outside], x[outside]), "an entry outside the support moved"

        order = torch.tensor([2, 0, 1])
        shuffled = updates._replace(U=updates.U[order], B=None if updates.B is None else updates.B[order],
                                    n=updates.n[order])
        _, permuted = strategy.merge(strategy.init(layout), x, shuffled, weights[order])
        torch.testing.assert_close(merged, permuted, rtol=1e-5, atol=1e-6)

        if strategy.linear:
            check_linear(strategy, layout, x, updates, weights)

    if not strategy.update:
        return
    row = updates_of(layout, mask, clients=1)
    row = row._replace(root=None if strategy.before is None else row.U[0])
    equal = row._replace(U=row.U.repeat(3, 1), n=torch.ones(3, dtype=torch.float64))
    _, merged = strategy.merge(strategy.init(layout), x, equal, weights)
    torch.testing.assert_close((merged - x)[row.support], row.U[0], rtol=1e-5, atol=1e-6)

    _, still = strategy.merge(strategy.init(layout), x, equal._replace(U=torch.zeros_like(equal.U)), weights)
    assert torch.equal(still, x)


def check_linear(strategy, layout, x, updates, weights):
    """Many coalitions at once are what one merge after the other makes of them."""
    coalitions = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0]], dtype=torch.bool)
    state = {name: torch.randn_like(tensor) for name, tensor in strategy.init(layout).items()}
    together = coalition_models(strategy, state, x, updates, weights, coalitions)
    apart = coalition_models(strategy._replace(linear=False), state, x, updates, weights, coalitions)
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-6)
    assert torch.equal(together[3], x) or state


# --- contributions ---

def check_contribution(spec):
    """Finite float64 scores and errors, inputs only read, the same for the same generator; for every cohort."""
    part = make(catalog.CONTRIBUTIONS, spec)
    network, layout, x = small_network()
    sizes = torch.tensor([10., 40., 20., 30., 5.], dtype=torch.float64)
    state = part.init(sizes)
    everybody = [0, 1, 2, 3, 4]
    for t, who in enumerate((everybody, [0, 1, 2], [1, 3, 4], [2], everybody), start=1):
        clients = torch.tensor(who)
        updates = updates_of(layout, layout.full_mask(), len(who), own=t == 2, seed=t)._replace(n=sizes[clients])
        shares = sizes[clients] / sizes[clients].sum()
        assert not list(part.refuses(Facts(layout, largest=len(who))))
        cohort = Cohort(clients, updates, Round(t, 5), shares, x.clone(), layout,
                        [{} if part.report is None else part.report(task_of(network, layout, x, n)) for n in who])
        before, given = copy.deepcopy(state), copy.deepcopy(updates)
        found, again = (part.score(state, cohort, Additive(clients, layout), np.random.default_rng(t))
                        for _ in range(2))
        assert same(before, state) and torch.equal(updates.U, given.U) and torch.equal(cohort.x, x)
        assert found.phi.dtype == torch.float64 and found.phi.shape == (len(who),) and bool(found.phi.isfinite().all())
        assert torch.equal(found.phi, again.phi) and same(found.state, again.state)
        if found.error is not None:
            assert found.error.shape == (len(who),) and bool((found.error >= 0).all())
        state = found.state


class Additive:
    """The utility of a game in which every client is worth a fixed amount, and of a model with a linear loss."""

    VALUE = torch.tensor([.5, -.2, .1, 0., .3], dtype=torch.float64)

    def __init__(self, clients, layout):
        self.value, self.layout = self.VALUE[clients], layout

    def __call__(self, coalitions, of="loss"):
        return coalitions.double() @ self.value

    def on(self, updates, x):
        return self

    def gradient(self, x):
        return torch.ones(self.layout.R)

    def curvature(self, x, v):
        return v.clone()


def small_network():
    """``(model, layout, x)``, the model bound to x."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(),
                                torch.nn.Linear(16, 10))
    layout, x, g = bind(model)
    return (model, g), layout, x


def task_of(network, layout, x, client):
    """A client's task on random samples."""
    model, g = network
    gen = torch.Generator().manual_seed(client)
    n = 12 + client
    return Task(model, layout, x, g, x.clone(), layout.full_mask(), torch.ones(layout.R),
                torch.randn(n, 1, 4, 4, generator=gen), torch.randint(0, 10, (n,), generator=gen), 1, 4, 0.1,
                np.random.default_rng(client), Round(1, 5), objective=classification())


def task_samples(spec):
    """``(outputs (7, 3), targets (7, ...), classes)`` that a task of the catalogue takes."""
    gen = torch.Generator().manual_seed(3)
    outputs, name = torch.randn(7, 3, generator=gen), spec.partition(":")[0]
    if name == "classification":
        return outputs, torch.randint(0, 3, (7,), generator=gen), 3
    if name == "multi-label":
        return outputs, torch.randint(0, 2, (7, 3), generator=gen, dtype=torch.uint8), 0
    return outputs, torch.randn(7, 3, generator=gen), 0


def check_task(spec):
    """The reductions of the loss agree with torch's rules, samples do not mix, metrics are one value a sample, a faster
    way to the sums finds the same, other shapes are refused, and nothing is written to."""
    part, (outputs, targets, classes) = make(catalog.TASKS, spec), task_samples(spec)
    before = outputs.clone(), targets.clone()
    each = part.loss(outputs, targets, reduction="none")
    assert each.shape == (7,) and bool(each.isfinite().all()) and part.worst > float(each.max())
    assert part.headline in part.metrics and math.isfinite(part.worst)
    torch.testing.assert_close(part.loss(outputs, targets), each.mean())
    torch.testing.assert_close(part.loss(outputs, targets, reduction="sum"), each.sum())
    torch.testing.assert_close(part.loss(outputs[2:3], targets[2:3], reduction="none"), each[2:3])
    leaf = outputs.clone().requires_grad_()
    part.loss(leaf, targets).backward()
    assert bool(leaf.grad.isfinite().all()) and bool(leaf.grad.any())
    half = part.loss(outputs.bfloat16(), targets)
    assert half.dtype in (torch.float32, torch.bfloat16) and abs(float(half) - float(each.mean())) < 0.05
    loss, sums = (part.totals or partial(summed, part))(outputs, targets)
    assert loss.dtype == torch.float64 and abs(float(loss) - float(each.double().sum())) < 1e-5
    for name, metric in part.metrics.items():
        values = metric(outputs, targets)
        assert values.shape == (7,) and (values.dtype == torch.bool or values.is_floating_point())
        assert abs(float(sums[name]) - float(values.double().sum())) < 1e-5
    part.check(outputs, targets, classes, "--model")
    for wrong in (outputs[:, :2], outputs[:5], (outputs,), outputs / 0):
        with pytest.raises(UserError, match="^--model: expected "):
            part.check(wrong, targets, classes, "--model")
    assert torch.equal(outputs, before[0]) and torch.equal(targets, before[1])


def check_weighting(spec):
    """Weights >= 0 of sum 1 for any finite scores, no trace on absent clients, the same for every order of rows."""
    part = make(catalog.WEIGHTINGS, spec)
    sizes = torch.tensor([10., 40., 20., 30., 5.], dtype=torch.float64)
    state = part.init(sizes)
    scores = ([.5, -.2, .1], [-1., -2., -3.], [0., 0., 0., 0., 0.], [7.], [1e6, -1e6, 1e-9], [2., 2., 2.])
    for t, (who, phi) in enumerate(zip(([0, 1, 2], [1, 3, 4], [0, 1, 2, 3, 4], [2], [4, 0, 3], [0, 1, 2]), scores),
                                   start=1):
        clients, phi = torch.tensor(who), torch.tensor(phi, dtype=torch.float64)
        cohort, before = Cohort(clients, None, Round(t, 10), None, None, None), copy.deepcopy(state)
        new, weights = part.weigh(state, phi, cohort)
        assert same(before, state) and weights.dtype == torch.float64 and weights.shape == phi.shape
        assert bool((weights >= 0).all()) and abs(float(weights.sum()) - 1) < 1e-12

        flipped = part.weigh(state, phi.flip(0), cohort._replace(clients=clients.flip(0)))[1]
        torch.testing.assert_close(flipped, weights.flip(0), rtol=1e-9, atol=1e-12)

        absent = torch.tensor([n for n in range(5) if n not in who], dtype=torch.int64)
        for name, tensor in new.items():
            old = before[name]
            if len(absent):
                factor = 1 if name != "weights" else float(old[absent].double().sum() / tensor[absent].double().sum())
                torch.testing.assert_close(tensor[absent].double() * factor, old[absent].double(), rtol=1e-12, atol=0)
        state = new


def same(a, b):
    """Whether two states agree in every bit."""
    return a.keys() == b.keys() and all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)
