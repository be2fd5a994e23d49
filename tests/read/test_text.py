"""Numbers as people write them, and the line of a round."""

import numpy as np
import pytest

from fedmpi.read import report


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
