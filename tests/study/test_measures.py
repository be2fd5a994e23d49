"""Measures of runs: the best round, chance, bytes, weights of noisy clients."""

import math

import numpy as np
import pytest
from studies import run_of

from fedmpi.commands.experiment import own_recipes
from fedmpi.commands.runs import toml
from fedmpi.read.report.statistics import interval
from fedmpi.study import measures
from fedmpi.study.verdict import decide


def test_best_is_chosen_by_validation_and_never_by_the_test_set():
    run = run_of(accuracy=[0.2, 0.9, 0.5, np.nan], val_accuracy=[0.1, 0.3, 0.4, np.nan])
    assert measures.accuracy_best(run) == 0.5
    assert measures.accuracy(run) == 0.5


def test_a_run_that_never_left_chance_has_learned_nothing():
    def learned(accuracy):
        run = run_of(accuracy=accuracy)
        run.population["labels"] = np.ones((2, 10))
        return measures.learned(run)

    assert learned([0.1, np.nan, 0.119, 0.1]) == 0
    assert learned([0.1, 0.13, 0.1]) == 1
    # Without labels, chance is not known.
    assert math.isnan(measures.learned(run_of()))


def test_megabytes_and_rounds_to_an_accuracy_are_a_clients():
    # 10 MB up and 20 MB down a round, by two clients.
    run = run_of(accuracy=[0] * 4, val_accuracy=[0.1, np.nan, 0.6, 0.7])
    assert measures.measure(run, "rounds_to:0.6") == 3
    assert measures.measure(run, "mb_to:0.6") == pytest.approx(3 * 30 / 2)
    assert math.isnan(measures.measure(run, "mb_to:0.8"))
    assert measures.up_mb(run) == 20 and measures.mb(run) == 60
    run.rounds["up_bytes"][2] *= 3
    assert measures.up_peak_mb(run) == 15 and measures.up_mb(run) == 30


def test_weights_against_noise():
    noise = [0.0, 0.2, 0.5, 0.9]
    run = run_of(weights=np.tile([0.4, 0.3, 0.2, 0.1], (8, 1)), noise=noise)
    assert measures.weight_noise_spearman(run) == pytest.approx(-1)
    assert measures.weight_auc(run) == 1
    assert measures.noisy_weight(run) == pytest.approx(0.1)
    # Without noise, and with clients of one level, nobody is noisier than another.
    assert math.isnan(measures.weight_noise_spearman(run_of()))
    assert math.isnan(measures.weight_auc(run_of()))
    assert math.isnan(measures.weight_auc(run_of(noise=[0.3, 0.32])))


# Rates of level .45 are drawn, on either side of the middle between .03 and .9.
@pytest.mark.parametrize("drawn", [0.44, 0.48])
def test_the_noisy_clients_do_not_hang_on_chance(drawn):
    run = run_of(weights=np.tile([0.3, 0.2, 0.35, 0.15], (8, 1)), noise=[0.03, 0.02, drawn, 0.9])
    assert measures.weight_auc(run) == 0.5


def test_the_noisiest_are_those_of_the_highest_level():
    run = run_of(weights=np.tile([0.4, 0.3, 0.2, 0.1], (8, 1)), noise=[0.0, 0.45, 0.87, 0.91])
    assert measures.noisy_weight(run) == pytest.approx(0.15)


def test_a_rebound_is_found_where_there_is_one():
    t = np.arange(100)
    down_and_up = 0.02 + np.abs(t - 30) / 1000
    run = run_of(weights=np.stack([1 - down_and_up, down_and_up], axis=1), noise=[0, 0.9])
    assert measures.noisy_low_at(run) == pytest.approx(0.31, abs=0.03)
    assert measures.noisy_rise(run) == pytest.approx(0.064, abs=0.004)
    falling = 0.3 - t / 1000
    run = run_of(weights=np.stack([1 - falling, falling], axis=1), noise=[0, 0.9])
    assert measures.noisy_rise(run) == pytest.approx(0, abs=1e-9)


def test_chance_alone_makes_no_rebound():
    rises = []
    for seed in range(200):
        noisy = 0.1 + 0.01 * np.random.default_rng(seed).standard_normal(60)
        weights = np.stack([1 - noisy, noisy], axis=1)
        rises.append(measures.noisy_rise(run_of(weights=weights, noise=[0, 0.9])))
    assert abs(np.mean(rises)) < 3 * np.std(rises) / math.sqrt(200)


def test_weights_that_only_wander_confirm_no_rebound():
    """The thesis's mixing of scores without any trend: 40 studies of three seeds."""
    above, = {claim["above"] for claim in toml(own_recipes()["E4"], "E4")["claim"]
              if claim["measure"] == "noisy_rise" and "minus" not in claim}
    assert above == 0.01
    levels, num_clients = [0.9, 0.45, 0.2, 0.0], [2, 3, 3, 2]
    noise = np.repeat(levels, num_clients)
    scores = np.repeat([0.05, 0.4, 0.5, 0.6], num_clients)
    gen, gamma = np.random.default_rng(0), 0.3
    r, rounds = np.full((120, 10), 0.1), []
    for t in range(1, 101):
        rounds.append(r)
        share = (1 - gamma) / t
        drawn = scores + 0.15 * gen.standard_normal(r.shape)
        r = np.maximum((1 - share) * r + share * drawn, 0.001)
        r = r / r.sum(axis=1, keepdims=True)
    rises = []
    for weights in np.stack(rounds, axis=1):
        rises.append(measures.noisy_rise(run_of(weights=weights, noise=noise)))
    assert np.mean(rises) > 0.002
    verdicts = []
    for of_seeds in np.reshape(rises, (40, 3)):
        verdict, _ = decide(interval(of_seeds), 3, above=above)
        verdicts.append(verdict)
    assert verdicts.count("confirmed") <= 1
