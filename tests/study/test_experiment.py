"""``fedmpi experiment``: refusals, killed studies, and studies from end to end."""

import json
import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from conftest import environment
from studies import RECIPE

from fedmpi.commands.experiment import own_recipes
from fedmpi.core.errors import UserError
from fedmpi.run.launcher import launcher_path
from fedmpi.store import verify
from fedmpi.study.play import free


# Runs of 300 rounds: two of them, to be killed in the middle.
LONG = (RECIPE.replace("rounds = 4", "rounds = 300")
        .replace('S = ["0", "0.5"]', 'S = ["0.5"]')
        .replace("[0, 1]", "[0]"))


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """The folder that the test works in, with mine.toml in it."""
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("mine.toml").write_text(RECIPE)
    return tmp_path / "mine.toml"


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
    refused = fedmpi(1, "experiment", "mine.toml", "--ranks", 2, "--folder", "a", code=2)
    python = tmp_path / "python"
    assert f"error: there is no mpirun beside {python} nor on PATH: pip install mpich" in refused
    assert "--launcher has no effect in one process" in fedmpi(
        1, "experiment", "mine.toml", "--launcher", "srun", code=2)
    assert not (tmp_path / "a").exists()
    (tmp_path / "mpirun").write_text("")
    (tmp_path / "mpirun").chmod(0o755)
    assert launcher_path("mpirun") == str(tmp_path / "mpirun")


def test_a_study_killed_in_the_middle_goes_on_to_the_same_bits_and_ends_in_an_outcome(fedmpi, recipe, tmp_path):
    recipe.write_text(LONG)
    command = start("mine.toml", "--parallel", 2, "--folder", "a")
    with subprocess.Popen(command, env=environment(), start_new_session=True) as process:
        wait_for(process, lambda: both_play(tmp_path / "a"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 85
    assert "INCOMPLETE: of 2 runs" in fedmpi(1, "experiment", "mine.toml", "--folder", "a", "--report")
    assert '"verdict": "incomplete"' in (tmp_path / "a/outcome.json").read_text()
    listed = fedmpi(1, "experiment", "mine.toml", "--folder", "a", "--dry-run")
    assert "0 of 2 runs done" in listed and "time left with --parallel 1: about" in listed
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert "2/2" in done.stderr
    fedmpi(1, "train", "--config", "a/cosine_S-0.5_seed-0.toml", "--out", "whole.h5")
    assert verify("a/cosine_S-0.5_seed-0.h5", "whole.h5") == []


@pytest.mark.parametrize("how", [(), ("--ranks", 2)])
def test_a_study_killed_by_sigkill_leaves_no_run_behind_and_goes_on(recipe, tmp_path, how):
    recipe.write_text(LONG)
    command = start("mine.toml", "--parallel", 2, "--folder", "a", *how)
    with subprocess.Popen(command, env=environment()) as process:
        wait_for(process, lambda: both_play(tmp_path / "a"))
        process.kill()
    logs = list((tmp_path / "a").glob("*.log"))
    # It waits for runs that are still at work.
    again = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert "2/2" in again.stderr
    assert all(free(str(log)) for log in logs)
    assert [rounds(log.with_suffix(".h5")) for log in logs] == [300, 300]
    assert all("asked to stop by SIGTERM" in log.read_text() for log in logs)


def both_play(folder):
    """Whether both runs of the study LONG have played three rounds."""
    return all(rounds(folder / f"{arm}_S-0.5_seed-0.h5") >= 3 for arm in ("size", "cosine"))


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
    """``played(NAME, ...)``: a study played in this process, without others; it has the files of any
    study."""

    def play(name, *more):
        array = ("--script", "s.sbatch", "--array", "--ranks", 1)
        listed = fedmpi(1, "experiment", name, *more, "--folder", "s", *array)
        assert "an array job of" in listed
        for file in sorted(os.listdir("s")):
            if file.endswith(".toml"):
                fedmpi(1, "train", "--config", f"s/{file}", "--out", f"s/{file.removesuffix('toml')}h5")
        return fedmpi(1, "experiment", name, *more, "--folder", "s", "--report")

    return play


def test_a_study_ends_in_tables_figures_and_verdicts(played, fedmpi, recipe, tmp_path):
    shown = played("mine.toml")
    findings = json.loads((tmp_path / "s/outcome.json").read_text())
    assert findings["complete"]
    assert len(findings["runs"]) == 8 and len(findings["status"]) == 6
    accuracy = {(run["arm"], run["cell"]["S"], run["seed"]): run["measures"]["accuracy"]
                for run in findings["runs"]}
    differences = [accuracy["cosine", "0.5", seed] - accuracy["size", "0.5", seed] for seed in (0, 1)]
    _, judged = findings["claims"][0]["judged"]
    assert judged["cell"] == {"S": "0.5"}
    assert judged["interval"]["mean"] == pytest.approx(np.mean(differences))
    text = (tmp_path / "s/OUTCOME.md").read_text()
    assert "INCOMPLETE" not in text
    for words in ("* a third arm", "cosine beats size", "### S 0.5"):
        assert words in text
    assert judged["verdict"].upper() in shown
    for figure in ("1-factor", "2-curves", "3-weights", "claims"):
        for kind in ("svg", "png"):
            assert (tmp_path / f"s/figures/{figure}.{kind}").stat().st_size > 2000
        assert f"figures/{figure}.png" in text
    # Finished: nothing is played again. Another option under the same name is refused.
    assert "6 finished" in fedmpi(1, "experiment", "mine.toml", "--folder", "s")
    recipe.write_text(RECIPE.replace("rounds = 4", "rounds = 5"))
    refused = fedmpi(1, "experiment", "mine.toml", "--folder", "s", code=2)
    assert "is of another run than --rounds 5 (it has 4): give --overwrite" in refused and refused.count("\n") == 1
    # A grown recipe keeps its runs.
    recipe.write_text(RECIPE.replace('["0", "0.5"]', '["0.5", "0.9", "0"]'))
    assert "6 of 8 runs done" in fedmpi(1, "experiment", "mine.toml", "--folder", "s", "--dry-run")


@pytest.mark.parametrize("name", own_recipes())
def test_smoke(played, name, tmp_path):
    played(name, "--size", "smoke")
    findings = json.loads((tmp_path / "s/outcome.json").read_text())
    assert findings["complete"]
    verdicts = {judged["verdict"] for claim in findings["claims"] for judged in claim["judged"]}
    assert verdicts & {"confirmed", "not confirmed", "refuted"}


def test_a_failed_run_is_told_and_its_claims_are_incomplete(recipe, tmp_path):
    text = RECIPE.replace("[arms.cosine]", "[arms.cosine]\nlr = 1e9").replace("[0, 1]", "[0]")
    recipe.write_text(text.replace('["0", "0.5"]', '["0.5"]'))
    command = start("mine.toml", "--folder", "a")
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 1
    assert "FAILED (exit code 1): error: " in done.stderr
    assert "INCOMPLETE: of 2 runs 1 finished, 1 failed." in done.stdout
    assert "of 1 seed" in (tmp_path / "a/OUTCOME.md").read_text()


def test_data_that_cannot_be_read_end_a_study_before_it_begins(fedmpi, recipe, tmp_path):
    recipe.write_text(RECIPE.replace("synthetic:samples=120", "cifar10"))
    refused = fedmpi(1, "experiment", "mine.toml", "--folder", "a", "--data-dir", "nowhere", code=2)
    *_, last = refused.strip().splitlines()
    assert last.startswith("error: data set cifar10")
    assert not (tmp_path / "a").exists()


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
