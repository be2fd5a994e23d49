"""Label noise: rates that are what was asked for, on copies, and the same for the same generator."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmpi.catalog import NOISES
from fedmpi.plugins.spec import make
from fedmpi.methods.noise.asymmetric import asymmetric
from fedmpi.methods.noise.class_dependent import class_dependent, confusion
from fedmpi.methods.noise.fedcorr import fedcorr
from fedmpi.methods.noise.graded import graded
from fedmpi.methods.noise.corrupt import apply
from fedmpi.methods.noise.none import none
from fedmpi.methods.noise.pair import pair
from fedmpi.methods.noise.permuted import permuted
from fedmpi.methods.noise.symmetric import symmetric
from fedmpi.methods.noise.thesis import thesis
from specs import options_of, specs

LABELS = np.tile(np.arange(10), 2000)


def rng(seed=0):
    return np.random.default_rng(seed)


def gen_of(n):
    return np.random.default_rng((7, n))


def wrong(noise, level, labels=LABELS, seed=0):
    return np.mean(noise.corrupt(labels, level, 10, rng(seed)) != labels)


rates = st.floats(0, 1)
OPTIONS = {"rate": rates, "share": rates, "rho": rates, "tau": rates, "spread": rates, "low": st.floats(0, 0.5),
           "high": st.floats(0.5, 1), "include_true": st.booleans(), "batch_size": st.integers(1, 40),
           "focus": st.one_of(st.floats(0.01, 100), st.sampled_from([1e-300, 1e300]))}
# the chance that a label changes, an array or a number, by level; on labels of all classes alike
CHANGED = {
    "none": lambda labels, level, classes, options: 0.0,
    "symmetric": lambda labels, level, classes, options: level * (1 - options["include_true"] / classes),
    "pair": lambda labels, level, classes, options: level,
    "graded": lambda labels, level, classes, options: level,
    "thesis": lambda labels, level, classes, options:
        (np.arange(len(labels)) // options["batch_size"] % level == 0) * (1 - 1 / classes),
    "asymmetric": lambda labels, level, classes, options: level * np.isin(labels, [2, 3, 4, 5, 9]),
    "class-dependent": lambda labels, level, classes, options: level,
    "fedcorr": lambda labels, level, classes, options: level * (1 - 1 / classes),
}


def classes_for(name):
    return st.just(10) if name == "asymmetric" else st.integers(2, 12)


def locked(labels):
    labels.flags.writeable = False
    return labels


@pytest.mark.parametrize("name", NOISES)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), sizes=st.lists(st.integers(0, 50), min_size=1, max_size=12), seed=st.integers(0, 2**32))
def test_noise_is_a_valid_copy_and_depends_on_the_generator_only(name, data, sizes, seed):
    noise, classes = make(NOISES, data.draw(specs(NOISES, name, OPTIONS))), data.draw(classes_for(name))
    parts = [locked(rng((seed, n)).integers(0, classes, size)) for n, size in enumerate(sizes)]
    noisy, changed = apply(noise, parts, classes, lambda n: rng((7, seed, n)))
    again, changed_again = apply(noise, parts, classes, lambda n: rng((7, seed, n)))
    assert changed.shape == (len(sizes),) and changed.dtype == np.float64 and np.array_equal(changed, changed_again)
    for n, (old, new, same) in enumerate(zip(parts, noisy, again)):
        assert new.dtype == np.int64 and new.shape == old.shape and np.all((new >= 0) & (new < classes))
        assert np.array_equal(new, same) and not np.shares_memory(new, old)
        assert changed[n] == (np.mean(new != old) if len(old) else 0)


@pytest.mark.parametrize("name", CHANGED)
@settings(max_examples=25, deadline=None)
@given(data=st.data(), clients=st.integers(1, 4), seed=st.integers(0, 2**32))
def test_the_changed_fraction_is_within_binomial_bounds_of_what_was_asked(name, data, clients, seed):
    spec, classes = data.draw(specs(NOISES, name, OPTIONS)), data.draw(classes_for(name))
    noise, options = make(NOISES, spec), options_of(NOISES, spec)
    labels = np.tile(np.arange(classes), 2000 // classes)
    _, changed = apply(noise, [labels] * clients, classes, lambda n: rng((7, seed, n)))
    levels = noise.rates(clients, rng((7, seed, clients)))
    for level, fraction in zip(levels, changed):
        chance = np.broadcast_to(CHANGED[name](labels, level, classes, options), labels.shape)
        deviation = math.sqrt(np.sum(chance * (1 - chance)))
        assert abs(fraction * len(labels) - chance.sum()) <= 6 * deviation + 6 * (deviation > 0) + 1e-6


@pytest.mark.parametrize("name", ["symmetric", "pair", "asymmetric", "class-dependent", "permuted"])
@settings(max_examples=25, deadline=None)
@given(rate=st.floats(0.01, 1), share=rates, clients=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_share_of_noisy_clients_is_exact(name, rate, share, clients, seed):
    levels = make(NOISES, f"{name}:rate={rate},share={share}").rates(clients, rng(seed))
    assert sorted(set(levels)) in ([0], [rate], [0, rate]) and np.count_nonzero(levels) == round(share * clients)


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


def test_noisy_clients_are_drawn():
    for name in ("symmetric", "pair", "permuted"):
        noise = make(NOISES, f"{name}:rate=0.25,share=0.3")
        assert len({tuple(noise.rates(10, rng(seed))) for seed in range(5)}) > 1


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


def test_asymmetric_confuses_the_pairs_of_cifar10():
    labels = np.arange(10)
    assert list(asymmetric().corrupt(labels, 1.0, 10, rng())) == [0, 1, 0, 5, 7, 3, 6, 7, 8, 1]
    assert np.array_equal(asymmetric().corrupt(labels, 0.0, 10, rng()), labels)


def test_a_confusion_matrix_has_its_mean_rate_and_rows_that_sum_to_one():
    for level, spread in ((0.3, 1.0), (0.5, 0.4), (0.9, 1.0), (0.0, 1.0), (1.0, 1.0), (0.4, 0.0)):
        table = confusion(level, spread, *class_dependent().shared(10, rng()))
        assert np.allclose(table.sum(1), 1) and table.min() >= 0 and np.mean(1 - np.diag(table)) == pytest.approx(level)
        assert np.max(abs(1 - np.diag(table) - level)) == pytest.approx(spread * min(level, 1 - level))


def test_class_dependent_noise_follows_its_matrix_which_all_clients_share():
    noise = class_dependent(0.4)
    common = noise.shared(10, gen_of(3 + 1))
    noisy, _ = apply(noise, [LABELS] * 3, 10, gen_of)
    for new in noisy:
        seen = np.zeros((10, 10))
        np.add.at(seen, (LABELS, new), 1 / 2000)
        assert np.max(abs(seen - confusion(0.4, 1.0, *common))) < 0.06
    assert not np.array_equal(noisy[0], noisy[1])
    assert not np.array_equal(noise.shared(10, rng(1))[1], noise.shared(10, rng(2))[1])


def test_a_smaller_focus_sends_a_class_to_fewer_others():
    largest = [class_dependent(focus=focus).shared(10, rng())[1].max(1).mean() for focus in (0.01, 1, 100)]
    assert largest == sorted(largest, reverse=True) and largest[0] > 0.9 and largest[2] < 0.2


def test_fedcorr_draws_who_is_noisy_and_how_much():
    levels = fedcorr(0.6, 0.5).rates(10000, rng())
    noisy = levels[levels > 0]
    assert abs(len(noisy) / 10000 - 0.6) < 0.03
    assert noisy.min() >= 0.5 and noisy.max() <= 1 and abs(noisy.mean() - 0.75) < 0.01
    assert not fedcorr(0.0).rates(10, rng()).any() and np.all(fedcorr(1.0, 1.0).rates(10, rng()) == 1)


@pytest.mark.parametrize("rate, moved", [(0.0, 0), (0.01, 2), (0.2, 2), (0.5, 5), (1.0, 10)])
def test_permuted_labels_are_a_permutation_of_so_many_classes_a_client_its_own(rate, moved):
    labels, noise = np.arange(10), permuted(rate, 1.0)
    maps = [noise.corrupt(labels, rate, 10, rng(seed)) for seed in range(4)]
    for to in maps:
        assert np.array_equal(np.sort(to), labels) and np.count_nonzero(to != labels) == moved
    assert moved == 0 or len({tuple(to) for to in maps}) > 1


@pytest.mark.parametrize("classes", [2, 9, 11, 100])
def test_asymmetric_noise_refuses_other_numbers_of_classes(classes):
    with pytest.raises(ValueError, match=f"^asymmetric .*got {classes} classes, expected 10$"):
        apply(asymmetric(), [np.zeros(5, np.int64)], classes, gen_of)


@pytest.mark.parametrize("make, message", [
    (lambda: asymmetric(-0.1), r"rate must be in \[0, 1\], got -0.1"),
    (lambda: class_dependent(spread=2.0), r"spread must be in \[0, 1\], got 2.0"),
    (lambda: class_dependent(focus=0.0), "focus must be > 0 and finite, got 0.0"),
    (lambda: class_dependent(focus=math.inf), "focus must be > 0 and finite, got inf"),
    (lambda: fedcorr(rho=1.1), r"rho must be in \[0, 1\], got 1.1"),
    (lambda: fedcorr(tau=math.nan), r"tau must be in \[0, 1\], got nan"),
    (lambda: permuted(share=7), r"share must be in \[0, 1\], got 7"),
    (lambda: symmetric(1.5), r"rate must be in \[0, 1\], got 1.5"),
    (lambda: pair(share=-1), r"share must be in \[0, 1\], got -1"),
    (lambda: graded(0.5, 0.2), "low must be at most high"),
    (lambda: graded(high=2), r"high must be in \[0, 1\], got 2"),
    (lambda: thesis(0), "batch_size must be >= 1, got 0")])
def test_refusals_say_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()
