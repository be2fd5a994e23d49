"""What is shown fits the terminal: 80 columns, where there is none."""

import os
import pathlib
import pty
import re
import select
import subprocess
import sys
import threading
import time

import numpy as np
import click
import pytest
from conftest import environment

from fedmpi import catalog
from fedmpi.plugins.entry import entry
from fedmpi.cli import cli
from fedmpi.commands.parts import in_full, options_lines
from fedmpi.read.report import round_line
from fedmpi.core.wide import aligned, labelled, reflowed, wrapped

SMALL = ("--dataset", "synthetic:samples=400,size=8", "--model", "logistic", "--clients", 6,
         "--local-epochs", 1, "--rounds", 12)
LONG = "a-run-whose-name-is-far-longer-than-anybody-would-want-it-to-be"


@pytest.fixture(scope="module")
def runs(fedmpi, tmp_path_factory):
    """A folder of runs with much to tell, and what train said of the first."""
    folder = tmp_path_factory.mktemp("wide")
    judged = ("--observe", "shapley", "--observe", "loo", "--fault", "sign-flip:share=0.2",
              "--fault", "free-rider:kind=stale,share=0.2")
    text = fedmpi(1, "train", *SMALL, *judged, "--strategy", "fedavg",
                  "--pruner", "rigl:every=3,fraction=0.2,sparsity=0.9", "--out", folder / f"{LONG}.h5")
    for seed in (1, 2):
        fedmpi(1, "train", *SMALL, "--strategy", "thesis", "--seed", seed, "--out", folder / f"{seed}.h5")
    return folder, text


def too_wide(text, width):
    """The lines that do not fit; those of one warning, and files passed over, stay one line each."""
    alone = ("warning: ", "run file: ", "passed over: ")
    return [line for line in text.splitlines() if len(line) > width and not line.startswith(alone)]


def test_train_shows_nothing_wider_than_the_terminal(runs):
    folder, text = runs
    assert too_wide(text, 80) == []
    rounds = [line for line in text.splitlines() if re.match(r"round +\d+/12  ", line)]
    assert len(rounds) == 12
    assert all("accuracy" in line and "loss" in line and "up" in line and "left" in line for line in rounds)


def test_the_first_line_of_train_names_the_run_file(fedmpi, runs, tmp_path):
    folder, text = runs
    assert text.splitlines()[0] == f"run file: {folder / LONG}.h5"
    again = fedmpi(1, "train", "--resume", folder / "1.h5")
    assert again.splitlines()[0] == f"run file: {folder / '1.h5'}"
    like = fedmpi(1, "train", "--like", folder / "1.h5", "--rounds", 1, "--out", tmp_path / "a.h5")
    assert like.splitlines()[0] == f"run file: {tmp_path / 'a.h5'}"
    many = fedmpi(3, "train", *SMALL, "--rounds", 1, "--out", tmp_path / "b.h5")
    assert many.splitlines()[0] == f"run file: {tmp_path / 'b.h5'}" and many.count("run file: ") == 2
    refused = fedmpi(1, "train", "--dataset", "mnist", "--data-dir", tmp_path, code=2)
    assert refused.startswith("error: ") and refused.count("\n") == 1


SHOWN = [
    ("show", "{long}"), ("show", "{one}"), ("show", "{long}", "--profile"), ("watch", "{one}"),
    ("watch", "{folder}"), ("compare", "{folder}"), ("merge", "{folder}"), ("model", "{one}"),
    ("schema",), ("schema", "{one}"), ("list",), ("experiment",), ("experiment", "E3", "--dry-run"),
    ("data", "--clients", 50, "--features", "gaussian", "--fault", "free-rider:kind=stale,share=0.2"),
    ("data", "--dataset", "synthetic:samples=400,classes=100,size=8", "--clients", 5),
    ("train", *SMALL, "--dry-run")]


@pytest.mark.parametrize("width", [80, 60, 132])
@pytest.mark.parametrize("words", SHOWN)
def test_nothing_that_is_shown_is_wider_than_the_terminal(fedmpi, runs, monkeypatch, words, width):
    folder, _ = runs
    monkeypatch.setenv("COLUMNS", str(width))
    names = {"folder": folder, "one": folder / "1.h5", "long": folder / f"{LONG}.h5"}
    text = fedmpi(1, *(str(word).format(**names) for word in words))
    assert too_wide(text, width) == []


def test_the_doctor_fits(capsys):
    from fedmpi.cluster import doctor
    from fedmpi.cluster.findings.finding import Finding
    got = "a folder on a disk that is nearly full, on which other jobs write as well, as far as can be told from here"
    findings = [Finding("warning", "run files", got, "room for them", "take another folder, on a larger disk")]
    text = doctor.text(findings, 60)
    assert too_wide(text, 60) == [] and "way out: take" in " ".join(text.split())


@pytest.mark.parametrize("name", [None, *cli.commands])
def test_help_fits(fedmpi, name):
    text = fedmpi(1, *[name] * (name is not None), "--help")
    assert too_wide(text, 80) == []


def test_no_summary_of_a_command_is_cut():
    shown = click.Context(cli, terminal_width=80).get_help()
    commands = shown.partition("Commands:")[2]
    assert len(commands.split("\n  ")) > 20 and "..." not in commands


ENTRIES = [(kind, name) for kind, table in catalog.KINDS.items() for name in table]


def test_every_part_in_full_fits():
    for kind, name in ENTRIES:
        text = in_full(kind, name, entry(catalog.KINDS[kind], name))
        assert too_wide(reflowed(text, 80), 80) == []


def test_a_round_leaves_out_what_tells_least():
    row = dict(round=12, accuracy=0.8712, loss=0.4123, sparsity=0.9, up_bytes=4.4e6, round_s=3.2)
    assert round_line(row, 50, 3599, 80) == \
        "round 12/50  accuracy 0.8712  loss 0.4123  up 4.40 MB  3.20 s  59 min 59 s left"
    assert round_line(row, 50, 0.5, 80) == "round 12/50  accuracy 0.8712  loss 0.4123  up 4.40 MB  3.20 s  0.5 s left"
    assert round_line(row, 50, 125, 30) == "round 12/50  2 min 05 s left"
    assert round_line(row | {"loss": np.nan}, 50, None, 100).endswith("sparsity 0.900  up 4.40 MB  3.20 s")


def test_a_table_that_fits_is_as_it_was():
    head, rows = ["name", "n"], [["one", "1"], ["seventeen", "17"]]
    assert aligned(head, rows) == aligned(head, rows, width=80) == ["name        n", "one         1", "seventeen  17"]


def test_long_cells_of_a_table_go_on_below():
    rows = [["a/long/path/of/a/run/file.h5", "12"]]
    text = ["run                     rounds", "a/long/path/of/a/run/       12", "file.h5"]
    assert aligned(["run", "rounds"], rows, width=30) == text


def test_columns_that_do_not_fit_stand_below_beside_the_first():
    head = ["run", *(f"number-{n}" for n in range(5))]
    lines = aligned(head, [["a", *map(str, range(5))]], width=40)
    assert lines == ["run  number-0  number-1  number-2", "a           0         1         2", "",
                     "run  number-3  number-4", "a           3         4"]


def test_words_without_a_place_to_break_are_cut():
    assert aligned(["run"], [["x" * 50]], width=40)[1:] == ["x" * 40, "x" * 10]
    assert max(map(len, wrapped("y" * 100, 40))) == 40


def test_texts_beside_labels_hang_there():
    assert labelled([("data", "some words"), ("a", "b")], 14) == ["data  some", "      words", "a     b"]


def test_formulas_keep_their_lines_and_lists_their_items():
    text = "Some words that\ngo on.\n\n    x = y\n    z = 1\n\n* an item that\n  goes on\n* another"
    assert reflowed(text, 40) == "Some words that go on.\n\n    x = y\n    z = 1\n\n* an item that goes on\n* another"
    assert reflowed(text, 12).split("\n\n")[2] == "* an item\n  that goes\n  on\n* another"


def test_options_are_broken_after_commas():
    assert options_lines("a=1,bb=2,ccc=3", 10) == ["a=1,bb=2,", "ccc=3"]


def test_watch_waits_for_a_run_that_is_about_to_come(fedmpi, runs, tmp_path):
    folder, _ = runs
    path = tmp_path / "coming.h5"
    later = threading.Timer(0.5, os.link, (folder / "1.h5", path))
    later.start()
    text = fedmpi(1, "watch", path)
    later.join()
    assert text.startswith(f"waiting for {path}, not there yet; q or Ctrl-C leaves\n") and "12/12" in text
    late = fedmpi(1, "watch", tmp_path / "never.h5", "--wait", 0.3, code=2)
    assert "never.h5 has not come within 0.3 s" in late


@pytest.mark.parametrize("name, options, line", [
    ("1.h6", (), "there is no such file or folder; did you mean"), ("other", (), "there is no such file or folder"),
    ("no/1.h5", (), "there is no folder"), ("3.h5", ("--wait", 0), "there is no such file or folder; did you mean")])
def test_what_cannot_come_is_not_waited_for(fedmpi, runs, name, options, line):
    folder, _ = runs
    text = fedmpi(1, "watch", folder / name, *options, code=2)
    assert line in text and text.count("\n") == 1


def test_q_leaves_while_watch_waits(tmp_path):
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "fedmpi", "watch", tmp_path / "never.h5"]
    with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(TERM="xterm")) as watching:
        os.close(theirs)
        try:
            shown, give_up = "", time.monotonic() + 60
            while "not there yet" not in shown:
                assert time.monotonic() < give_up, shown
                if select.select([ours], [], [], 1)[0]:
                    shown += os.read(ours, 65536).decode()
            os.write(ours, b"q")
            assert watching.wait(30) == 0
        finally:
            watching.kill()
    os.close(ours)


# methods.md is a page of ours where a link names it.
REFERENCE = re.compile(r"\b(methods?|sections?|chapters?)\s+\d+\.\d|(?<![/(-])methods\.md|house-style", re.IGNORECASE)


def test_nothing_that_people_read_refers_to_a_text_that_they_do_not_have():
    """Docstrings are what fedmpi list shows; messages and help texts stand in the sources as well."""
    root = pathlib.Path(__file__).parents[2]
    sources = [path for kind in ("py", "toml", "md") for path in (root / "fedmpi").rglob(f"*.{kind}")]
    files = [*sources, root / "README.md"]
    hits_in = {str(path): REFERENCE.findall(path.read_text(encoding="utf-8")) for path in files}
    assert {path: hits for path, hits in hits_in.items() if hits} == {}
