"""``fedmpi new``: every skeleton keeps its laws, plays, and is the same on any number of ranks."""

import re
import subprocess
import sys

import pytest
from conftest import environment

from fedmpi import catalog
from fedmpi.commands.completion import answer
from fedmpi.cli import cli
from fedmpi.store import read_run

SKELETONS = [(kind, ()) for kind in catalog.KINDS] + [("strategy", ("--stateful",))]
TINY = ("--dataset", "synthetic:samples=120,size=4", "--model", "logistic", "--clients", 6, "--rounds", 1,
        "--local-epochs", 1)


@pytest.fixture(scope="module")
def written(fedmpi, tmp_path_factory):
    """``(folder, {module: what the command said})`` of a skeleton of every kind."""
    folder = tmp_path_factory.mktemp("skeletons")
    texts = {}
    for kind, flags in SKELETONS:
        name = "own_" + "_".join([*(flag.strip("-") for flag in flags), kind])
        texts[name] = fedmpi(1, "new", kind, name, *flags, "--out", folder)
    return folder, texts


def test_the_tests_of_all_skeletons_pass(written):
    """In a process of their own, as their author runs them: nothing but the folder and an installed fedmpi."""
    folder, texts = written
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"], cwd=folder,
                          env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
    assert done.returncode == 0, done.stdout
    tests = sum((folder / f"test_{name}.py").read_text().count("\ndef test_") for name in texts)
    assert re.search(rf"\b{tests} passed", done.stdout)


def test_every_skeleton_plays_as_it_is_told(written, fedmpi, monkeypatch):
    folder, texts = written
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    for name, text in texts.items():
        words = re.search(rf"fedmpi train .*{name}:{name}", text)[0].split()[2:]
        small = [*TINY[2:], *TINY[:2] * ("--dataset" not in words)]
        if "--model" in words:
            small.remove("--model")
            small.remove("logistic")
        fedmpi(1, "train", *words, *small, "--out", f"{name}.h5")
        assert read_run(f"{name}.h5").attrs["status"] == "finished"


def test_every_skeleton_says_what_the_catalogue_wants_of_it(written, fedmpi, monkeypatch):
    folder, texts = written
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    for name in texts:
        kind = name.rpartition("_")[2]
        text = " ".join(fedmpi(1, "list", kind, f"{name}:{name}").split())
        assert "paper: " in text and f"--{kind} {name}:{name}" in text and "options: none" not in text
        source = (folder / f"{name}.py").read_text()
        assert "NAME" not in source and 15 <= len(source.splitlines()) <= 80
        assert max(map(len, source.replace(name, "mine").splitlines())) <= 100


def test_skeletons_are_the_same_on_1_and_3_ranks(written, fedmpi, in_turn, monkeypatch):
    folder, _ = written
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    modules = ("own_stateful_strategy", "own_codec", "own_optimiser")
    commands = []
    for module in modules:
        kind = module.rpartition("_")[2]
        parts = {"strategy": "fedavg", "pruner": "rigl:every=1,sparsity=0.5"} | {kind: f"{module}:{module}"}
        words = [word for name, spec in parts.items() for word in (f"--{name}", spec)]
        commands.append(("train", *TINY, *words, "--rounds", 3, "--cohort", 3, "--out"))
    for command, module in zip(commands, modules):
        fedmpi(1, *command, f"{module}-1.h5")
    in_turn(3, [(*command, f"{module}-3.h5") for command, module in zip(commands, modules)])
    for module in modules:
        one, three = (read_run(f"{module}-{ranks}.h5").rounds["weights_digest"].tolist() for ranks in (1, 3))
        assert one == three and len(set(one)) == 3


def test_where_it_says_that_a_method_goes_there_are_methods_of_its_kind(written):
    for name, text in written[1].items():
        kind = name.rpartition("_")[2]
        line = re.search(rf'"{name.replace("_", "-")}": "(.*)\.{name}:{name}",', text)
        assert any(target.startswith(f"{line[1]}.") for target in catalog.KINDS[kind].values())
        table = re.search(r"(\w+) in fedmpi/catalog.py gets the line", text)[1]
        assert getattr(catalog, table) is catalog.KINDS[kind]


def test_commands_about_a_method_are_started_where_it_is(written):
    folder, texts = written
    for text in texts.values():
        commands = re.findall(r"^  (.*fedmpi (?:train|list) .*)$", text, re.M)
        assert [command.startswith(f"cd {folder} && fedmpi ") for command in commands] == [True, True]


@pytest.mark.parametrize("arguments, message", [
    (("codek", "x"), "unknown kind 'codek'; did you mean codec? Known: strategy, "),
    (("codec", "my-codec"), "expected a name for a Python module and function, got 'my-codec'; my_codec would do"),
    (("codec", "class"), "got 'class'; take letters, digits and _"),
    (("codec", "test_it"), "test_ begins the name of its test"),
    (("codec", "random"), "the module random is there already"),
    (("codec", "x", "--stateful"), "--stateful is for a strategy, got codec")])
def test_mistakes_are_told_and_nothing_is_written(fedmpi, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in fedmpi(1, "new", *arguments, code=2)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_there_stay(fedmpi, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_halves.py").write_text("mine")
    assert "test_halves.py is there already; take another name" in fedmpi(1, "new", "codec", "halves", code=2)
    assert [path.name for path in tmp_path.iterdir()] == ["test_halves.py"]
    assert (tmp_path / "test_halves.py").read_text() == "mine"


def test_kinds_are_completed():
    candidates = answer(cli, {"COMP_LINE": "fedmpi new s", "_FEDMPI_COMPLETE": "bash_complete"}).split()
    assert candidates == ["strategy", "schedule", "sampler"]
