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
    spread = np.ptp(tied(truth))
    # All clients are equally good: no order could be right.
    if spread == 0:
        return None
    num_points = min(T, POINTS)
    evenly = np.linspace(1, T, num_points)
    nearest = evenly.round().astype(int)
    rounds_at = np.unique(nearest)
    lines = []
    correlations = _correlations(run, rounds_at, truth)
    for label, by_round in correlations.items():
        x = np.array(list(by_round), float)
        values = by_round.values()
        y = np.array(list(values))
        has_answer = np.isfinite(y)
        if has_answer.any():
            x_answered = x[has_answer]
            y_answered = y[has_answer]
            lines.append(Line(label, x_answered, y_answered))
    return lines or None


def _correlations(run, rounds_at, truth):
    """``{estimator: {rounds played: correlation}}``, NaN if fewer than two clients have a score."""
    correlations = {}
    for rounds in rounds_at:
        so_far = _until(run, rounds)
        scores_so_far = scores(so_far)
        for label, score in scores_so_far.items():
            by_round = correlations.setdefault(label, {})
            by_round[rounds] = _correlation(score, truth)
    return correlations


def _correlation(score, truth):
    is_scored = np.isfinite(score)
    num_scored = is_scored.sum()
    if num_scored < 2:
        return np.nan
    scored = tied(score[is_scored])
    truth_of_scored = tied(truth[is_scored])
    return spearman(scored, truth_of_scored)


def _until(run, rounds):
    """The run as it was after ``rounds`` rounds."""
    rows = run.ends[rounds - 1]
    ends = run.ends[:rounds]
    rounds_so_far = _first_rows(run.rounds, rounds)
    clients = _first_rows(run.clients, rows)
    return run._replace(ends=ends, rounds=rounds_so_far, clients=clients)


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
    y = line.y[-1]
    x = line.x[-1]
    return f"{line.label}: {y:+.2f} after round {x:.0f}"
