"""Scores held against the truth that was injected: does an estimator of contributions find who is bad?

The truth is /population/quality, 1 for a good client, lower by the rate of wrong labels and by faults. Bad are clients
whose fault leaves less than half of it, and of the others those below the middle of their range. Every estimator of a
run is judged by each client's mean score over the rounds that it took part in; one whose scores hold what earlier
rounds brought (``cumulative``) by each client's last. Under partial participation clients are judged in different
rounds, which differ in what there is to gain: scores that fall with the rounds, as Shapley values do, then tell less
about who is better.
"""

import math

import numpy as np

from fedmpi import catalog
from fedmpi.plugins.entry import entry
from fedmpi.plugins.spec import settings, split
from fedmpi.core.errors import FedError
from fedmpi.read.report.statistics import (auc, cosine_distance, euclidean_distance, max_distance,
                                           spearman, tied)

EXACT = "shapley"                 # the estimator that others are compared with, where the run has it


def options(run):
    """The options of the run, empty where it does not tell them."""
    found = run.attrs.get("options")
    return found if isinstance(found, dict) else {}


def by_client(run, name, last=1.0):
    """(N,) mean of the clients' column ``name`` over the last share of rounds, NaN for a client that took no part;
    None if the run has no such column."""
    if name not in run.clients or "client" not in run.clients:
        return None
    rounds = len(run.ends)
    first = run.ends[rounds - math.ceil(rounds * last) - 1] if math.ceil(rounds * last) < rounds else 0
    client, values = run.clients["client"][first:], run.clients[name][first:].astype(float)
    client, values = client[np.isfinite(values)], values[np.isfinite(values)]
    size = max([*(len(values) for values in run.population.values()), *(client + 1), 0])
    sums, counts = np.bincount(client, values, size), np.bincount(client, minlength=size)
    return np.divide(sums, counts, out=np.full(size, np.nan), where=counts > 0)


def last_of_client(run, name):
    """(N,) each client's last score in the column ``name``, NaN for a client without one; rounds in which all scores
    are 0 say nothing. None without the column."""
    if name not in run.clients or "client" not in run.clients:
        return None
    client, values = run.clients["client"], run.clients[name].astype(float)
    found = np.full(_num_clients(run), np.nan)
    for rows in _rounds(run):
        here = np.isfinite(values[rows])                   # others did not count in this round
        if values[rows][here].any():
            found[client[rows][here]] = values[rows][here]
    return found


def _rounds(run):
    """The rows of /clients of each round, as slices."""
    return [slice(start, stop) for start, stop in zip([0, *run.ends], run.ends)]


def _num_clients(run):
    return max([*(len(each) for each in run.population.values()), *(run.clients["client"] + 1), 0])


def scores(run):
    """``{label: (N,) scores}`` of the estimators of the run, the one that weighs first."""
    told = run.attrs.get("estimators") or {}
    found = {}
    for label, column in estimators(run).items():
        cumulative = isinstance(told.get(label), dict) and told[label]["cumulative"]
        found[label] = last_of_client(run, column) if cumulative else by_client(run, column)
    return {label: score for label, score in found.items() if score is not None}


def quality(run):
    """(N,) float64, 1 for a good client: as recorded, else 1 - noise (run files of before faults), else None."""
    if "quality" in run.population:
        return run.population["quality"]
    return 1 - run.population["noise"] if "noise" in run.population else None


def is_bad(worth, faulty=None):
    """(N,) bool: which clients are bad by their ``worth (N,)``, those ``faulty (N,) bool`` among them."""
    faulty = np.zeros(len(worth), bool) if faulty is None else faulty
    rest = worth[~faulty]
    middle = (rest.min() + rest.max()) / 2 if len(rest) else 0
    return faulty | (worth < middle)


def faulty(run):
    """(N,) bool: the clients whose faults leave less than half their quality."""
    marks = [mark for name, mark in run.population.items() if name.startswith("fault_")]
    return np.any(marks, axis=0) & (quality(run) < 0.5) if marks else np.zeros(len(quality(run)), bool)


def estimators(run):
    """``{label: its column of /clients}`` of the estimators that the run has scores of, the one that weighs first."""
    named = str(options(run).get("contribution") or "contribution")
    labels = list(run.attrs.get("estimators") or [split(named)[0].rpartition(":")[2]])
    columns = {label: f"score_{label}" if number else "contribution" for number, label in enumerate(labels)}
    return {label: column for label, column in columns.items() if column in run.clients}


def exact(run):
    """The label of the first exact Shapley estimator of the run, or None."""
    return next((label for label, spec in specs(run).items() if split(spec)[0] == EXACT), None)


def specs(run):
    """``{label: spec}`` of the estimators, as far as the run file tells them."""
    told = run.attrs.get("estimators") or {}
    return {label: str(each["spec"]) for label, each in told.items() if isinstance(each, dict)}


def utility_of(spec):
    """What an estimator's game is about: loss or accuracy, which stands for any headline; None where it plays none, or
    is nobody's we know."""
    name = split(spec)[0]
    if name in ("loss-gain", "accuracy-gain"):
        return name.partition("-")[0]
    try:
        known = entry(catalog.CONTRIBUTIONS, name, importing=False).options
        of = settings(catalog.CONTRIBUTIONS, spec)["of"] if "of" in known else None
        return "accuracy" if of == "headline" else of
    except FedError:
        return None


def judged(run):
    """``{label: numbers}`` of every estimator of the run, the one that weighs first. The numbers, as far as recorded:

    ``spearman`` with quality and ``auc`` of telling good clients (higher scores) from bad ones, NaN where nothing
    varies; ``calls``, the coalitions asked for, and ``seconds``, of all rounds; where there are duplicates, ``copies``:
    the mean score of copies and their sources over that of the others. Where another estimator is the exact Shapley
    value of the same kind of utility: ``cosine_distance``, ``euclidean_distance``, ``max_distance`` to it and
    ``shapley_spearman``. ``weight_spearman`` of the weights in the merge is among the numbers of the estimator that
    earns them.
    """
    by_label, truth, reference = scores(run), quality(run), exact(run)
    weights = by_client(run, "weight")
    bad = None if truth is None else is_bad(tied(truth), faulty(run))
    named = specs(run)

    def kind(label):
        return utility_of(named[label]) if label in named else None

    found = {}
    for number, (label, score) in enumerate(by_label.items()):
        found[label] = _against_quality(score, truth, bad) | _copies(run, score) | _cost(run, label)
        if reference in by_label and label != reference and kind(label) in (None, kind(reference)):
            found[label] |= _against_shapley(score, by_label[reference])
        if number == 0 and weights is not None and truth is not None:
            found[label]["weight_spearman"] = _against_quality(weights, truth, bad)["spearman"]
    return found


def _against_quality(score, truth, bad):
    if truth is None:
        return {}
    known = np.isfinite(score)
    score = tied(score[known])
    return dict(spearman=spearman(score, tied(truth[known])), auc=auc(score, ~bad[known]))


def _copies(run, score):
    source = run.population.get("duplicate_of")
    if source is None or not (source >= 0).any():
        return {}
    copied = np.isin(np.arange(len(source)), [*np.flatnonzero(source >= 0), *source[source >= 0]])
    others = np.nanmean(score[~copied]) if np.isfinite(score[~copied]).any() else math.nan
    return dict(copies=float(np.nanmean(score[copied]) / others)) if np.isfinite(score[copied]).any() and others else {}


def _against_shapley(score, reference):
    known = np.isfinite(score) & np.isfinite(reference)
    a, b = score[known], reference[known]
    return dict(cosine_distance=cosine_distance(a, b), euclidean_distance=euclidean_distance(a, b),
                max_distance=max_distance(a, b), shapley_spearman=spearman(tied(a), tied(b)))


def _cost(run, label):
    calls, seconds = run.rounds.get(f"calls_{label}"), run.rounds.get(f"score_{label}_s")
    found = {} if calls is None else {"calls": int(calls.sum())}
    return found if seconds is None else found | {"seconds": float(seconds.sum())}


def quality_found(run):
    """How well the run's own contributions find who is bad: dict of spearman and auc of the estimator that weighs,
    weight_spearman, bad, clients (those that took part); None where quality does not vary or nobody was scored."""
    truth, label = quality(run), next(iter(estimators(run)), None)
    if truth is None or label is None or not len(truth) or np.ptp(tied(truth)) == 0:
        return None
    score = scores(run).get(label)
    if score is None or np.isfinite(score).sum() < 2:
        return None
    known, own = np.isfinite(score), judged(run)[label]
    found = {name: own[name] for name in ("spearman", "auc", "weight_spearman") if name in own}
    return found | dict(bad=int(is_bad(tied(truth), faulty(run))[known].sum()), clients=int(known.sum()))
