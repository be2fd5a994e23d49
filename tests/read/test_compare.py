"""The commands compare and plot."""

import json
import re

import numpy as np
import pytest

from fedmpi.read import report
from fedmpi.store import read_run

TINY = ("--clients", 4, "--rounds", 3, "--local-epochs", 1, "--train-samples", 300, "--model", "small-cnn:width=4")


@pytest.fixture(scope="module")
def runs(fedmpi, tmp_path_factory):
    """Two set-ups with two seeds each, and one on other data, as run files."""
    folder = tmp_path_factory.mktemp("runs")
    for strategy in ("fedavg", "thesis"):
        for seed in (0, 1):
            fedmpi(1, "train", *TINY, "--strategy", strategy, "--pruner", "rigl:every=1", "--seed", seed, "--out",
                   folder / f"{strategy}{seed}.h5")
    fedmpi(1, "train", *TINY, "--dataset", "synthetic:samples=400", "--model", "logistic", "--pruner", "dense", "--out",
           folder / "other.h5")
    return folder


def paths(folder):
    return [folder / f"{strategy}{seed}.h5" for strategy in ("fedavg", "thesis") for seed in (0, 1)]


def test_compare_on_the_command_line(fedmpi, runs):
    picture = runs / "compared.svg"
    text = fedmpi(1, "compare", *paths(runs), "--picture", picture)
    assert "what differs" in text and "B - A" in text and re.search("[⠁-⣿]", text) and picture.stat().st_size > 10000
    told = json.loads(fedmpi(1, "compare", *paths(runs), "--json", "--accuracy", 0.01))
    assert [group["label"] for group in told["groups"]] == ["fedavg", "thesis"] and told["reach"]["accuracy"] == 0.01
    assert told["paired"][0]["interval"]["n"] == 2 and told["differ"]["strategy"] == ["fedavg", "thesis"]


def test_what_cannot_be_compared_is_one_line(fedmpi, runs):
    first, other = paths(runs)[0], runs / "other.h5"
    assert "there is one run" in fedmpi(1, "compare", first, first, code=2)
    refused = fedmpi(1, "compare", first, other, code=2)
    assert "other data" in refused and refused.count("\n") == 1
    assert "what came of it" in fedmpi(1, "compare", first, other, "--other-data")
    assert "no such file" in fedmpi(1, "compare", first, runs / "no.h5", code=2)


def test_every_kind_is_listed_and_drawn(fedmpi, runs):
    listed = " ".join(fedmpi(1, "plot", "--help").split())
    assert all(f"{name} {kind.line}"[:60] in listed for name, kind in report.PICTURES.items())
    absent = ("accuracy-virtual", "answers", "own", "own-clients")
    recorded = [name for name in report.PICTURES if name not in absent]
    kinds = [argument for name in recorded for argument in ("--kind", name)]
    fedmpi(1, "plot", paths(runs)[2], *kinds, "-o", runs / "all.pdf", "--width", "text")
    assert (runs / "all.pdf").read_bytes().startswith(b"%PDF")
    for name in absent:
        refused = fedmpi(1, "plot", paths(runs)[2], "--kind", name, "-o", runs / "a.svg", code=2)
        assert f"--kind {name}: not recorded" in refused


def test_plots_hold_their_fonts_and_repeat(fedmpi, runs):
    for kind in ("pdf", "svg", "png"):
        names = [runs / f"{number}.{kind}" for number in (1, 2)]
        for name in names:
            fedmpi(1, "plot", *paths(runs), "--kind", "accuracy", "-o", name, "--font", "serif", "--width", "10")
        assert names[0].read_bytes() == names[1].read_bytes()
    pdf = (runs / "1.pdf").read_bytes()
    assert b"STIXGeneral" in pdf and b"/FontFile2" in pdf and b"/Type3" not in pdf
    svg = (runs / "1.svg").read_text()
    assert "<text" not in svg and f'width="{10 / 2.54 * 72:.6f}'.rstrip("0") in svg
    width, = np.frombuffer((runs / "1.png").read_bytes()[16:20], ">u4")
    assert width == int(10 / 2.54 * 300)


@pytest.mark.parametrize("arguments, reason", [
    (("--kind", "curve", "-o", "a.svg"), "there are accuracy, accuracy-bytes"), (("-o", "a.gif"), "must be .png"),
    (("-o", "a.svg", "--width", "wide"), "--width must be column, text or centimetres"),
    (("-o", "a.svg", "--width", "1"), "from 3 to 100, got 1")])
def test_what_cannot_be_plotted_is_one_line(fedmpi, runs, monkeypatch, tmp_path, arguments, reason):
    monkeypatch.chdir(tmp_path)
    text = fedmpi(1, "plot", paths(runs)[0], *arguments, code=2)
    assert reason in text and text.count("\n") == 1 and not list(tmp_path.iterdir())


def test_plots_take_names_titles_limits_and_baselines(fedmpi, runs):
    asked = ("--label", "FedAvg", "--label", "ours", "--title", "Both", "--xlim", 1, 3, "--ylim", 0, 1)
    plain, full = runs / "plain.svg", runs / "full.svg"
    fedmpi(1, "plot", *paths(runs), "-o", plain)
    fedmpi(1, "plot", *paths(runs), *asked, "--baseline", "0.5", "--baseline", f"other={runs / 'other.h5'}", "-o", full)
    assert full.stat().st_size > plain.stat().st_size > 10000


@pytest.mark.parametrize("arguments, reason", [
    (("--label", "one"), "2 set-ups need 2 names, got 1; in their order they are fedavg; thesis"),
    (("--label", "a", "--label", "a"), "two set-ups would have the same name"),
    (("--xlim", 3, 1), "--xlim must be two numbers, the lower one first, got 3 1"),
    (("--ylim", 0, "nan"), "--ylim must be two numbers"),
    (("--baseline", "nowhere.h5"), "nowhere.h5 is neither a number nor a run file"),
    (("--baseline", "x=inf"), "must be a finite number"),
    (("--kind", "churn", "--baseline", "0.5"), "are of curves: a panel of another --kind takes none")])
def test_what_plots_cannot_take_is_one_line(fedmpi, runs, tmp_path, arguments, reason):
    text = fedmpi(1, "plot", *paths(runs), *arguments, "-o", tmp_path / "a.svg", code=2)
    assert reason in text and text.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_run_records_how_many_test_samples_each_class_has(fedmpi, runs):
    counts = read_run(runs / "fedavg0.h5").attrs["inputs"]["test_labels"]
    assert len(counts) == 10 and sum(counts) == 359 and min(counts) > 20


def test_compare_against_a_baseline_on_the_command_line(fedmpi, runs):
    assert "A - B" in fedmpi(1, "compare", *paths(runs), "--baseline", runs / "thesis1.h5")
    assert "A - B" in fedmpi(1, "compare", *paths(runs), "--baseline", "thesis")
    assert "B - A" in fedmpi(1, "compare", *paths(runs), "--pairs")
    assert "of --baseline and --pairs one" in fedmpi(1, "compare", *paths(runs), "--pairs", "--baseline", "A", code=2)
    refused = fedmpi(1, "compare", *paths(runs), "--baseline", "prox", code=2)
    assert "there are A fedavg; B thesis" in refused and refused.count("\n") == 1
    assert "no two set-ups share two seeds" in fedmpi(1, "compare", *paths(runs)[1:3], "--baseline", "A")
