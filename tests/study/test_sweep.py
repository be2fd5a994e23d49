"""Sweeps: the runs of a file, their names, the runs that are left, and mistakes."""

import re
import subprocess
import sys

import pytest

from fedmpi.study import sweep
from fedmpi.transport import place
from fedmpi.core.errors import UserError
from fedmpi.build.options import DEFAULTS
from fedmpi.store import RunFile, read_run

GRID = """\
folder = "runs"
[fixed]
rounds = 2
clients = 3
local-epochs = 1
dataset = "synthetic"
[grid]
strategy = ["fedavg", "fedprox"]
seed = [0, 1]
"""
NAMES = [f"strategy-{strategy}_seed-{seed}" for strategy in ("fedavg", "fedprox") for seed in (0, 1)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder that the test works in, with grid.toml in it."""
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("grid.toml").write_text(GRID)
    return tmp_path


@pytest.fixture
def points(fedmpi, here):
    """``points() -> {name: state}`` as the command lists them."""

    def listed():
        rows = fedmpi(1, "sweep", "grid.toml", "--dry-run").splitlines()
        return {row.split()[1]: row.split()[2] for row in rows if re.match(r" *\d+  ", row)}

    return listed


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_every_combination_is_a_run_with_a_name_of_what_varies(points):
    assert list(points()) == NAMES


def test_combinations_come_first_and_single_runs_after():
    assert sweep.combined({"a": [1, 2], "b": [3, 4]}, [{"lr": 2, "b": 5}]) == [
        {"a": 1, "b": 3}, {"a": 1, "b": 4}, {"a": 2, "b": 3}, {"a": 2, "b": 4}, {"lr": 2, "b": 5}]


def names_of(*own, recorded=None, played=(), **fixed):
    """The names of runs with these options of their own beside ``fixed``."""
    options = [DEFAULTS | fixed | own_options for own_options in own]
    points = sweep.named(own, own, options, recorded or {}, set(played), "grid.toml")
    return [point.name for point in points]


@pytest.mark.parametrize("key, values, texts", [
    ("lr", [0.1, 1e9], ["0.1", "1e+09"]),
    ("local_epochs", [1, 2], ["1", "2"]),
    ("pruner", ["rigl:every=5,sparsity=0.9", "static:sparsity=0.9"], ["rigl", "static"]),
    ("pruner", ["rigl:every=5,sparsity=0.9", "rigl:every=7,sparsity=0.9"], ["every-5", "every-7"]),
    ("pruner", ["rigl:every=5,sparsity=0.9", "rigl:every=7,sparsity=0.9", "static:sparsity=0.9"],
     ["rigl-every-5", "rigl-every-7", "static"]),
    ("pruner", ["rigl", "rigl:every=7"], ["rigl", "every-7"]),
    ("pruner", ["my_pruner:shuffle:sparsity=0.9", "rigl"], ["shuffle", "rigl"]),
    ("pruner", ["a:shuffle", "b:shuffle"], ["a-shuffle", "b-shuffle"]),
    ("dataset", ["hdf5:file=/data/old/mine.h5", "hdf5:file=/data/new/other.h5"], ["mine", "other"]),
    ("dataset", ["digits", "hdf5:file=/data/new/other.h5"], ["digits", "hdf5"]),
    ("fault", [[], ["scaled", "duplicate:share=0.5"]], ["none", "scaled+duplicate-share-0.5"])])
def test_a_name_has_of_an_option_only_what_differs(key, values, texts):
    assert names_of(*({key: value} for value in values)) == [f"{key.replace('_', '-')}-{text}" for text in texts]


def test_a_name_has_only_options_in_which_its_run_was_given_something():
    runs = [dict(strategy=strategy, seed=seed) for strategy in ("fedavg", "thesis") for seed in (0, 1)]
    assert names_of(*runs, dict(lr=0.5), dict(lr=0.7, strategy="krum"), clients=4) == [
        "strategy-fedavg_seed-0", "strategy-fedavg_seed-1", "strategy-thesis_seed-0", "strategy-thesis_seed-1",
        "seed-0_lr-0.5", "strategy-krum_seed-0_lr-0.7"]


def test_names_stay_when_values_and_options_are_added():
    small = [dict(pruner=f"rigl:every={every}") for every in (5, 7)]
    recorded = {name: DEFAULTS | own for name, own in zip(names_of(*small), small)}
    assert list(recorded) == ["pruner-every-5", "pruner-every-7"]
    grown = [*small, dict(pruner="static"), dict(pruner="rigl:every=5", lr=0.5)]
    assert names_of(*grown, recorded=recorded) == [
        "pruner-every-5", "pruner-every-7", "pruner-static", "pruner-rigl-every-5_lr-0.5"]


def test_names_that_would_be_the_same_get_a_digest_each_which_does_not_depend_on_their_order():
    runs = [dict(dataset=f"hdf5:file=/{folder}/mine.h5") for folder in "ab"]
    first, second = names_of(*runs)
    assert re.fullmatch("dataset-mine_[0-9a-f]{6}", first) and first != second
    assert names_of(*runs[::-1]) == [second, first]


def test_long_names_end_in_a_digest_and_are_safe_file_names():
    runs = [dict(fault=[f"scaled:share=0.{n},factor={n}" for n in range(1, 9)] + [end]) for end in ("a b/c", "..\n$")]
    names = names_of(*runs)
    assert len(set(names)) == 2 and max(map(len, names)) <= 120
    assert all(re.fullmatch(r"[A-Za-z0-9.+_-]+", name) for name in [*names, *names_of(dict(lr=1), dict(lr=2))])


def test_the_same_run_twice_is_refused():
    with pytest.raises(UserError, match="grid.toml: runs 0 and 2 are the same"):
        names_of(dict(lr=0.5), dict(lr=0.7), dict(lr=0.5))


def test_runs_under_the_long_names_of_older_sweeps_are_found(fedmpi, points, here):
    edit(here / "grid.toml", '"fedprox"]\nseed = [0, 1]', ']\npruner = ["static:sparsity=0.5", "rigl"]')
    assert list(points()) == ["pruner-static", "pruner-rigl"]
    fedmpi(1, "sweep", "grid.toml", "--script", "a.sbatch")
    older = ["pruner-static-sparsity-0.5", "pruner-rigl"]
    fedmpi(1, "train", "--config", "runs/pruner-static.toml", "--out", f"runs/{older[0]}.h5")
    for path in here.glob("runs/*.toml"):
        path.unlink()
    assert points() == {older[0]: "finished", older[1]: "missing"}               # by the run file alone
    fedmpi(1, "sweep", "grid.toml", "--script", "b.sbatch")
    edit(here / "grid.toml", "[fixed]", "[fixed]\nlr = 0.5")
    assert f"runs/{older[0]}.h5 is of another run than --lr 0.5 (it has 0.1)" in fedmpi(1, "sweep", "grid.toml", code=2)


def test_listing_writes_nothing(points, here):
    points()
    assert [path.name for path in here.iterdir()] == ["grid.toml"]


def test_here_plays_what_is_missing_and_goes_on_with_what_is_not_finished(fedmpi, points, here):
    fedmpi(1, "sweep", "grid.toml", "--script", "a.sbatch")
    for name, more in ((NAMES[0], ()), (NAMES[1], ("--until", 1)), (NAMES[2], ())):
        fedmpi(1, "train", "--config", f"runs/{name}.toml", *more, "--out", f"runs/{name}.h5")
    assert list(points().values()) == ["finished", "stopped", "finished", "missing"]
    edit(here / "grid.toml", '"fedprox"]\nseed = [0, 1]', '"fedprox"]\nseed = [0, 1]\n[[run]]\nlr = 1e9')
    before = (here / "runs" / f"{NAMES[0]}.h5").read_bytes()
    output = fedmpi(1, "sweep", "grid.toml", "--here", "--parallel", 2, code=1)
    assert "5 runs in runs: 2 finished, 1 stopped, 2 missing" in output
    assert "2 of 3 played; failed: seed-0_lr-1e+09 (exit code 1)" in output
    assert list(points().values()) == ["finished"] * 4 + ["failed"]
    assert (here / "runs" / f"{NAMES[0]}.h5").read_bytes() == before


def test_here_tells_a_line_a_run_and_keeps_what_each_says_in_a_log(fedmpi, here):
    edit(here / "grid.toml", '[grid]\nstrategy = ["fedavg", "fedprox"]', '[[run]]\nlr = 1e9\n[grid]')
    counted, *lines, last = fedmpi(1, "sweep", "grid.toml", "--here", code=1).splitlines()
    accuracy = read_run("runs/seed-1.h5").rounds["accuracy"][-1]
    assert counted == "3 runs in runs: 3 missing" and len(lines) == 3
    assert re.fullmatch(rf"2/3 runs/seed-1.h5: done, accuracy {accuracy:.4f}, [\d.]+ s", lines[1])
    assert re.fullmatch(r"3/3 runs/seed-0_lr-1e\+09.h5: FAILED after 0 rounds \(exit code 1\), [\d.]+ s: "
                        r"error: round 1: 0 of 3 .*; see runs/seed-0_lr-1e\+09.log", lines[2])
    assert last == "2 of 3 played; failed: seed-0_lr-1e+09 (exit code 1)"
    log = (here / "runs/seed-1.log").read_text()
    assert "round 2/2" in log and "run file: runs/seed-1.h5" in log


def test_a_run_that_failed_before_its_first_round_is_played_anew_with_other_options(fedmpi, points, here):
    edit(here / "grid.toml", '["fedavg", "fedprox"]\nseed = [0, 1]', '["fedavg"]\nseed = [0]')
    edit(here / "grid.toml", "[fixed]", "[fixed]\nlr = 1e9")
    fedmpi(1, "sweep", "grid.toml", "--here", code=1)
    assert points() == {"run": "failed"}
    edit(here / "grid.toml", "lr = 1e9", "lr = 0.1")
    assert "to be played anew: run" in fedmpi(1, "sweep", "grid.toml", "--dry-run")
    assert points() == {"run": "failed"} and "lr = 1000000000.0" in (here / "runs/run.toml").read_text()
    assert "1 of 1 played" in fedmpi(1, "sweep", "grid.toml", "--here")
    assert points() == {"run": "finished"} and read_run("runs/run.h5").attrs["options"]["lr"] == 0.1


def test_runs_of_other_options_are_played_anew_by_overwrite_alone(fedmpi, points, here):
    edit(here / "grid.toml", '["fedavg", "fedprox"]', '["fedavg"]')
    fedmpi(1, "sweep", "grid.toml", "--script", "a.sbatch")
    for seed in (0, 1):
        fedmpi(1, "train", "--config", f"runs/seed-{seed}.toml", "--out", f"runs/seed-{seed}.h5")
    before = (here / "runs/seed-0.h5").read_bytes()
    edit(here / "grid.toml", "clients = 3", "clients = 4")
    refused = fedmpi(1, "sweep", "grid.toml", "--here", code=2)
    assert "--clients 4 (it has 3): give --overwrite to play it anew" in refused and refused.count("\n") == 1
    output = fedmpi(1, "sweep", "grid.toml", "--overwrite", "--dry-run")
    assert "to be played anew: seed-0, seed-1" in output and (here / "runs/seed-0.h5").read_bytes() == before
    assert "2 of 2 played" in fedmpi(1, "sweep", "grid.toml", "--here", "--overwrite")
    assert [read_run(f"runs/seed-{seed}.h5").attrs["options"]["clients"] for seed in (0, 1)] == [4, 4]
    assert "2 finished" in fedmpi(1, "sweep", "grid.toml", "--here", "--overwrite")      # which leaves the same alone
    output = fedmpi(1, "sweep", "grid.toml", "--script", "all.sbatch")
    assert "all.sbatch is not written: there is nothing to play" in output


def test_overwrite_never_removes_a_run_that_is_being_written(fedmpi, here):
    edit(here / "grid.toml", '["fedavg", "fedprox"]\nseed = [0, 1]', '["fedavg"]\nseed = [0]')
    fedmpi(1, "sweep", "grid.toml", "--script", "a.sbatch")
    fedmpi(1, "train", "--config", "runs/run.toml", "--until", 1, "--out", "runs/run.h5")
    RunFile("runs/run.h5").update({"status": "running"})
    edit(here / "grid.toml", "clients = 3", "clients = 4")
    before = (here / "runs/run.h5").read_bytes()
    assert "is being written by process" in fedmpi(1, "sweep", "grid.toml", "--overwrite", code=2)
    assert (here / "runs/run.h5").read_bytes() == before


def test_parallel_is_of_here(fedmpi, here):
    assert "--parallel is of --here" in fedmpi(1, "sweep", "grid.toml", "--parallel", 2, code=2)


def test_an_array_job_has_only_what_is_left_and_names_stay(fedmpi, here):
    fedmpi(1, "sweep", "grid.toml", "--script", "a.sbatch", "--ranks", 2)
    first = (here / "a.sbatch").read_text()
    assert "#SBATCH --array=0-3\n" in first and "#SBATCH --ntasks=2\n" in first
    fedmpi(1, "train", "--config", f"runs/{NAMES[2]}.toml", "--out", f"runs/{NAMES[2]}.h5")
    edit(here / "grid.toml", "seed = [0, 1]", "lr = [0.1, 0.2]\nseed = [0, 1]")          # one more thing varies
    output = fedmpi(1, "sweep", "grid.toml", "--at-once", 2)
    assert "#SBATCH --array=0-3,5-7%2\n" in output
    assert "8 runs in runs: 7 missing, 1 finished" in output
    names = re.search(r"names=\(\n(.*?)\n\)", output, re.S)[1].split()
    assert names[0] == NAMES[0] and names[2] == "strategy-fedavg_lr-0.2_seed-0" and names[4] == NAMES[2]
    script = output[output.index("#!/bin/bash"):]
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_a_task_of_the_script_plays_its_run_and_goes_on_with_it(fedmpi, here):
    fedmpi(1, "sweep", "grid.toml", "--script", "a.sbatch")
    here.joinpath("grid.toml").unlink()                      # what the script needs lies in the folder
    (here / "mpirun").write_text("#!/bin/bash\n[ $1 = --version ] || printf '%s ' \"$@\" >> called\n")
    (here / "mpirun").chmod(0o755)
    play = f"export PATH={here}:$PATH SLURM_ARRAY_TASK_ID=1; bash a.sbatch; touch runs/{NAMES[1]}.h5; bash a.sbatch"
    subprocess.run(["bash", "-c", play], check=True)
    train = f"-n 4 fedmpi train --config runs/{NAMES[1]}.toml"
    assert (here / "called").read_text() == (f"{train} --out runs/{NAMES[1]}.h5 {train} --resume runs/{NAMES[1]}.h5 ")


def test_writing_a_script_imports_no_torch(here):
    code = ("import sys; from fedmpi.cli import main; sys.argv = ['fedmpi', 'sweep', 'grid.toml']\ntry: main()\n"
            "except SystemExit as end: assert end.code == 0\nprint('torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")


@pytest.mark.parametrize("old, new, message", [
    ("[fixed]", "[fixed", "grid.toml: "),
    ("[fixed]", "[fix]", "unknown fix; did you mean fixed?"),
    ("[fixed]", "lr = 1\n[fixed]", "unknown lr; options of train stand in a table"),
    ("rounds = 2", "round = 2", "[fixed]: unknown round"),
    ("rounds = 2", "rounds = 0", "run 0: Invalid value for '--rounds'"),
    ("rounds = 2", "rounds = true", "run 0: rounds cannot be True"),
    ("rounds = 2", "out = 'a.h5'", "[fixed]: unknown out"),
    ("rounds = 2", "seed = 2", "seed is in [fixed] and in [grid]"),
    ("seed = [0, 1]", "seed = 0", "[grid] seed must be a list"),
    ("seed = [0, 1]", "seed = [0, 0]", "runs 0 and 1 are the same"),
    ('"fedprox"', '"fedprix"', "did you mean fedprox?"),
    ("[grid]", "[slurm]\nrank = 3\n[grid]", "[slurm]: unknown rank"),
    ("[grid]", "[slurm]\nranks = 0\n[grid]", "Invalid value for '--ranks'"),
    ("[grid]", "[slurm]\nmemory = '1M'\n[grid]", "a node is too little"),
    ("[grid]\nstrategy = [\"fedavg\", \"fedprox\"]\nseed = [0, 1]\n", "", "nothing to run"),
])
def test_what_cannot_be_swept_is_refused_in_one_line_before_any_work(fedmpi, here, old, new, message):
    edit(here / "grid.toml", old, new)
    output = fedmpi(1, "sweep", "grid.toml", code=2)
    assert message in output and len([line for line in output.splitlines() if "error" in line]) == 1
    assert [path.name for path in here.iterdir()] == ["grid.toml"]


def test_runs_of_other_options_are_refused(fedmpi, here):
    fedmpi(1, "sweep", "grid.toml", "--script", "a.sbatch")
    edit(here / "grid.toml", "clients = 3", "clients = 4")
    assert "--clients 4 (it has 3)" in fedmpi(1, "sweep", "grid.toml", code=2)
    fedmpi(1, "train", "--config", f"runs/{NAMES[0]}.toml", "--out", f"runs/{NAMES[0]}.h5")
    for path in here.glob("runs/*.toml"):
        path.unlink()
    line = f"runs/{NAMES[0]}.h5 is of another run than --clients 4 (it has 3)"
    assert line in fedmpi(1, "sweep", "grid.toml", code=2)


@pytest.mark.parametrize("numbers, text", [([0], "0"), ([0, 1, 2, 4, 7, 8], "0-2,4,7-8")])
def test_tasks_are_written_as_ranges(numbers, text):
    assert place.ranges(numbers) == text
