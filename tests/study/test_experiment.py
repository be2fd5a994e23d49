"""Studies from recipes: statistics, verdicts, what a recipe means, resuming, and two studies from end to end."""

import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from conftest import environment

from fedmpi.commands.experiment import _recipes
from fedmpi.commands.runs import toml
from fedmpi.core.errors import UserError
from fedmpi.run.launcher import launcher_path
from fedmpi.store import verify
from fedmpi.store.rows import Run
from fedmpi.study import figures, measures, outcome, outcome_text
from fedmpi.study.outcome import seconds_left
from fedmpi.study.outcome_text import number
from fedmpi.study.play import free
from fedmpi.study.recipe import Study, study
from fedmpi.study.recipe_check import check_recipe
from fedmpi.read.report.statistics import Interval, interval
from fedmpi.study.verdict import decide, judge, paired

RECIPE = """\
title = "Two arms"
question = "Which is better?"
lacks = ["a third arm"]
measures = ["accuracy", "up_mb", "weight_noise_spearman"]
against = "size"
[fixed]
dataset = "synthetic:samples=120"
model = "logistic"
clients = 3
rounds = 4
local-epochs = 1
noise = "graded"
strategy = "fedavg"
[arms.size]
contribution = "size"
weighting = "size"
[arms.cosine]
contribution = "cosine"
pruner = "static:sparsity={S}"
[[claim]]
says = "cosine beats size"
measure = "accuracy"
plus = [{ arm = "cosine" }]
minus = [{ arm = "size" }]
above = 0
[[figure]]
kind = "factor"
x = "S"
[[figure]]
kind = "curves"
[[figure]]
kind = "weights"
[size.smoke]
seeds = [0, 1]
grid = { S = ["0", "0.5"] }
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """The folder that the test works in, with mine.toml in it."""
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("mine.toml").write_text(RECIPE)
    return tmp_path / "mine.toml"


def read(text, tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(text)
    found = toml(path, "r.toml")
    check_recipe(found, "r.toml")
    return found


# ---------------------------------------------------------------- statistics and verdicts


def test_differences_are_paired_by_seed():
    found = paired({0: 10.0, 1: 20.0, 2: 30.0}, {1: 19.0, 0: 9.0, 3: 7.0})
    assert found == Interval(2, 1.0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize("low, mean, high, rule, verdict", [
    (0.01, 0.02, 0.03, dict(above=0), "confirmed"),
    (-0.01, 0.02, 0.05, dict(above=0), "not confirmed"),
    (0.0, 0.02, 0.04, dict(above=0), "not confirmed"),               # 0 itself is not excluded
    (-0.03, -0.02, -0.01, dict(above=0), "refuted"),
    (-0.03, -0.02, -0.01, dict(below=0), "confirmed"),
    (0.01, 0.02, 0.03, dict(below=0), "refuted"),
    (0.01, 0.02, 0.03, dict(above=0, reach=0.03), "not confirmed"),  # right direction, too small
    (0.01, 0.03, 0.05, dict(above=0, reach=0.03), "confirmed"),
    (-1.0, -0.92, -0.84, dict(below=0, reach=-0.9), "confirmed"),
    (-0.9, -0.82, -0.74, dict(below=0, reach=-0.9), "not confirmed"),
    (-0.004, 0.001, 0.006, dict(above=-0.005), "confirmed"),         # no loss, within half a point
    (-0.006, 0.001, 0.008, dict(above=-0.005), "not confirmed")])
def test_a_verdict_follows_from_the_interval_and_the_criterion(low, mean, high, rule, verdict):
    assert decide(Interval(3, mean, 0.1, low, high), 3, **rule)[0] == verdict


def test_a_missing_seed_makes_a_claim_incomplete_and_one_seed_confirms_nothing():
    assert decide(Interval(2, 1, 0, 1, 1), 3, above=0) == ("incomplete", "2 of 3 seeds")
    assert decide(interval([1.0]), 1, above=0)[0] == "not confirmed"
    assert decide(interval([0.0, 0.0]), 2, above=0) == ("not confirmed", "every seed has 0")


def planned(**grid):
    return Study("s", "t", {}, [0, 1, 2], ["a", "b"], grid, {}, {})


def learning(values):
    """``values`` of runs all of which have learned something."""
    return lambda arm, cell, seed, name: 1.0 if name == "learned" else values(arm, cell, seed, name)


def test_a_claim_is_judged_for_each_level_of_what_is_free():
    def values(arm, cell, seed, name):
        return seed + (arm == "a") * (0.1 if cell == ("x", "1") else -0.1) + seed * 0.001 * (arm == "a")

    claim = dict(measure="accuracy", plus=[{"arm": "a"}], minus=[{"arm": "b"}], where={"S": 1}, above=0)
    found = judge(claim, planned(d=["x", "y"], S=["1", "2"]), learning(values))
    assert [(each["cell"], each["verdict"]) for each in found] == [
        ({"d": "x", "S": "1"}, "confirmed"), ({"d": "y", "S": "1"}, "refuted")]


def test_a_difference_of_differences_has_four_terms():
    def values(arm, cell, seed, name):
        return {("a", "1"): 5, ("b", "1"): 3, ("a", "2"): 9, ("b", "2"): 4}[arm, cell[0]] + seed * 10

    claim = dict(measure="accuracy", plus=[{"arm": "a", "S": 2}, {"arm": "b", "S": 1}],
                 minus=[{"arm": "b", "S": 2}, {"arm": "a", "S": 1}], above=0)
    found, = judge(claim, planned(S=["1", "2"]), learning(values))
    assert found["interval"] == Interval(3, 3.0, 0.0, 3.0, 3.0) and found["verdict"] == "confirmed"


def test_what_a_size_does_not_have_is_not_run():
    claim = dict(measure="accuracy", plus=[{"arm": "c"}], above=0)
    assert judge(claim, planned(S=["1"]), None)[0]["verdict"] == "not run"
    claim = dict(measure="accuracy", plus=[{"arm": "a", "S": 3}], above=0)
    assert judge(claim, planned(S=["1"]), None)[0]["reason"] == "this size has no S 3"


def test_the_time_left_is_that_of_the_nearest_runs():
    runs = {(arm, ("1",), seed): f"{arm}{seed}" for arm in "ab" for seed in (0, 1, 2)}
    made = planned(S=["1"])._replace(runs=runs, options=dict.fromkeys(runs.values(), {"rounds": 10}))
    found = dict.fromkeys(runs.values(), ("missing", 0, 0.0))
    assert seconds_left(made, found) is None
    found |= {"a0": ("finished", 10, 20.0), "a1": ("finished", 10, 3000.0), "a2": ("running", 5, 15.0)}
    assert seconds_left(made, found) == 5 * 3 + 30 * 3     # medians of 2, 300 and 3 seconds a round
    found |= {"b0": ("finished", 10, 1.0)}
    assert seconds_left(made, found) == pytest.approx(5 * 3 + 20 * 0.1)


# ---------------------------------------------------------------- measures


def run_of(accuracy=(0.1,), val_accuracy=(0.1,), weights=None, noise=None, up=10):
    T = len(accuracy) if weights is None else len(weights)
    N = 2 if noise is None else len(noise)
    clients = dict(client=np.tile(np.arange(N), T), weight=np.ones(N * T) / N if weights is None else np.ravel(weights))
    rounds = dict(accuracy=np.array(accuracy), val_accuracy=np.array(val_accuracy), up_bytes=np.full(T, up * 1e6),
                  down_bytes=np.full(T, 2 * up * 1e6))
    population = {} if noise is None else dict(noise=np.array(noise), quality=1 - np.array(noise))
    return Run(attrs={"options": {"clients": N}}, rounds=rounds, clients=clients, population=population, partition=None,
               sessions={}, columns={}, ends=np.arange(1, T + 1) * N)


def test_best_is_chosen_by_validation_and_never_by_the_test_set():
    run = run_of(accuracy=[0.2, 0.9, 0.5, np.nan], val_accuracy=[0.1, 0.3, 0.4, np.nan])
    assert measures.accuracy_best(run) == 0.5
    assert measures.accuracy(run) == 0.5


def test_a_run_that_never_left_chance_is_told():
    def of(accuracy):
        run = run_of(accuracy=accuracy)
        run.population["labels"] = np.ones((2, 10))
        return measures.learned(run)

    assert of([0.1, np.nan, 0.119, 0.1]) == 0 and of([0.1, 0.13, 0.1]) == 1 and math.isnan(measures.learned(run_of()))

    def values(arm, cell, seed, name):
        return float(arm == "a" or seed > 0) if name == "learned" else float(arm == "a") + seed

    judged, = judge(dict(measure="accuracy", plus=[{"arm": "a"}], minus=[{"arm": "b"}], above=0),
                    planned(S=["1"]), values)
    assert (judged["verdict"], judged["reason"]) == ("confirmed", "in 1 of 3 seeds a run never left chance")

    def same(arm, cell, seed, name):
        return float(seed > 0) if name == "learned" else 0.1

    judged, = judge(dict(measure="accuracy", plus=[{"arm": "a"}], minus=[{"arm": "b"}], above=-0.005),
                    planned(S=["1"]), same)
    assert (judged["verdict"], judged["reason"]) == ("not confirmed", "in 1 of 3 seeds no run left chance")
    runs = [dict(run=name, arm=name[0], measures=each and {"learned": each[0]})
            for name, each in (("a1", [0.0]), ("a1", [0.0]), ("a2", [1.0]), ("b1", [0.0]), ("b2", None),
                               ("b3", [math.nan]))]
    told = outcome_text.stuck(dict(runs=runs, arms=["a", "b"], status=dict.fromkeys(["a1", "a2", "b1", "b2", "b3"])))
    assert told.startswith("2 of 5 runs never left chance (1 of a, 1 of b)")


def test_megabytes_and_rounds_to_an_accuracy_are_a_clients():
    run = run_of(accuracy=[0] * 4, val_accuracy=[0.1, np.nan, 0.6, 0.7])
    assert measures.measure(run, "rounds_to:0.6") == 3
    assert measures.measure(run, "mb_to:0.6") == pytest.approx(3 * 30 / 2)
    assert math.isnan(measures.measure(run, "mb_to:0.8"))
    assert measures.up_mb(run) == 20 and measures.mb(run) == 60


def test_weights_against_noise():
    noise = [0.0, 0.2, 0.5, 0.9]
    run = run_of(weights=np.tile([0.4, 0.3, 0.2, 0.1], (8, 1)), noise=noise)
    assert measures.weight_noise_spearman(run) == pytest.approx(-1)
    assert measures.weight_auc(run) == 1
    assert measures.noisy_weight(run) == pytest.approx(0.1)
    assert math.isnan(measures.weight_noise_spearman(run_of()))
    assert math.isnan(measures.weight_auc(run_of())) and math.isnan(measures.weight_auc(run_of(noise=[0.3, 0.32])))


@pytest.mark.parametrize("drawn", [0.44, 0.48])           # of .45, on either side of the middle between .03 and .9
def test_who_is_noisy_does_not_hang_on_chance(drawn):
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
    found = []
    for seed in range(200):
        noisy = 0.1 + 0.01 * np.random.default_rng(seed).standard_normal(60)
        found.append(measures.noisy_rise(run_of(weights=np.stack([1 - noisy, noisy], axis=1), noise=[0, 0.9])))
    assert abs(np.mean(found)) < 3 * np.std(found) / math.sqrt(200)


def test_weights_that_only_wander_confirm_no_rebound():
    """The thesis's mixing of scores without any trend: 40 studies of three seeds."""
    claims = [claim for claim in toml(_recipes()["E4"], "E4")["claim"]
              if claim["measure"] == "noisy_rise" and "minus" not in claim]
    scores, T, gamma = np.repeat([0.05, 0.4, 0.5, 0.6], [2, 3, 3, 2]), 100, 0.3
    gen, r, weights = np.random.default_rng(0), np.full((120, 10), 0.1), []
    for t in range(1, T + 1):
        weights.append(r)
        share = (1 - gamma) / t
        r = np.maximum((1 - share) * r + share * (scores + 0.15 * gen.standard_normal(r.shape)), 0.001)
        r = r / r.sum(axis=1, keepdims=True)
    noise = [0.9, 0.9, *[0.45] * 3, *[0.2] * 3, 0, 0]
    rises = [measures.noisy_rise(run_of(weights=each, noise=noise)) for each in np.stack(weights, axis=1)]
    found = [decide(interval(each), 3, above=claims[0]["above"])[0] for each in np.reshape(rises, (40, 3))]
    assert np.mean(rises) > 0.002 and found.count("confirmed") <= 1 and {claim["above"] for claim in claims} == {0.01}


# ---------------------------------------------------------------- recipes


@pytest.mark.parametrize("name", _recipes())
def test_our_recipes_are_planned_at_all_sizes(fedmpi, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = toml(_recipes()[name], name)
    check_recipe(found, name)
    assert set(found["size"]) == {"smoke", "small", "paper"}
    for size, each in found["size"].items():
        text = fedmpi(1, "experiment", name, "--size", size, "--dry-run")
        assert f"0 of {text.count(' missing ')} runs done" in text
        assert len(each["seeds"]) >= {"smoke": 2, "small": 3, "paper": 3}[size]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", _recipes())
def test_the_small_and_paper_sizes_have_what_their_claims_are_about(name):
    found = toml(_recipes()[name], name)
    for size in ("small", "paper"):
        this = found["size"][size]
        plan = Study(name, size, found, this["seeds"], this.get("arms") or list(found["arms"]),
                     {factor: list(map(str, levels)) for factor, levels in this["grid"].items()}, {}, {})
        for claim in found["claim"]:
            judged = judge(claim, plan, lambda *place: 0.0)
            assert judged and all(each["verdict"] != "not run" for each in judged), claim["says"]


def test_recipes_are_listed(fedmpi):
    text = fedmpi(1, "experiment")
    assert all(f"{name}  " in text for name in ("E1", "E8")) and "an hour on 2 cores" in text


def test_later_tables_win_and_words_are_filled(recipe, tmp_path):
    text = RECIPE.replace("[[claim]]", '[factors.S."0.5"]\nlr = 0.5\nrest = "{S}5"\nmodel = "2nn:hidden=4"\n'
                          '[factors.S.0]\nrest = "0"\n[[claim]]', 1).replace("sparsity={S}", "sparsity={rest}")
    plan = study(read(text, tmp_path), "r", "smoke", lambda given: {}, lambda options, where: options)
    given = plan.options[plan.runs["cosine", ("0.5",), 1]]
    assert (given["lr"], given["pruner"], given["model"]) == (0.5, "static:sparsity=0.55", "2nn:hidden=4")
    assert "lr" not in plan.options[plan.runs["cosine", ("0",), 1]]


def test_arms_of_equal_options_share_a_run(recipe, tmp_path):
    plan = study(read(RECIPE, tmp_path), "r", "smoke", lambda given: {}, lambda options, where: options)
    assert plan.runs["size", ("0",), 0] == plan.runs["size", ("0.5",), 0] == "size_S-0_seed-0"
    assert len(plan.options) == 6


@pytest.mark.parametrize("old, new, message", [
    ('title = "Two arms"', "", "title is missing"),
    ("above = 0", "above = 0\nbelow = 0", "either above or below"),
    ("above = 0", "above = 0\nreach = -0.1", "wrong side"),
    ('"up_mb"', '"uploads"', "unknown measure uploads"),
    ('"up_mb"', '"mb_to"', "unknown measure mb_to"),
    ('{ arm = "cosine" }', '{ arm = "sine" }', "there is no arm sine"),
    ('{ arm = "cosine" }', '{ arm = "cosine", T = 1 }', "T is no factor"),
    ("rounds = 4", "round = 4", "unknown round"),
    ("rounds = 4", "seed = 4", "unknown seed"),
    ("seeds = [0, 1]", "seeds = []", "seeds must be"),
    ("seeds = [0, 1]", "seeds = [1, 1]", "seeds must differ"),
    ('x = "S"', "", "needs x"),
    ('x = "S"', 'x = "T"', "T is no factor"),
    ('x = "S"', 'x = "S"\nlines = "T"', "T is no factor"),
    ('kind = "curves"', 'kind = "curves"\nmeasure = "up_mb"', "measure: only kind = \"factor\" has that"),
    ('{ arm = "cosine" }', '{ arm = "cosine", S = "0" }', "must name the same factors"),
    ("above = 0", 'above = 0\nwhere = { arm = "cosine" }', "arm is no factor"),
    ('[{ arm = "cosine" }]', '["cosine"]', "must be a table, got 'cosine'"),
    ('against = "size"', 'pairs = [["size"]]', "pairs must be"),
    ('[fixed]', 'arms.third = "dense"\n[fixed]', r"\[arms.third\] must be a table"),
    ("[fixed]", 'factors.S = 1\n[fixed]', "must be a table"),
    ("[[claim]]", '[factors]\nS.0 = "dense"\n[[claim]]', r"\[factors.S.0\] must be a table"),
    ('against = "size"', 'against = "none"', "there is no arm none")])
def test_what_is_no_recipe_is_refused(tmp_path, old, new, message):
    assert old in RECIPE
    with pytest.raises(UserError, match=message):
        read(RECIPE.replace(old, new, 1), tmp_path)


def test_a_recipe_and_a_grid_may_lie_in_their_own_folder(fedmpi, recipe):
    recipe.with_name("grid.toml").write_text('folder = "."\n[fixed]\ndataset = "synthetic"\n[grid]\nseed = [0]\n')
    assert "0 of 6 runs done in ." in fedmpi(1, "experiment", "mine.toml", "--folder", ".", "--dry-run")
    assert "1 run in .: 1 missing" in fedmpi(1, "sweep", "grid.toml", "--dry-run")


def test_a_word_that_nobody_gives_and_an_unknown_part_are_refused(fedmpi, recipe):
    recipe.write_text(RECIPE.replace("{S}", "{T}"))
    assert "has a word that no level gives: T" in fedmpi(1, "experiment", "mine.toml", "--dry-run", code=2)
    recipe.write_text(RECIPE.replace('"fedavg"', '"fedaverage"'))
    assert "fedaverage" in fedmpi(1, "experiment", "mine.toml", "--dry-run", code=2)
    assert "there is no recipe E99" in fedmpi(1, "experiment", "E99", code=2)
    assert "has no size huge" in fedmpi(1, "experiment", "E1", "--size", "huge", code=2)


# ---------------------------------------------------------------- from end to end


def start(*arguments):
    return [sys.executable, "-m", "fedmpi", "experiment", *map(str, arguments)]


@pytest.mark.parametrize("given", [("--time", "02:00:00"), ("--gpus", 1), ("--script", "a.sh"), ("--at-once", 2)])
def test_what_only_a_batch_script_has_is_refused_without_one(fedmpi, recipe, given):
    assert f"error: {given[0]}: of a batch script" in fedmpi(1, "experiment", "mine.toml", *given, code=2)
    recipe.with_name("grid.toml").write_text(
        '[fixed]\ndataset = "synthetic"\n[grid]\nseed = [0]\n[slurm]\ntime = "00:30:00"\n')
    assert f"error: {given[0]}: of a batch script" in fedmpi(1, "sweep", "grid.toml", "--here", *given, code=2)


def test_ranks_without_a_launcher_are_refused_before_anything_is_played(fedmpi, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    told = fedmpi(1, "experiment", "mine.toml", "--ranks", 2, "--folder", "a", code=2)
    assert f"error: there is no mpirun beside {tmp_path / 'python'} nor on PATH: pip install mpich" in told
    assert "--launcher has no effect in one process" in fedmpi(
        1, "experiment", "mine.toml", "--launcher", "srun", code=2)
    assert not (tmp_path / "a").exists()
    (tmp_path / "mpirun").write_text("")
    (tmp_path / "mpirun").chmod(0o755)
    assert launcher_path("mpirun") == str(tmp_path / "mpirun")


def test_a_study_killed_in_the_middle_goes_on_to_the_same_bits_and_ends_in_an_outcome(fedmpi, recipe, tmp_path):
    text = (RECIPE.replace("rounds = 4", "rounds = 300").replace('S = ["0", "0.5"]', 'S = ["0.5"]')
            .replace("[0, 1]", "[0]"))
    recipe.write_text(text)
    with subprocess.Popen(start("mine.toml", "--parallel", 2, "--folder", "a"), env=environment(),
                          start_new_session=True) as process:
        wait_for(process, lambda: all(rounds(tmp_path / f"a/{arm}_S-0.5_seed-0.h5") >= 3 for arm in ("size", "cosine")))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 85
    assert "INCOMPLETE: of 2 runs" in fedmpi(1, "experiment", "mine.toml", "--folder", "a", "--report")
    assert '"verdict": "incomplete"' in (tmp_path / "a/outcome.json").read_text()
    listed = fedmpi(1, "experiment", "mine.toml", "--folder", "a", "--dry-run")
    assert "0 of 2 runs done" in listed and "time left with --parallel 1: about" in listed
    done = subprocess.run(start("mine.toml", "--parallel", 2, "--folder", "a"), env=environment(), capture_output=True,
                          text=True, check=True)
    assert "2/2" in done.stderr
    fedmpi(1, "train", "--config", "a/cosine_S-0.5_seed-0.toml", "--out", "whole.h5")
    assert verify("a/cosine_S-0.5_seed-0.h5", "whole.h5") == []


@pytest.mark.parametrize("how", [(), ("--ranks", 2)])
def test_a_study_killed_by_sigkill_leaves_no_run_behind_and_goes_on(recipe, tmp_path, how):
    recipe.write_text(RECIPE.replace("rounds = 4", "rounds = 300").replace('S = ["0", "0.5"]', 'S = ["0.5"]')
                      .replace("[0, 1]", "[0]"))
    with subprocess.Popen(start("mine.toml", "--parallel", 2, "--folder", "a", *how), env=environment()) as process:
        wait_for(process, lambda: all(rounds(tmp_path / f"a/{arm}_S-0.5_seed-0.h5") >= 3 for arm in ("size", "cosine")))
        process.kill()
    logs = list((tmp_path / "a").glob("*.log"))
    again = subprocess.run(start("mine.toml", "--parallel", 2, "--folder", "a", *how), env=environment(),
                           capture_output=True, text=True, check=True)            # it waits for what is still at work
    assert "2/2" in again.stderr and all(free(str(log)) for log in logs)
    assert [rounds(log.with_suffix(".h5")) for log in logs] == [300, 300]
    assert all("asked to stop by SIGTERM" in log.read_text() for log in logs)


def test_a_run_that_is_being_played_is_waited_for(tmp_path):
    with open(tmp_path / "x.log", "w") as file:
        assert free(tmp_path / "x.log") and free(tmp_path / "missing.log")
        fcntl.flock(file, fcntl.LOCK_EX)
        assert not free(tmp_path / "x.log")


def rounds(path):
    from fedmpi.store import read_run
    try:
        return len(read_run(path).ends)
    except UserError:
        return 0


def wait_for(process, ready, limit_s=120):
    end = time.monotonic() + limit_s
    while not ready():
        assert process.poll() is None and time.monotonic() < end, process.returncode
        time.sleep(0.05)


@pytest.fixture
def played(fedmpi, recipe):
    """``played(NAME, ...)``: a study played in this process, which starts no other; the files a study has."""

    def play(name, *more):
        listed = fedmpi(1, "experiment", name, *more, "--folder", "s", "--script", "s.sbatch", "--array", "--ranks", 1)
        assert "an array job of" in listed
        for file in sorted(os.listdir("s")):
            if file.endswith(".toml"):
                fedmpi(1, "train", "--config", f"s/{file}", "--out", f"s/{file.removesuffix('toml')}h5")
        return fedmpi(1, "experiment", name, *more, "--folder", "s", "--report")

    return play


def test_a_study_ends_in_tables_figures_and_verdicts(played, fedmpi, recipe, tmp_path):
    shown = played("mine.toml")
    found = json.loads((tmp_path / "s/outcome.json").read_text())
    assert found["complete"] and len(found["runs"]) == 8 and len(found["status"]) == 6
    runs = {(run["arm"], run["cell"]["S"], run["seed"]): run["measures"]["accuracy"] for run in found["runs"]}
    expected = np.mean([runs["cosine", "0.5", seed] - runs["size", "0.5", seed] for seed in (0, 1)])
    claim = found["claims"][0]["judged"][1]
    assert claim["cell"] == {"S": "0.5"} and claim["interval"]["mean"] == pytest.approx(expected)
    text = (tmp_path / "s/OUTCOME.md").read_text()
    assert "INCOMPLETE" not in text and "* a third arm" in text and "cosine beats size" in text and "### S 0.5" in text
    assert claim["verdict"].upper() in shown
    for figure in ("1-factor", "2-curves", "3-weights", "claims"):
        for kind in ("svg", "png"):
            assert (tmp_path / f"s/figures/{figure}.{kind}").stat().st_size > 2000
        assert f"figures/{figure}.png" in text
    # finished: nothing is played again; another option under the same name is refused
    assert "6 finished" in fedmpi(1, "experiment", "mine.toml", "--folder", "s")
    recipe.write_text(RECIPE.replace("rounds = 4", "rounds = 5"))
    refused = fedmpi(1, "experiment", "mine.toml", "--folder", "s", code=2)
    assert "is of another run than --rounds 5 (it has 4): give --overwrite" in refused and refused.count("\n") == 1
    # a grown recipe keeps its runs
    recipe.write_text(RECIPE.replace('["0", "0.5"]', '["0.5", "0.9", "0"]'))
    assert "6 of 8 runs done" in fedmpi(1, "experiment", "mine.toml", "--folder", "s", "--dry-run")


@pytest.mark.parametrize("name", _recipes())
def test_smoke(played, name, tmp_path):
    played(name, "--size", "smoke")
    found = json.loads((tmp_path / "s/outcome.json").read_text())
    assert found["complete"]
    assert any(each["verdict"] in ("confirmed", "not confirmed", "refuted")
               for c in found["claims"] for each in c["judged"])


def test_a_failed_run_is_told_and_its_claims_are_incomplete(recipe, tmp_path):
    recipe.write_text(RECIPE.replace("[arms.cosine]", "[arms.cosine]\nlr = 1e9").replace("[0, 1]", "[0]")
                      .replace('["0", "0.5"]', '["0.5"]'))
    done = subprocess.run(start("mine.toml", "--folder", "a"), env=environment(), capture_output=True, text=True)
    assert done.returncode == 1 and "FAILED (exit code 1): error: " in done.stderr
    assert "INCOMPLETE: of 2 runs 1 finished, 1 failed." in done.stdout
    assert "of 1 seeds" in (tmp_path / "a/OUTCOME.md").read_text()


def test_data_that_cannot_be_read_end_a_study_before_it_begins(fedmpi, recipe, tmp_path):
    recipe.write_text(RECIPE.replace("synthetic:samples=120", "cifar10"))
    told = fedmpi(1, "experiment", "mine.toml", "--folder", "a", "--data-dir", "nowhere", code=2)
    assert told.strip().splitlines()[-1].startswith("error: data set cifar10") and not (tmp_path / "a").exists()


def test_copy_writes_a_recipe_that_runs_as_a_file(fedmpi, recipe):
    fedmpi(1, "experiment", "E7", "--copy", "e7.toml")
    assert "0 of 6 runs done in runs/e7-smoke" in fedmpi(1, "experiment", "e7.toml", "--dry-run").replace("\n", " ")
    assert "exists already" in fedmpi(1, "experiment", "E7", "--copy", "e7.toml", code=2)


def test_a_file_may_stand_for_a_data_set(fedmpi, played, recipe, tmp_path):
    with h5py.File("x.h5", "w") as file:
        for part, n in (("train", 60), ("test", 20)):
            file[f"x_{part}"] = np.random.default_rng(n).integers(0, 255, (n, 8, 8, 1), dtype=np.uint8)
            file[f"y_{part}"] = np.arange(n) % 10
    recipe.write_text(RECIPE.replace("synthetic:samples=120", "digits").replace('["0", "0.5"]', '["0.5"]'))
    played("mine.toml", "--data", "digits=x.h5", "--data-dir", "there")
    text = (tmp_path / "s/size_S-0.5_seed-0.toml").read_text()
    assert f'"hdf5:file={tmp_path}/x.h5"' in text and 'data_dir = "there"' in text
    assert "4 of 4 runs done" in fedmpi(
        1, "experiment", "mine.toml", "--data", "digits=x.h5", "--folder", "s", "--dry-run")
    assert "--data digts=...: no run" in fedmpi(
        1, "experiment", "mine.toml", "--data", "digts=x.h5", "--dry-run", code=2)
    assert "say NAME=FILE.h5" in fedmpi(1, "experiment", "E6", "--data", "digits=y.h5", "--dry-run", code=2)


def test_titles_of_panels_say_all_and_do_not_meet():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    grid = {"dataset": ["fashion-mnist", "b"], "S": ["0.8", "1"], "data": ["noise", "c"],
            "weights": ["contribution", "small"]}
    figure = Figure(figsize=figures._panels(3)[2], layout="constrained")
    axes = figure.subplots(1, 3)
    for ax in axes:
        figures._title(ax, {factor: levels[0] for factor, levels in grid.items()}, grid)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    places = [ax.title.get_window_extent() for ax in axes]
    assert places[0].x1 < places[1].x0 and places[1].x1 < places[2].x0
    assert axes[0].get_title().split() == "dataset fashion-mnist, S 0.8, data noise, weights contribution".split()
    figures._title(axes[0], {"weights": "small"}, grid)
    assert axes[0].get_title().split() == ["weights", "small"]
    figures._title(axes[0], {"weights": "small"}, {"weights": ["small"]})
    assert axes[0].get_title() == ""


def test_clients_of_one_level_of_noise_are_one_line_though_rates_are_drawn():
    rates = np.array([0.902, 0.911, 0.449, 0.436, 0.480, 0.178, 0.173, 0.036, 0.027])
    assert [(low, high) for low, high, _ in figures.noise_levels(rates)] == [
        (0.027, 0.036), (0.173, 0.178), (0.436, 0.480), (0.902, 0.911)]
    assert figures.noise_levels(np.zeros(3)) == [(0, 0, 0)]
    assert len(figures.noise_levels(np.linspace(0, 1, 33))) == 11                   # graded


def test_a_mean_over_some_of_the_seeds_says_so():
    plan = Study("s", "t",
                 {"title": "t", "question": "q", "measures": ["accuracy", "mb_to:0.4"], "pairs": [["a", "b"]]},
                 [0, 1, 2], ["a", "b"], {"S": ["1"]}, {}, {})
    values = {"a": [1.0, 2.0, math.nan], "b": [3.0, math.nan, math.nan]}

    def value(arm, cell, seed, name):
        return 0.5 if name == "accuracy" else values[arm][seed]

    found = plan.recipe | dict(name="s", size="t", lacks=[], seeds=[0, 1, 2], grid=plan.grid, against=None, status={},
                               complete=True, claims=[], runs=[], arms=plan.arms, pairs=outcome._pairs(plan, value),
                               cells=[dict(cell={"S": "1"}, arms=outcome._arms(plan, ("1",), value))])
    text = outcome_text.markdown(found, [])
    assert "| a | 3 | .5000 ± .0000 | 1.50 ± .71 (2 of 3 seeds) |" in text
    assert "| b | 3 | .5000 ± .0000 | 3.00 (1 of 3 seeds) |" in text
    assert "| a - b | all | +.0000 [+.0000, +.0000] | -2.00 (1 of 3 seeds) |" in text


def test_a_study_may_ask_for_every_pair_of_arms(tmp_path):
    asked = read(RECIPE.replace("[fixed]", 'pairs = "all"\n[fixed]', 1), tmp_path)
    plan = Study("s", "t", asked, [0, 1], ["a", "b", "c"], {}, {}, {})
    found = outcome._pairs(plan, lambda arm, cell, seed, name: seed + "abc".index(arm))
    assert [(each["arm"], each["against"], each["difference"]["accuracy"]["mean"]) for each in found] == [
        ("b", "a", 1.0), ("c", "a", 2.0), ("c", "b", 1.0)]
    with pytest.raises(UserError, match='pairs must be "all", or a list of pairs, got \'every\''):
        read(RECIPE.replace("[fixed]", 'pairs = "every"\n[fixed]', 1), tmp_path)


def test_numbers_are_written_as_papers_do():
    assert [number(v, "accuracy", True) for v in (0.5, -0.25, 1.0, math.nan)] == ["+.5000", "-.2500", "+1.0000", "-"]
    assert number(10.04, "up_mb") == "10.04"
