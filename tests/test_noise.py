"""Label noise: rates that are what was asked for, on copies, and the same for the same generator."""

import numpy as np
import pytest

from fedmpi.noise.graded import graded
from fedmpi.noise.model import apply
from fedmpi.noise.none import none
from fedmpi.noise.pair import pair
from fedmpi.noise.symmetric import symmetric
from fedmpi.noise.thesis import thesis

KINDS = [none, symmetric, pair, graded, thesis]
LABELS = np.tile(np.arange(10), 2000)


def rng(seed=0):
    return np.random.default_rng(seed)


def gen_of(n):
    return np.random.default_rng((7, n))


def wrong(noise, level, labels=LABELS, seed=0):
    return np.mean(noise.corrupt(labels, level, 10, rng(seed)) != labels)


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("clients", [1, 3, 10, 33])
def test_noise_is_a_valid_copy_and_depends_on_the_generator_only(make, clients):
    parts = [LABELS[:100 + n].copy() for n in range(clients)]
    noisy, rates = apply(make(), parts, 10, gen_of)
    again, rates_again = apply(make(), parts, 10, gen_of)
    assert rates.shape == (clients,) and np.array_equal(rates, rates_again)
    for n, (new, same) in enumerate(zip(noisy, again)):
        assert new.dtype == np.int64 and new.shape == (100 + n,) and new.min() >= 0 and new.max() < 10
        assert np.array_equal(new, same) and not np.shares_memory(new, parts[n])
        assert np.array_equal(parts[n], LABELS[:100 + n])
        assert rates[n] == np.mean(new != parts[n])


def test_none_changes_nothing():
    noisy, rates = apply(none(), [LABELS, LABELS[:0]], 10, gen_of)
    assert np.array_equal(noisy[0], LABELS) and not rates.any()


def test_symmetric_changes_at_its_rate_to_every_other_class_alike():
    noise = symmetric(0.4)
    assert abs(wrong(noise, 0.4) - 0.4) < 0.01
    zeros = np.zeros(20000, np.int64)
    counts = np.bincount(noise.corrupt(zeros, 1.0, 10, rng()), minlength=10)
    assert counts[0] == 0 and np.all(abs(counts[1:] / 20000 - 1 / 9) < 0.01)


def test_symmetric_including_the_true_class_is_wrong_less_often():
    assert abs(wrong(symmetric(include_true=True), 0.4) - 0.36) < 0.01


def test_share_of_noisy_clients_is_exact_and_drawn():
    for make in (symmetric, pair):
        levels = make(0.25, share=0.3).rates(10, rng())
        assert sorted(levels) == [0] * 7 + [0.25] * 3
        assert len({tuple(make(0.25, share=0.3).rates(10, rng(seed))) for seed in range(5)}) > 1


def test_pair_mistakes_each_class_for_the_next():
    noisy = pair().corrupt(LABELS, 0.3, 10, rng())
    assert set(np.unique((noisy - LABELS) % 10)) == {0, 1}
    assert abs(np.mean(noisy != LABELS) - 0.3) < 0.01


def test_graded_levels_are_evenly_spaced_in_random_order():
    levels = graded(0.0, 0.8).rates(5, rng())
    assert np.allclose(np.sort(levels), [0, 0.2, 0.4, 0.6, 0.8])
    assert len({tuple(graded().rates(5, rng(seed))) for seed in range(5)}) > 1
    _, rates = apply(graded(), [LABELS] * 5, 10, gen_of)
    assert np.allclose(rates, graded().rates(5, gen_of(5)), atol=0.02)


def test_thesis_noise_has_the_published_rates():
    labels = np.tile(np.arange(10), 503)[:157 * 32]
    mean = np.mean([apply(thesis(), [labels] * 10, 10, lambda n: np.random.default_rng((seed, n)))[1]
                    for seed in range(10)], 0)
    assert np.allclose(mean, [.90, .90, .45, .45, .45, .18, .18, .18, .006, .006], atol=0.01)


def test_thesis_noise_hits_whole_batches_and_always_the_first():
    labels = LABELS[:100 * 8]
    changed = (thesis(8).corrupt(labels, 5.0, 10, rng()) != labels).reshape(100, 8).any(1)
    assert not changed[np.arange(100) % 5 > 0].any() and changed[::5].all()
    first = thesis(32).corrupt(LABELS, 10000.0, 10, rng()) != LABELS
    assert first[:32].any() and not first[32:].any()


def test_thesis_periods_stretch_over_any_number_of_clients():
    assert list(thesis().rates(20, rng())) == [1] * 4 + [2] * 6 + [5] * 6 + [10000] * 4
    assert list(thesis().rates(5, rng())) == [1, 2, 2, 5, 10000]


@pytest.mark.parametrize("make, message", [
    (lambda: symmetric(1.5), r"rate must be in \[0, 1\], got 1.5"),
    (lambda: pair(share=-1), r"share must be in \[0, 1\], got -1"),
    (lambda: graded(0.5, 0.2), "low must be at most high"),
    (lambda: graded(high=2), r"high must be in \[0, 1\], got 2"),
    (lambda: thesis(0), "batch_size must be >= 1, got 0")])
def test_refusals_say_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()
