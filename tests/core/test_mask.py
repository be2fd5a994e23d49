"""Budgets a layer by the published rules, and selections that are exact."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fedmpi.core import mask as masks
from fedmpi.core.errors import UserError
from fedmpi.core.layout import bind
from fedmpi.core.mask import budgets, cosine_decay, draw, largest, random_mask, swap, top_mask
from fedmpi.methods.models.cifar10net import cifar10net
from fedmpi.methods.models.lenet5 import lenet5
from fedmpi.methods.models.mnistnet import mnistnet

RULES = ("uniform", "er", "erk", "thesis")
LAYOUTS = {"cifar10net": bind(cifar10net((3, 32, 32), 10))[0], "mnistnet": bind(mnistnet((1, 28, 28), 10))[0],
           "lenet5": bind(lenet5((3, 32, 32), 10))[0]}
TABLE = [
    ("cifar10net", .80, "thesis", [.229, .205, .1998, .211, .286]),
    ("cifar10net", .80, "erk", [.969, .306, .195, .4645, 1.0]),
    ("cifar10net", .90, "thesis", [.131, .105, .0997, .111, .195]),
    ("cifar10net", .90, "erk", [.482, .152, .0969, .231, 1.0]),
    ("cifar10net", .95, "thesis", [.082, .055, .0497, .061, .150]),
    ("cifar10net", .95, "erk", [.240, .0759, .0483, .115, .637]),
    ("mnistnet", .80, "thesis", [.26, .19, .20, .286]),
    ("mnistnet", .80, "erk", [.833, .0793, .200, 1.0]),
    ("mnistnet", .90, "erk", [.4156, .0396, .0999, .5936]),
    ("lenet5", .80, "erk", [.627, .198, .161, .301, 1.0]),
    ("lenet5", .90, "erk", [.300, .0948, .077, .144, .795])]


def digits(number):
    """How many decimals the table prints, at most 3 counted."""
    return min(3, len(str(number).partition(".")[2]))


def as_programmed(layout, densities):
    """The thesis's program counts biases in a layer's size and spends their share on its weights, as its table
    shows."""
    return [math.floor(d * (slot.size + slot.shape[0])) / slot.size for d, slot in zip(densities, layout.weights)]


@pytest.mark.parametrize("net, sparsity, rule, expected", TABLE)
def test_densities_are_those_of_the_methods_table(net, sparsity, rule, expected):
    layout = LAYOUTS[net]
    exact = getattr(masks, f"_{rule}")([slot.shape for slot in layout.weights], 1 - sparsity)
    printed = as_programmed(layout, exact) if rule == "thesis" else exact
    assert all(abs(have - want) <= 0.51 * 10 ** -digits(want) for have, want in zip(printed, expected, strict=True))
    kept = budgets(layout, sparsity, rule)
    assert all(abs(k - density * slot.size) <= 1 for k, density, slot in zip(kept, exact, layout.weights))


def test_the_networks_have_the_sizes_of_the_methods_table():
    assert [LAYOUTS[n].num_weights for n in ("cifar10net", "mnistnet", "lenet5")] == [781_770, 261_750, 61_770]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("net", LAYOUTS)
@pytest.mark.parametrize("sparsity", [0, .3, .5, .8, .9, .95, .99])
def test_budgets_sum_exactly_and_fit_their_layers(net, rule, sparsity):
    layout = LAYOUTS[net]
    kept = budgets(layout, sparsity, rule)
    assert sum(kept) == round((1 - sparsity) * layout.num_weights)
    assert all(masks.MIN_KEPT <= k <= slot.size for k, slot in zip(kept, layout.weights))


@pytest.mark.parametrize("rule", RULES)
def test_sparsity_0_keeps_everything(rule):
    layout = LAYOUTS["lenet5"]
    assert budgets(layout, 0, rule) == [slot.size for slot in layout.weights]


@pytest.mark.parametrize("rule", RULES)
def test_no_layer_collapses_where_the_budget_is_too_small(rule):
    layout, _, _ = bind(nn.Sequential(nn.Linear(5, 2), nn.Linear(100, 100)))
    with pytest.raises(UserError, match="sparsity 0.9974"):        # round(10.01) < 10 + 16, of 10,010
        budgets(layout, 0.999, rule)
    assert budgets(layout, 1 - 26 / 10010, rule) == [10, 16]


def test_uniform_gives_every_layer_the_same_density():
    for net in LAYOUTS.values():
        kept = budgets(net, 0.8, "uniform")
        assert all(abs(k - 0.2 * slot.size) <= 1 for k, slot in zip(kept, net.weights))


def test_first_dense_keeps_the_first_layer_and_is_uniform_in_the_others():
    layout, _, _ = bind(nn.Sequential(nn.Linear(20, 10), nn.Linear(100, 50), nn.Linear(50, 60)))
    # .2 of 8200 are 1640, less the first 200: 1440 of 8000 others, .18 of each
    assert budgets(layout, 0.8, "first-dense") == [200, 900, 540]
    assert budgets(layout, 0.8, "uniform") == [40, 1000, 600]
    assert masks.bearable(layout, "first-dense") == 1 - (200 + 16 + 16) / 8200
    assert budgets(layout, masks.bearable(layout, "first-dense"), "first-dense") == [200, 16, 16]


def test_a_first_layer_too_large_to_stay_dense_is_refused():
    layout, _, _ = bind(nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 20)))
    with pytest.raises(UserError, match="keeps all 10,000 weights of the first layer, and sparsity 0.8 leaves "
                                        "only 2,400 of the model: take another distribution, or a sparsity of 0.167 "
                                        "at most"):
        budgets(layout, 0.8, "first-dense")


def test_er_and_erk_by_hand():
    layout, _, _ = bind(nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 20)))
    # raw .02 and .06; eps (200 + 120) = .1 * 12000 = 1200, so eps = 3.75: densities .075 and .225
    assert budgets(layout, 0.9, "er") == budgets(layout, 0.9, "erk") == [750, 450]
    conv, _, _ = bind(nn.Sequential(nn.Conv2d(10, 10, 5), nn.Linear(100, 50)))
    # ERK raw 30/2500 and .03: weights 30 + 150, budget 750: eps = 25/6; densities .05 and .125
    assert budgets(conv, 0.9, "erk") == [125, 625]
    # ER raw .2 and .03: 500 + 150; eps = 750/650: densities .2308 and .0346
    assert budgets(conv, 0.9, "er") == [577, 173]


@pytest.mark.parametrize("sparsity", [-.1, 1, 1.5, float("nan")])
def test_a_sparsity_outside_0_to_1_is_refused(sparsity):
    with pytest.raises(ValueError, match=r"sparsity must be in \[0, 1\), got"):
        budgets(LAYOUTS["lenet5"], sparsity)


def test_an_unknown_distribution_is_refused():
    with pytest.raises(ValueError, match="distribution must be one "
                                         "of uniform, first-dense, er, erk, thesis, got 'erdos'"):
        budgets(LAYOUTS["lenet5"], 0.9, "erdos")


def test_first_masks_keep_exactly_the_budget():
    layout, x, _ = bind(nn.Sequential(nn.Linear(20, 10), nn.Linear(10, 7)))
    kept = budgets(layout, 0.7, "erk")
    for how in ("random", "magnitude"):
        mask = masks.first_mask(layout, x, kept, how, np.random.default_rng(0))
        assert layout.kept(mask) == kept and not mask[~layout.real[: layout.Q]].any()


def test_top_mask_keeps_the_largest_of_each_layer():
    layout, x, _ = bind(nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(4, 1, bias=False)))
    x[:4], x[16:20] = torch.tensor([1., -5, 2, 3]), torch.tensor([.1, .4, -.3, .2])
    mask = top_mask(layout, x.abs(), [2, 1])
    assert torch.nonzero(mask).flatten().tolist() == [1, 3, 17]


def test_random_mask_follows_its_generator():
    layout = LAYOUTS["lenet5"]
    kept = budgets(layout, 0.9)
    one, same, other = (random_mask(layout, kept, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize("free, k", [([3, 5, 8, 13, 21], 2), ([0, 1, 2, 3, 4], 2), ([0, 2, 3, 5, 6], 3)])
def test_draw_is_uniform_and_without_replacement(free, k):
    """Few free ones among many, all free, and more than half of the free ones: 10 equally likely outcomes each."""
    candidates, gen = torch.zeros(max(free) + 1, dtype=torch.bool), np.random.default_rng(0)
    candidates[free] = True
    drawn = torch.stack([torch.nonzero(draw(candidates, k, gen)).flatten() for _ in range(4000)])
    outcomes, counts = drawn.unique(dim=0, return_counts=True)
    assert len(outcomes) == 10 and bool(((counts - 400).abs() < 5 * 400 ** .5).all())
    assert all(set(outcome) <= {*free} for outcome in outcomes.tolist())


def test_draw_is_uniform_over_positions_of_a_large_layer():
    """Of 20,000 free places among 30,000, 6000 in each of 50 draws: a chi-squared test over 200 stretches."""
    free, gen, seen = torch.arange(30_000) % 3 > 0, np.random.default_rng(1), torch.zeros(30_000)
    for _ in range(50):
        drawn = draw(free, 6000, gen)
        assert int(drawn.sum()) == 6000 and not (drawn & ~free).any()
        seen += drawn
    stretches = seen.view(200, 150).sum(dim=1)                            # 1500 expected, of 5000: variance 1500 * .7
    assert 120 < float(((stretches - 1500) ** 2 / (1500 * .7)).sum()) < 300


def test_draw_takes_all_where_it_must_and_leaves_what_it_was_given():
    candidates = torch.tensor([True, False, True])
    for k in (2, 9):
        drawn = draw(candidates, k, None)
        assert torch.equal(drawn, candidates) and drawn is not candidates
    assert not draw(candidates, 0, np.random.default_rng(0)).any()
    assert draw(candidates[:0], 3, None).tolist() == []
    draw(candidates, 1, np.random.default_rng(0))
    assert candidates.tolist() == [True, False, True]


def test_largest_finds_the_k_largest():
    assert sorted(largest(torch.tensor([1., 9, -3, 4]), 2).tolist()) == [1, 3]
    assert largest(torch.tensor([1.]), 0).tolist() == []


@pytest.mark.parametrize("levels", [2, 5, 1 << 20])
def test_selections_are_those_of_a_stable_sort(levels):
    """With many equal scores, some, and hardly any: of equal ones the first."""
    gen = np.random.default_rng(levels)
    for n in (1, 2, 100, 3001):
        scores = torch.from_numpy(gen.integers(0, levels, n).astype("float32"))
        order = scores.argsort(descending=True, stable=True)
        for k in {0, 1, n // 3, n - 1, n}:
            assert largest(scores, k).sort().values.tolist() == order[:k].sort().values.tolist()
            assert masks.falling(scores, largest(scores, k)).tolist() == order[:k].tolist()


@pytest.mark.parametrize("levels", [2, 50, 1 << 22])
@pytest.mark.parametrize("order", ["shuffled", "sampled ones are small", "sampled ones are large"])
def test_few_of_many_are_those_of_a_stable_sort(monkeypatch, levels, order):
    """Whatever the sample makes one believe about the rest."""
    monkeypatch.setattr(masks, "SAMPLE", 16)
    n = 4096
    scores = np.random.default_rng(levels).integers(0, levels, n).astype("float32")
    if order != "shuffled":
        scores[:: n // 16] = scores.min() - 1 if order == "sampled ones are small" else scores.max() + 1
    scores = torch.from_numpy(scores)
    wanted = scores.argsort(descending=True, stable=True)
    for k in (1, 2, 17, 300, 409):
        assert largest(scores, k).tolist() == wanted[:k].sort().values.tolist()


def lazy(mask):
    """Grows the first of a layer's free places."""
    def grow(slot, k):
        free = ~mask[slot.span]
        return free & (free.cumsum(0) <= k)
    return grow


def test_swap_keeps_counts_and_drops_the_smallest():
    layout, _, _ = bind(nn.Sequential(nn.Linear(6, 1, bias=False), nn.Linear(4, 1, bias=False)))
    mask = torch.zeros(layout.Q, dtype=torch.bool)
    mask[[0, 1, 2, 3, 16, 17]] = True
    scores = torch.zeros(layout.Q)
    scores[:4], scores[16:18] = torch.tensor([4., 1, 3, 2]), torch.tensor([1., 2])
    new = swap(layout, mask, [2, 1], scores, lazy(mask))
    assert torch.nonzero(new).flatten().tolist() == [0, 2, 4, 5, 17, 18]
    assert torch.nonzero(mask).flatten().tolist() == [0, 1, 2, 3, 16, 17]        # the old mask is only read


def test_swap_never_regrows_what_it_dropped():
    layout, _, _ = bind(nn.Linear(40, 5, bias=False))
    gen = np.random.default_rng(0)
    for seed in range(20):
        mask = random_mask(layout, [60], gen)
        new = swap(layout, mask, [25], torch.from_numpy(gen.random(layout.Q)),
                   lambda slot, k: draw(~mask[slot.span], k, gen))
        assert int(new.sum()) == 60 and int((mask & ~new).sum()) == int((new & ~mask).sum()) == 25


def test_swap_is_limited_by_what_lives_and_what_is_free():
    layout, _, _ = bind(nn.Linear(8, 1, bias=False))
    full = layout.full_mask()
    assert torch.equal(swap(layout, full, [3], torch.zeros(layout.Q), lazy(full)), full)
    mask = full.clone()
    mask[6:] = False
    new = swap(layout, mask, [5], torch.arange(layout.Q), lazy(mask))
    assert torch.nonzero(new).flatten().tolist() == [2, 3, 4, 5, 6, 7]
    none = torch.zeros_like(full)
    assert torch.equal(swap(layout, none, [3], torch.zeros(layout.Q), lazy(none)), none)


def test_cosine_decay_by_hand():
    assert cosine_decay(.3, 0, 75) == .3 and abs(cosine_decay(.3, 25, 75) - .225) < 1e-15
    assert cosine_decay(.3, 75, 75) == cosine_decay(.3, 80, 75) == 0
