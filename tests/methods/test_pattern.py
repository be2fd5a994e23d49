"""Masks in blocks and N of each M: small matrices by hand, then rounds of every pruner."""

import contracts
import numpy as np
import pytest
import torch
from torch import nn

from fedmpi import catalog
from fedmpi.core.errors import UserError
from fedmpi.core.layout import arranged, bind
from fedmpi.core.mask import budgets
from fedmpi.core.parts import Facts, Round
from fedmpi.methods.pruning.pattern import (block_layout, entries, entries_mask, pattern_of, swap_in_groups,
                                            top_in_groups, weights_mask)
from fedmpi.methods.pruning.static import static
from fedmpi.plugins.spec import make
from fedmpi.store import read_run
from fedmpi.wire import positions

BLOCKS = ["static", "set:every=1,fraction=0.5", "rigl:every=1,fraction=0.5", "feddst:every=1,alpha=0.5",
          "residual:every=1,fraction=0.5", "adaptive:every=1,fraction=0.5"]
GROUPS = BLOCKS[:-1]


def layout_of(*shapes):
    return arranged([(f"w{i}", shape) for i, shape in enumerate(shapes)], (), ())


def with_options(spec, more):
    return f"{spec}{',' if ':' in spec else ':'}{more}"


def all_alike(layout, mask, block):
    """Whether every whole block of every layer is kept or pruned as one."""
    blocks = block_layout(layout, block)
    return torch.equal(weights_mask(blocks, entries_mask(blocks, mask)), mask)


def test_a_block_is_as_large_as_its_sum():
    layout = layout_of((4, 4))
    blocks = block_layout(layout, (2, 2))
    x = torch.tensor([1., -1, 0, 0, 2, 0, 0, 9, 0, 0, 3, 3, -1, 0, 3, 3])
    assert entries(blocks, x)[:4].tolist() == [4, 9, 1, 12]
    _, mask = static(sparsity=0.5, init="magnitude", block="2").init(
        arranged([("w", (8, 8))], (), ()), torch.arange(64.), Round(0, 1), None)
    # The lower half of a matrix that grows by rows.
    assert mask.view(8, 8).int().tolist() == [[0] * 8] * 4 + [[1] * 8] * 4


def test_blocks_of_rows_alone():
    layout = layout_of((4, 3))
    blocks = block_layout(layout, (4, 1))
    assert entries(blocks, torch.arange(12.))[:3].tolist() == [18, 22, 26]
    mask = weights_mask(blocks, torch.tensor([False, True, False] + [False] * 13))
    assert mask[:12].view(4, 3).int().tolist() == [[0, 1, 0]] * 4


def test_blocks_of_a_convolution_lie_at_one_position_of_its_kernel():
    layout = layout_of((2, 4, 3, 3))
    blocks = block_layout(layout, (2, 2))
    assert blocks.weights[0].shape == (1, 2, 3, 3)
    chosen = torch.zeros(blocks.Q, dtype=torch.bool)
    chosen[9 + 4] = True                      # the second pair of inputs, the middle of the kernel
    mask = weights_mask(blocks, chosen)[:72].view(2, 4, 9)
    assert mask.nonzero().tolist() == [[0, 2, 4], [0, 3, 4], [1, 2, 4], [1, 3, 4]]


def test_the_two_largest_of_each_four_are_kept():
    layout = layout_of((2, 8))
    x = torch.tensor([4., 3, 2, 1, 1, 1, 1, 1, 0, 5, 0, 6, 7, 0, 0, 8])
    mask = top_in_groups(layout, x, (2, 4))
    assert mask.view(2, 8).int().tolist() == [[1, 1, 0, 0, 1, 1, 0, 0], [0, 1, 0, 1, 1, 0, 0, 1]]


def test_groups_of_a_convolution_are_neighbouring_channels():
    layout = layout_of((1, 4, 1, 2))
    mask = top_in_groups(layout, torch.tensor([1., 8, 2, 7, 3, 6, 4, 5] + [0.] * 8), (1, 4))
    assert mask[:8].view(4, 2).int().tolist() == [[0, 1], [0, 0], [0, 0], [1, 0]]


def test_a_swap_stays_in_its_group():
    layout = layout_of((1, 12))
    x = torch.tensor([5., 6, 0, 0, 1, 9, 0, 0, 3, 2, 0, 0, 0, 0, 0, 0])
    mask = torch.tensor([1, 1, 0, 0] * 3 + [0] * 4).bool()
    gradient = torch.tensor([0., 0, 1, 2, 0, 0, 0, 0, 0, 0, 4, 3])
    new = swap_in_groups(layout, mask, [1], x, lambda slot: gradient, (2, 4))
    # The second group has the smallest weight, but no gradient; the third comes next.
    assert new[:12].int().tolist() == [1, 1, 0, 0, 1, 1, 0, 0, 1, 0, 1, 0]
    every = swap_in_groups(layout, mask, [9], x, lambda slot: gradient, (2, 4))
    assert every[:12].view(3, 4).sum(dim=1).tolist() == [2, 2, 2]
    assert every[:4].int().tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("sparsity", [0.5, 0.8, 0.93])
def test_counts_are_exact_with_a_layer_of_single_weights(sparsity):
    layout = layout_of((64, 64), (32, 64), (10, 32))
    blocks = block_layout(layout, (8, 8))
    kept = budgets(blocks, sparsity)
    assert 64 * kept[0] + 64 * kept[1] + kept[2] == round((1 - sparsity) * layout.num_weights)


def test_counts_are_within_half_a_block():
    layout = layout_of((64, 64), (32, 64))
    kept = budgets(block_layout(layout, (8, 8)), 0.83)
    assert abs(64 * sum(kept) - 0.17 * layout.num_weights) <= 32


def test_densities_are_those_of_weights():
    """ERK: attention .13333 and MLP .08333 at body sparsity .9, in blocks too."""
    d = 240
    layout = layout_of(*[(d, d)] * 4, (4 * d, d), (d, 4 * d))
    blocks = block_layout(layout, (8, 8))
    kept = budgets(blocks, 0.9)
    densities = [k / slot.size for k, slot in zip(kept, blocks.weights)]
    assert densities == pytest.approx([.13333] * 4 + [.08333] * 2, abs=6e-4)


@pytest.mark.parametrize("spec", BLOCKS)
@pytest.mark.parametrize("block", ["2", "3x1"])
def test_blocks_stay_whole_over_rounds(spec, block):
    spec = with_options(spec, f"sparsity=0.6,block={block}")
    run, state = contracts.assembled(pruner=spec, model="small-cnn:width=12", rounds=8)
    states, _ = contracts.run_rounds(run, state, 4)
    masks = [state["mask"], *(s["mask"] for s in states)]
    size = pattern_of(block, "none").block
    assert all(all_alike(run.layout, mask, size) for mask in masks)
    assert spec.startswith("static") or not torch.equal(masks[0], masks[-1])
    if run.pruner.exact:
        assert len({int(mask.sum()) for mask in masks}) == 1


@pytest.mark.parametrize("spec", GROUPS)
def test_groups_keep_their_number_over_rounds(spec):
    spec = with_options(spec, "nm=2:4")
    run, state = contracts.assembled(pruner=spec, model="small-cnn:width=12", rounds=8)
    states, _ = contracts.run_rounds(run, state, 4)
    masks = [state["mask"], *(s["mask"] for s in states)]
    for mask in masks:
        for slot in run.layout.weights:
            if slot.shape[1] % 4 == 0:
                in_groups = slot.of(mask).view(slot.shape[0], slot.shape[1] // 4, 4, -1)
                assert set(in_groups.sum(dim=2).flatten().tolist()) == {2}
    assert spec.startswith("static") or not torch.equal(masks[0], masks[-1])


@pytest.mark.parametrize("spec", [with_options(spec, "block=2") for spec in BLOCKS])
def test_pruners_of_blocks_keep_the_laws(spec):
    contracts.pruning.pruner(with_options(spec, "sparsity=0.8"), 4)


@pytest.mark.parametrize("spec", [with_options(spec, "nm=1:2") for spec in GROUPS])
def test_pruners_of_groups_keep_the_laws(spec):
    contracts.pruning.pruner(spec, 4)


@pytest.mark.parametrize("spec, reason", [
    ("static:block=8,nm=2:4", "leave one out"), ("static:block=0", "block must be"), ("static:block=x8", "block must"),
    ("static:nm=4:4", "the first number must be the smaller one"), ("static:nm=2", "nm must be kept:of"),
    ("static:nm=2:4,sparsity=0.9", "sparsity has no effect with nm=2:4"),
    ("set:block=8,signed=true", "signed has no effect with block=8"),
])
def test_refusals(spec, reason):
    with pytest.raises((ValueError, UserError), match=reason):
        make(catalog.PRUNERS, spec)


def test_layers_that_do_not_divide_are_told():
    layout, _, _ = bind(nn.Sequential(nn.Linear(16, 24), nn.Linear(24, 10)))
    facts = Facts(layout)
    notes = list(static(block="8").notes(facts))
    assert notes == ["pruned weight by weight, not in blocks of 8x8: 1.weight (10, 24)"]
    layout = layout_of((4, 6), (4, 8))
    assert list(static(nm="2:4").notes(Facts(layout))) == ["dense, as their inputs do not divide by 4: w0 (4, 6)"]


def test_a_model_without_whole_blocks_is_refused():
    facts = Facts(layout_of((10, 5)))
    assert "take a smaller block" in list(static(block="8").refuses(facts))[0]
    assert "take a smaller group" in list(static(nm="2:4").refuses(facts))[0]


@pytest.mark.parametrize("spec", ["rigl:every=1,fraction=0.5,block=4", "set:every=1,nm=2:4", "feddst:every=1,block=2"])
def test_the_same_bits_on_any_ranks(fedmpi, tmp_path, spec):
    digests = []
    for ranks in (1, 3):
        path = tmp_path / f"{ranks}.h5"
        fedmpi(ranks, "train", "--dataset", "synthetic:samples=120,size=8", "--model", "small-cnn:width=4",
               "--clients", 4, "--rounds", 3, "--pruner", spec, "--out", path)
        digests.append(read_run(path).rounds["weights_digest"].tolist())
    assert digests[0] == digests[1]


def test_a_mask_of_blocks_travels_in_few_bytes():
    """512 x 512 at 0.9: single weights take about 0.47 bits a weight, 8 x 8 blocks a tenth of that at most."""
    layout = layout_of((512, 512))
    _, single = static(0.9).init(layout, torch.zeros(layout.P), Round(0, 1), np.random.default_rng(0))
    _, blocks = static(0.9, block="8").init(layout, torch.zeros(layout.P), Round(0, 1), np.random.default_rng(0))
    sizes = [positions.encode(mask.numpy())[1].nbytes for mask in (single, blocks)]
    assert sizes[1] * 10 < sizes[0]
