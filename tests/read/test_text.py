"""Numbers as people write them, and the line of a round."""

import numpy as np
import pytest

from fedmpi.read import report
from fedmpi.read.report.text import measure_text


def test_a_long_measure_is_shortened():
    assert [measure_text(number) for number in (0.41234, -12.5, 999.99994, 467137.0, -1e12, np.inf)] == [
        "0.4123", "-12.5000", "999.9999", "4.67e5", "-1.00e12", "inf"]


def test_a_loss_of_many_digits_leaves_the_bytes_in_their_line():
    row = dict(round=4, accuracy=0.1, loss=467137.25, sparsity=0.8, up_bytes=21800, round_s=2.5)
    line = report.round_line(row, 50, 125.4, 80)
    assert "loss 4.67e5  up 21.8 kB" in line and len(line) <= 80


def test_a_headline_that_is_the_loss_is_shown_once():
    row = dict(round=1, pinball=0.15751, loss=0.15751 * (1 + 1e-9), up_bytes=2608)
    assert report.round_line(row, 2, None, metric="pinball") == "round 1/2  pinball 0.1575  up 2.61 kB"
    row["loss"] = 0.1576
    assert "loss 0.1576" in report.round_line(row, 2, None, metric="pinball")


def test_round_line():
    row = dict(round=12, accuracy=0.87121, loss=0.4123, sparsity=0.9, up_bytes=4.4e6, round_s=3.2)
    line = "round 12/50  accuracy 0.8712  loss 0.4123  sparsity 0.900  up 4.40 MB  3.20 s  2 min 05 s left"
    assert report.round_line(row, 50, 125.4) == line
    assert report.round_line(dict(round=1, accuracy=np.nan), 1000, None) == "round    1/1000"
    assert report.round_line(dict(round=1, up_bytes=2608), 2, None) == "round 1/2  up 2.61 kB"      # not 0.00 MB


@pytest.mark.parametrize(
    "seconds, text",
    [(0.034, "0.034 s"), (9.94, "9.9 s"), (59.7, "1 min 00 s"), (7500, "2 h 05 min"), (97200, "1 d 03 h")],
)
def test_human_seconds(seconds, text):
    assert report.human_seconds(seconds) == text


@pytest.mark.parametrize(
    "number, text", [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (12_345_678, "12.3 MB"), (4.4e9, "4.40 GB")]
)
def test_human_bytes(number, text):
    assert report.human_bytes(number) == text
