"""What a command does whatever is around it: encodings, streams, folders, names of files, a launcher's left-overs."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest
from conftest import environment

import fedmpi as package
from fedmpi import catalog
from fedmpi.plugins.spec import parse, quoted
from fedmpi.core import paths, stop
from fedmpi.run import launcher
from fedmpi.commands import streams
from fedmpi.core.errors import Mislaunched, UserError
from fedmpi.read.dataframes import Frames
from fedmpi.store import check_target, read_run
from fedmpi.store.attrs import read_attrs, read_sessions, set_attrs, set_sessions
from fedmpi.run.surroundings import check_hdf5

TINY = ("--dataset", "synthetic:samples=60", "--model", "logistic", "--clients", "2", "--rounds", "2", "--local-epochs",
        "1", "--strategy", "fedavg", "--noise", "none", "--partition", "iid", "--device", "cpu")
FEDMPI = (sys.executable, "-m", "fedmpi")


def shell(script, folder, **env):
    """The ended process of a shell script in ``folder``, in which fedmpi is ``$FEDMPI``."""
    return subprocess.run(
        ["bash", "-c", f"{script}"], cwd=folder, timeout=240, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=environment(FEDMPI=" ".join(FEDMPI), PYTHONPATH=str(pathlib.Path(__file__).parents[2]), **env))


@pytest.fixture(scope="module")
def run(tmp_path_factory, fedmpi):
    """The path of a run that has ended."""
    path = tmp_path_factory.mktemp("run") / "run.h5"
    fedmpi(1, "train", *TINY, "--out", path)
    return path


# ---------------------------------------------------------------- encodings


def test_pictures_in_ascii_are_drawn_by_characters_that_look_alike():
    assert streams.plain("┌─┐│ ▒█ ± ×\u2800⠁⣿ é") == "+-+| +# +- x .# \\xe9"


@pytest.mark.parametrize("env", [
    {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C", "PYTHONUTF8": "0"},
    {"LANG": "xx", "LC_ALL": "xx"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_a_summary_comes_out_in_any_encoding(run, tmp_path, env):
    done = shell(f"$FEDMPI show {run}", tmp_path, **env)
    assert done.returncode == 0 and b"accuracy" in done.stdout and b"Traceback" not in done.stdout
    if env.get("PYTHONIOENCODING") == "ascii":
        assert done.stdout.isascii() and b"+---" in done.stdout


@pytest.mark.parametrize("columns", ["0", "1", "x"])
def test_a_terminal_that_says_no_sensible_width_gets_a_picture(fedmpi, run, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "dumb")
    assert "status" in fedmpi(1, "show", run) and "accuracy" in fedmpi(1, "merge", run)


# ---------------------------------------------------------------- streams


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_outlives_whoever_reads_its_lines(command, tmp_path, ranks):
    argv = " ".join(map(str, command(ranks, "train", *TINY, "--out", "run.h5")))
    done = shell(f"({argv}; echo $? > code) 2>&1 | head -1", tmp_path)
    assert (tmp_path / "code").read_text() == "0\n" and len(done.stdout.splitlines()) == 1
    assert read_run(tmp_path / "run.h5").attrs["status"] == "finished"


@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", "> /dev/full 2>&1"])
def test_a_run_ends_well_with_streams_that_are_closed_or_full(tmp_path, streams):
    done = shell(f"$FEDMPI train {' '.join(TINY)} --out run.h5 {streams}", tmp_path)
    assert done.returncode == 0 and read_run(tmp_path / "run.h5").attrs["status"] == "finished"


@pytest.mark.parametrize("arguments, code", [("show RUN", 0), ("list", 0), ("--help", 0), ("verify RUN RUN", 0),
                                             ("watch RUN", 0), ("show nothing.h5", 2)])
def test_a_reader_that_has_left_ends_a_command_quietly(run, tmp_path, arguments, code):
    line = arguments.replace("RUN", str(run))
    done = shell(f"($FEDMPI {line} 2> errors; echo $? > code) | true; cat code errors", tmp_path)
    told = done.stdout.decode().splitlines()
    assert told[0] == str(code) and len(told) == 1 + (code > 0), told


def test_a_full_disk_under_what_comes_out_is_told(run, tmp_path):
    done = shell(f"$FEDMPI show {run} > /dev/full", tmp_path)
    assert done.returncode == 1 and done.stdout == b"error: cannot write what comes out: No space left on device\n"


def test_sighup_asks_a_run_to_stop_unless_nohup_made_it_pass(monkeypatch):
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert stop.notices()[signal.SIGHUP] == stop.KILL_WAIT_S
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert signal.SIGHUP not in stop.notices()
    finally:
        signal.signal(signal.SIGHUP, before)


# ---------------------------------------------------------------- the working folder


def test_absolute_paths_work_where_the_working_folder_is_gone(run, tmp_path):
    begin = "mkdir gone && cd gone && rmdir ../gone"
    done = shell(f"{begin}; $FEDMPI train {' '.join(TINY)} --out {tmp_path}/new.h5 && $FEDMPI show {run}", tmp_path)
    assert done.returncode == 0, done.stdout
    done = shell(f"{begin}; $FEDMPI show run.h5; echo $?; $FEDMPI train {' '.join(TINY)}; echo $?", tmp_path)
    told = [line for line in done.stdout.decode().splitlines() if not line.startswith("shell-init")]
    assert told[1::2] == ["2", "2"] and all(line.endswith(paths.GONE) for line in told[0::2]), told


# ---------------------------------------------------------------- names of files


def own_data(path):
    x = np.random.default_rng(0).random((60, 8), np.float32)
    with h5py.File(path, "w") as f:
        for part in ("train", "test"):
            f[f"x_{part}"], f[f"y_{part}"] = x, (x[:, 0] > 0.5).astype(np.int64)


@pytest.mark.parametrize("name", ["Doe, J", "lr=0.1,wd=0", "-x", "q'u\"o", "a:b", "new\nline", "e\u0301\u00e9",
                                  os.fsdecode(b"r\xe9sultat")])
def test_a_path_is_a_path(fedmpi, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.mkdir(name)
    data, out, page, table = (os.path.join(name, each) for each in ("x.h5", f"{name}.h5", "page.html", "table.csv"))
    own_data(data)
    fedmpi(1, "train", *TINY, "--dataset", data, "--out", out, "--until", 1)
    fedmpi(1, "train", "--resume", out)
    attrs = read_run(out).attrs
    assert attrs["status"] == "finished" and name in attrs["command"].replace("'\"'\"'", "'")
    assert "same run again" in fedmpi(1, "train", "--like", out, "--dry-run")
    fedmpi(1, "report", "--out", page, "--", out)
    fedmpi(1, "merge", "--out", table, "--", out)
    fedmpi(1, "plot", "--out", os.path.join(name, "p.svg"), "--", out)
    fedmpi(1, "export", "--to", os.path.join(name, "tables"), "--format", "parquet", "--", out)
    assert os.path.getsize(page) and os.path.getsize(table)
    if "\n" not in name:
        script = os.path.join(name, "job.sbatch")
        fedmpi(1, "sbatch", "--dataset", data, "--out", out, "--script", script)
        assert subprocess.run(["bash", "-n", os.path.abspath(script)], check=False).returncode == 0


def test_a_value_with_commas_and_backslashes_is_what_was_quoted():
    value = "/a,b\\c,\\,=d.h5"
    assert parse(catalog.DATASETS, f"hdf5:file={quoted(value)},classes=3")[1] == {
        "file": value, "classes": 3}
    assert parse(catalog.DATASETS, "hdf5:file=/a\\b.h5")[1] == {"file": "/a\\b.h5"}
    with pytest.raises(UserError, match="a comma inside a value is written"):
        parse(catalog.DATASETS, "hdf5:file=/Doe, J.h5")


@pytest.mark.parametrize("name, told", [
    ("folder/", "is a folder's"), ("run.ckpt", "its own folder of checkpoints"),
    ("x" * 251 + ".h5", "has 259 bytes, 255 are allowed here"), ("~/run.h5", "write it out")])
def test_a_name_that_would_fail_later_is_refused_at_once(tmp_path, name, told):
    with pytest.raises(UserError, match=told):
        check_target(f"{tmp_path}/{name}")


def test_texts_that_are_no_utf8_come_back_from_attributes_and_sessions(tmp_path):
    texts = {"command": "r\udce9s.h5", "zero": "a\0b", "plain": "é"}
    with h5py.File(tmp_path / "a.h5", "w") as f:
        set_attrs(f, texts)
        set_sessions(f, [texts])
        assert (read_attrs(f), read_sessions(f)) == (texts, [texts])


# ---------------------------------------------------------------- HDF5's variables


@pytest.mark.parametrize("value", ["TRUE", "BEST_EFFORT", "perhaps"])
def test_a_run_bears_whatever_hdf5_is_told_about_locks(tmp_path, value):
    done = shell(f"$FEDMPI train {' '.join(TINY)} --out run.h5", tmp_path, HDF5_USE_FILE_LOCKING=value)
    assert done.returncode == 0, done.stdout


def test_a_driver_that_keeps_no_plain_file_is_refused(fedmpi):
    for name, value in (("HDF5_DRIVER", "split"), ("HDF5_VOL_CONNECTOR", "async under_vol=0")):
        with pytest.raises(UserError, match=f"unset {name}"):
            check_hdf5({name: value})
    check_hdf5({"HDF5_DRIVER": "core", "HDF5_VOL_CONNECTOR": "native"})
    output = fedmpi(1, "show", "run.h5", code=2, HDF5_DRIVER="split")
    assert output.count("\n") == 1 and "unset HDF5_DRIVER" in output


# ---------------------------------------------------------------- a launcher's left-overs


@pytest.mark.parametrize("env", [
    {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0"}, {"PMI_RANK": "1", "PMI_SIZE": "3"},
    {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, {"PMI_RANK": "1", "PMI_SIZE": "3", "PMI_FD": "77"}])
def test_a_shell_that_inherited_a_launchers_variables_is_told_which(fedmpi, env):
    output = fedmpi(1, "train", code=2, **env)
    named = [name for name in env if name in launcher.OURS]
    removed = " ".join(f"-u {name}" for name in named)
    assert output.count("\n") == 1 and f"env {removed} fedmpi" in output


def test_variables_that_hold_no_number_tell_nothing():
    assert launcher.rank_and_size({"PMI_RANK": "", "SLURM_STEP_NUM_TASKS": "x"}) == (0, 1)
    assert launcher.rank_and_size({"SLURM_STEP_NUM_TASKS": "4"}) == (0, 1)


def test_a_shell_of_srun_pty_is_known_by_its_terminal(monkeypatch):
    monkeypatch.setattr(os, "isatty", lambda handle: handle == 0)
    env = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "0", "SLURM_PTY_PORT": "1"}
    with pytest.raises(Mislaunched, match="srun --pty starts one shell"):
        launcher.check(env)
    launcher.check({name: env[name] for name in ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID")})


def test_a_launcher_that_has_ended_is_found_out(tmp_path):
    here, there = os.pipe()
    assert launcher.ended({"PMI_FD": str(here)}) and launcher.ended({"PMIX_SERVER_TMPDIR": str(tmp_path / "gone")})
    assert not launcher.ended({"PMIX_SERVER_TMPDIR": str(tmp_path)}) and not launcher.ended({})
    os.close(here)
    os.close(there)


def test_doctor_finds_it_beforehand(fedmpi, tmp_path):
    output = fedmpi(1, "doctor", "--out", tmp_path, code=2, SLURM_STEP_NUM_TASKS="4", SLURM_PROCID="0",
                    HDF5_USE_FILE_LOCKING="TRUE", PYTHONIOENCODING="ascii", HOME="/nowhere")
    assert output.startswith("error    launcher")
    assert "env -u SLURM_STEP_NUM_TASKS fedmpi" in " ".join(output.split())
    for told in ("note     HDF5", "note     locale", "note     HOME"):
        assert told in output, output


# ---------------------------------------------------------------- after a user's mistake


@pytest.mark.parametrize("arguments, told", [
    (("--dataset", "missing.h5"), "there is no such file"),                    # found by rank 0 alone
    (("--model", "only_here:net"), "no such width")])                          # found by the others, building it
def test_after_a_users_mistake_nobody_is_aborted(command, tmp_path, arguments, told):
    (tmp_path / "only_here.py").write_text(
        "def net(shape, classes):\n"
        "    from fedmpi.run.launcher import rank_and_size\n"
        "    if rank_and_size()[0]:\n"
        "        raise ValueError('no such width')\n"
        "    import torch\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))\n")
    argv = command(3, "train", *TINY, *arguments, "--out", "run.h5")
    done = subprocess.run(argv, cwd=tmp_path, env=environment(), timeout=240, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    last = done.stdout.rstrip().splitlines()[-1]
    assert done.returncode == 2 and last.startswith("error: ") and told in last, done.stdout


# ---------------------------------------------------------------- objects of the Python interface


def test_frames_are_of_the_run_that_was_opened(run, tmp_path, monkeypatch, fedmpi):
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.chdir(there)
    shutil.copy(run, "a.h5")
    opened = package.open("a.h5")
    assert isinstance(opened, Frames)
    os.chdir(tmp_path)
    assert len(opened.rounds) == 2
    fedmpi(1, "train", *TINY, "--seed", 1, "--out", tmp_path / "b.h5")
    os.replace(tmp_path / "b.h5", there / "a.h5")
    with pytest.raises(UserError, match="is another run by now"):
        opened.clients
    os.remove(there / "a.h5")
    with pytest.raises(UserError, match="moved or removed"):
        opened.population
    assert len(opened.rounds) == 2
