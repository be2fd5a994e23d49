"""Pruners: the contract over the catalogue, then each method's rule by hand."""

import copy
import itertools
import math
from types import SimpleNamespace

import contracts
import numpy as np
import pytest
import torch
from torch import nn
from training import sgd

from fedmpi.methods.strategies.fedavg import fedavg
from fedmpi.server import answers, fold
from fedmpi.catalog import PRUNERS
from fedmpi.core.layout import bind
from fedmpi.compute.sgd import dense_gradient
from fedmpi.core.mask import budgets, largest, top_mask
from fedmpi.core.reduce import mean, moved
from fedmpi.core.parts import Replies, Round, Task, Updates
from fedmpi.methods.tasks.classification import classification
from fedmpi.methods.pruning.adaptive import adaptive, centred_ranks, settled, shifted, wanted_rates
from fedmpi.methods.pruning.feddst import feddst
from fedmpi.methods.pruning.prunefl import joining, prunefl
from fedmpi.methods.pruning.residual import residual
from fedmpi.methods.pruning.rigl import rigl
from fedmpi.methods.pruning.set import set as set_pruner
from fedmpi.methods.pruning.static import static

SPECS = [contracts.frequent("pruner", name) for name in PRUNERS] + ["prunefl:every=2,sparsity=0.8,fixed=true"]


def gen(seed=0):
    return np.random.default_rng(seed)


def linear(inputs, outputs):
    """``(layout, x zeroed, model)`` of one linear layer without bias."""
    model = nn.Sequential(nn.Linear(inputs, outputs, bias=False))
    layout, x, _ = bind(model)
    return layout, x.zero_(), model


def mask_at(layout, positions):
    mask = torch.zeros(layout.Q, dtype=torch.bool)
    mask[list(positions)] = True
    return mask


def replies(layout, reports=(), weights=(1.0,), updates=None):
    return Replies(updates, torch.tensor(weights, dtype=torch.float64), list(reports), layout,
                   (1.0,) * len(layout.weights), torch.arange(len(weights)), None, None)


def task_of(model, mask, inputs, labels, epochs=2, batch_size=4, now=Round(5, 10)):
    """A task on a fresh binding of ``model``, its weights as they are but masked."""
    layout, x, g = bind(model)
    x[: layout.Q] *= mask
    live = torch.ones(layout.R)
    live[: layout.Q] = mask
    return Task(model, layout, x, g, x.clone(), mask.clone(), live, inputs, labels, epochs, batch_size, 0.1, gen(),
                now, objective=classification())


# --- the contract ---

@pytest.mark.parametrize("spec", SPECS)
def test_pruners_keep_the_contract(spec):
    contracts.check_pruner(spec)


@pytest.mark.parametrize("spec", SPECS)
def test_pruned_weights_are_zero_or_residuals(spec):
    contracts.check_pruned_are_zero(spec)


def test_fixed_prunefl_always_fills_its_cap():
    run, state = contracts.assembled(pruner="prunefl:every=2,sparsity=0.8,fixed=true")
    states, _ = contracts.run_rounds(run, state, 6)
    cap = round(0.2 * run.layout.num_weights)
    assert [int(s["mask"].sum()) for s in states] == [cap] * 6
    assert any(not torch.equal(a["mask"], b["mask"]) for a, b in itertools.pairwise(states))


@pytest.mark.parametrize("spec", ["static:sparsity=0.8", "set:every=1,fraction=0,sparsity=0.8",
                                  "rigl:every=1,fraction=0,sparsity=0.8", "feddst:every=1,alpha=0,sparsity=0.8"])
def test_without_a_share_to_move_the_mask_is_constant(spec):
    run, state = contracts.assembled(pruner=spec)
    states, rows = contracts.run_rounds(run, state, 4)
    assert all(torch.equal(s["mask"], state["mask"]) for s in states) and not any(row["mask_changed"] for row in rows)


@pytest.mark.parametrize("spec", ["set:every=2,sparsity=0.8", "rigl:every=2,sparsity=0.8,fraction=0.5",
                                  "residual:every=2,sparsity=0.8,fraction=0.5"])
def test_masks_move_on_schedule_only(spec):
    run, state = contracts.assembled(pruner=spec, rounds=20)
    states, rows = contracts.run_rounds(run, state, 5)
    assert [bool(row["mask_changed"]) for row in rows] == [False, True, False, True, False]
    assert states[2]["mask"] is states[1]["mask"]


@pytest.mark.parametrize("spec", ["set:every=1,sparsity=0.8", "rigl:every=1,sparsity=0.8,fraction=0.5",
                                  "prunefl:every=1,sparsity=0.8"])
def test_a_grown_weight_starts_at_zero_from_the_first_update_on(spec):
    run, state = contracts.assembled(pruner=spec)
    after = contracts.run_rounds(run, state, 1)[0][0]
    grown = after["mask"] & ~state["mask"]
    assert grown.any() and not after["x"][: run.layout.Q][grown].any()


@pytest.mark.parametrize("spec", SPECS)
def test_pruners_work_with_partial_cohorts(spec):
    """Positions travel as far as the cohort cannot know them; a wrong guess would end in a WireError."""
    run, state = contracts.assembled(pruner=spec, clients=5, cohort=2, rounds=20)
    states, _ = contracts.run_rounds(run, state, 6)
    assert all(torch.equal(s["last_sent_mask"], before["mask"]) for before, s in itertools.pairwise([state, *states]))
    assert {int(s["mask"].sum()) for s in states} == {int(state["mask"].sum())} or not run.pruner.exact


# --- SET ---

def test_set_drops_the_same_share_of_positives_and_negatives():
    layout, x, _ = linear(20, 4)
    kept = torch.arange(40)
    x[:40] = torch.cat([torch.arange(1., 31), -torch.arange(1., 11) * 100])    # 30 small positives, 10 large negatives
    mask = mask_at(layout, kept)
    part = set_pruner(fraction=0.3)
    _, new = part.evolve({}, mask, x, replies(layout), Round(1, 10), gen())
    dropped = torch.nonzero(mask & ~new).flatten().tolist()
    assert dropped == [*range(9), 30, 31, 32]                                     # the 9 and 3 nearest to zero
    assert int(new.sum()) == 40


def test_unsigned_set_drops_the_smallest_of_all():
    layout, x, _ = linear(20, 4)
    x[:40] = torch.cat([torch.arange(1., 31), -torch.arange(1., 11) * 100])
    mask = mask_at(layout, range(40))
    _, new = set_pruner(fraction=0.3, signed=False).evolve({}, mask, x, replies(layout), Round(1, 10), gen())
    assert torch.nonzero(mask & ~new).flatten().tolist() == list(range(12))


def test_set_grows_anywhere_but_where_it_dropped():
    layout, x, _ = linear(20, 4)
    x[:40] = torch.arange(1., 41)
    mask, part = mask_at(layout, range(40)), set_pruner(fraction=0.3)
    grown = torch.zeros(layout.Q)
    for seed in range(300):
        grown += part.evolve({}, mask, x, replies(layout), Round(1, 10), gen(seed))[1] & ~mask
    assert not grown[:40].any() and bool((abs(grown[40:80] - 90) < 45).all())     # 12 of 40, 300 times: 90 each


def test_set_rests_after_the_last_round():
    layout, x, _ = linear(20, 4)
    mask = mask_at(layout, range(40))
    assert set_pruner().evolve({}, mask, x, replies(layout), Round(10, 10), gen())[1] is mask


def test_cosine_set_counts_by_hand():
    layout, x, _ = linear(20, 4)
    x[:40] = torch.arange(1., 41)
    mask, part = mask_at(layout, range(40)), set_pruner(fraction=0.5, decay="cosine", end=0.75)
    moves = [int((part.evolve({}, mask, x, replies(layout), Round(t, 8), gen())[1] & ~mask).sum())
             for t in range(1, 8)]
    assert moves == [math.floor(40 * 0.25 * (1 + math.cos(math.pi * t / 6))) for t in range(1, 6)] + [0, 0]


# --- RigL ---

def test_rigl_by_hand():
    layout, x, _ = linear(4, 2)
    mask = mask_at(layout, range(4))
    x[:4] = torch.tensor([.3, -.1, .2, -.4])
    reports = [{"index": np.array([4, 5], np.int32), "value": np.array([1., -.5], np.float16)},
               {"index": np.array([4, 6], np.int32), "value": np.array([-1., .9], np.float16)}]
    reports = [report | {"scale": np.ones(1, np.float32)} for report in reports]
    part = rigl(fraction=1.0, end=1.0, every=1)                                   # half of the 4 at half of the rounds
    _, new = part.evolve({}, mask, x, replies(layout, reports, (.75, .25)), Round(5, 10), gen())
    # scores |.75 - .25| = .5 at 4, .375 at 5, .225 at 6: 4 and 5 grow; 1 and 2 go
    assert torch.nonzero(new).flatten().tolist() == [0, 3, 4, 5]


def test_rigl_fills_up_at_random_where_too_few_are_reported():
    layout, x, _ = linear(4, 2)
    mask = mask_at(layout, range(4))
    x[:4] = torch.arange(1., 5)
    reports = [{"index": np.array([6], np.int32), "value": np.array([.1], np.float16),
                "scale": np.ones(1, np.float32)}]
    part = rigl(fraction=1.0, end=1.0, every=1)
    seen = {tuple(torch.nonzero(part.evolve({}, mask, x, replies(layout, reports), Round(5, 10), gen(s))[1] & ~mask)
                  .flatten().tolist()) for s in range(40)}
    assert seen == {(4, 6), (5, 6), (6, 7)}


def test_rigl_clients_report_their_largest_gradients_among_pruned_weights():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5, bias=False))
    mask = mask_at(bind(model)[0], range(0, 30, 3))
    task = task_of(model, mask, torch.randn(8, 6), torch.arange(8) % 5)
    gradient = dense_gradient(task, 8)[:30]
    probe = rigl(fraction=1.0, end=1.0, every=5, oversample=1.5).probe(task)
    report = probe.report()
    free = torch.nonzero(~mask[:30]).flatten()
    wanted = free[largest(gradient[free].abs(), 8)].sort().values                # ceil(1.5 * floor(.5 * 10))
    assert report["index"].tolist() == wanted.tolist() and report["index"].dtype == np.int32
    assert report["value"].dtype == np.float16 and (probe.extra, probe.dense) == (8, 0)
    ratio = torch.from_numpy(report["value"]).double() / gradient[wanted].double()
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=2e-3, atol=0)
    idle = rigl(every=2).probe(task)
    assert idle.report() == {} and (idle.extra, idle.dense, idle.step, idle.epoch) == (0, 0, None, None)


def test_rigl_scores_are_the_weighted_mean_of_the_clients_gradients():
    """Zero weights, two classes: the gradient is minus or plus half the input. A's is 10 times B's; .4 * 5 > .6 *
    .5."""
    part = rigl(fraction=1.0, end=1.0, every=1)
    reports = []
    for column, size in ((2, 10.0), (3, 1.0)):
        layout, _, model = linear(4, 2)
        mask = mask_at(layout, [0, 1, 4, 5])
        inputs = torch.zeros(1, 4)
        inputs[0, column] = size
        reports.append(part.probe(task_of(model, mask, inputs, torch.tensor([0]))).report())
    x = torch.zeros(layout.P)
    x[[0, 1, 4, 5]] = torch.tensor([1., 2, 3, 4])
    _, new = part.evolve({}, mask, x, replies(layout, reports, (.4, .6)), Round(5, 10), gen())
    assert torch.nonzero(new & ~mask).flatten().tolist() == [2, 6]


# --- the thesis's DynPrune ---

@pytest.mark.parametrize("fraction, t, moved_back", [(0.0, 3, 0), (0.5, 4, 10), (1.0, 4, 20)])
def test_residual_counts_by_hand(fraction, t, moved_back):
    """80 weights at sparsity .5; before round t + 1 = 5 of 10 the share is fraction / 2: 40 - sure return at random."""
    layout, x, _ = linear(20, 4)
    x[:80] = torch.arange(80.) + 1
    part, seen = residual(sparsity=0.5, fraction=fraction), torch.zeros(layout.Q, dtype=torch.int64)
    for seed in range(50):
        _, new = part.evolve({}, mask_at(layout, range(40)), x, replies(layout), Round(t, 10), gen(seed))
        assert int(new.sum()) == 40
        seen += new
    sure = 40 - moved_back
    assert bool((seen[80 - sure: 80] == 50).all()) and int((seen[: 80 - sure] == 50).sum()) == 0
    assert bool((seen[: 80 - sure] > 0).all()) == (moved_back > 0) and int(seen.sum()) == 2000


def test_restored_weights_come_back_with_their_residual():
    run, state = contracts.assembled(pruner="residual:sparsity=0.8,fraction=1.0", rounds=20)
    states, _ = contracts.run_rounds(run, state, 4)
    Q, returned = run.layout.Q, 0
    for before, after in itertools.pairwise([state, *states]):
        back = after["mask"] & ~before["mask"]
        assert torch.equal(after["x"][:Q][back], before["x"][:Q][back]) and bool(after["x"][:Q][back].all())
        returned += int(back.sum())
    assert returned > 0


def test_without_restoring_a_residual_may_still_win_its_place_back():
    layout, x, _ = linear(20, 4)
    x[:80] = torch.arange(80.) + 1
    part = residual(sparsity=0.5, fraction=0.0)
    mask = part.init(layout, x, Round(0, 10), gen())[1]
    assert torch.nonzero(mask).flatten().tolist() == list(range(40, 80))
    x = x.clone()
    x[70:80] *= 0.01                                                             # training shrank ten weights
    new = part.evolve({}, mask, x, replies(layout), Round(1, 10), gen())[1]
    assert torch.nonzero(new).flatten().tolist() == list(range(30, 70))


# --- FedDST ---

def test_feddst_clients_swap_smallest_weights_for_largest_gradients():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 5, bias=False))
    mask = mask_at(bind(model)[0], range(0, 40, 2))
    task = task_of(model, mask, torch.randn(4, 8), torch.arange(4), epochs=1)
    part = feddst(every=5, alpha=0.6, end=1.0)                                     # .3 of 20 at half of the rounds
    probe = part.probe(task)
    twin = task_of(copy.deepcopy(model), mask, task.inputs, task.labels, epochs=1)
    gradient = dense_gradient(twin, 1)[:40].abs()
    sgd(task._replace(probe=probe))
    sgd(twin)
    dropped, grown = (torch.nonzero(m).flatten() for m in (mask & ~task.mask, task.mask & ~mask))
    live, free = torch.nonzero(mask).flatten(), torch.nonzero(~mask[:40]).flatten()
    assert sorted(dropped.tolist()) == sorted(live[largest(-twin.x[live].abs(), 6)].tolist())
    assert sorted(grown.tolist()) == sorted(free[largest(gradient[free], 6)].tolist())
    assert not task.x[:40][~task.mask[:40]].any() and not task.x[grown].any()
    assert torch.equal(task.trainable[: task.layout.Q], task.mask.float()) and probe.dense == 4


def test_feddst_growth_never_chooses_an_active_position():
    run, state = contracts.assembled(pruner="feddst:every=1,sparsity=0.8,alpha=0.5", strategy="feddst", rounds=20)
    seen = []

    def merge(strategy_state, x, updates, weights):
        seen.append(updates)
        return run.strategy.merge(strategy_state, x, updates, weights)

    after = contracts.run_rounds(run._replace(strategy=run.strategy._replace(merge=merge)), state, 1)[0][0]
    held = seen[0].B[:, seen[0].support < run.layout.Q].sum(dim=1)
    assert held.tolist() == [int(state["mask"].sum())] * 3                         # each client's own budget is exact
    assert int(after["mask"].sum()) == int(state["mask"].sum())


def test_feddst_union_mean_over_holders_and_prune_back_by_hand():
    """20 weights, 16 kept; all clients drop 0, the server still holds 5.0 there."""
    layout, x, _ = linear(20, 1)
    x[:16] = torch.arange(1., 17) / 10
    x[0] = 5.0
    announced = layout.support(mask_at(layout, range(16)))
    rows = [({0, 1}, {16: 2.0, 17: .1}, {2: .7}), ({0, 2}, {16: 1.2, 18: .01}, {1: 1.0}),
            ({0, 1}, {17: .1, 19: -3.0}, {})]
    sent = []
    for dropped, grown, changed in rows:
        support = torch.tensor(sorted(({*range(16)} - dropped) | set(grown)), dtype=torch.int32)
        values = torch.tensor([grown.get(j, changed.get(j, 0.0)) for j in support.tolist()])
        sent.append(answers.Update(values, support, True, np.array([1.0, 0, 0, 0, 0, 0, 0, 0]), {}, {}, 0, 0, 0))
    updates = fold.stack(SimpleNamespace(layout=layout, strategy=fedavg(), kinds=None), sent, announced)
    weights = torch.tensor([.5, .3, .2], dtype=torch.float64)
    merged = moved(x, updates.support, mean(updates, weights))
    expected = torch.cat([torch.tensor([5.0, 1.2, .8]), torch.arange(4., 17) / 10, torch.tensor([1.7, .1, .01, -3])])
    torch.testing.assert_close(merged[1:20], expected[1:])
    _, mask = feddst(sparsity=0.2).evolve({}, mask_at(layout, range(16)), merged,
                                                  replies(layout, updates=updates), Round(1, 10), gen())
    assert not mask[0], "dropped by every client, hence gone"
    assert torch.nonzero(mask).flatten().tolist() == [1, 2, *range(4, 17), 19]


def test_feddst_with_one_client_takes_over_its_mask():
    pruner = feddst(every=1, sparsity=0.8, alpha=0.5)
    masks = []

    def probe(task):
        watched = pruner.probe(task)
        masks.append(task.mask)
        return watched

    run, state = contracts.assembled(
        of_worker={"pruner": pruner._replace(probe=probe)}, pruner="feddst:every=1,sparsity=0.8,alpha=0.5",
        strategy="feddst", clients=1, rounds=20)
    after = contracts.run_rounds(run, state, 1)[0][0]
    assert not torch.equal(masks[0], state["mask"]) and torch.equal(after["mask"], masks[0])


def test_feddst_grown_weights_count_even_before_they_are_trained():
    """With one local epoch the grown weights are still 0: the server keeps them, not zeros that nobody holds."""
    run, state = contracts.assembled(pruner="feddst:every=1,sparsity=0.8,alpha=0.5", strategy="feddst", rounds=20,
                                     local_epochs=1)
    held = []

    def merge(strategy_state, x, updates, weights):
        support = updates.support[updates.B.any(dim=0)]
        held.append(set(support[support < run.layout.Q].tolist()))
        return run.strategy.merge(strategy_state, x, updates, weights)

    after = contracts.run_rounds(run._replace(strategy=run.strategy._replace(merge=merge)), state, 1)[0][0]
    assert set(torch.nonzero(after["mask"]).flatten().tolist()) <= held[0]


def test_feddst_rests_between_and_after():
    layout, _, model = linear(8, 5)
    mask, part = mask_at(layout, range(20)), feddst(every=3, end=0.5)
    task = task_of(model, mask, torch.randn(4, 8), torch.arange(4))
    for t, active in ((1, False), (3, True), (5, False), (6, False), (9, False)):
        probe = part.probe(task._replace(now=Round(t, 10)))
        assert (probe.epoch is not None) is active


# --- PruneFL ---

def objective(mask, squares, costs, others, constant):
    return (squares[mask].sum() + others) / (costs[mask].sum() + constant)


@pytest.mark.parametrize("seed", range(40))
def test_prunefl_greedy_equals_brute_force(seed):
    """The best of all supersets of what is sure, 12 parameters at most, each with a cost of its own."""
    draw = gen(seed)
    n = int(draw.integers(4, 13))
    squares, costs = torch.from_numpy(draw.exponential(size=n) ** 3), torch.from_numpy(draw.uniform(.05, 1, n))
    sure = torch.from_numpy(draw.random(n) < .3)
    others, constant = float(draw.exponential()), float(draw.choice([.1, 1, 5]))
    kept = torch.nonzero(sure).flatten()
    new = joining(squares / costs, costs.__getitem__, kept, n, others, constant, False)
    assert not sure[new].any()
    found = sure.index_fill(0, new, True)
    free = torch.nonzero(~sure).flatten().tolist()
    best = max(float(objective(sure | mask_of(n, chosen), squares, costs, others, constant))
               for size in range(len(free) + 1) for chosen in itertools.combinations(free, size))
    assert float(objective(found, squares, costs, others, constant)) == pytest.approx(best, rel=1e-12)


def mask_of(n, chosen):
    mask = torch.zeros(n, dtype=torch.bool)
    mask[list(chosen)] = True
    return mask


def test_prunefl_choice_by_hand():
    squares, costs = torch.tensor([4., 9, 1, 5, -1]).double(), torch.tensor([1., 1, 1, 2, 1]).double()  # 4 is padding
    pick = [joining(squares / costs, costs.__getitem__, torch.tensor([0]), room, 1.0, 1.0, fixed).tolist()
            for room, fixed in ((3, False), (0, False), (1, False), (2, True), (3, True))]
    # (4 + 1) / 2 = 2.5; 9 joins: 14 / 3 = 4.67; 5 / 2 = 2.5 does not
    assert pick == [[1], [], [1], [1, 3], [1, 2, 3]]


def test_prunefl_clients_report_mean_squares_over_their_steps():
    layout, _, model = linear(4, 2)
    task = task_of(model, mask_at(layout, range(4)), torch.randn(6, 4), torch.zeros(6, dtype=torch.int64))
    probe = prunefl(every=5).probe(task)
    probe.step(torch.arange(float(layout.R)))
    probe.step(torch.ones(layout.R))
    report = probe.report()
    assert report["squares"].tolist() == [(i * i + 1) / 2 for i in range(8)]
    assert report["others"][1] == 12 and probe.dense == 12
    assert prunefl(every=4).probe(task).step is None


def test_prunefl_evolve_by_hand():
    """40 weights of one layer, 20 kept; 6 of them removable; two clients report."""
    layout, x, _ = linear(20, 2)
    x[:20] = torch.arange(1., 21)
    mask = mask_at(layout, range(20))
    squares = [np.zeros(40, np.float32) for _ in range(2)]
    squares[0][[2, 25]], squares[1][[2, 25, 30]] = (8, 4), (8, 12, 1e-3)
    reports = [{"squares": s, "others": np.array([2.0, 10])} for s in squares]
    part = prunefl(sparsity=0.5, every=1, decrease=0.3, half_life=1e30, constant_s=1.0, comm_s=0.1, compute_s=0.0)
    _, new = part.evolve({}, mask, x, replies(layout, reports, (.75, .25)), Round(1, 10), gen())
    # kept without 0..3 (MIN_KEPT = 16): num 2, den 2.6; of the candidates 2 at 8 / .1 and 25 at (3 + 3) / .1 join,
    # 30 at 2.5e-3 does not
    assert torch.nonzero(new).flatten().tolist() == [2, *range(4, 20), 25]


def test_prunefl_charges_convolutions_for_their_positions():
    """Equal gradients, but the first layer's weights are used at 100 positions: the second layer's join first."""
    layout, x, _ = bind(nn.Sequential(nn.Linear(20, 1, bias=False), nn.Linear(20, 1, bias=False)))
    x[:] = torch.arange(float(layout.P)) + 1
    mask = layout.full_mask()
    mask[16:20] = mask[48:52] = False
    report = {"squares": np.full(40, 1.0, np.float32), "others": np.array([0.0, 1.0])}
    given = replies(layout, [report])._replace(macs_per_weight=(100.0, 1.0))
    part = prunefl(sparsity=0.1, every=1, decrease=0.0, comm_s=1e-3, compute_s=1.0, fixed=True)
    new = part.evolve({}, mask, x, given, Round(1, 10), gen())[1]
    assert layout.kept(new) == [16, 20]


# --- static ---

def test_static_returns_what_it_was_given():
    layout, x, _ = linear(4, 2)
    mask = mask_at(layout, range(4))
    assert static().evolve({}, mask, x, replies(layout), Round(1, 10), gen())[1] is mask


def test_updates_of_own_masks_widen_to_the_union():
    layout, _, _ = linear(20, 1)
    announced = layout.support(mask_at(layout, range(3)))
    rows = [answers.Update(torch.tensor([1., 2]), torch.tensor([0, 5], dtype=torch.int32), True, np.zeros(8), {}, {},
                            0, 0, 0),
            answers.Update(torch.tensor([3., 4, 5]), announced, False, np.zeros(8), {}, {}, 0, 0, 0)]
    updates = fold.stack(SimpleNamespace(layout=layout, strategy=fedavg(), kinds=None), rows, announced)
    assert isinstance(updates, Updates) and updates.support.tolist() == [0, 1, 2, 5]
    assert updates.U.tolist() == [[1, 0, 0, 2], [3, 4, 5, 0]] and updates.trained == 4
    assert updates.B.tolist() == [[True, False, False, True], [True, True, True, False]]


# --- a sparsity for every client ---

def play_adaptive(spec, rounds=6, **options):
    """States, and the masks that clients were given, of some real rounds."""
    run, state = contracts.assembled(pruner=spec, contribution="loo", weighting="relu:memory=0.5", clients=6, rounds=12,
                                     noise="graded", partition="lognormal:min_size=8", **options)
    given, masks = [], run.pruner.masks

    def watched(*arguments):
        given.append(masks(*arguments))
        return list(given[-1])

    states, rows = contracts.run_rounds(run._replace(pruner=run.pruner._replace(masks=watched)), state, rounds)
    return run, states, rows, given


@pytest.mark.parametrize("by", ["contribution", "size", "random"])
@pytest.mark.parametrize("groups", [0, 2])
def test_masks_are_nested_and_cost_the_same_on_average(by, groups):
    run, states, rows, given = play_adaptive(f"adaptive:sparsity=0.7,spread=0.15,every=2,by={by},groups={groups}")
    for masks, before, row in zip(given[1:], states, rows[1:]):
        counts = [int(mask.sum()) for mask in masks]
        for a in masks:
            for b in masks:
                assert not (a & ~b).any() or not (b & ~a).any()                    # nested
            assert not (a & ~before["mask"]).any()
        assert max(counts) == int(before["mask"].sum())
        assert abs(sum(counts) / 6 / run.layout.num_weights - 0.3) < 2e-3
        assert row["sparsity"] == pytest.approx(0.7, abs=2e-3)
    rates = states[3]["pruner"]["rates"]
    assert len(set(rates.tolist())) in (3, 5, 6) and abs(float(rates.mean()) - 0.7) < 1e-9
    if by == "size":
        assert torch.equal(rates.argsort(), run.sizes.argsort(descending=True)) or groups
    if by == "contribution":
        best = states[3]["weighting"]["score"].argmax()
        assert rates[best] == rates.min()


def test_each_client_is_sent_and_sends_its_own_weights_only():
    run, states, rows, given = play_adaptive("adaptive:sparsity=0.7,spread=0.2,every=1,by=size")
    _, row, clients = contracts.loop.evaluated_round(run, states[-1], 7)
    counts = np.array([int(mask.sum()) for mask in run.pruner.masks(states[-1]["pruner"], states[-1]["mask"], None,
                                                                    run.layout, torch.arange(6))])
    tail = 4 * len(run.layout.dense_positions)
    assert (clients["up_bytes"] >= 4 * counts + tail).all() and (clients["up_bytes"] < 4 * counts + tail + 800).all()
    assert (clients["down_bytes"] >= 4 * counts + tail).all()
    assert (clients["down_bytes"] < 6 * counts + tail + 1200).all()
    np.testing.assert_allclose(clients["sparsity"], 1 - counts / run.layout.num_weights)
    kept = row["flops_rigl"] / row["flops_dense"]
    assert 0 < kept < 1


def ranked_by_size(part, rounds=100, seed=0):
    """``(layout, x, first mask, state, mask)`` before and after one ranking of five clients by size, at round 50."""
    layout, x, _ = bind(nn.Sequential(nn.Linear(30, 20), nn.Linear(20, 12)))
    state, first = part.init(layout, x, Round(0, rounds), gen(seed))
    given = replies(layout)._replace(sizes=torch.tensor([3., 5, 1, 4, 2], dtype=torch.float64))
    return layout, x, first, *part.evolve(state, first, x, given, Round(50, rounds), gen(seed))


def test_each_client_keeps_the_largest_weights_it_has_room_for():
    part = adaptive(sparsity=0.6, spread=0.2, by="size", every=5, fraction=0.0)
    layout, x, first, state, union = ranked_by_size(part)

    def top(sparsity):
        return top_mask(layout, x.abs(), budgets(layout, sparsity))

    assert state["rates"].tolist() == pytest.approx([.6, .4, .8, .5, .7])
    masks = part.masks(state, union, x, layout, torch.tensor([4, 2, 0, 1, 3]))
    assert all(torch.equal(mask, top(rate)) for mask, rate in zip(masks, (.7, .8, .6, .4, .5)))
    assert torch.equal(union, top(.4)) and torch.equal(first, top(.6))
    assert torch.equal(part.nominal(state, union, layout), top(.6))


def test_a_sparser_client_keeps_all_that_its_budget_says():
    """Rounded budgets of a denser client may give a layer less than those of a sparser one."""
    layout, x, _ = bind(nn.Sequential(nn.Linear(54, 33), nn.Linear(20, 18), nn.Linear(13, 2)))
    dense, sparse = 0.4421812524897189, 0.4429024401533972
    assert budgets(layout, dense, "uniform")[1] < budgets(layout, sparse, "uniform")[1]
    part = adaptive((dense + sparse) / 2, (sparse - dense) / 2, "size", hysteresis=0, every=1, distribution="uniform")
    state, mask = part.init(layout, x, Round(0, 100), gen())
    given = replies(layout, weights=(.5, .5))._replace(sizes=torch.tensor([2., 1], dtype=torch.float64))
    state, mask = part.evolve(state, mask, x, given, Round(50, 100), gen())
    assert layout.kept(part.masks(state, mask, x, layout, torch.arange(2))[1]) == budgets(layout, sparse, "uniform")


def test_what_is_drawn_at_random_goes_to_those_with_room():
    """Half-way through the rounds the share that is drawn of the densest client's weights is half of ``fraction``."""
    part = adaptive(sparsity=0.6, spread=0.2, by="size", every=5, fraction=0.4)
    layout, x, first, state, union = ranked_by_size(part)
    kept = budgets(layout, .4)
    sparsest, densest = part.masks(state, union, x, layout, torch.tensor([2, 1]))
    sure = top_mask(layout, x.abs(), [k - int(k * .2) for k in kept])
    assert torch.equal(sparsest, top_mask(layout, x.abs(), budgets(layout, .8)))
    assert layout.kept(densest) == kept and bool((densest | ~sure).all())
    assert 0 < int((densest & ~top_mask(layout, x.abs(), kept)).sum()) <= int((densest & ~sure).sum())


@pytest.mark.parametrize("sparsity, least, most", [(.98, 0., .98), (.1, .1, .98), (.7, .7, .7), (.8, 0., .98)])
def test_rates_are_of_the_wanted_mean_at_the_bounds_too(sparsity, least, most):
    for N in range(2, 61):
        equal = wanted_rates(torch.ones(N), sparsity, .3, 0, least, most)
        assert torch.equal(equal, torch.full((N,), sparsity, dtype=torch.float64))
        rates = wanted_rates(torch.from_numpy(gen(N).permutation(N)), sparsity, .3, N // 2 * (N % 2), least, most)
        assert abs(float(rates.mean()) - sparsity) < 1e-9 and least <= rates.min() and rates.max() <= most


def test_all_move_where_those_who_are_free_cannot_make_up():
    free, rates = torch.tensor([True, False, False]), torch.tensor([.7, .2, .2], dtype=torch.float64)
    assert shifted(rates, free, .4, 0., .9).tolist() == pytest.approx([.8, .2, .2])
    assert shifted(rates, free, .6, 0., .9).tolist() == pytest.approx([.9, .45, .45])


@pytest.mark.parametrize("N", [5, 60])
def test_rates_are_of_the_wanted_mean_where_some_stay(N):
    old = wanted_rates(torch.arange(N), .9, .2, 0, 0., .98)
    for seed in range(5):
        new = wanted_rates(torch.from_numpy(gen(seed).permutation(N)), .9, .2, 0, 0., .98)
        for hysteresis in (.05, .15):
            rates = settled(old, new, hysteresis, .9, 0., .98)
            assert abs(float(rates.mean()) - .9) < 1e-9 and rates.max() <= .98


def test_a_negative_spread_prunes_the_best_most():
    merit = torch.tensor([5., 1, 3, 2], dtype=torch.float64)
    up = wanted_rates(merit, 0.5, 0.3, 0, 0.0, 0.9)
    assert up.tolist() == pytest.approx([.2, .8, .4, .6])
    assert wanted_rates(merit, 0.5, -0.3, 0, 0.0, 0.9).tolist() == pytest.approx([.8, .2, .6, .4])
    assert wanted_rates(merit, 0.5, 0.3, 1, 0.0, 0.9).tolist() == pytest.approx([.2, .8, .5, .5])
    clipped = wanted_rates(merit, 0.8, 0.3, 0, 0.0, 0.9)                          # .5 and 1.1, .7, .9 before bounds
    assert float(clipped.mean()) == pytest.approx(0.8) and float(clipped.max()) == pytest.approx(0.9)
    assert torch.equal(wanted_rates(torch.ones(4), 0.5, 0.3, 2, 0.0, 0.9), torch.full((4,), 0.5, dtype=torch.float64))


def test_small_changes_are_ignored_and_the_budget_kept():
    old = torch.tensor([.4, .5, .6, .5], dtype=torch.float64)
    assert settled(old, old + torch.tensor([.01, -.01, .01, -.01]), .02, .5, 0.0, .9) is old
    new = settled(old, torch.tensor([.41, .55, .59, .45], dtype=torch.float64), .02, .5, 0.0, .9)
    assert new.tolist() == pytest.approx([.4, .55, .6, .45])


def test_ties_share_their_rank():
    assert centred_ranks(torch.tensor([1., 2, 2, 3])).tolist() == pytest.approx([-1, 0, 0, 1])
    assert centred_ranks(torch.tensor([4.])).tolist() == [0]


@pytest.mark.parametrize("name", ["static", "set:every=1", "rigl:every=1", "residual:every=1", "feddst:every=1",
                                  "adaptive:every=1"])
def test_a_first_layer_that_is_to_be_dense_stays_dense(name):
    spec = name + (":", ",")[":" in name] + "distribution=first-dense,sparsity=0.5"
    run, state = contracts.assembled(pruner=spec)
    states, rows = contracts.run_rounds(run, state, 3)
    first, *others = run.layout.weights
    for after in states:
        kept = run.layout.kept(after["mask"])
        assert kept[0] == first.size and sum(kept) >= run.layout.num_weights // 2
    assert states[0]["mask"] is states[-1]["mask"] if name == "static" else rows[0]["mask_changed"] > 0
