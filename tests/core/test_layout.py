"""One vector for a model: views that stay views, regions, padding, and names that change with shapes."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from fedmpi.core.layout import ALIGN, bind, check, views
from fedmpi.core.support import PIECE, gathered, index_of, scattered


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 5))


def test_writing_x_changes_the_forward_pass():
    model = network()
    layout, x, _ = bind(model)
    model.eval()
    image = torch.ones(1, 1, 4, 4)
    assert model(image).any()
    x.zero_()
    assert torch.equal(model(image), torch.zeros(1, 5))
    bias = next(slot for slot in layout.others if slot.name == "3.bias")
    x[bias.span] = torch.arange(5.)
    assert torch.equal(model(image), torch.arange(5.)[None])


def test_binding_keeps_the_values_and_the_outputs():
    model = network()
    before, names = copy.deepcopy(model), dict(model.named_parameters())
    layout, x, _ = bind(model)
    image = torch.randn(2, 1, 4, 4)
    assert torch.equal(before.eval()(image), model.eval()(image))
    for slot in layout.weights + layout.others:
        assert torch.equal(x[slot.span].view(slot.shape), names[slot.name])


def test_gradients_accumulate_in_g_and_its_padding_stays_zero():
    model = network()
    layout, _, g = bind(model)
    for _ in range(2):
        model(torch.randn(4, 1, 4, 4)).square().sum().backward()
    once = {name: p.grad for name, p in model.named_parameters()}
    for slot in layout.weights + layout.others:
        assert torch.equal(g[slot.span].view(slot.shape), once[slot.name]) and g[slot.span].any()
    assert not g[~layout.real[: layout.R]].any()
    g.zero_()
    assert not any(p.grad.any() for p in model.parameters())


def test_regions_follow_each_other_and_hold_what_they_say():
    layout, x, g = bind(network())
    assert [s.name for s in layout.weights] == ["0.weight", "3.weight"]
    assert [s.name for s in layout.others] == ["0.bias", "1.weight", "1.bias", "3.bias"]
    assert [s.name for s in layout.buffers] == ["1.running_mean", "1.running_var"]       # no num_batches_tracked
    assert (layout.Q, layout.R, layout.P) == (32 + 64, 96 + 4 * 16, 160 + 2 * 16)
    assert (len(x), len(g)) == (layout.P, layout.R)
    assert (layout.num_weights, layout.num_parameters, layout.num_values) == (87, 87 + 14, 87 + 14 + 6)
    assert all(layout.R <= s.offset < layout.P for s in layout.buffers)


def test_integer_counters_stay_in_the_module():
    model = network()
    _, x, _ = bind(model)
    model.train()(torch.randn(4, 1, 4, 4))
    assert int(model[1].num_batches_tracked) == 1 and x.dtype == torch.float32


def test_only_buffers_that_training_moves_travel():
    model = nn.Linear(2, 2)
    model.register_buffer("table", torch.arange(3))
    model.register_buffer("scale", torch.tensor(2.5))
    model.register_buffer("mean", torch.tensor(1.5))
    layout, x, _ = bind(model, moving=["mean"])
    assert [(s.name, s.shape) for s in layout.buffers] == [("mean", ())] and float(x[layout.R]) == 1.5
    assert float(model.scale) == 2.5


def test_running_statistics_are_updated_in_x():
    model = network()
    layout, x, _ = bind(model)
    before = x[layout.R:].clone()
    model.train()(torch.randn(4, 1, 4, 4))
    assert not torch.equal(before, x[layout.R:])
    check(model, layout, x)


def test_every_tensor_starts_at_64_bytes():
    layout, x, _ = bind(network())
    assert ALIGN * x.element_size() == 64 and x.data_ptr() % 64 == 0
    assert all(slot.offset % ALIGN == 0 for slot in layout.weights + layout.others + layout.buffers)


@pytest.mark.parametrize("other", [
    nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(3, 4)), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)),
    nn.Sequential(nn.Linear(2, 8)), nn.Sequential(nn.Flatten(), nn.Linear(4, 4)),
    nn.Sequential(nn.Linear(4, 4, bias=False)), nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))])
def test_digest_changes_with_any_name_or_shape(other):
    first, again = (bind(nn.Sequential(nn.Linear(4, 4)))[0].digest for _ in range(2))
    assert first == again and len(first) == 8
    assert bind(other)[0].digest != first


def test_tied_weights_appear_once():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False))
    model[2].weight = model[0].weight
    layout, x, _ = bind(model)
    assert [s.name for s in layout.weights] == ["0.weight"] and len(x) == 16
    check(model, layout, x)
    assert model[2].weight.data_ptr() == x.data_ptr()


def test_check_fails_on_a_model_that_left_its_vector():
    model = network()
    layout, x, _ = bind(model)
    check(model, layout, x)
    with pytest.raises(AssertionError, match="left its vector"):
        check(copy.deepcopy(model).to("cpu"), layout, x)
    model.to(torch.float64).to(torch.float32)            # re-allocates, as moving to another device does
    with pytest.raises(AssertionError, match="left its vector"):
        check(model, layout, x)


def test_support_is_sorted_and_never_holds_padding():
    layout, x, _ = bind(network())
    support = layout.support(layout.full_mask())
    assert support.dtype == torch.int32 and len(support) == layout.num_values
    assert bool(layout.real[support].all()) and torch.equal(support, support.sort().values)
    empty = layout.support(torch.zeros(layout.Q, dtype=torch.bool))
    assert torch.equal(empty, layout.dense_positions) and len(empty) == 14 + 6
    assert not x[~layout.real].any()


def test_a_support_is_found_once_and_again_where_its_mask_has_changed():
    layout, _, _ = bind(network())
    mask = layout.full_mask()
    assert layout.support(mask) is layout.support(mask)
    mask[0] = False
    assert layout.support(mask).tolist() == torch.cat([torch.nonzero(mask).flatten(), layout.dense_positions]).tolist()
    assert layout.support(mask.clone()) is not layout.support(mask)


@pytest.mark.parametrize("positions", [[], [0, 1, 2], [1, 2, 3], [0, 2, 5], list(range(8)), [7]])
def test_values_are_gathered_from_a_support_and_scattered_to_it(positions):
    x, support = torch.arange(10.0, 18.0), torch.tensor(positions, dtype=torch.int32)
    assert gathered(x, support).tolist() == [10.0 + p for p in positions]
    into = scattered(gathered(x, support), support, torch.zeros(8))
    assert into.tolist() == [10.0 + p if p in positions else 0.0 for p in range(8)]


def test_views_are_the_parameters_themselves():
    model = network()
    layout, x, _ = bind(model)
    named = dict(model.named_parameters())
    for slot, view in zip(layout.trained, views(layout, x[: layout.R]), strict=True):
        assert view.data_ptr() == named[slot.name].data_ptr() and view.shape == named[slot.name].shape


def test_a_model_without_weights_or_in_another_precision_is_refused():
    with pytest.raises(ValueError, match="nothing to prune"):
        bind(nn.LayerNorm(3))
    with pytest.raises(ValueError, match="must be float32, got weight, bias"):
        bind(nn.Linear(3, 3).double())


@pytest.mark.parametrize("share", [0, .01, .03, .0999, .1001, .5, 1])
@pytest.mark.parametrize("n", [0, 1, 100, PIECE, 2 * PIECE + 17])
def test_positions_are_those_of_numpy(share, n):
    mask = np.random.default_rng(0).random(n) < share
    found = index_of(mask)
    assert np.array_equal(found, np.flatnonzero(mask)) and found.dtype == np.int32
