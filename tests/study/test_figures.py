"""Figures of studies: titles of panels, levels of noise."""

import numpy as np

from fedmpi.study import figures


def test_titles_of_panels_say_all_and_do_not_meet():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    grid = {"dataset": ["fashion-mnist", "b"], "S": ["0.8", "1"], "data": ["noise", "c"],
            "weights": ["contribution", "small"]}
    figure = Figure(figsize=figures._panels(3)[2], layout="constrained")
    axes = figure.subplots(1, 3)
    for ax in axes:
        figures._title(ax, {factor: levels[0] for factor, levels in grid.items()}, grid)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    places = [ax.title.get_window_extent() for ax in axes]
    assert places[0].x1 < places[1].x0 and places[1].x1 < places[2].x0
    assert axes[0].get_title().split() == "dataset fashion-mnist, S 0.8, data noise, weights contribution".split()
    figures._title(axes[0], {"weights": "small"}, grid)
    assert axes[0].get_title().split() == ["weights", "small"]
    figures._title(axes[0], {"weights": "small"}, {"weights": ["small"]})
    assert axes[0].get_title() == ""


def test_clients_of_one_level_of_noise_are_one_line_though_rates_are_drawn():
    rates = np.array([0.902, 0.911, 0.449, 0.436, 0.480, 0.178, 0.173, 0.036, 0.027])
    assert [(low, high) for low, high, _ in figures.noise_levels(rates)] == [
        (0.027, 0.036), (0.173, 0.178), (0.436, 0.480), (0.902, 0.911)]
    assert figures.noise_levels(np.zeros(3)) == [(0, 0, 0)]


def test_graded_rates_of_noise_are_put_into_tenths():
    assert len(figures.noise_levels(np.linspace(0, 1, 33))) == 11
