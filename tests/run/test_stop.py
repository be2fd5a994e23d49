"""Asked to stop: whoever gets the signal, the run saves what it has, exits with 85 and resumes to the same bits."""

import os
import re
import signal
import subprocess

import pytest
from conftest import environment, python_processes
from engine import assembled

from fedmpi.core import stop
from fedmpi.server import loop, record
from fedmpi.server import round as rounds
from fedmpi.core.errors import BrokenOff, DivergedError, Stopped, UserError
from fedmpi.store import MemoryStore, read_run, verify

SMALL = ("--rounds", 12, "--clients", 6, "--local-epochs", 1, "--device", "cpu", "--dataset", "synthetic:samples=300")
SLOW = '''
import os, time, torch

class Net(torch.nn.Linear):
    def forward(self, x):
        at_work = self.training and len(x) > 2           # and not looked at before the run, on two samples
        nap = float(os.environ.get("NAP", 0)) if at_work else 0
        if nap > 1:
            os.write(2, b"napping\\n")
        time.sleep(nap)
        return super().forward(x.flatten(1))

def net(shape, classes):
    return Net(64, classes)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the slow model in it."""
    path = tmp_path_factory.mktemp("stop")
    (path / "slow_model.py").write_text(SLOW)
    return path


@pytest.fixture(scope="module")
def whole(fedmpi, folder):
    """A run that nobody stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        fedmpi(1, "train", *SMALL, "--model", "slow_model:net", "--out", folder / "whole.h5")
        yield folder / "whole.h5"


@pytest.fixture
def stopped(command, whole, tmp_path):
    """``stopped(ranks, target, number, at, **env) -> (path, output)``: a run that gets the signal ``number`` once a
    line that begins with ``at`` has come, and ends with code 85."""

    def play(ranks, target, number, at, **env):
        process = subprocess.Popen(
            command(ranks, "train", *SMALL, "--model", "slow_model:net", "--out", tmp_path / "run.h5"), text=True,
            env=environment(PYTHONPATH=f"{whole.parent}:{os.environ.get('PYTHONPATH', '')}", **env),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        output = ""
        for line in process.stdout:
            output += line
            if line.startswith(at):
                break
        ranks = python_processes(process.pid)
        for pid in {"launcher": [process.pid], "rank 0": ranks[:1], "worker": ranks[-1:]}[target]:
            os.kill(pid, number)
        output += process.communicate(timeout=30)[0]
        assert process.returncode == stop.COME_BACK == 85, output
        assert output.count("asked to stop") == 1 and "Traceback" not in output, output
        assert read_run(tmp_path / "run.h5").attrs["status"] == "interrupted"
        return tmp_path / "run.h5", output

    return play


@pytest.mark.parametrize("ranks, target, number", [
    (1, "launcher", signal.SIGTERM), (2, "launcher", signal.SIGUSR1), (2, "rank 0", signal.SIGTERM),
    (3, "worker", signal.SIGUSR1)])
def test_whoever_gets_the_signal_the_run_comes_back_to_the_same_bits(fedmpi, whole, stopped, ranks, target, number):
    path, output = stopped(ranks, target, number, "round  2/", NAP="0.03")
    line = rf"^asked to stop by {number.name} after round (\d+) of 12; .*run\.h5 goes on \(exit code 85\)$"
    told = re.findall(line, output, re.M)
    assert len(told) == 1 and 2 <= int(told[0]) == len(read_run(path).rounds["round"]) < 12
    assert output.rstrip().endswith("(exit code 85)"), "no launcher complains after it"
    fedmpi(1, "train", "--resume", path)
    assert verify(whole, path) == []


def test_a_round_that_is_too_long_is_given_up_between_clients(fedmpi, whole, stopped):
    path, output = stopped(2, "launcher", signal.SIGUSR1, "2 ranks ready", NAP="0.3", FEDMPI_SIGNAL="USR1@4")
    assert "after round 0 of 12" in output
    assert "starting again from round 1" in fedmpi(1, "train", "--resume", path)
    assert verify(whole, path) == []


def test_a_client_that_takes_too_long_is_broken_off(whole, stopped):
    # Nobody waits for its nap of 100 s: the run has ended within the 30 s that ``stopped`` waits. What MPI itself says
    # of an abort, Hydra does not always pass on.
    path, _ = stopped(2, "launcher", signal.SIGUSR1, "napping", NAP="100", FEDMPI_SIGNAL="USR1@2")
    assert len(read_run(path).rounds["round"]) == 0


def test_an_alarm_lets_a_block_end_and_breaks_off_what_follows():
    asked, done = stop.Stop(), []
    with pytest.raises(BrokenOff):
        with asked.unbroken():
            asked.break_off(signal.SIGALRM, None)
            done.append("closed")
    assert done == ["closed"]
    with asked.unbroken():
        pass


def test_a_given_up_round_leaves_the_state_of_the_last_whole_one():
    """Whatever the interval of checkpoints."""
    run, state = assembled(rounds=4)
    store = MemoryStore({}, record.round_columns(True, len(run.layout.weights), list(run.contributions), run.objective),
                        record.client_columns(list(run.contributions)), {}, ([0], []))

    def on_round(row):
        if row["round"] == 2:
            run.transport.stop.by = 0                        # round 3 finds that its time is over

    with pytest.raises(Stopped):
        loop.simulate(run, state, store, 1, 4, save_every=3, on_round=on_round)
    assert store.load()[1] == store.rounds == 2


def test_an_evaluation_that_fails_while_the_run_is_stopped_costs_no_round(monkeypatch):
    """Round 3 diverges, which is found while round 4 is given up: rounds 1 and 2 are there and saved."""
    run, state = assembled(rounds=5)
    store = MemoryStore({}, record.round_columns(True, len(run.layout.weights), list(run.contributions), run.objective),
                        record.client_columns(list(run.contributions)), {}, ([0], []))
    play, evaluated = rounds.run_round, rounds.evaluated

    def evaluation(run, state, merged, due=True):
        yield
        raise DivergedError("the merged model has loss nan")

    def playing(run, state, t):
        monkeypatch.setattr(rounds, "evaluated", evaluation if t == 3 else evaluated)
        if t == 4:
            raise Stopped("asked to stop by SIGTERM")
        return play(run, state, t)

    monkeypatch.setattr(loop, "run_round", playing)
    with pytest.raises(DivergedError):
        loop.simulate(run, state, store, 1, 5, save_every=5)
    assert store.load()[1] == store.rounds == 2


@pytest.mark.parametrize("text, found", [("USR1@120", (signal.SIGUSR1, 120)), ("SIGUSR2", (signal.SIGUSR2, 120)),
                                         ("HUP@7", (signal.SIGHUP, 7))])
def test_a_signal_is_written_as_slurm_does(text, found):
    assert stop.notice(text) == found


@pytest.mark.parametrize("text", ["KILL@9", "USR1@", "USR1@0", "USR1@2min", "10", "@5"])
def test_other_signals_are_refused(text):
    with pytest.raises(UserError, match="seconds of notice"):
        stop.notice(text)


def test_the_handlers_of_the_process_are_given_back(fedmpi, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)]
    fedmpi(1, "train", "--rounds", 1, "--clients", 2, "--local-epochs", 1, "--out", tmp_path / "run.h5")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)] == before


def test_a_run_resumes_where_the_device_is_left_to_be_found(fedmpi, tmp_path):
    options = ("--rounds", 2, "--clients", 2, "--local-epochs", 1, "--device", "auto")
    fedmpi(1, "train", *options, "--until", 1, "--out", tmp_path / "run.h5")
    fedmpi(1, "train", *options, "--resume", tmp_path / "run.h5")
    assert read_run(tmp_path / "run.h5").attrs["status"] == "finished"


def test_many_processes_without_mpi_are_refused(fedmpi):
    """What srun starts where it does not know the MPI of mpi4py: as many runs of one rank each."""
    output = fedmpi(1, "train", code=2, timeout=60, SLURM_STEP_NUM_TASKS="3", SLURM_PROCID="0")
    assert "the launcher says rank 0 of 3, MPI says rank 0 of 1" in output
