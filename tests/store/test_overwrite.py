"""A run file that is there already: what it takes to replace it, and that nothing else is ever removed."""

import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from fedmpi.core.errors import UserError
from fedmpi.store import Column, RunFile, check_target, lives, read_run, remove_run, this_process

TINY = ("--dataset", "synthetic:samples=60", "--model", "logistic", "--clients", 2, "--local-epochs", 1)


def made(path, rounds=0, status="failed", process=None, **attrs):
    """A run file with that many rounds, each with a checkpoint, which ``process`` has written last."""
    store = RunFile.create(path, dict(status="running", hosts=["far"]) | attrs, [Column("round", "int64", "1", "n")],
                           [Column("client", "int64", "1", "n")], {}, ([0], []))
    for t in range(1, rounds + 1):
        store.append(dict(round=t), dict(client=np.array([0])))
        store.save({"x": t}, t)
    store.settle()
    if process:
        store.add_session(dict(time="now", process=process))
    store.update(dict(status=status))
    return path


def dead_process():
    code = "from fedmpi.store import this_process; print(this_process())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_a_process_is_known_to_live_or_to_be_dead_on_its_own_machine_only():
    mine = json.loads(this_process())
    assert lives(this_process()) is True and lives(dead_process()) is False
    assert lives(json.dumps(mine | {"started": mine["started"] - 1})) is False       # its number is another's now
    assert lives(json.dumps(mine | {"boot": "another machine"})) is None
    assert lives(json.dumps(mine | {"space": "pid:[1]"})) is None and lives(None) is None


@pytest.mark.parametrize("status", ["failed", "interrupted", "stopped"])
def test_a_run_without_a_round_is_in_nobodys_way(tmp_path, status):
    path = made(str(tmp_path / "a.h5"), status=status)
    check_target(path)
    first = read_run(path).attrs["run_id"]
    made(path)
    assert read_run(path).attrs["run_id"] != first


def test_a_run_that_was_killed_before_its_first_round_is_in_nobodys_way(tmp_path):
    check_target(made(str(tmp_path / "a.h5"), status="running", process=dead_process()))


def test_rounds_are_given_up_only_by_overwrite_and_their_checkpoints_with_them(tmp_path):
    path = made(str(tmp_path / "a.h5"), rounds=3)
    with pytest.raises(UserError, match="a.h5 exists, with 3 rounds: resume it, give --overwrite, or choose another"):
        check_target(path)
    check_target(path, overwrite=True)
    (tmp_path / "a.ckpt/000009.h5").write_text("somebody's own")
    assert len(os.listdir(tmp_path / "a.ckpt")) == 3
    RunFile.create(path, dict(status="running"), [], [], {}, ([0], []), overwrite=True)
    assert len(read_run(path).ends) == 0 and os.listdir(tmp_path / "a.ckpt") == ["000009.h5"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("rounds", [0, 2])
def test_a_run_that_is_being_written_or_may_be_is_never_replaced(tmp_path, overwrite, rounds):
    mine = made(str(tmp_path / "a.h5"), rounds, "running", this_process())
    with pytest.raises(UserError, match=f"is being written by process {os.getpid()}: stop that run first"):
        check_target(mine, overwrite)
    far = json.dumps(json.loads(this_process()) | {"boot": "another"})
    for process in (far, None):
        other = made(str(tmp_path / f"b{process is None}.h5"), rounds, "running", process)
        with pytest.raises(UserError, match="marked as running on far: it cannot be seen from here"):
            check_target(other, overwrite)


@pytest.mark.parametrize("content", [b"", b"text", "hdf5", "checkpoint"])
def test_what_is_no_run_is_never_replaced(fedmpi, tmp_path, content):
    path = tmp_path / "a.h5"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with h5py.File(path, "w") as file:
            file.attrs.update({"filetype": "fedmpi-checkpoint"} if content == "checkpoint" else {})
    before = path.read_bytes()
    told = fedmpi(1, "train", *TINY, "--rounds", 1, "--out", path, "--overwrite", code=2)
    assert "exists, and is not replaced, as it cannot be read as a run of fedmpi" in told and told.count("\n") == 1
    assert path.read_bytes() == before


def test_a_removed_run_takes_its_own_checkpoints_with_it(tmp_path):
    path = made(str(tmp_path / "a.h5"), rounds=2)
    remove_run(path)
    assert os.listdir(tmp_path) == []


def test_train_begins_anew_where_it_is_told_to(fedmpi, tmp_path):
    out = tmp_path / "a.h5"
    fedmpi(1, "train", *TINY, "--rounds", 2, "--out", out)
    first = out.read_bytes()
    told = fedmpi(1, "train", *TINY, "--rounds", 1, "--out", out, code=2)
    assert "a.h5 exists, with 2 rounds: resume it, give --overwrite" in told and out.read_bytes() == first
    fedmpi(1, "train", *TINY, "--rounds", 1, "--out", out, "--lr", -1, "--overwrite", code=2)      # refused beforehand
    assert out.read_bytes() == first
    fedmpi(1, "train", *TINY, "--out", out, "--overwrite", "--dry-run")
    assert out.read_bytes() == first
    fedmpi(1, "train", *TINY, "--rounds", 1, "--out", out, "--overwrite")
    run = read_run(out)
    assert len(run.ends) == 1 and os.listdir(tmp_path / "a.ckpt") == ["000001.h5"]
    assert lives(run.sessions[0]["process"]) is True                     # this one, in which the command ran
    fedmpi(1, "train", "--resume", out)


def test_a_run_that_failed_in_its_first_round_is_simply_begun_again(fedmpi, tmp_path):
    out = tmp_path / "a.h5"
    fedmpi(1, "train", *TINY, "--rounds", 1, "--lr", 1e9, "--out", out, code=1)
    assert read_run(out).attrs["status"] == "failed" and len(read_run(out).ends) == 0
    fedmpi(1, "train", *TINY, "--rounds", 1, "--out", out)
    assert read_run(out).attrs["status"] == "finished"


@pytest.mark.parametrize("arguments, reason", [
    (("--resume", "a.h5"), "--overwrite has no place beside --resume"),
    ((), "--overwrite has no effect without --out")])
def test_overwrite_without_effect_is_refused(fedmpi, arguments, reason):
    assert reason in fedmpi(1, "train", *TINY, *arguments, "--overwrite", code=2)
