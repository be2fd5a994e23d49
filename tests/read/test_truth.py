"""Scores against the injected truth: known numbers."""

import numpy as np
import pytest
from example_runs import N, SCORES, T, example, judged_run

from fedmpi.read import report


def test_weights_are_means_over_the_rounds_a_client_took_part_in():
    run = example()
    noise = run.population["noise"]
    np.testing.assert_allclose(report.by_client(run, "contribution"), 1 - noise + 0.05)
    np.testing.assert_allclose(report.by_client(run, "contribution", 0.25), 1 - noise)
    np.testing.assert_allclose(report.by_client(run, "contribution", 1 / T)[-5:], 1 - noise[-5:])
    assert np.isnan(report.by_client(run, "contribution", 1 / T)[:-5]).all()


def test_estimators_are_judged_by_the_mean_score_of_each_client():
    found = report.judged(judged_run())
    assert list(found) == ["loo", "shapley", "size"]
    for numbers in found.values():
        assert numbers["calls"] == 11 and numbers["seconds"] == 0.5
    assert found["loo"]["spearman"] == pytest.approx(4.5 / np.sqrt(4.5 * 5)) and found["loo"]["auc"] == 1.0
    assert found["loo"]["weight_spearman"] == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    assert np.isnan(found["size"]["spearman"]) and found["size"]["auc"] == 0.5
    assert not any("weight_spearman" in found[label] for label in ("shapley", "size"))


def test_distances_to_the_exact_shapley_value():
    found = report.judged(judged_run())
    names = ("cosine_distance", "euclidean_distance", "max_distance", "shapley_spearman")
    np.testing.assert_allclose([found["loo"][n] for n in names], [1 / 30, np.sqrt(0.02), 0.1, 0.8], atol=1e-12)
    np.testing.assert_allclose([found["size"][n] for n in names], [1 - 5 / np.sqrt(30), np.sqrt(0.05), 0.15, np.nan])
    assert not set(names) & set(found["shapley"])


def test_estimators_are_compared_with_the_exact_shapley_value_of_their_own_kind_of_utility():
    scores = {"tmc": SCORES["loo"], "exact": SCORES["shapley"], "cosine": SCORES["loo"]}

    def distances(first, exact):
        found = report.judged(judged_run(scores, told={"tmc": first, "exact": exact}))
        return [found[label].get("max_distance") for label in ("tmc", "cosine")]

    near = pytest.approx(0.1)
    assert distances("tmc-shapley", "shapley") == distances("tmc-shapley:of=accuracy",
                                                            "shapley:of=accuracy") == [near] * 2
    assert distances("tmc-shapley", "shapley:of=accuracy") == distances("or-shapley", "shapley") == [None, near]
    assert distances("accuracy-gain", "shapley:of=accuracy") == distances("loss-gain", "shapley") == [near] * 2
    assert distances("tmc-shapley", "my.module:shapley") == [None, None]


def test_scores_that_accumulate_are_judged_by_the_last():
    found = report.judged(judged_run({"loo": [4., 3, 2, 1], "or-shapley": [0, 0, 0, 0.]},
                                     cumulative=("loo", "or-shapley")))
    assert found["loo"]["spearman"] == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    run = judged_run({"loo": [4., 3, 2, 1]}, cumulative=("loo",))
    run.clients["contribution"][:4] = 0                                  # nothing said in round 1, nobody judged by it
    assert np.isnan(report.scores(run)["loo"][3]) and report.scores(run)["loo"][:3].tolist() == [3.5, 2.5, 1.5]


def test_who_is_faulty_is_bad_and_the_others_are_judged_among_themselves():
    run = judged_run({"loo": [4., 3, 2, 1]}, quality=[1.0, 1.0, 0.6, 0.0], fault_0=[False, False, False, True])
    assert report.quality_found(run)["bad"] == 2 and report.judged(run)["loo"]["auc"] == 1.0


def test_copies_are_held_against_those_who_are_alone():
    run = judged_run({"loo": [4., 3, 2, 1]}, duplicate_of=[-1, 0, -1, -1])
    assert report.judged(run)["loo"]["copies"] == pytest.approx(3.5 / 1.5)


def test_equal_scores_are_ties_however_often_a_client_was_scored():
    run = judged_run({"uniform": [0.1] * 4})
    client = np.repeat(np.arange(4), [1, 3, 6, 10])                      # 0.1 + 0.1 + 0.1 is not 3 * 0.1
    run = run._replace(clients=dict(client=client, contribution=np.full(20, 0.1)), ends=np.array([10, 20]))
    assert len(set(report.by_client(run, "contribution"))) > 1
    assert np.isnan(report.judged(run)["uniform"]["spearman"]) and report.judged(run)["uniform"]["auc"] == 0.5
    assert "uniform (weighs)  constant  0.500" in report.summary(run)


def test_clients_without_a_score_are_not_judged():
    run = judged_run({"loo": [1, 2, 3, np.nan]})
    found = report.judged(run)["loo"]
    assert found["spearman"] == pytest.approx(-np.sqrt(0.75)) and np.isnan(found["auc"])
    assert report.quality_found(run)["clients"] == 3 and report.quality_found(run)["bad"] == 0
    assert np.isnan(report.judged(judged_run({"loo": [np.nan] * 4}))["loo"]["spearman"])


def test_where_quality_does_not_vary_there_is_nothing_to_find():
    run = judged_run(quality=[0.5] * 4)
    found = report.judged(run)["loo"]
    assert np.isnan([found["spearman"], found["auc"], found["weight_spearman"]]).all() and found["calls"] == 11
    assert report.quality_found(run) is None and "quality_auc" not in report.final_metrics(run)
    assert "all 4 clients are equally good (no faults): nothing to find" in report.summary(run)


def test_old_run_files_are_judged_by_their_noise():
    found = report.quality_found(example())
    assert found["auc"] == 1.0 and found["bad"] == 6 and found["clients"] == N
    assert found["spearman"] == pytest.approx(1.0) and found["weight_spearman"] == pytest.approx(1.0)
    assert report.quality_found(example(noise=np.full(N, 0.3))) is None
    assert report.quality_found(example(noise=np.linspace(0.1, 0.5, N)))["bad"] == 10
    assert report.quality_found(example(rounds=0)) is None
    assert list(report.judged(example())) == ["contribution"] and report.quality(example(without=["noise"])) is None
    assert report.judged(example(without=["noise"])) == {"contribution": {}}
