"""Whatever goes wrong: one message, the right exit code, soon, and nothing committed is lost."""

import signal
import subprocess
import sys

import h5py
import pytest
from conftest import environment

import fedmpi as package
from fedmpi.store import read_run, verify

SMALL = ("--rounds", 3, "--clients", 6, "--model", "small-cnn:width=4", "--local-epochs", 1, "--dataset",
         "synthetic:samples=300")
BROKEN = '''
import torch

class Net(torch.nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.out = torch.nn.Linear(features, classes)
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        if self.calls == 12:
            raise RuntimeError("boom in the forward pass")
        return self.out(x.flatten(1))

def net(shape, classes, scale: float = 1.0):
    return Net(64, classes)
'''
BREAKING = '''
import os
from fedmpi.methods.strategies.fedavg import fedavg

def breaking():
    """FedAvg that breaks in round 2.

    Up: as FedAvg.
    """
    plain = fedavg()

    def merge(state, x, updates, weights):
        if os.environ.get("BREAK") and updates.round.t == 2:
            raise OSError("no more of it\\nand a second line")
        return plain.merge(state, x, updates, weights)

    return plain._replace(merge=merge)
'''


@pytest.mark.parametrize("ranks, arguments, message", [
    (1, ("--strategy", "fedavgg"), "did you mean fedavg?"),
    (1, ("--pruner", "rigl:sparsty=0.5"), "did you mean sparsity?"),
    (1, ("--rounds", "many"), "'many' is not a valid integer"),
    (1, ("--config", "missing.toml"), "missing.toml"),
    (3, ("--strategy", "fedavgg"), "did you mean fedavg?"),              # found by us, and by click
    (3, ("--rounds", "many"), "'many' is not a valid integer"),
])
def test_a_wrong_option_is_one_line(fedmpi, ranks, arguments, message):
    output = fedmpi(ranks, "train", *arguments, code=2)
    assert message in output and len(output.strip().splitlines()) == 1


@pytest.mark.parametrize("arguments, message", [
    (("--pruner", "rigl:sparsity=1.5"), "sparsity must be in [0, 1), got 1.5"),
    (("--dataset", "mnist", "--data-dir", "nowhere"), "fedmpi fetch mnist"),
    (("--clients", 5000), "use fewer clients"),
    (("--cohort", 40), "--cohort must be between 1 and the 32 clients, got 40"),
    (("--model", "cifar10net:conv_width=0"), "conv_width"),
    (("--contribution", "loo", "--validation", 0), "needs validation samples"),
    (("--resume", "nothing.h5"), "nothing.h5"),
    (("--resume", "nothing.h5", "--out", "other.h5"), "--out has no place beside --resume"),
    (("--train-samples", 99999), "digits has 1438"),
    (("--contribution", "cosine", "--weighting", "relu:gamma=0.5"), "relu has no option 'gamma'"),
    (("--observe", "cosine", "--observe", "loo:of=F1"), "of must be loss, headline or accuracy"),
    (("--fault", "free-rider:kind=lazy"), "kind must be"),
    (("--observe", "shapley", "--clients", 20), "a cohort of 20 clients has 2^20 coalitions, and limit=16"),
    (("--clients", 20, "--cohort", 4, "--contribution", "comfedsv", "--observe", "shapley"), "a cohort of 20 clients"),
    (("--contribution", "gtg-shapley:budget=3", "--clients", 7), "a budget of 3 coalitions does not pay for 7 clients"),
    (("--pruner", "adaptive:groups=4", "--clients", 6), "two groups of 4 need 8 clients, there are 6"),
    (("--fault", "duplicate:share=1"), "--fault duplicate:share=1: duplicate needs an honest client"),
    (("--fault", "label-flip:source=0,target=11"), "--fault label-flip:source=0,target=11"),
    (("--noise", "asymmetric", "--dataset", "synthetic:classes=4"), "--noise asymmetric"),
    (("--observe", "loo", "--contribution", "cosine", "--validation", 0), "loo needs validation samples"),
    (("--pruner", "set:end=0.5"), "end has no effect with decay=constant: it is for decay=cosine"),
    (("--pruner", "static:sparsity=0.9999"), "bears at most sparsity"),
    (("--out", "no/such/folder/run.h5"), "no folder"),
])
def test_what_cannot_work_is_one_line_before_work_starts(fedmpi, tmp_path, arguments, message):
    named = "--out" in arguments or "--resume" in arguments
    arguments = arguments if named else ("--out", tmp_path / "run.h5", *arguments)
    output = fedmpi(1, "train", *arguments, code=2)
    assert message in output and len(output.strip().splitlines()) == 1


def test_mistakes_are_told_before_other_ranks_are_waited_for(fedmpi, tmp_path):
    output = fedmpi(3, "train", "--pruner", "rigl:sparsity=1.5", "--out", tmp_path / "run.h5", code=2)
    assert output.count("error:") == 1 and "got 1.5" in output and "ranks ready" not in output
    assert not (tmp_path / "run.h5").exists()


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_worker_s_exception_reaches_the_user_once(fedmpi, tmp_path, ranks):
    (tmp_path / "broken_model.py").write_text(BROKEN)
    output = fedmpi(ranks, "train", *SMALL, "--model", "broken_model:net:scale=2", "--out", tmp_path / "run.h5", code=1,
                    PYTHONPATH=str(tmp_path))
    assert output.count("RuntimeError: boom in the forward pass") == 1
    attrs = read_run(tmp_path / "run.h5").attrs
    assert attrs["status"] == "failed" and attrs["error"] == "RuntimeError: boom in the forward pass"


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_diverging_client_is_named(fedmpi, tmp_path, ranks):
    output = fedmpi(ranks, "train", *SMALL, "--lr", "1e20", "--strategy", "fedavg", "--out", tmp_path / "run.h5",
                    code=1)
    assert "diverged" in output and "smaller --lr" in output and "Traceback" not in output
    reason = read_run(tmp_path / "run.h5").attrs["error"]
    assert reason.startswith("round 1: ") and f"error: {reason}" in " ".join(output.split())
    assert reason in " ".join(fedmpi(1, "show", tmp_path / "run.h5").split())
    assert package.open(tmp_path / "run.h5").events["text"].tolist()[-1] == reason


def test_a_run_that_goes_on_forgets_why_it_ended(fedmpi, tmp_path):
    (tmp_path / "breaking.py").write_text(BREAKING)
    out = tmp_path / "run.h5"
    broken = {"PYTHONPATH": str(tmp_path), "BREAK": "1"}
    fedmpi(1, "train", *SMALL, "--strategy", "breaking:breaking", "--out", out, code=1, **broken)
    assert read_run(out).attrs["error"] == "OSError: no more of it"
    fedmpi(1, "train", "--resume", out, PYTHONPATH=str(tmp_path))
    attrs = read_run(out).attrs
    assert (attrs["status"], attrs["error"]) == ("finished", "")




def test_resuming_with_changed_options_is_refused_by_name(fedmpi, tmp_path):
    out = tmp_path / "run.h5"
    fedmpi(1, "train", *SMALL, "--out", out, "--until", 1)
    output = fedmpi(1, "train", "--resume", out, "--lr", 0.5, "--clients", 6, code=2)
    assert "--lr 0.5 (the run has 0.1)" in output and "--clients" not in output
    with h5py.File(out, "r+") as file:
        file.attrs["data_digest"] = "0" * 64
    assert "other data" in fedmpi(1, "train", "--resume", out, code=2)


def test_a_damaged_checkpoint_is_refused_and_the_one_before_taken(fedmpi, tmp_path):
    whole, out = tmp_path / "whole.h5", tmp_path / "run.h5"
    fedmpi(1, "train", *SMALL, "--out", whole)
    fedmpi(1, "train", *SMALL, "--out", out, "--until", 2)
    newest = tmp_path / "run.ckpt" / "000002.h5"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    newest.write_bytes(content)
    output = fedmpi(1, "train", "--resume", out)
    assert "warning:" in output and "000002.h5" in output
    assert verify(whole, out) == []


def test_a_process_killed_loses_nothing(command, fedmpi, tmp_path):
    """One process; tests/runs/test_killing.py kills ranks."""
    options = ("--rounds", 5000, "--clients", 6, "--model", "small-cnn:width=4", "--local-epochs", 1, *SMALL[-2:])
    whole, out = tmp_path / "whole.h5", tmp_path / "run.h5"
    process = subprocess.Popen(command(1, "train", *options, "--out", out), env=environment(), text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for line in process.stdout:
        if line.startswith("round    4/"):
            break
    process.kill()
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL
    last = len(read_run(out).rounds["round"]) + 2
    assert 6 <= last < 5002
    fedmpi(1, "train", *options, "--out", whole, "--until", last)
    fedmpi(1, "train", "--resume", out, "--until", last)
    assert verify(whole, out) == []


def test_a_run_without_checkpoints_starts_again(fedmpi, tmp_path):
    whole, out = tmp_path / "whole.h5", tmp_path / "run.h5"
    fedmpi(1, "train", *SMALL, "--out", whole)
    fedmpi(1, "train", *SMALL, "--out", out, "--until", 2)
    assert read_run(out).attrs["status"] == "stopped"
    for checkpoint in (tmp_path / "run.ckpt").iterdir():
        checkpoint.unlink()
    output = fedmpi(1, "train", "--resume", out)
    assert "starting again from round 1" in output
    assert verify(whole, out) == [] and read_run(out).attrs["status"] == "finished"


def test_a_finished_run_without_checkpoints_keeps_its_rounds(fedmpi, tmp_path):
    out = tmp_path / "run.h5"
    fedmpi(1, "train", *SMALL, "--out", out)
    out.rename(tmp_path / "moved.h5")
    output = fedmpi(1, "train", "--resume", tmp_path / "moved.h5", code=2)
    assert "is finished" in output and "Traceback" not in output
    run = read_run(tmp_path / "moved.h5")
    assert run.attrs["status"] == "finished" and len(run.ends) == 3


def test_a_witness_that_was_killed_takes_nobody_along():
    code = ("import os, signal; from fedmpi.run.last_words import LastWords; words = LastWords(); "
            "os.kill(words.pid, signal.SIGKILL)\n"
            "while open(f'/proc/{words.pid}/stat').read().rpartition(')')[2].split()[0] != 'Z': pass\n"
            "words.watch({1: os.getpid()}); words.leave(); words.leave(); print('well')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (done.stdout, done.stderr) == ("well\n", "")


def test_a_worker_that_fails_inside_an_exchange_ends_the_job(fedmpi, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, numpy\nif os.environ.get('PMI_RANK') == '1':\n"
        "    def broken(*arguments, **options):\n        raise OSError('no shared folder')\n"
        "    numpy.memmap = broken\n")
    output = fedmpi(3, "train", *SMALL, "--out", tmp_path / "run.h5", code=1, timeout=60, PYTHONPATH=str(tmp_path))
    assert output.count("OSError: no shared folder") == 1


@pytest.mark.parametrize("rank", [0, 1])
def test_another_mpi_s_launcher_is_named(fedmpi, rank):
    output = fedmpi(1, "train", code=2, timeout=60, OMPI_COMM_WORLD_RANK=str(rank), OMPI_COMM_WORLD_SIZE="3")
    assert "belongs to another MPI" in output and output.count("\n") == 1


def test_a_broken_module_of_the_user_s_is_one_line(fedmpi, tmp_path, monkeypatch):
    (tmp_path / "half_written.py").write_text("def net(shape, classes:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    output = fedmpi(1, "train", "--model", "half_written:net", code=2)
    assert "half_written.py" in output and len(output.strip().splitlines()) == 1
