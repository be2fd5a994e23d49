"""Feature skew: new inputs of the same shape by the client's generator only; each kind does what it says."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedmpi.catalog import FEATURES
from fedmpi.plugins.spec import make
from fedmpi.methods.features.gaussian import gaussian
from fedmpi.methods.features.images import _grid, turned
from fedmpi.methods.features.restyle import _styled, restyle
from fedmpi.methods.features.rotation import rotation
from specs import specs

OPTIONS = {"sigma": st.floats(0, 10), "shuffle": st.booleans(), "quarter": st.booleans(), "fraction": st.floats(0, 1),
           "share": st.floats(0, 1)}
FLAT = {"none", "gaussian"}                  # the kinds that take (n, F) inputs too
image_shapes = st.tuples(st.integers(1, 8), st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))
flat_shapes = st.tuples(st.integers(1, 8), st.integers(1, 9))


def rng(seed=0):
    return np.random.default_rng(seed)


def random_images(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", FEATURES)
@settings(max_examples=25, deadline=None)
@given(data=st.data(), shape=st.one_of(image_shapes, flat_shapes), classes=st.integers(2, 6), clients=st.integers(1, 9),
       seed=st.integers(0, 2**32))
def test_features_are_new_inputs_of_the_same_shape_by_the_generator_only(name, data, shape, classes, clients, seed):
    spec = data.draw(specs(FEATURES, name, OPTIONS))
    assume(not ("quarter=True" in spec and "shuffle=" in spec))                      # else refused when it is made
    features = make(FEATURES, spec)
    levels = features.levels(clients, rng(seed))
    assert levels.shape == (clients,) and levels.dtype == np.float64 and np.isfinite(levels).all() and levels.min() >= 0
    assert np.array_equal(levels, features.levels(clients, rng(seed)))
    inputs = random_images(*shape, seed=seed)
    labels = torch.from_numpy(rng(seed).integers(0, classes, len(inputs)))
    before, labels_before, level = inputs.clone(), labels.clone(), data.draw(st.sampled_from(list(levels)))
    if inputs.ndim == 2 and name not in FLAT:
        with pytest.raises(ValueError, match=rf"^{name} works on images: expected .*, got \({shape[0]}, {shape[1]}\)$"):
            features.apply(inputs, labels, level, classes, rng(seed))
        return
    changed = features.apply(inputs, labels, level, classes, rng(seed))
    assert changed.shape == inputs.shape and changed.dtype == torch.float32 and bool(changed.isfinite().all())
    assert changed.is_contiguous() and changed.data_ptr() != inputs.data_ptr()
    assert torch.equal(inputs, before) and torch.equal(labels, labels_before)
    assert torch.equal(changed, features.apply(inputs, labels, level, classes, rng(seed)))
    assert torch.equal(features.apply(inputs, labels, 0.0, classes, rng(seed)), inputs)


def test_gaussian_variances_grow_linearly_over_the_clients():
    assert np.allclose(gaussian(0.8).levels(4, rng()), [0, 0.2, 0.4, 0.6])
    shuffled = [tuple(gaussian(0.8, shuffle=True).levels(4, rng(seed))) for seed in range(5)]
    assert len(set(shuffled)) > 1 and all(np.allclose(np.sort(levels), [0, 0.2, 0.4, 0.6]) for levels in shuffled)


def test_gaussian_noise_has_the_variance_of_its_level():
    inputs = random_images(50, 3, 16, 16)
    noise = gaussian().apply(inputs, torch.zeros(50, dtype=torch.int64), 0.25, 10, rng()) - inputs
    assert abs(float(noise.var()) - 0.25) < 0.01 and abs(float(noise.mean())) < 0.01


def test_rotation_angles():
    assert np.allclose(rotation().levels(8, rng()), 45 * np.arange(8))
    assert sorted(rotation(shuffle=True).levels(4, rng())) == [0, 90, 180, 270]
    quarters = rotation(quarter=True).levels(10, rng())
    assert np.array_equal(np.bincount((quarters / 90).astype(int)), [3, 3, 2, 2])
    assert len({tuple(rotation(quarter=True).levels(10, rng(seed))) for seed in range(5)}) > 1


def test_quarter_turns_are_exact_and_counter_clockwise():
    image = torch.tensor([[[[1.0, 2], [3, 4]]]])
    turns = [turned(image, degrees).flatten().tolist() for degrees in (0, 90, 180, 270, 360)]
    assert turns == [[1, 2, 3, 4], [2, 4, 1, 3], [4, 3, 2, 1], [3, 1, 4, 2], [1, 2, 3, 4]]


@pytest.mark.parametrize("shape", [(5, 5), (6, 6), (5, 8), (8, 5)])
def test_bilinear_turns_agree_with_exact_ones_where_both_exist(shape):
    images = random_images(3, 2, *shape)
    half = torch.nn.functional.grid_sample(images, _grid(images, np.pi), padding_mode="border", align_corners=False)
    torch.testing.assert_close(half, turned(images, 180), rtol=0, atol=1e-5)
    if shape[0] == shape[1]:
        torch.testing.assert_close(turned(images, 90 - 1e-6), turned(images, 90), rtol=0, atol=1e-5)


def test_a_turn_keeps_the_shape_of_what_it_turns():
    """A disc stays one on an oblong image, at its distance from the centre."""
    rows, columns = torch.meshgrid(torch.arange(41.0) - 20, torch.arange(61.0) - 30, indexing="ij")
    disc = torch.exp(-((rows ** 2) + (columns - 12) ** 2) / 18)
    expected = torch.exp(-((rows + 12 * np.sin(np.pi / 6)) ** 2 + (columns - 12 * np.cos(np.pi / 6)) ** 2) / 18)
    torch.testing.assert_close(turned(disc[None, None], 30.0)[0, 0], expected, rtol=0, atol=0.04)


def test_a_turn_draws_in_the_edge_and_not_the_mean():
    dark = torch.full((1, 1, 8, 8), -0.4)
    torch.testing.assert_close(turned(dark, 30.0), dark, rtol=0, atol=1e-6)


def test_every_style_but_the_first_changes_something_and_all_differ():
    images = random_images(2, 3, 5, 5)
    styles = [_styled(images, style) for style in range(48)]
    assert torch.equal(styles[0], images)
    assert all(not torch.equal(styles[a], styles[b]) for a in range(48) for b in range(a))
    assert all(torch.allclose(style.abs().sum(), images.abs().sum()) for style in styles)


@pytest.mark.parametrize("fraction, expected", [(0.0, 0), (0.01, 1), (0.5, 5), (1.0, 10)])
def test_restyle_changes_so_many_classes_each_in_one_style(fraction, expected):
    features, labels = restyle(fraction), torch.arange(10).repeat(2)
    images = random_images(10, 1, 4, 4).repeat(2, 1, 1, 1)
    restyled = [features.apply(images, labels, fraction, 10, rng(seed)) for seed in range(3)]
    for new in restyled:
        assert torch.equal(new[:10], new[10:])                    # all samples of a class alike
        assert int((new[:10] != images[:10]).flatten(1).any(1).sum()) == expected
    assert expected == 0 or not torch.equal(restyled[0], restyled[1])


def test_restyle_gives_classes_styles_that_do_not_depend_on_who_is_there():
    images, labels, features = random_images(10, 1, 4, 4), torch.arange(10), restyle()
    everyone = features.apply(images, labels, 1.0, 10, rng())
    assert torch.equal(features.apply(images[3:5], labels[3:5], 1.0, 10, rng()), everyone[3:5])


def test_restyle_takes_a_share_of_the_clients():
    levels = restyle(0.5, share=0.3).levels(10, rng())
    assert sorted(levels) == [0] * 7 + [0.5] * 3


def test_features_leave_the_global_generator_alone():
    before = copy.deepcopy(torch.get_rng_state())
    images = random_images(4, 1, 5, 5)
    for name in FEATURES:
        make(FEATURES, name).apply(images, torch.arange(4), 0.5, 4, rng())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("make, message", [
    (lambda: gaussian(-1.0), "sigma must be >= 0 and finite, got -1.0"),
    (lambda: gaussian(float("inf")), "sigma must be >= 0 and finite, got inf"),
    (lambda: restyle(1.5), r"fraction must be in \[0, 1\], got 1.5"),
    (lambda: restyle(share=-1), r"share must be in \[0, 1\], got -1")])
def test_refusals_say_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()
