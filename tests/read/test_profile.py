"""Where the time of the rounds went."""

import json

import pytest
from example_runs import example, profiled

from fedmpi.read import report
from fedmpi.store import read_run


def test_a_profile_adds_up_and_counts_nothing_twice():
    found = report.profile(profiled())
    own = {name: each["seconds"] for name, each in found["phases"].items() if each["kind"] == "phase"}
    assert own == {"encode": 1, "train": 6, "contribution": 1, "merge": 1, "row": 1} and found["wall_s"] == 10
    assert found["phases"]["train"] == dict(
        kind="phase", seconds=6, share=0.6, median_s=2, largest_s=3, largest_round=1)
    evaluate = found["phases"]["evaluate"]
    assert evaluate == dict(
        kind="beside train", seconds=0.75, share=0.075, median_s=0.375, largest_s=0.5, largest_round=1)
    assert (found["workers"], found["client_s"], found["busy"]) == (2, 9, 0.75) and found["ranks"] == {1: 6, 2: 3}
    assert found["slowest"] == [dict(client=4, median_s=2, samples=None), dict(client=7, median_s=1, samples=None)]
    assert found["not_recorded"] == []


def test_all_ranks_of_a_client_are_busy_with_it():
    run = profiled()
    options = {**run.attrs.get("options", {}), "ranks_per_client": 2}
    divided = run._replace(attrs={**run.attrs, "options": options})
    assert report.profile(divided)["busy"] == 2 * report.profile(run)["busy"]


def test_a_profile_in_words():
    text = report.profile_text(profiled())
    assert "3 rounds, 10 s, 3.33 s a round" in text and "busy with them for 75 % of train" in text
    train, evaluate = (next(line for line in text.splitlines() if name in line) for name in ("train ", "evaluate *"))
    assert train.split() == ["train", "6.000", "60.0", "%", "2,000.0", "3,000.0", "1", 14 * "█"]
    assert evaluate.split()[2:5] == ["0.750", "7.5", "%"] and "▒▒" in evaluate
    assert report.profile_text(profiled(rounds=0)) == "no round has been played yet"
    assert "so far" in report.profile_text(profiled(status="running")) and "in one process" in report.profile_text(
        profiled(ranks=1))


def test_a_profile_of_an_old_run_says_what_it_lacks():
    run = profiled(without=("encode_s", "wait_s", "decode_s", "store_s", "row_s", "clients/rank"))
    found = report.profile(run)
    assert found["phases"]["evaluate"]["kind"] == "phase"           # then, nothing went on beside training
    assert found["phases"]["rest"]["seconds"] == pytest.approx(10 - 6 - 0.75 - 1 - 1)
    assert found["ranks"] == {}
    assert "encode_s, wait_s, decode_s, store_s, row_s, clients/rank" in report.profile_text(run)
    for column in ("round_s", "train_s", "evaluate_s", "clients/train_s", "clients/client"):
        report.profile_text(profiled(without=(column,)))
    assert "not recorded" in report.profile_text(example())


@pytest.mark.parametrize("ranks, options", [
    (1, ()), (3, ()), (1, ("--devices", "constant", "--timing", "fedbuff:buffer=2", "--cohort", 3))])
def test_the_profile_of_a_real_run_adds_up(fedmpi, tmp_path, ranks, options):
    fedmpi(ranks, "train", "--clients", 5, "--rounds", 3, "--local-epochs", 1, "--strategy", "fedavg", "--out",
           tmp_path / "run.h5", *options)
    found, run = report.profile(read_run(tmp_path / "run.h5")), read_run(tmp_path / "run.h5")
    phases = found["phases"]
    assert sum(each["seconds"] for each in phases.values() if each["kind"] == "phase") == pytest.approx(found["wall_s"])
    assert "rest" not in phases and found["not_recorded"] == [] and found["workers"] == max(ranks - 1, 1)
    inside = sum(phases[name]["seconds"] for name in ("wait", "decode", "evaluate", "store"))
    late = run.rounds["evaluate_s"][-1]                             # after the last round
    if not options:                                                 # where nobody trains, there is nothing to be beside
        assert inside - late == pytest.approx(phases["train"]["seconds"], rel=0.2)
    assert phases["wait"]["seconds"] + phases["decode"]["seconds"] <= phases["train"]["seconds"]
    assert 0 < found["busy"] <= 1.01 and sum(found["ranks"].values()) == pytest.approx(found["client_s"])
    assert "train" in fedmpi(1, "show", tmp_path / "run.h5", "--profile")
    told = json.loads(fedmpi(1, "show", tmp_path / "run.h5", "--json"))["profile"]
    assert told["phases"]["train"]["seconds"] == phases["train"]["seconds"]
    assert "no place" in fedmpi(1, "show", tmp_path / "run.h5", "--profile", "--picture", "a.png", code=2)
