"""``fedmpi merge``: the outcomes of many runs in one table."""

import csv
import itertools
import json

import numpy as np
import pytest

from fedmpi.read.report import outcomes_text
from fedmpi.read.report.outcomes import SPENT
from fedmpi.store import read_run

QUALITY = ("rounds", "final_accuracy", "chosen_accuracy", "final_loss")


@pytest.fixture(scope="module")
def runs(fedmpi, tmp_path_factory):
    """A folder of four runs, one of them not finished, and a file that is none."""
    folder = tmp_path_factory.mktemp("runs")
    for lr, seed, more in ((0.1, 0, ()), (0.1, 1, ()), (0.2, 0, ()), (0.2, 1, ("--until", 1))):
        fedmpi(1, "train", "--rounds", 2, "--clients", 2, "--local-epochs", 1, "--dataset", "synthetic", "--lr", lr,
               "--seed", seed, *more, "--out", folder / f"{lr}-{seed}.h5")
    (folder / "bad.h5").write_text("no")
    return folder


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_outcomes_of_many_runs_are_one_table(fedmpi, runs, tmp_path):
    output = fedmpi(1, "merge", runs, "--out", tmp_path / "t.csv")
    assert f"passed over: {runs / 'bad.h5'}: not an HDF5 file" in output
    rows = table(tmp_path / "t.csv")
    assert [(row["lr"], row["seed"], row["status"]) for row in rows] == [
        ("0.1", "0", "finished"), ("0.1", "1", "finished"), ("0.2", "0", "finished"), ("0.2", "1", "stopped")]
    run = read_run(runs / "0.1-1.h5")
    assert float(rows[1]["final_accuracy"]) == run.rounds["accuracy"][-1]
    best = run.rounds["accuracy"][np.argmax(run.rounds["val_accuracy"])]      # never chosen by the test set
    assert float(rows[1]["chosen_accuracy"]) == best and "best_accuracy" not in rows[1]
    assert float(rows[1]["up_bytes"]) == run.rounds["up_bytes"].sum()
    assert "clients" not in rows[0] and "planned_rounds" not in rows[0]
    groups = {row["lr"]: row for row in table(tmp_path / "t-seeds.csv")}
    accuracies = [float(row["final_accuracy"]) for row in rows[:2]]
    assert groups["0.1"]["n"] == "2" and groups["0.2"]["n"] == "1"         # a run that is not finished does not count
    assert float(groups["0.1"]["final_accuracy_mean"]) == pytest.approx(sum(accuracies) / 2)
    assert float(groups["0.1"]["final_accuracy_std"]) == pytest.approx(abs(accuracies[0] - accuracies[1]) / 2**0.5)
    assert groups["0.2"]["final_accuracy_std"] == ""
    assert "over seeds" in output


def test_each_row_of_a_narrow_table_of_outcomes_has_a_number():
    """Columns that do not fit stand below; an option alone does not tell there which set-up a row is of."""
    varying = ["strategy", "pruner", "contribution", "seed"]
    pruners = ["rigl:sparsity=0.9", "mine:shuffle:sparsity=0.9"]
    arms = list(itertools.product(["fedavg", "thesis"], pruners, ["loo"], [0, 1]))
    same = dict.fromkeys([*QUALITY, *SPENT, "seconds"], 0.1) | {"status": "finished"}
    rows = [{"run": f"runs/{'-'.join(map(str, arm))}.h5"} | dict(zip(varying, arm)) | same for arm in arms]
    _, seeds = outcomes_text(varying, rows, 80).split("over seeds, ")
    blocks = seeds.split("\n\n")
    assert len(blocks) > 1
    for block in blocks:
        numbers = [line.split()[0] for line in block.splitlines() if line[:1].isdigit()]
        assert numbers == ["1", "2", "3", "4"]


def test_outcomes_for_scripts_of_named_files(fedmpi, runs):
    outcomes = json.loads(fedmpi(1, "merge", runs / "0.1-0.h5", runs / "0.2-0.h5", "--json"))
    assert [row["lr"] for row in outcomes["runs"]] == [0.1, 0.2] and len(outcomes["over_seeds"]) == 2
    assert "seed" not in outcomes["runs"][0] and outcomes["left_out"] == []
    twice = json.loads(fedmpi(1, "merge", runs / "0.1-0.h5", f"{runs}/./0.1-0.h5", "--json"))
    assert len(twice["runs"]) == twice["over_seeds"][0]["n"] == 1


def test_no_run_at_all_is_an_error(fedmpi, tmp_path):
    assert "is a folder without a run\n" in fedmpi(1, "merge", tmp_path, code=2)
    (tmp_path / "x.h5").write_text("no HDF5")
    assert "x.h5: not an HDF5 file" in fedmpi(1, "merge", tmp_path, code=2)
    assert "no run file in" in fedmpi(1, "merge", tmp_path / "x.h5", code=2)
