"""Drawing: names keep apart, looks differ, sizes fit."""

import numpy as np
import pytest
from example_runs import run_of

from fedmpi.read import report


@pytest.mark.parametrize("width", [3.35, 1.5])
def test_pictures_grow_with_the_names_above_them(width):
    from fedmpi.read.report.figure import inches_high
    kind = report.PICTURES["accuracy"]
    few, many = (kind.find(report.grouped({f"{n}.h5": run_of([0.1, 0.5], lr=n + 1.0) for n in range(num)}))
                 for num in (3, 30))
    assert inches_high(kind, few, width, 8) == 0.72 * width
    assert inches_high(kind, many, width, 8) == pytest.approx(0.72 * width + 30 * 1.2 * 8 / 72)


@pytest.mark.parametrize("num", [2, 9, 40])
def test_bars_of_several_runs_stay_with_their_round(num):
    from matplotlib.figure import Figure

    from fedmpi.read.report import draw
    from fedmpi.read.report.series import Line
    ax = Figure().subplots()
    still = Line("still", np.array([1.0, 2, 3]), np.zeros(3))
    draw.stems(ax, [still, *(Line(str(n), np.array([1.0, 2, 3]), np.ones(3)) for n in range(num))], "round", "y")
    assert len(ax.lines[0].get_xdata()) == 0
    assert np.mean([line.get_xdata()[0] for line in ax.lines[1:]]) == pytest.approx(1)
    for line in ax.lines[1:]:
        assert (np.abs(line.get_xdata() - [1, 2, 3]) < 0.5).all()


def test_names_beside_lines_keep_apart_and_in_order():
    from fedmpi.read.report.draw import _apart
    for wanted in ([0.5, 0.5, 0.5], [0.98, 0.99, 0.1], [0.0, 0.01, 0.9], [0.3, 0.1, 0.2]):
        found = _apart(wanted, 0.08)
        assert np.diff(np.sort(found)).min() >= 0.08 - 1e-12 and found.min() >= 0 and found.max() <= 1 + 1e-12
        assert np.argsort(found, kind="stable").tolist() == np.argsort(wanted, kind="stable").tolist()
    np.testing.assert_allclose(_apart([0.2, 0.8], 0.1), [0.2, 0.8])


def test_any_two_of_seven_lines_differ_in_colour_and_in_dashes_and_in_marks():
    from fedmpi.read.report.figure import style
    looks = [tuple(map(str, style(number).values())) for number in range(49)]
    assert len(set(looks)) == 49
    for number in range(7):
        others = [style(other) for other in range(7) if other != number]
        for part in ("color", "linestyle", "marker"):
            assert style(number)[part] not in [other[part] for other in others]
