"""Commands of the README and of the pages work as typed."""

import glob
import json
import pathlib
import re
import runpy
import shlex
import shutil
import subprocess
import sys

import click
import h5py
import pytest
from conftest import environment

from fedmpi import catalog
from fedmpi.cli import cli
from fedmpi.commands import help as pages
from fedmpi.commands.markdown import blocks
from fedmpi.plugins.spec import make
from fedmpi.store import RunFile, differences, read_run

README = pathlib.Path(__file__).parents[2].joinpath("README.md").read_text(encoding="utf-8")
PAGES = {"README": README} | {topic: pages.page(topic) for topic in pages.TOPICS}
ADDING = PAGES["own-methods"].partition("## What each kind must offer")[0]
# The commands of these pages build on one another, and have tests of their own.
IN_ORDER = ("tutorial", "own-methods", "large-models")


def commands(text):
    """The words of each indented line of code; a command that goes on after a backslash is one line."""
    code = ["\n".join(lines) for kind, lines in blocks(text) if kind == "code" and lines[0].startswith("    ")]
    whole = re.sub(r" \\\n +", " ", "\n".join(code))
    return [shlex.split(line, comments=True) for line in whole.splitlines() if line.strip() and "'" not in line]


def python(text):
    """The blocks of Python of a page."""
    return re.findall(r"```python\n(.*?)```", text, re.S)


def of_fedmpi(text):
    """The arguments of each call of fedmpi, in lines of code and within sentences."""
    shown = re.findall(r"`(fedmpi [a-z][^`|$]*)`", " ".join(text.split()))
    lines = commands(text) + [shlex.split(line) for line in shown]
    return [words[words.index("fedmpi") + 1:] for words in lines if "fedmpi" in words]


def trainings():
    """The trainings that stand alone, each once."""
    texts = [text for name, text in PAGES.items() if name not in IN_ORDER]
    lines = [words for text in texts for words in commands(text) if words[:2] == ["fedmpi", "train"]]
    joined = dict.fromkeys(shlex.join(words) for words in lines if len(words) > 2)
    return [line for line in joined if "--resume" not in line and "shuffle" not in line]


def test_there_are_commands_to_check():
    assert len(trainings()) >= 15 and all(of_fedmpi(text) for text in PAGES.values())


@pytest.mark.parametrize("name", PAGES)
def test_commands_and_options_of_every_page_exist(name):
    for command, *arguments in of_fedmpi(PAGES[name]):
        if not command.startswith("-") and command.islower():
            target = cli.commands[command]
            target.make_parser(click.Context(target)).parse_args(arguments)


@pytest.mark.parametrize("line", trainings())
def test_every_training_command_runs(fedmpi, tmp_path, line):
    arguments = shlex.split(line)[1:]
    length = ("--local-steps", 2) if "--local-steps" in arguments else ("--local-epochs", 1)
    fedmpi(1, *arguments, "--rounds", 2, "--clients", 4, *length, "--out", tmp_path / "run.h5")


@pytest.fixture(scope="module")
def two_runs(fedmpi, tmp_path_factory):
    """A folder with the runs that pages about reading name."""
    folder = tmp_path_factory.mktemp("pages")
    small = ("--dataset", "synthetic:samples=400,size=8", "--model", "logistic", "--clients", 4,
             "--local-epochs", 1, "--rounds", 2)
    for seed, name in enumerate("ab"):
        fedmpi(1, "train", *small, "--seed", seed, "--out", folder / f"{name}.h5")
    (folder / "runs").mkdir()
    for name in ("run.h5", "runs/a.h5"):
        shutil.copy(folder / "a.h5", folder / name)
    return folder


@pytest.mark.parametrize("name", ["reading", "run-file"])
def test_pages_about_reading_work_as_typed(fedmpi, two_runs, monkeypatch, name):
    """``network`` is the model of the runs; all else is as typed."""
    monkeypatch.chdir(two_runs)
    for words in commands(PAGES[name]):
        arguments = [file for word in words[1:] for file in glob.glob(word) or [word]]
        differ = arguments[0] == "verify"
        assert fedmpi(1, *arguments, code=int(differ))
    given = {"network": make(catalog.MODELS, "logistic", (1, 8, 8), 10)}
    for block in python(PAGES[name]):
        exec(block, given)
    written = {"reading": ["a.png", "ab.html", "c.pdf", "curves.pdf", "model.safetensors", "out"], "run-file": []}
    assert all(pathlib.Path(file).exists() for file in written[name])


def test_own_methods_are_added_as_typed(fedmpi, tmp_path, monkeypatch):
    """Each is written, edited by its diff and played; their tests pass in one process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    lines = commands(ADDING)
    for arguments in lines:
        if arguments[:2] == ["fedmpi", "new"]:
            fedmpi(1, *arguments[1:])
    edits = re.search("```diff\n(.*?)```", ADDING, re.S)[1]
    for name, edit in re.findall(r"^--- (.*)\n((?:[-+](?!--).*\n)+)", edits, re.M):
        before, after = ("".join(line[1:] for line in edit.splitlines(True) if line[0] == sign) for sign in "-+")
        text = pathlib.Path(name).read_text()
        assert text.count(before) == 1
        pathlib.Path(name).write_text(text.replace(before, after))
    tests = next(arguments for arguments in lines if arguments[0] == "pytest")
    assert tests[1:] == ["test_drift.py", "test_coarse.py", "test_margins.py"]
    done = subprocess.run([sys.executable, "-m", *tests], env=environment(), stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=240)
    assert done.returncode == 0, done.stdout
    train, listed = (arguments[1:] for arguments in lines if arguments[:2] in (["fedmpi", "train"], ["fedmpi", "list"]))
    fedmpi(1, *train, "--clients", 4, "--local-epochs", 1)
    run = read_run("mine.h5")
    assert len(run.rounds["sure"]) == 5 and run.rounds["up_bytes"][0] < 2 * run.rounds["dense_bytes"][0]
    assert "strength=0.1" in fedmpi(1, *listed)


def test_commands_of_use_exist(fedmpi, tmp_path):
    out = tmp_path / "a.h5"
    config = tmp_path / "job.toml"
    config.write_text('rounds = 2\nclients = 4\nlocal-epochs = 1\nstrategy = "fedavg"\n')
    fedmpi(1, "train", "--config", config, "--out", out, "--clients", 5)
    run = read_run(out)
    assert run.attrs["options"]["strategy"] == "fedavg" and run.attrs["options"]["clients"] == 5
    assert "accuracy" in fedmpi(1, "show", out) and '"final"' in fedmpi(1, "show", out, "--json")
    assert "round 2/2" in fedmpi(1, "watch", out)
    fedmpi(1, "show", out, "--picture", tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10000
    assert "agree" in fedmpi(1, "verify", out, out)
    assert "rigl" in fedmpi(1, "list") and "1911.11134" in fedmpi(1, "list", "pruner", "rigl")
    assert "finished, 2 of 2 rounds" in fedmpi(1, "train", "--resume", out)
    again = read_run(out)
    assert differences(run, again) == [] and again.rounds["recorded"].tolist() == run.rounds["recorded"].tolist()


def test_lists_in_a_config_file_and_a_resume_that_says_auto(fedmpi, tmp_path):
    config, out = tmp_path / "job.toml", tmp_path / "a.h5"
    config.write_text('rounds = 2\nclients = 4\nlocal-epochs = 1\nobserve = ["loo", "cosine"]\nfault = '
                      '"sign-flip:share=0.25"\n')
    fedmpi(1, "train", "--config", config, "--out", out, "--until", 1)
    options = read_run(out).attrs["options"]
    assert options["observe"] == ["loo", "cosine"] and options["fault"] == ["sign-flip:share=0.25"]
    fedmpi(1, "train", "--resume", out, "--device", "auto")
    run = read_run(out)
    assert run.attrs["status"] == "finished" and set(run.attrs["judged"]) == {"cosine", "loo", "cosine-2"}
    assert "cannot resume" in fedmpi(1, "train", "--resume", out, "--observe", "loo", code=2)


def test_a_run_of_an_older_version_is_shown_and_not_resumed(fedmpi, tmp_path):
    out = tmp_path / "a.h5"
    fedmpi(1, "train", "--rounds", 1, "--clients", 2, "--local-epochs", 1, "--out", out)
    with h5py.File(out, "r+") as f:
        options = json.loads(f.attrs["options"])
        del options["fault"]
        f.attrs["options"] = json.dumps(options)
    assert "accuracy" in fedmpi(1, "show", out)
    assert "older fedmpi, without fault" in fedmpi(1, "train", "--resume", out, code=2)
    with h5py.File(out, "r+") as f:
        f.attrs["options"] = json.dumps(options | {"fault": [], "magic": 1})
    assert "another fedmpi, whose magic this one does not know" in fedmpi(1, "train", "--resume", out, code=2)


def test_a_checkpoint_without_what_its_pruner_now_keeps_is_not_resumed(fedmpi, tmp_path):
    out = tmp_path / "a.h5"
    fedmpi(1, "train", "--rounds", 2, "--clients", 4, "--local-epochs", 1, "--pruner", "adaptive", "--until", 1,
           "--out", out)
    store = RunFile(out)
    state, done = store.load()
    state["pruner"]["place"] = state["pruner"].pop("ranking")              # as it was called once
    store.save(state, done, 1)
    store.settle()
    assert "another fedmpi, without pruner/ranking: " in fedmpi(1, "train", "--resume", out, code=2)


def test_the_sweep_of_the_page_is_one(fedmpi, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    block = re.search(r'^    folder = .*?(?=\n\n)', PAGES["studies"], re.M | re.S)[0]
    (tmp_path / "grid.toml").write_text(re.sub("^    ", "", block, flags=re.M))
    listed = fedmpi(1, "sweep", "grid.toml", "--dry-run")
    assert "7 runs in runs/grid: 7 missing" in listed and "strategy-krum_seed-0" in listed
    assert "--array=0-6%4\n" in fedmpi(1, "sweep", "grid.toml")


def test_the_tutorial_works_as_typed(fedmpi, tmp_path, monkeypatch):
    """Files are saved under the names that it gives them, commands run in its order; of the sweep two runs are
    played. The README's training with the same pruner comes last."""
    monkeypatch.chdir(tmp_path)
    tutorial = PAGES["tutorial"]
    for name, code in re.findall(r"(?:Save|save) this as `(.*?)`.*?```\w+\n(.*?)```", tutorial, re.S):
        (tmp_path / name).write_text(
            code.replace("seed = [0, 1, 2]", "seed = [0]").replace("rounds = 20", "rounds = 2"))
    grid = tmp_path / "grid.toml"
    grid.write_text(grid.read_text().replace('["fedavg", "thesis"]', '["thesis"]'))
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("shuffle", None)
    lines = [words for words in commands(tutorial) if words[0] in ("fedmpi", "python")]
    outputs = {}
    for program, *arguments in lines:
        if program == "python":
            runpy.run_path(arguments[0], run_name="__main__")
        else:
            outputs[" ".join(arguments[:2])] = fedmpi(1, *arguments)
    assert len(lines) == 14 and len((tmp_path / "make_mine.py").read_text().splitlines()) == 6
    assert "1911.11134" in outputs["list pruner"]
    assert "time in all" in outputs["train --dry-run"] and "strategy thesis (was fedavg)" in outputs["train --like"]
    assert "2 of 2 played" in outputs["sweep grid.toml"] and "rigl" in outputs["compare runs/mine"]
    assert "rigl" in (tmp_path / "runs/mine.html").read_text()
    accuracies = [read_run(tmp_path / name).rounds["accuracy"][-1] for name in ("shuffle.h5", "thesis.h5")]
    assert min(accuracies) > 0.8
    added = next(words for words in commands(README) if "shuffle:shuffle:sparsity=0.9" in words)
    fedmpi(1, *added[1:], "--rounds", 1, "--clients", 4)
