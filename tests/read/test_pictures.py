"""Pictures in the terminal and for print."""

import numpy as np
import pytest
from example_runs import N, QUALITY, example, judged_run

from fedmpi.core.errors import UserError
from fedmpi.read import report


@pytest.mark.parametrize("width, height", [(120, 24), (80, 20), (60, 30), (40, 24)])
def test_pictures_fit_and_need_no_colour(width, height):
    text = report.picture(example(), width, height)
    lines = text.split("\n")
    assert len(lines) <= height and max(map(len, lines)) <= width and "\033" not in text
    assert "round" in text and "true rate of wrong labels" in text and "o" in text
    assert "\033[" in report.picture(example(), width, height, colour=True)


def test_a_picture_leaves_nothing_for_the_next_one():
    assert report.picture(example()) == report.picture(example())
    assert "wrong" not in report.picture(example(without=["contribution"]))


def test_contribution_is_drawn_against_quality_where_there_is_more_than_noise(tmp_path):
    run = judged_run(noise=[0, 0, 0.5, 0])
    assert report.shares(run)[1] == "quality (1 = good client)" and report.shares(run)[2].tolist() == QUALITY[:3]
    assert "quality (1 = good client)" in report.picture(run)
    report.save_picture(run, tmp_path / "a.svg")
    assert (tmp_path / "a.svg").stat().st_size > 10000
    assert report.shares(judged_run(noise=1 - np.array(QUALITY)))[1] == "true rate of wrong labels"


def test_contribution_is_drawn_against_samples_where_noise_does_not_vary():
    assert report.shares(example())[1] == "true rate of wrong labels"
    assert report.shares(example(noise=np.zeros(N)))[1] == "samples"
    assert report.shares(example(without=["noise", "samples"]))[1] == "client"


@pytest.mark.parametrize("kind, first", [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_saved_pictures_are_what_their_name_says_and_repeat(kind, first, tmp_path):
    paths = [tmp_path / f"{n}.{kind}" for n in "ab"]
    for path in paths:
        report.save_picture(example(), path)
    assert paths[0].read_bytes().startswith(first) and paths[0].read_bytes() == paths[1].read_bytes()


def test_pictures_that_cannot_be_saved_are_named(tmp_path):
    for path, reason in ((tmp_path / "a.gif", "must be .png"), (tmp_path / "no" / "a.png", "no folder")):
        with pytest.raises(UserError, match=reason):
            report.save_picture(example(), path)


@pytest.mark.parametrize(
    "low, high, most, whole, labels",
    [
        (1, 50, 5, True, ["0", "10", "20", "30", "40", "50"]),
        (0.1, 0.92, 5, False, ["0.0", "0.2", "0.4", "0.6", "0.8"]),
        (1, 1, 4, True, ["0", "1"]),
        (0.3, 0.3, 2, False, ["-0.5", "0.0", "0.5"]),
    ],
)
def test_nice_ticks(low, high, most, whole, labels):
    assert report.nice_ticks(low, high, most, whole)[1] == labels
