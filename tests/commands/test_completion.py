"""What shells are offered: commands, options, parts with their options and values, files; at no cost of imports."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from fedmpi.cli import cli
from fedmpi.commands.completion import SCRIPTS, answer

PATH = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def offered(line, shell="bash"):
    return answer(cli, {"COMP_LINE": line, "_FEDMPI_COMPLETE": f"{shell}_complete"}).splitlines()


@pytest.mark.parametrize("line, expected", [
    ("fedmpi tr", ["train"]), ("fedmpi list pruner r", ["rigl", "residual", "ranks"]), ("fedmpi list pru", ["pruner"]),
    ("fedmpi train --pruner rig", ["rigl"]), ("fedmpi train --pruner rigl", ["rigl", "rigl:"]),
    ("fedmpi train --pruner dense", ["dense"]), ("fedmpi train --pruner rigl:e", ["every=", "end="]),
    ("fedmpi train --pruner=rigl:every=3,sp", ["3,sparsity="]), ("fedmpi train --pruner rigl:every=", ["6"]),
    ("fedmpi train --codec int8:entropy=", ["true", "false"]), ("fedmpi train --device c", ["cpu", "cuda"]),
    ("fedmpi train --observe lo", ["loo-cosine", "loo", "loss-gain"]), ("fedmpi train --pruner no.such:f:", []),
    ("fedmpi sbatch --weighting so", ["softmax"]), ("fedmpi completion f", ["fish"]),
    ("fedmpi train --pruner zzz:", []), ("fedmpi help co", ["contributions", "contributing"])])
def test_what_can_follow(line, expected):
    assert offered(line) == expected


def test_files_are_offered_by_their_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("a.h5", "b.toml", "c.txt", "runs/d.h5", ".hidden.h5"):
        (tmp_path / name).write_text("")
    for line, expected in (("show ", ["a.h5", "runs/"]), ("show runs/", ["runs/d.h5"]), ("verify a.h5 a", ["a.h5"]),
                           ("train --like a", ["a.h5"]), ("train --resume runs/", ["runs/d.h5"]),
                           ("train --config ", ["b.toml", "runs/"]), ("sweep ", ["b.toml", "runs/"]),
                           ("train --dataset a", ["a.h5"]), ("merge r", ["runs/"])):
        assert offered(f"fedmpi {line}") == expected


def test_spaces_in_names_are_quoted_where_the_shell_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my run.h5").write_text("")
    for line in ("fedmpi show m", r"fedmpi show my\ r"):
        assert offered(line) == [r"my\ run.h5"] == offered(line, "zsh") and offered(line, "fish") == ["my run.h5"]
    assert offered("fedmpi show 'my r") == ["my run.h5"] == offered('fedmpi show "my', "zsh")


def test_completing_imports_nothing_slow():
    code = ("import sys; from fedmpi.cli import main; main(); "
            "print(*sorted({'torch', 'numpy', 'h5py', 'mpi4py'} & set(sys.modules)), 'imported')")
    env = os.environ | {"COMP_LINE": "fedmpi train --pruner rig", "_FEDMPI_COMPLETE": "zsh_complete"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["rigl\tDrop near zero, grow by gradient.", "imported"]


def shell(name, *arguments):
    if not shutil.which(name):
        pytest.skip(f"no {name} here")
    return subprocess.run([name, *arguments], env=os.environ | {"PATH": PATH}, capture_output=True, text=True,
                          check=True, timeout=60).stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_sound(fedmpi, tmp_path, name):
    (tmp_path / "script").write_text(fedmpi(1, "completion", name))
    shell(name, "-n", str(tmp_path / "script"))


def test_bash_completes(tmp_path):
    (tmp_path / "script").write_text(SCRIPTS["bash"])
    line = "fedmpi train --pruner rigl:e"
    code = (f"source {tmp_path}/script; COMP_LINE='{line}' COMP_POINT={len(line)}; _fedmpi_completion fedmpi "
            '2> /dev/null; echo "${COMPREPLY[@]}"')
    assert shell("bash", "--norc", "-c", code) == "every= end=\n"


def test_fish_completes(tmp_path):
    (tmp_path / "script").write_text(SCRIPTS["fish"])
    code = f"source {tmp_path}/script; complete -C 'fedmpi train --pruner rigl:e'"
    assert shell("fish", "--no-config", "-c", code).split() == [
        "rigl:every=", "6", "usually", "rigl:end=", "0.75", "usually"]
    code = f"source {tmp_path}/script; complete -C 'fedmpi completion '"
    assert shell("fish", "--no-config", "-c", code).split() == ["bash", "zsh", "fish"]


ZPTY = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell 'PS1=; autoload -U compinit; compinit -D -u; source {script}; print READY'
zpty -r shell out '*READY*READY*'
zpty -w -n shell $'fedmpi train --pruner rigl:ever\t'
zpty -r shell out '*every=*' && print -r -- found
zpty -d shell
"""


def test_zsh_completes(tmp_path):
    (tmp_path / "script").write_text(SCRIPTS["zsh"])
    assert "found" in shell("zsh", "-f", "-c", ZPTY.replace("{script}", str(tmp_path / "script")))
