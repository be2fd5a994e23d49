"""Counted operations: uses a weight from a real forward pass, and the two conventions by hand."""

import pytest
import torch
from torch import nn

from fedmpi.flat import bind
from fedmpi.flops import training, uses
from fedmpi.mask import budgets
from fedmpi.models.cifar10net import cifar10net


def found(model, shape):
    layout, _, _ = bind(model)
    return layout, uses(model, layout, shape)


@pytest.mark.parametrize("model, shape, expected", [
    (nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), (3, 2, 2), (1,)),
    (nn.Conv2d(2, 5, 3), (2, 8, 6), (6 * 4,)),
    (nn.Conv2d(2, 5, 3, padding=1), (2, 8, 6), (8 * 6,)),
    (nn.Conv2d(2, 5, 3, stride=2), (2, 8, 6), (3 * 2,)),
    (nn.Conv2d(2, 4, 3, groups=2), (2, 8, 6), (6 * 4,)),
    (nn.Conv2d(2, 5, 3, dilation=2), (2, 8, 6), (4 * 2,)),
    (nn.Conv1d(2, 5, 3), (2, 9), (7,)),
    (nn.ConvTranspose2d(2, 5, 3, stride=2), (2, 4, 4), (16,)),
    (nn.Linear(6, 4), (5, 6), (5,)),                                       # applied at 5 positions
    (nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, 4)), (1, 8, 8),
     (36, 4, 1))])
def test_uses_by_hand(model, shape, expected):
    assert found(model, shape)[1] == expected


def test_a_weight_used_twice_counts_twice():
    shared = nn.Linear(4, 4)
    assert found(nn.Sequential(shared, nn.ReLU(), shared), (4,))[1] == (2,)


def test_counting_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(8, 3))
    layout, x, _ = bind(model)
    before = x.clone()
    for mode in (True, False):
        model.train(mode)
        uses(model, layout, (1, 4, 4))
        assert all(m.training is mode for m in model.modules()) and torch.equal(x, before)
    assert not any(m._forward_hooks for m in model.modules())


def test_both_conventions_by_hand():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.Flatten(), nn.Linear(8, 4, bias=False))
    layout, use = found(model, (1, 4, 4))
    mask = layout.full_mask()
    mask[[0, 1, 2, 32, 33]] = False                     # 3 of 18 conv weights at 4 positions, 2 of 32 linear ones
    full, sparse = 2 * (18 * 4 + 32), 2 * (15 * 4 + 30)
    assert (full, sparse) == (208, 180)
    assert training(layout, use, mask, 10, 0, 0) == (10 * (2 * 180 + 208), 10 * 3 * 180)
    assert training(layout, use, mask, 10, 4, 0) == (14 * (2 * 180 + 208), 10 * 3 * 180 + 4 * (2 * 180 + 208))
    assert training(layout, use, mask, 10, 0, 10) == (10 * (2 * 180 + 208), 10 * (2 * 180 + 208))


@pytest.mark.parametrize("kept", [1, 2, 5, 10])
def test_a_sample_costs_1_plus_2d_and_3d_dense_passes(kept):
    layout, use = found(nn.Linear(10, 10), (10,))
    mask = layout.full_mask()
    mask[kept * 10:] = False
    f, d = 200, kept / 10
    assert training(layout, use, mask, 7, 0, 0) == pytest.approx((7 * (1 + 2 * d) * f, 7 * 3 * d * f))


def test_both_conventions_agree_on_a_dense_model():
    layout, use = found(nn.Sequential(nn.Flatten(), nn.Linear(9, 4)), (1, 3, 3))
    prunefl, rigl = training(layout, use, layout.full_mask(), 5, 2, 3)
    assert prunefl == rigl == 7 * 3 * 72


def test_cifar10net_by_hand_on_its_real_shapes():
    layout, use = found(cifar10net((3, 32, 32), 10), (3, 32, 32))
    assert use == (28 * 28, 22 * 22, 1, 1, 1)           # 32 - 4; pooled to 26, 26 - 4; pooled to 20
    forward = 2 * (450 * 784 + 2400 * 484 + 768_000 + 10_080 + 840)
    assert forward == 4_626_640 - 40_000
    seen = 10 * 5000                                    # 10 epochs of a tenth of the training set
    assert training(layout, use, layout.full_mask(), seen, 0, 0) == (3 * forward * seen, 3 * forward * seen)


@pytest.mark.parametrize("sparsity, per_round, in_200", [(0, .754, 150.8), (.8, .352, 70.4), (.9, .302, 60.3)])
def test_cifar10net_at_the_shapes_of_the_thesis_program(sparsity, per_round, in_200):
    """Its figures ignore that pooling shrinks the second convolution's input (28, not 26, hence 24 x 24 outputs)."""
    layout, _, _ = bind(cifar10net((3, 32, 32), 10))
    mask = torch.zeros(layout.Q, dtype=torch.bool)
    for slot, kept in zip(layout.weights, budgets(layout, sparsity, "uniform")):
        mask[slot.offset: slot.offset + kept] = True
    tera = training(layout, (784, 576, 1, 1, 1), mask, 50_000, 0, 0)[0] / 1e12
    assert (round(tera, 3), round(200 * tera, 1)) == (per_round, in_200)
