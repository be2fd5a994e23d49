"""Panels of several kinds in one picture."""

import numpy as np
import pytest
from example_runs import run_of, two_set_ups

from fedmpi.core.errors import UserError
from fedmpi.read import report


def drawn(names, groups, **more):
    """The figure that ``plotted`` draws, its axes, and the names in its legends."""
    from matplotlib.figure import Figure

    from fedmpi.read.report.plot import plotted
    size, show = plotted(groups, names, **more)
    figure = Figure(figsize=size, layout="constrained")
    show(figure)
    legends = [legend for part in [figure, *figure.subfigs] for legend in part.legends]
    return figure, figure.axes, [[text.get_text() for text in legend.get_texts()] for legend in legends]


def levels(ax):
    """Where lines lie across the whole picture."""
    return [line.get_ydata()[0] for line in ax.lines if len(line.get_ydata()) == 2]


def test_several_panels_of_the_same_lines_have_one_legend():
    groups = report.grouped(two_set_ups())
    _, axes, legends = drawn(["accuracy", "accuracy-bytes"], groups)
    assert legends == [["fedavg", "krum"]] and [len(ax.texts) for ax in axes] == [0, 0]
    _, axes, legends = drawn(["accuracy"], groups)
    assert legends == [] and [text.get_text() for text in axes[0].texts] == ["fedavg", "krum"]


def test_limits_levels_and_a_title_are_drawn():
    groups = report.grouped(two_set_ups())
    reference = run_of([0.2, 0.9, 0.85])
    figure, axes, _ = drawn(["accuracy"], groups, xlim=(0, 2.5), ylim=(0, 1), title="All of it",
                            baselines=[("goal", 0.75), ("central", reference)])
    assert axes[0].get_xlim() == (0, 2.5) and axes[0].get_ylim() == (0, 1)
    assert figure.get_suptitle() == "All of it"
    assert levels(axes[0]) == [0.75, 0.85]
    names = {text.get_text(): text.xy[1] for text in axes[0].texts}
    assert names["goal"] == 0.75 and names["central"] == 0.85
    # a name stands where its line leaves the picture, after round 2
    assert names["fedavg"] == pytest.approx(0.3, abs=0.1) and names["krum"] == pytest.approx(0.3, abs=0.1)


def test_a_baseline_is_read_off_in_each_panels_own_column():
    _, axes, _ = drawn(["accuracy", "loss"], report.grouped(two_set_ups()), baselines=[("x", run_of([0.75]))])
    assert [levels(ax) for ax in axes] == [[0.75], [0.25]]


@pytest.mark.parametrize("names, more, reason", [
    (["accuracy", "accuracy-bytes"], dict(xlim=(0, 1)), "these kinds have several axes, round, sent, up and down"),
    (["accuracy", "loss"], dict(ylim=(0, 1)), "accuracy, loss or sparsity side by side"),
    (["accuracy", "loss"], dict(baselines=[("x", 0.5)]), "accuracy, loss or sparsity side by side"),
    (["accuracy"], dict(baselines=[("x", run_of([]))]), "--baseline x: that run has no accuracy yet")])
def test_what_a_panel_cannot_take_is_refused(names, more, reason):
    with pytest.raises(UserError, match=reason):
        drawn(names, report.grouped(two_set_ups()), **more)


@pytest.mark.parametrize("layers, drawn", [(1, False), (2, True), (30, True)])
def test_layers_are_lines_or_where_they_are_many_rows(layers, drawn, tmp_path):
    kept = np.tile(np.arange(1, layers + 1), (5, 1))
    run = run_of([0.1, 0.2, 0.3, 0.4, 0.5])
    run.rounds["kept_layers"] = kept
    run.attrs["layers"] = [[f"{n}.weight", [10, 10], 1.0] for n in range(layers)]
    kind = report.PICTURES["layers"]
    found = kind.find(run)
    assert (found is not None) == drawn
    if drawn:
        assert f"{layers - 1}.weight is the densest ({1 - layers / 100:.3f})" in kind.say(found)
        report.save_plot(report.grouped({"a.h5": run}), ["layers"], str(tmp_path / "a.png"))


def test_pictures_say_what_they_show():
    groups = report.grouped(two_set_ups())
    said = report.PICTURES["accuracy-bytes"].say(report.PICTURES["accuracy-bytes"].find(groups))
    assert said.startswith(
        "Test accuracy by bytes sent, up and down. fedavg: the test set's own maximum 0.55 at 8.00 kB, "
        "the last; krum: the test set's own maximum")
    one = report.grouped({"a.h5": run_of([0.1, 0.6, 0.4])})
    assert report.PICTURES["loss"].say(report.PICTURES["loss"].find(one)) == (
        "Test loss by round. Lowest 0.4 at round 2, then 0.6 at round 3.")
    sparsity = report.PICTURES["sparsity"]
    assert sparsity.say(sparsity.find(one)).endswith("by round. 0.500 throughout.")
