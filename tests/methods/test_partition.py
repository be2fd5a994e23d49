"""Every partition deals out every sample once; each kind is skewed the way its name says."""

import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedmpi.catalog import PARTITIONS
from fedmpi.plugins.spec import make
from fedmpi.methods.partition.classes import classes
from fedmpi.methods.partition.deal import proportions, split, topped_up
from fedmpi.methods.partition.dirichlet import dirichlet
from fedmpi.methods.partition.iid import iid
from fedmpi.methods.partition.lognormal import lognormal
from fedmpi.methods.partition.quantity import quantity
from fedmpi.methods.partition.shards import shards
from specs import options_of, specs

LABELS = np.repeat(np.arange(10), 100)


def rng(seed=0):
    return np.random.default_rng(seed)


def check_partition(parts, total, clients, least):
    assert len(parts) == clients
    assert all(part.dtype == np.int64 and part.ndim == 1 for part in parts)
    assert min(map(len, parts)) >= least
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(total))


def sizes(parts):
    return np.array([len(part) for part in parts])


def num_classes(parts, labels=LABELS):
    return np.array([len(np.unique(labels[part])) for part in parts])


def skew(parts, labels=LABELS):
    """The mean largest share of one class."""
    return np.mean([np.bincount(labels[part]).max() / len(part) for part in parts])


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b))


OPTIONS = {"beta": st.one_of(st.floats(1e-4, 1e4), st.sampled_from([1e-320, 1e-30, 1e30, 1e308])),
           "sigma": st.one_of(st.floats(0, 50), st.sampled_from([1e30, 1.7e308])), "min_size": st.integers(1, 15),
           "per_client": st.integers(1, 5), "by": st.sampled_from(["class", "client"]), "cap": st.booleans()}
class_sizes = st.lists(st.one_of(st.just(1), st.integers(0, 60)), max_size=8)


@pytest.mark.parametrize("name", [name for name in PARTITIONS if name != "natural"])
@settings(max_examples=80, deadline=None)
@given(data=st.data(), counts=class_sizes, clients=st.integers(1, 25), seed=st.integers(0, 2**32))
def test_every_partition_deals_every_sample_once_or_says_why_not(name, data, counts, clients, seed):
    spec = data.draw(specs(PARTITIONS, name, OPTIONS))
    idle = "cap=" if "by=client" in spec else "sigma="
    assume(name != "dirichlet" or idle not in spec)                                  # else refused when it is made
    options = options_of(PARTITIONS, spec)
    partition, least = make(PARTITIONS, spec), options["min_size"]
    labels = rng(seed).permutation(np.repeat(3 * np.arange(len(counts)), counts))    # with gaps, and empty classes
    labels.flags.writeable = False
    per_client = options.get("per_client", 1)
    impossible = len(labels) < clients * max(least, per_client) or per_client > len(np.unique(labels))
    try:
        parts = partition(labels, clients, rng(seed))
    except ValueError as error:
        assert impossible, f"{spec} refuses what can be done: {error}"
        assert re.fullmatch(r"\d+ samples cannot give \d+ clients at least \d+ each.*|.* must be .*, got \d+",
                            str(error))
        return
    assert len(labels) >= clients * least
    check_partition(parts, len(labels), clients, least)
    assert same(parts, partition(labels, clients, rng(seed)))


@pytest.mark.parametrize("make", [iid, dirichlet, shards, classes, quantity, lognormal])
def test_another_seed_gives_another_partition_in_random_order(make):
    parts = make()(LABELS, 10, rng(1))
    assert not same(parts, make()(LABELS, 10, rng(2)))
    assert not any(np.all(np.diff(part) > 0) for part in parts)


@pytest.mark.parametrize("clients", [1, 3, 7, 1000])
def test_iid_sizes_differ_by_at_most_one(clients):
    assert np.ptp(sizes(iid()(LABELS, clients, rng()))) <= 1


def test_iid_has_the_class_mix_of_the_whole():
    assert skew(iid()(LABELS, 4, rng())) < 0.15


@pytest.mark.parametrize("by", ["class", "client"])
def test_dirichlet_is_more_skewed_for_a_smaller_beta(by):
    skews = [skew(dirichlet(beta, 1, by)(LABELS, 10, rng())) for beta in (0.05, 0.5, 5, 500)]
    assert skews == sorted(skews, reverse=True)
    assert skews[0] > 0.5 and skews[-1] < 0.2


def test_dirichlet_by_client_has_equal_sizes():
    for beta in (0.01, 0.5, 100):
        assert np.ptp(sizes(dirichlet(beta, by="client")(LABELS, 7, rng()))) <= 1


def test_dirichlet_by_client_draws_the_first_client_from_its_own_mix():
    firsts = [np.bincount(LABELS[max(dirichlet(0.01, by="client")(LABELS, 20, rng(s)), key=lambda p: skew([p]))]).max()
              for s in range(5)]
    assert firsts == [50] * 5    # all 50 samples of the purest client are of one class


def test_dirichlet_by_class_closes_a_client_that_has_its_fair_share():
    for seed in range(20):
        counts = np.stack([np.bincount(LABELS[part], minlength=10)
                           for part in dirichlet(0.1, 1)(LABELS, 5, rng(seed))])
        filled = np.cumsum(counts, 1)[:, :-1] >= 200
        late = counts[:, 1:][filled]    # what arrives after the fair share of 1000 / 5
        assert late.sum() <= 4          # only the repair of an empty client may move anything


def test_dirichlet_of_nearly_zero_beta_ends():
    for by in ("class", "client"):
        check_partition(dirichlet(1e-300, 10, by)(LABELS, 100, rng()), 1000, 100, 10)


def test_shards_give_equal_sizes_and_few_classes():
    parts = shards(2)(LABELS, 50, rng())
    assert np.all(sizes(parts) == 20) and num_classes(parts).max() <= 2
    assert num_classes(shards(2)(LABELS, 7, rng())).max() <= 4


@pytest.mark.parametrize("clients, per_client", [(10, 2), (5, 2), (4, 3), (100, 1), (20, 10), (6, 2)])
def test_classes_gives_each_client_its_number_and_each_class_an_owner(clients, per_client):
    for seed in range(20):
        parts = classes(per_client)(LABELS, clients, rng(seed))
        check_partition(parts, 1000, clients, 1)
        assert np.all(num_classes(parts) == per_client)


def test_classes_splits_a_class_equally_among_its_owners():
    table = np.stack([np.bincount(LABELS[part], minlength=10) for part in classes(3)(LABELS, 15, rng())])
    for column in table.T:
        assert np.ptp(column[column > 0]) <= 1


def test_classes_leaves_no_class_without_owner_where_there_are_too_few_places():
    parts = classes(2)(LABELS, 3, rng())
    check_partition(parts, 1000, 3, 1)
    assert num_classes(parts).sum() == 10


def test_quantity_sizes_vary_more_for_a_smaller_beta():
    spread = [np.std(sizes(quantity(beta, 1)(LABELS, 10, rng()))) for beta in (0.05, 1, 1000)]
    assert spread == sorted(spread, reverse=True)


def test_lognormal_of_sigma_zero_is_equal_and_of_large_sigma_is_not():
    assert np.ptp(sizes(lognormal(0.0)(LABELS, 10, rng()))) <= 1
    assert sizes(lognormal(3.0, 1)(LABELS, 10, rng())).max() > 300


def test_topping_up_takes_from_the_largest_and_moves_no_more_than_needed():
    owner = np.array([0] * 50 + [1] * 30 + [2] * 2 + [3] * 18)
    repaired = topped_up(owner, 5, 10, rng())
    assert np.array_equal(np.bincount(repaired), [32, 30, 10, 18, 10])
    assert np.count_nonzero(repaired != owner) == 18
    assert np.array_equal(np.bincount(topped_up(owner, 5, 20, rng())), [20] * 5)


@given(st.integers(0, 10**6), st.lists(st.floats(0, 1), min_size=1, max_size=30).filter(lambda v: sum(v) > 0))
def test_split_sums_to_the_total(total, shares):
    parts = split(total, np.array(shares) / sum(shares))
    assert parts.sum() == total and parts.min() >= 0


@pytest.mark.parametrize("beta", [1e-320, 1e-3, 1.0, 1e300])
def test_proportions_are_proportions_at_any_beta(beta):
    shares = proportions(beta, 20, rng())
    assert abs(shares.sum() - 1) < 1e-9 and shares.min() >= 0
    assert beta < 1e9 or np.ptp(shares) < 1e-4


@pytest.mark.parametrize("make, message", [
    (lambda: dirichlet(0), "beta must be > 0 and finite, got 0"),
    (lambda: dirichlet(float("nan")), "beta must be > 0"),
    (lambda: dirichlet(by="label"), "by must be class or client, got 'label'"),
    (lambda: dirichlet(min_size=0), "min_size must be > 0"),
    (lambda: quantity(-1), "beta must be > 0"),
    (lambda: lognormal(-1), "sigma must be >= 0"),
    (lambda: shards(0), "per_client must be > 0"),
    (lambda: classes(0), "per_client must be > 0"),
    (lambda: classes(11)(LABELS, 3, rng()), "per_client must be at most the number of classes, 10, got 11"),
    (lambda: dirichlet()(LABELS[:100], 32, rng()), "100 samples cannot give 32 clients at least 10 each"),
    (lambda: iid()(LABELS, 0, rng()), "clients must be >= 1, got 0")])
def test_refusals_say_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_label_and_quantity_skew_together():
    parts = dirichlet(beta=0.3, by="client", sigma=1.0, min_size=5)(LABELS, 10, rng())
    check_partition(parts, 1000, 10, 5)
    assert sizes(parts).max() > 4 * sizes(parts).min() and skew(parts) > 0.4
    assert np.ptp(sizes(dirichlet(by="client", min_size=5)(LABELS, 10, rng()))) <= 1
    with pytest.raises(ValueError, match="sigma has no effect with by=class: it is for by=client"):
        dirichlet(sigma=1.0)
