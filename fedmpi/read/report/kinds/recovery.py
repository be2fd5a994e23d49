"""How well each estimator's scores rank the clients' true quality, after each round."""

import numpy as np

from fedmpi.read.report import draw as drawing
from fedmpi.read.report.figure import QUIET
from fedmpi.read.report.series import Line
from fedmpi.read.report.statistics import spearman, tied
from fedmpi.read.report.truth import quality, scores

# Rounds after which the scores are compared with the truth.
POINTS = 60


def find(run):
    """[Line] of an estimator each: Spearman's correlation of its scores so far with quality.

    None if quality does not vary, or no estimator has an answer."""
    truth = quality(run)
    T = len(run.ends)
    if truth is None or not len(truth) or not T:
        return None
    if np.ptp(tied(truth)) == 0:
        return None
    evenly = np.linspace(1, T, min(T, POINTS))
    rounds_at = np.unique(evenly.round().astype(int))
    lines = []
    for label, by_round in _correlations(run, rounds_at, truth).items():
        x = np.array(list(by_round), float)
        y = np.array(list(by_round.values()))
        has_answer = np.isfinite(y)
        if has_answer.any():
            lines.append(Line(label, x[has_answer], y[has_answer]))
    return lines or None


def _correlations(run, rounds_at, truth):
    """``{estimator: {rounds played: correlation}}``, NaN if fewer than two clients have a score."""
    correlations = {}
    for rounds in rounds_at:
        so_far = _until(run, rounds)
        for label, score in scores(so_far).items():
            by_round = correlations.setdefault(label, {})
            by_round[rounds] = _correlation(score, truth)
    return correlations


def _correlation(score, truth):
    is_scored = np.isfinite(score)
    if is_scored.sum() < 2:
        return np.nan
    return spearman(tied(score[is_scored]), tied(truth[is_scored]))


def _until(run, rounds):
    """The run as it was after ``rounds`` rounds."""
    rows = run.ends[rounds - 1]
    return run._replace(
        ends=run.ends[:rounds],
        rounds=_first_rows(run.rounds, rounds),
        clients=_first_rows(run.clients, rows))


def _first_rows(columns, num_rows):
    return {name: values[:num_rows] for name, values in columns.items()}


def draw(place, lines):
    ax = place.subplots()
    ax.set_ylim(-1.05, 1.05)
    # A correlation of 0.1 must not fill the height.
    ax.set_autoscaley_on(False)
    ax.axhline(0, color=QUIET, linewidth=0.8)
    drawing.lines(ax, lines, "round", "Spearman, score and quality", whole=True)


def say(lines):
    ends = "; ".join(map(_end, lines))
    return ("Rank correlation of the clients' scores so far with their true quality; 1: found, 0: "
            f"chance. {ends}.")


def _end(line):
    return f"{line.label}: {line.y[-1]:+.2f} after round {line.x[-1]:.0f}"
