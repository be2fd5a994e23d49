"""Scripts for Slurm: what they say, what they refuse, and, where slurm-wlm and munge are installed, that a Slurm of one
node, started here, plays them: stopped in time, queued again, resumed to the same bits."""

import getpass
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest
import torch
from conftest import environment
from other_mpi import DEBIAN, TINY_RUN

from fedmpi import catalog
from fedmpi.plugins.spec import make
from fedmpi.build import footprint
from fedmpi.build.needs import gpu_needs, planned_needs
from fedmpi.build.server import block
from fedmpi.build.setup import set_up
from fedmpi.cluster import foretell, sbatch
from fedmpi.build.options import DEFAULTS
from fedmpi.core.errors import UserError
from fedmpi.store import read_run, verify

ROOT = pathlib.Path(__file__).parents[2]
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol")
SBIN = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
CONFIG = """\
ClusterName=fedmpi
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1
MpiDefault=pmi2
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=1000000
PartitionName=all Nodes=ALL Default=YES State=UP
"""
SLOW = '''
import os, time, torch

class Net(torch.nn.Linear):
    def forward(self, x):
        time.sleep(0.08 if self.training and os.path.exists(os.environ.get("SLOW", "")) else 0)
        return super().forward(x.flatten(1))

def net(shape, classes):
    return Net(64, classes)
'''
RUN = ("--rounds", 30, "--clients", 4, "--local-epochs", 1, "--device", "cpu", "--model", "slurm_model:net",
       "--dataset", "synthetic:samples=600")
PROTOCOLS = {"pmi2": "PMI-2", "pmix": "PMIx"}
OUTPUT_KEPT = 3000            # characters of a log that a failure shows


def until(done, what, limit_s):
    """Wait until ``done()``; ``what()`` says what there is instead."""
    give_up = time.monotonic() + limit_s
    while not done():
        assert time.monotonic() < give_up, what()
        time.sleep(0.1)


def free_ports(count):
    """Ports that nobody has now. They lie below those that Linux hands out by itself, so that no
    other process is given one of them before Slurm takes it."""
    ports = set()
    while len(ports) < count:
        port = random.randrange(10_000, 32_768)
        if is_free(port):
            ports.add(port)
    return list(ports)


def is_free(port):
    with socket.socket() as trial:
        try:
            trial.bind(("", port))
        except OSError:
            return False
    return True


@pytest.fixture(scope="session")
def slurm():
    """A Slurm of one node for this session: the environment that its commands need."""
    found = {name: shutil.which(name, path=SBIN) for name in PROGRAMS}
    if None in found.values():
        pytest.skip(f"no {', '.join(name for name in PROGRAMS if not found[name])}: apt-get install slurm-wlm munge")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fedmpi-slurm-"))
    ports = free_ports(2)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    config, key = folder / "slurm.conf", folder / "munge.key"
    config.write_text(CONFIG.format(host=socket.gethostname().partition(".")[0], ports=ports, user=getpass.getuser(),
                                    folder=folder))
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    munge = [found["munged"], "--foreground", "--force"] + [
        f"--{name}={folder}/munge.{end}" for name, end in (("key-file", "key"), ("socket", "sock"), ("pid-file", "pid"),
                                                           ("log-file", "log"), ("seed-file", "seed"))]
    env = environment(SLURM_CONF=str(config), PYTHONPATH=f"{folder}:{ROOT}",
                      PATH=f"{pathlib.Path(sys.executable).parent}:{SBIN}")
    (folder / "slurm_model.py").write_text(SLOW)
    daemons = []

    def start(argv):
        with open(folder / "daemons.log", "a") as log:
            daemons.append(subprocess.Popen(argv, env=env, cwd=folder, stdout=log, stderr=log, start_new_session=True))

    def idle():
        told = subprocess.run(["sinfo", "-h", "-o", "%t"], env=env, capture_output=True, text=True, timeout=20).stdout
        return told.strip() == "idle"

    try:
        start(munge)
        until((folder / "munge.sock").exists, lambda: "munged does not start", 10)
        start([found["slurmctld"], "-D", "-c", "-f", str(config)])
        start([found["slurmd"], "-D", "-f", str(config)])
        until(idle, lambda: (folder / "daemons.log").read_text()[-OUTPUT_KEPT:], 30)
        yield env
        subprocess.run(["scancel", "--full", "--signal=KILL", "--user", getpass.getuser()], env=env, timeout=20)
        subprocess.run(["scancel", "--user", getpass.getuser()], env=env, timeout=20)
        until(lambda: not subprocess.run(["squeue", "-h"], env=env, stdout=subprocess.PIPE, timeout=20).stdout,
              lambda: "jobs are left", 40)
    finally:
        for daemon in daemons[::-1]:
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)


class Sent:
    """A job of the test's Slurm, whose model takes its time while the path ``slow`` exists."""

    def __init__(self, env, folder, task=""):
        self.out, self.log, self.slow = folder / "run.h5", folder / f"job{task}.log", folder / "slow"
        self.env = env | {"SLOW": str(self.slow)}
        self.id = self.slurm("sbatch", "--parsable", f"--output={self.log}", folder / "job.sbatch").strip()

    def slurm(self, *argv):
        return subprocess.run([*map(str, argv)], env=self.env, stdout=subprocess.PIPE, text=True, check=True,
                              timeout=30).stdout

    def has(self, text):
        """Wait until the log has ``text``."""
        until(lambda: self.log.exists() and text in self.log.read_text(), lambda: f"no {text!r}\n{self}", 150)

    def ended(self):
        """``(state, exit code)`` once the job has ended."""
        until(lambda: self.found("JobState") not in ("PENDING", "RUNNING", "COMPLETING"), lambda: str(self), 150)
        return self.found("JobState"), int(self.found("ExitCode").partition(":")[0])

    def found(self, name):
        return re.search(rf"\b{name}=(\S+)", self.slurm("scontrol", "show", "job", self.id))[1]

    def __str__(self):
        log = self.log.read_text()[-OUTPUT_KEPT:] if self.log.exists() else "no log"
        return f"{self.slurm('scontrol', 'show', 'job', self.id)}\n{log}"


@pytest.fixture(scope="session")
def job(slurm, fedmpi, tmp_path_factory):
    """``job(*options) -> Sent``: a small run as a job, slow until told otherwise."""

    def submit(*options):
        folder = tmp_path_factory.mktemp("job")
        (folder / "slow").touch()
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(pathlib.Path(slurm["SLURM_CONF"]).parent)
            fedmpi(1, "sbatch", *RUN, *options, "--out", folder / "run.h5", "--script", folder / "job.sbatch")
        return Sent(slurm, folder)

    return submit


@pytest.fixture(scope="session")
def whole(slurm, tmp_path_factory, fedmpi):
    """The run that nobody stopped."""
    path = tmp_path_factory.mktemp("whole") / "run.h5"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(pathlib.Path(slurm["SLURM_CONF"]).parent)
        fedmpi(1, "train", *RUN, "--out", path)
    return path


def test_a_job_comes_back_only_so_often(job):
    sent = job("--ranks", 2, "--requeues", 0)
    sent.has("ranks ready")
    sent.slurm("scancel", "--batch", "--signal=USR1", sent.id)
    assert sent.ended() == ("FAILED", 85), str(sent)
    assert "not queued again: 0 times are over" in sent.log.read_text()


def test_a_cancelled_job_does_not_come_back_and_goes_on_when_submitted_again(job, whole):
    sent = job("--ranks", 2)
    sent.has("round  1/30")
    sent.slurm("scancel", sent.id)
    assert sent.ended()[0] == "CANCELLED", str(sent)
    until(lambda: read_run(sent.out).attrs["status"] == "interrupted", lambda: str(sent), 10)
    log = sent.log.read_text()
    assert "asked to stop by SIGTERM" in log and "queued again" not in log
    sent.slow.unlink()
    again = Sent(sent.env, sent.out.parent)
    assert again.ended() == ("COMPLETED", 0), str(again)
    assert verify(whole, sent.out) == []


def test_a_job_at_its_limit_comes_back_to_the_same_bits(job, whole):
    """One minute is the least limit; Slurm looks at limits every half minute, and is early rather than late."""
    limited = job("--ranks", 3, "--time", 1, "--signal", "USR1@45", "--requeues", 20)
    limited.has("queued again, 1 of 20")
    limited.slow.unlink()
    limited.slurm("scontrol", "update", f"JobId={limited.id}", "TimeLimit=10")     # a later start is to reach the end
    limited.has("round 30/30")
    assert limited.ended() == ("COMPLETED", 0), str(limited)
    log = limited.log.read_text()
    assert "asked to stop by SIGUSR1 after round" in log and "Traceback" not in log
    assert len(read_run(limited.out).sessions) > 1 and verify(whole, limited.out) == []


def test_the_tasks_of_a_sweep_play_their_own_runs_and_come_back(slurm, fedmpi, tmp_path):
    (tmp_path / "grid.toml").write_text(
        f'folder = "{tmp_path}/runs"\n[fixed]\nrounds = 20\nclients = 4\nlocal-epochs = 1\ndevice = "cpu"\n'
        'dataset = "synthetic:samples=600"\nmodel = "slurm_model:net"\n[grid]\nseed = [0, 1]\n[slurm]\n'
        'ranks = 2\ntime = 10\n')
    (tmp_path / "slow").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(pathlib.Path(slurm["SLURM_CONF"]).parent)
        fedmpi(1, "sweep", tmp_path / "grid.toml", "--script", tmp_path / "job.sbatch")
    tasks = Sent(slurm, tmp_path, "%a")
    for number, log in enumerate((tmp_path / "job0.log", tmp_path / "job1.log")):
        until(lambda: log.exists() and "round  1/20" in log.read_text(), lambda: f"{log}\n{tasks}", 100)
        if number == 0:
            tasks.slurm("scancel", "--batch", "--signal=USR1", f"{tasks.id}_0")
    (tmp_path / "slow").unlink()
    done = [tmp_path / "runs" / f"seed-{seed}.h5" for seed in (0, 1)]
    until(lambda: all(path.exists() and read_run(path).attrs["status"] == "finished" for path in done),
          lambda: f"{(tmp_path / 'job0.log').read_text()[-OUTPUT_KEPT:]}\n{tasks}", 100)
    assert "queued again, 1 of 10" in (tmp_path / "job0.log").read_text()
    assert "queued again" not in (tmp_path / "job1.log").read_text()
    assert [read_run(path).attrs["seed"] for path in done] == [0, 1]


def test_a_study_submitted_as_an_array_ends_in_its_outcome(slurm, fedmpi, tmp_path, monkeypatch):
    """--submit by the command itself, tasks that leave out what is finished, then --report."""
    monkeypatch.chdir(tmp_path)
    for name in ("SLURM_CONF", "PATH", "PYTHONPATH"):
        monkeypatch.setenv(name, slurm[name])
    pathlib.Path("mine.toml").write_text(
        'title = "t"\nquestion = "q"\nmeasures = ["accuracy"]\nagainst = "a"\n[fixed]\nrounds = 3\nclients = 2\n'
        'local-epochs = 1\ndataset = "synthetic:samples=120"\nmodel = "logistic"\n[arms.a]\nlr = 0.1\n[arms.b]\n'
        'lr = 0.01\n[size.smoke]\nseeds = [0, 1]\n[[claim]]\nsays = "fast is better"\nmeasure = "accuracy"\n'
        'plus = [{ arm = "a" }]\nminus = [{ arm = "b" }]\nabove = 0\n')
    study = ("experiment", "mine.toml", "--folder", "runs")
    fedmpi(1, "train", "--lr", 0.1, "--rounds", 3, "--clients", 2, "--local-epochs", 1, "--dataset",
           "synthetic:samples=120", "--model", "logistic", "--seed", 0, "--out", "runs/a_seed-0.h5")
    told = fedmpi(1, *study, "--array", "--ranks", 2, "--at-once", 2, "--script", "study.sbatch", "--submit")
    assert "an array job of 3 runs, 2 at a time" in told and "--array=1-3%2" in pathlib.Path("study.sbatch").read_text()
    names = [f"runs/{arm}_seed-{seed}.h5" for seed in (0, 1) for arm in "ab"]
    until(lambda: all(os.path.exists(name) and read_run(name).attrs["status"] == "finished" for name in names),
          lambda: "\n".join(path.read_text()[-OUTPUT_KEPT:] for path in tmp_path.glob("**/*.out")) or told, 150)
    assert "INCOMPLETE" not in fedmpi(1, *study, "--report")
    assert '"complete": true' in pathlib.Path("runs/outcome.json").read_text()


@pytest.mark.parametrize("name, kind", [("MPICH", "pmi2"), ("Open MPI", "pmix")])
def test_srun_starts_the_ranks_of_the_mpi_that_it_knows(slurm, fedmpi, tmp_path, name, kind):
    other = DEBIAN[name](tmp_path)
    argv = ["srun", "-n", "3", f"--mpi={kind}", *other.fedmpi("train", *TINY_RUN, "--out", tmp_path / "run.h5")]
    done = subprocess.run(argv, env=slurm | other.env, text=True, timeout=200, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    assert done.returncode == 0 and "3 ranks ready" in done.stdout, done.stdout
    assert f"(started by srun, {PROTOCOLS[kind]}; {name} " in done.stdout
    fedmpi(1, "train", *TINY_RUN, "--out", tmp_path / "alone.h5")
    assert verify(tmp_path / "alone.h5", tmp_path / "run.h5") == []


@pytest.mark.parametrize("name", ["one-node-cpu", "one-node-4-gpus", "many-nodes", "preemptible", "array-sweep"])
def test_ready_scripts_are_what_the_command_makes(fedmpi, tmp_path, monkeypatch, name):
    """But for what they say about themselves, in lines that begin with two hashes."""
    text = ROOT.joinpath(f"jobs/slurm/{name}.sbatch").read_text()
    ready = "".join(line for line in text.splitlines(True) if not line.startswith("##"))
    command = re.search(r"^# Made by: fedmpi (.*)$", ready, re.M)[1]
    shutil.copytree(ROOT / "jobs/slurm", tmp_path / "jobs/slurm")
    monkeypatch.chdir(tmp_path)
    assert fedmpi(1, *shlex.split(command)).endswith(ready) and ready != text
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@pytest.fixture
def bare(fedmpi, tmp_path):
    """``bare(code, signal=None, requeue=0, **env) -> (exit code, what was called)``: the script under a plain bash,
    where mpirun ends with ``code`` (dies of the signal, where that is not SIGTERM), and scontrol with ``requeue``."""

    def play(code, signal=None, requeue=0, **env):
        called = tmp_path / "called"
        for name, body in {
                "mpirun": "touch started; trap 'kill $!; exit $CODE' TERM; sleep 20 & wait" if signal else "exit $CODE",
                "scontrol": f"echo scontrol $* >> {called}; exit {requeue}",
                "sbatch": f'echo sbatch $FEDMPI_REQUEUES "${{SLURM_RESTART_COUNT:-none}}" $1 >> {called}'}.items():
            (tmp_path / name).write_text(f"#!/bin/bash\n[ $1 = --version ] && exit\n{body}\n")
            (tmp_path / name).chmod(0o755)
        fedmpi(1, "sbatch", "--out", "run.h5", "--script", tmp_path / "job.sbatch")
        process = subprocess.Popen(
            ["bash", tmp_path / "job.sbatch"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=environment(PATH=f"{tmp_path}:{os.environ['PATH']}", CODE=str(code), SLURM_JOB_ID="7", **env))
        if signal:
            until((tmp_path / "started").exists, lambda: "mpirun was not started", 10)
            process.send_signal(signal)
        return process.wait(20), called.read_text().splitlines() if called.exists() else []

    return play


@pytest.mark.parametrize("code, arguments, expected", [
    (0, {}, (0, [])), (1, {}, (1, [])),
    (85, {}, (0, ["scontrol requeue 7"])),
    (85, {"SLURM_RESTART_COUNT": "9"}, (0, ["scontrol requeue 7"])),
    (85, {"SLURM_RESTART_COUNT": "10"}, (85, [])),
    (85, {"SLURM_RESTART_COUNT": "4", "FEDMPI_REQUEUES": "6"}, (85, [])),
    (85, {"SLURM_RESTART_COUNT": "4", "requeue": 1},
     (0, ["scontrol requeue 7", "sbatch 5 none --dependency=afterany:7"])),
    (85, {"signal": signal.SIGTERM}, (85, [])),                # scancel
    (138, {"signal": signal.SIGUSR1}, (0, ["scontrol requeue 7"])),   # died of the signal, before it could heed it
])
def test_what_a_script_does_when_its_run_ends(bare, code, arguments, expected):
    assert bare(code, **arguments) == expected


@pytest.mark.parametrize("arguments, message", [
    (("--time", "soon"), "--time must be"),
    (("--time", "2"), "no longer than the notice"),
    (("--memory", "lots"), "--memory must be a size"),
    (("--memory", "1G"), "33 ranks there need about 25G"),
    (("--nodes", 2, "--ranks", 1), "as many ranks at least"),
    (("--ranks-per-client", 2, "--ranks", 4), "groups of 2 workers are needed, got 4 ranks"),
    (("--device", "cuda"), "needs --gpus"),
    (("--device", "cpu", "--gpus", 1), "would lie idle"),
    (("--venv", "a", "--container", "b"), "take one of --venv and --container"),
    (("--launcher", "aprun"), "must begin with srun or mpirun"),
    (("--launcher", ""), "must begin with srun or mpirun"),
    (("--launcher", "mpirun '-x"), "--launcher mpirun '-x: No closing quotation"),
    (("--launcher", "mpirun --bind-to none -np 4"), "must not say how many ranks, got -np: give --ranks"),
    (("--launcher", "mpirun -n=4"), "got -n=4"),
    (("--launcher", "srun --mpi=pmix --ntasks=4"), "got --ntasks=4"),
    (("--launcher", "srun -n4"), "got -n4"),
    (("--launcher", "mpirun", "--signal", "USR2@60"), "passes on USR1 only"),
    (("--signal", "KILL"), "a signal is USR1"),
    (("--cohort", 40), "--cohort 40 of 32 clients"),
    (("--strategy", "fedavgg"), "did you mean fedavg?"),
    (("--resume", "run.h5"), "No such option"),
    (("--job-name", "a\n#SBATCH --wrap=b"), "must be of one line"),
    (("--log", "a\r.out"), "must be of one line"),
    (("--fault", "scaled:share=0.5\nrm"), "must be"),
    (("--job-name", 'a"b'), "--job-name must have neither double quotes nor backslashes"),
    (("--constraint", "a\\b"), "--constraint must have neither"),
    (("--mail-user", "a@b.c"), "--mail-user has no effect without --mail-type: END,FAIL"),
    (("--mail-type", "END,LATE"), "--mail-type END,LATE: there is no LATE; there are NONE, BEGIN"),
    (("--sbatch", "a b=c"), "must be NAME=VALUE"),
    (("--sbatch", "-x"), "must be NAME=VALUE"),
    (("--sbatch", "--ntasks=4"), "--sbatch ntasks: that is said by --ranks already"),
    (("--sbatch", "signal=USR1"), "that is said by --signal already"),
    (("--sbatch", "comment=a\nb"), "must be of one line"),
    (("--sbatch", 'comment="a"'), "--sbatch comment must have neither double quotes"),
    (("--cpus-per-task", 0), "--cpus-per-task"),
    (("--submit",), "needs --script"),
    (("--script", __file__), "exists already"),
])
def test_a_job_that_cannot_work_is_refused_in_one_line(fedmpi, arguments, message):
    output = fedmpi(1, "sbatch", *arguments, code=2)
    assert message in output and len(output.strip().splitlines()) == 1


def test_a_script_holds_the_options_of_the_run(fedmpi, tmp_path):
    config = tmp_path / "job.toml"
    config.write_text("rounds = 7\n")
    output = fedmpi(1, "sbatch", "--config", config, "--fault", "duplicate", "--fault", "scaled:share=0.2", "--gpus", 2,
                    "--out", "a b.h5", "--container", "fed.sif", "--modules", "mpich", "--account", "me", "--queue",
                    "q")
    train = "fedmpi train --fault duplicate --fault scaled:share=0.2 --rounds 7"
    for line in (f"train=(apptainer exec --nv fed.sif {train})",
                 "run='a b.h5'", "module load mpich", "#SBATCH --account=me", "#SBATCH --partition=q",
                 "#SBATCH --gpus-per-node=2", "2 GPUs a node, shared by 33 ranks there"):
        assert line in output.splitlines(), line
    script = output[output.index("#!/bin/bash"):]
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


ASKED = ("--job-name", "my job", "--mail-user", "me@x.org", "--mail-type", "END,FAIL", "--log", "%x 1-%j.out",
         "--cpus-per-task", 2, "--sbatch", "exclusive", "--sbatch", "--comment=two words # of mine")
LINES = ('--job-name="my job"', "--mail-user=me@x.org", "--mail-type=END,FAIL", '--output="%x 1-%j.out"',
         "--cpus-per-task=2", "--exclusive", '--comment="two words # of mine"')


def test_what_is_asked_of_slurm_is_in_the_script(fedmpi, tmp_path, monkeypatch):
    output = fedmpi(1, "sbatch", *ASKED, "--qos", "high", "--constraint", "a100&nvme")
    for line in (*LINES, "--qos=high", "--constraint=a100&nvme"):
        assert f"#SBATCH {line}" in output.splitlines(), line
    assert "2 CPUs a rank, each of which trains on one thread" in output
    assert "SRUN_CPUS_PER_TASK" not in output
    assert "export SRUN_CPUS_PER_TASK=2" in fedmpi(1, "sbatch", "--launcher", "srun", "--cpus-per-task", 2).splitlines()
    plain = fedmpi(1, "sbatch")
    assert "#SBATCH --job-name=fedmpi\n" in plain and "#SBATCH --cpus-per-task=1\n" in plain
    monkeypatch.chdir(tmp_path)
    assert "Slurm makes none: mkdir -p logs first" in fedmpi(1, "sbatch", "--log", "logs/%j.out")
    (tmp_path / "logs").mkdir()
    assert "warning" not in fedmpi(1, "sbatch", "--log", "logs/%j.out")


def test_an_array_says_what_it_asks_of_slurm_in_its_file_or_in_flags(fedmpi, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.toml").write_text('[fixed]\ndataset = "synthetic"\n[grid]\nseed = [0, 1]\n[slurm]\nqos = "low"\n'
                                        'job-name = "grid"\nsbatch = "exclusive"\ncpus-per-task = 2\n')
    output = fedmpi(1, "sweep", "grid.toml", "--qos", "high", "--log", "%x-%a.out").splitlines()
    for line in ("job-name=grid", "qos=high", "exclusive", "cpus-per-task=2", "output=%x-%a.out", "array=0-1"):
        assert f"#SBATCH --{line}" in output, line
    for log in ("all.out", "%x-%A.out", "100%%a.out"):
        assert "all runs of the array would write into it; put %a" in fedmpi(
            1, "sweep", "grid.toml", "--log", log, code=2)
    assert "--qos: of a batch script" in fedmpi(1, "sweep", "grid.toml", "--here", "--qos", "high", code=2)


def test_a_line_break_in_a_path_does_not_end_the_comment_that_names_the_command(fedmpi, tmp_path):
    fedmpi(1, "sbatch", "--script", tmp_path / "a\ntouch b #")
    text = (tmp_path / "a\ntouch b #").read_text()
    assert "touch b" in text.splitlines()[2] and not any(line.startswith("touch") for line in text.splitlines())


def test_slurm_reads_what_is_asked_of_it_as_it_was_meant(slurm, fedmpi, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fedmpi(1, "sbatch", "--clients", 2, "--ranks", 2, *ASKED, "--sbatch", "hold", "--script", "job.sbatch")
    subprocess.run(["sbatch", "--test-only", "job.sbatch"], env=slurm, check=True, timeout=30)
    number = subprocess.run(["sbatch", "--parsable", "job.sbatch"], env=slurm, check=True, timeout=30,
                            capture_output=True, text=True).stdout.strip()
    told = subprocess.run(["scontrol", "show", "job", number], env=slurm, check=True, timeout=30, capture_output=True,
                          text=True).stdout
    subprocess.run(["scancel", number], env=slurm, check=True, timeout=30)
    for line in ("JobName=my job", "MailUser=me@x.org", "MailType=END,FAIL", f"StdOut={tmp_path}/my job 1-{number}.out",
                 "CPUs/Task=2", "OverSubscribe=NO", "Comment=two words # of mine", "Reason=JobHeldUser"):
        assert line in told, (line, told)


@pytest.mark.parametrize("launcher, start", [
    ("srun -c 2 --ntasks-per-node=4 -N 2", "srun -c 2 --ntasks-per-node=4 -N 2 --kill-on-bad-exit=1"),
    ("mpirun --bind-to none -ppn 4", "mpirun --bind-to none -ppn 4 -n 33")])
def test_options_of_the_launcher_stay(fedmpi, launcher, start):
    output = fedmpi(1, "sbatch", "--launcher", launcher)
    assert f'{start} "${{train[@]}}" &' in output.splitlines()


@pytest.mark.parametrize("job, served, loads", [
    ((1, 6, 2), True, [(3, False), (2, True)]), ((1, 6, 2), False, [(3, False), (2, False)]),
    ((1, 1, 1), True, [(1, True)]), ((1, 2, 2), True, [(1, False), (0, True)]),
    ((3, 9, 2), True, [(1, False), (1, True), (2, False), (1, False)])])
def test_a_plan_deals_ranks_out_over_gpus_as_the_run_will(job, served, loads):
    nodes, ranks, gpus = job
    asked = sbatch.Job(nodes, ranks, gpus, "", "10", None, None, None, None, None, None, "srun", "USR1@120", 1)
    assert foretell.gpu_loads(asked, served) == loads


def test_a_plan_says_what_the_fullest_gpu_will_hold(fedmpi, tmp_path):
    asked = ("--clients", 8, "--ranks", 9, "--gpus", 2)
    worker, server = planned_needs(DEFAULTS | {"clients": 8})
    four = f"about {4 * worker.total / 1e9:.2g} GB of the fullest GPU, for 4 workers on it, estimated"
    assert four in fedmpi(1, "sbatch", *asked, "--server-device", "cpu")
    total = (4 * worker.total + server.total) / 1e9
    both = f"about {total:.2g} GB of the fullest GPU, for 4 workers and the server on it"
    output = fedmpi(1, "sbatch", *asked)
    assert both in output and f"a worker takes {footprint.in_words(worker)}" in output
    assert "GPU" not in fedmpi(1, "sbatch", "--clients", 8).replace("no GPU", "")
    absent = fedmpi(1, "sbatch", *asked, "--dataset", "mnist", "--data-dir", tmp_path / "nothing")
    assert "GPU memory: not estimated here, without the data: data set mnist: " in absent and "#!/bin/bash" in absent


def test_a_plan_counts_those_that_are_asked_beside_the_cohort(fedmpi):
    asked = ("--devices", "drawn", "--cohort", 10, "--timing")
    output = fedmpi(1, "sbatch", *asked, "sync:over=0.3")
    assert "14 ranks on 1 node; 13 workers for 13 clients a round" in output
    assert "33 ranks" in fedmpi(1, "sbatch", *asked, "sync:over=9")
    assert "5 ranks" in fedmpi(1, "sbatch", *asked[:2], "--timing", "fedbuff:concurrency=4")
    assert "#!/bin/bash" in fedmpi(1, "sbatch", "--timing", "sync:over=0,deadline=0")      # as train has it


def test_a_plan_counts_all_ranks_of_a_client(fedmpi):
    output = fedmpi(1, "sbatch", "--clients", 8, "--cohort", 4, "--ranks-per-client", 3)
    assert "13 ranks on 1 node; 4 groups of 3 workers for 4 clients a round, 1 each at most" in output
    assert "#SBATCH --ntasks=13" in output and "--ranks-per-client 3" in output


def test_the_plan_estimates_what_the_run_will():
    options = DEFAULTS | {"clients": 4, "device": "cuda", "server_device": "cuda"}
    setup = set_up(options, torch.device("cpu"))
    assert planned_needs(options) == gpu_needs(setup.options, setup.data, setup.network)
    assert block(setup.run.layout.P) == setup.run.block


@pytest.fixture
def submitting(command, tmp_path):
    """``submitting(body) -> (exit code, lines)`` of a submission where sbatch is a script of that ``body``, or is
    missing."""

    def submit(body):
        (tmp_path / "bin").mkdir(exist_ok=True)
        if body:
            (tmp_path / "bin/sbatch").write_text(f"#!/bin/sh\n{body}\n")
            (tmp_path / "bin/sbatch").chmod(0o755)
        done = subprocess.run(command(1, "sbatch", "--script", "job.sbatch", "--submit"), cwd=tmp_path, text=True,
                              env=environment(PATH=f"{tmp_path}/bin:/usr/bin:/bin" if body else f"{tmp_path}/bin",
                                              PYTHONPATH=str(ROOT)), capture_output=True)
        return done.returncode, done.stderr.strip().splitlines()

    return submit


def test_a_submission_that_fails_is_one_line_and_leaves_nothing_in_the_way(submitting, tmp_path):
    code, lines = submitting("")
    assert (code, len(lines)) == (2, 1) and "--submit needs Slurm's sbatch" in lines[0]
    code, lines = submitting("echo sbatch: error: invalid account >&2; exit 3")
    assert code == 1 and lines[-2] == "sbatch: error: invalid account"
    assert lines[-1].startswith("error: sbatch refused the script (exit code 3, see above), and job.sbatch is removed")
    assert not (tmp_path / "job.sbatch").exists()
    code, lines = submitting("[ -s $1 ] && echo Submitted $1 >&2")                      # the same command again
    assert (code, lines[-1]) == (0, "Submitted job.sbatch") and (tmp_path / "job.sbatch").exists()


def test_a_measurement_says_how_many_rounds_fit(fedmpi):
    output = fedmpi(1, "sbatch", "--clients", 4, "--local-epochs", 1, "--rounds", 10**7, "--time", 5, "--measure")
    assert re.search(r"about .* s on 5 ranks of that speed: --time 5 has room for \d+ of 10,000,000 rounds\n", output)
    assert "GB a node, measured" in output


def test_rounds_that_fit_follow_from_what_workers_share():
    options = {"cohort": 0, "clients": 4, "rounds": 50, "timing": "sync", "ranks_per_client": 1}
    job = sbatch.Job(1, 3, 0, "", "10", None, None, None, None, None, None, "srun", "USR1@120", 1)
    told = foretell.fitting(job, options, sbatch.Measured(round_s=10.0, shared_s=8.0, rank_bytes=1e9))
    assert "about 6 s on 3 ranks" in told and "has room for 50 of 50 rounds" in told     # 2 s alone, 8 s shared by two
    busy = options | {"cohort": 2, "timing": "fedbuff:concurrency=4"}       # four are at work, not two
    assert foretell.fitting(job, busy, sbatch.Measured(10.0, 8.0, 1e9)) == told
    slower = sbatch.Measured(16.0, 12.0, 1e9)                                    # (600 - 120 - 60) s of 10 s
    assert "42 of 50" in foretell.fitting(job, options, slower)


@pytest.mark.parametrize("text, found", [("90", 5400), ("1:30", 90), ("2:00:00", 7200), ("1-0", 86400),
                                         ("1-2:03", 93780), ("1-2:03:04", 93784)])
def test_times_are_read_as_slurm_does(text, found):
    assert sbatch.seconds(text) == found


@pytest.mark.parametrize("text", ["", "1:2:3:4", "1d", "-5"])
def test_other_times_are_refused(text):
    with pytest.raises(UserError):
        sbatch.seconds(text)


@pytest.mark.parametrize("name", catalog.MODELS)
def test_the_estimate_knows_every_model(name):
    shape, outputs = (3, 32, 32), 10
    if name in ("gpt", "gpt2"):
        shape, outputs = (64,), 65
    network = make(catalog.MODELS, name, shape, outputs)
    weights = sum(parameter.numel() for parameter in network.parameters())
    assert weights <= sbatch.WEIGHTS[name] * 1.02 and sbatch.WEIGHTS[name] <= weights * 1.1


def test_the_estimate_knows_every_data_set():
    of_any_size = {"hdf5", "text", "tokens", "parquet", "leaf-femnist", "leaf-shakespeare"}
    assert set(catalog.DATASETS) - of_any_size == set(sbatch.DATA_BYTES)
