"""Scores against the injected truth: does an estimator of contributions find the bad clients?

The truth is /population/quality: 1 for a good client, lower by the rate of wrong labels and by
faults. A client is bad if its faults leave less than half of it, or if it lies below the middle of
the range of all other clients.

An estimator is judged by each client's mean score over its rounds. Scores that already sum up
earlier rounds (``cumulative``) are judged by each client's last one. Under partial participation
clients are judged in different rounds, with different gains to share: scores that fall with the
rounds, as Shapley values do, then tell less.
"""

import math

import numpy as np

from fedmpi import catalog
from fedmpi.plugins.entry import entry
from fedmpi.plugins.spec import settings, split
from fedmpi.core.errors import FedError
from fedmpi.read.report.statistics import (auc, cosine_distance, euclidean_distance, max_distance,
                                           spearman, tied)

# The estimator that serves as the reference for all others, if the run has it.
EXACT = "shapley"


def options(run):
    """The recorded options of the run, empty if there are none."""
    recorded = run.attrs.get("options")
    if isinstance(recorded, dict):
        return recorded
    return {}


def by_client(run, name, last=1.0):
    """(N,) mean of the clients' column ``name`` over the last share of rounds, NaN for a client
    that took no part.

    None if the run has no such column."""
    if name not in run.clients or "client" not in run.clients:
        return None
    first = _first_row(run, last)
    values = run.clients[name][first:].astype(float)
    is_scored = np.isfinite(values)
    values = values[is_scored]
    client = run.clients["client"][first:][is_scored]
    N = _num_clients(run, client)
    sums = np.bincount(client, values, N)
    counts = np.bincount(client, minlength=N)
    means = np.full(N, np.nan)
    return np.divide(sums, counts, out=means, where=counts > 0)


def _first_row(run, last):
    """The first row of /clients of the last share of the rounds."""
    T = len(run.ends)
    num_rounds = math.ceil(T * last)
    if num_rounds >= T:
        return 0
    return run.ends[T - num_rounds - 1]


def last_of_client(run, name):
    """(N,) each client's last score in the column ``name``, NaN for a client without one; None
    without the column.

    Rounds with scores of 0 only say nothing."""
    if name not in run.clients or "client" not in run.clients:
        return None
    client = run.clients["client"]
    values = run.clients[name].astype(float)
    last = np.full(_num_clients(run, client), np.nan)
    for rows in _rounds(run):
        # Other clients did not count in this round.
        is_scored = np.isfinite(values[rows])
        scores_of_round = values[rows][is_scored]
        clients_of_round = client[rows][is_scored]
        if scores_of_round.any():
            last[clients_of_round] = scores_of_round
    return last


def _rounds(run):
    """The rows of /clients of each round, as slices."""
    starts = [0, *run.ends]
    return [slice(start, stop) for start, stop in zip(starts, run.ends)]


def _num_clients(run, client):
    """N, by the population or by the numbers ``client`` (n,)."""
    sizes = [len(values) for values in run.population.values()]
    return max([*sizes, *(client + 1), 0])


def scores(run):
    """``{label: (N,) scores}`` of the estimators of the run, the weighing one first."""
    recorded = run.attrs.get("estimators") or {}
    by_label = {}
    for label, column in estimators(run).items():
        if _is_cumulative(recorded.get(label)):
            score = last_of_client(run, column)
        else:
            score = by_client(run, column)
        if score is not None:
            by_label[label] = score
    return by_label


def _is_cumulative(estimator):
    """Whether scores sum up earlier rounds, by the file's record of the estimator."""
    return isinstance(estimator, dict) and estimator["cumulative"]


def quality(run):
    """(N,) float64, 1 for a good client, or None.

    Run files from before faults have no quality: 1 - noise takes its place."""
    if "quality" in run.population:
        return run.population["quality"]
    if "noise" in run.population:
        return 1 - run.population["noise"]
    return None


def is_bad(worth, faulty=None):
    """(N,) bool: the bad clients by their ``worth (N,)``, the ``faulty (N,) bool`` among them."""
    if faulty is None:
        faulty = np.zeros(len(worth), bool)
    rest = worth[~faulty]
    middle = 0
    if len(rest):
        middle = (rest.min() + rest.max()) / 2
    return faulty | (worth < middle)


def faulty(run):
    """(N,) bool: the clients with less than half their quality left by faults."""
    marks = [mark for name, mark in run.population.items() if name.startswith("fault_")]
    truth = quality(run)
    if not marks:
        return np.zeros(len(truth), bool)
    return np.any(marks, axis=0) & (truth < 0.5)


def estimators(run):
    """``{label: its column of /clients}`` of the run's recorded estimators, the weighing one
    first."""
    first, *others = run.attrs.get("estimators") or [_only_estimator(run)]
    columns = {first: "contribution"}
    for label in others:
        columns[label] = f"score_{label}"
    # A reader may have left out some columns of the file.
    return {label: column for label, column in columns.items() if column in run.clients}


def _only_estimator(run):
    """The label of the estimator of an early run file, by the run's options."""
    spec = str(options(run).get("contribution") or "contribution")
    name, _ = split(spec)
    # MODULE:NAME of a plug-in.
    return name.rpartition(":")[2]


def exact(run):
    """The label of the first exact Shapley estimator of the run, or None."""
    for label, spec in specs(run).items():
        if split(spec)[0] == EXACT:
            return label
    return None


def specs(run):
    """``{label: spec}`` of the estimators, as far as the run file records them."""
    recorded = run.attrs.get("estimators") or {}
    spec_of = {}
    for label, estimator in recorded.items():
        # Early run files record the labels only.
        if isinstance(estimator, dict):
            spec_of[label] = str(estimator["spec"])
    return spec_of


def utility_of(spec):
    """The utility of an estimator's game: ``loss``, or ``accuracy`` for any headline.

    None if it plays no game, or is not in our catalogue."""
    name = split(spec)[0]
    # These two have their utility in their name, not in an option.
    if name in ("loss-gain", "accuracy-gain"):
        return name.removesuffix("-gain")
    try:
        # The declaration is enough: an import would bring torch.
        part = entry(catalog.CONTRIBUTIONS, name, importing=False)
        if "of" not in part.options:
            return None
        utility = settings(catalog.CONTRIBUTIONS, spec)["of"]
    except FedError:
        return None
    if utility == "headline":
        return "accuracy"
    return utility


def judged(run):
    """``{label: numbers}`` of every estimator of the run, the weighing one first. The numbers, as
    far as recorded:

    * ``spearman`` with quality and ``auc`` of telling good clients (higher scores) from bad ones,
      NaN if nothing varies;
    * ``calls``, the requested coalitions, and ``seconds``, of all rounds;
    * ``copies``, with duplicates: the mean score of copies and their sources over the mean of all
      others;
    * ``cosine_distance``, ``euclidean_distance``, ``max_distance`` and ``shapley_spearman`` to the
      exact Shapley value, if another estimator has it for the same kind of utility;
    * ``weight_spearman`` of the weights in the merge, for the weighing estimator.
    """
    scores_of = scores(run)
    truth, reference = quality(run), exact(run)
    bad = None
    if truth is not None:
        bad = is_bad(tied(truth), faulty(run))
    numbers_of = {}
    for label, score in scores_of.items():
        numbers = _against_quality(score, truth, bad)
        numbers |= _copies(run, score)
        numbers |= _cost(run, label)
        if reference in scores_of and _plays_like(run, label, reference):
            numbers |= _against_shapley(score, scores_of[reference])
        numbers_of[label] = numbers
    weights = by_client(run, "weight")
    if numbers_of and weights is not None and truth is not None:
        weighing = next(iter(numbers_of.values()))
        weighing["weight_spearman"] = _against_quality(weights, truth, bad)["spearman"]
    return numbers_of


def _plays_like(run, label, reference):
    """Whether another estimator than the reference may be held against it: its utility is of the
    same kind, or not recorded."""
    if label == reference:
        return False
    spec_of = specs(run)
    if label not in spec_of:
        return True
    utility = utility_of(spec_of[label])
    return utility is None or utility == utility_of(spec_of[reference])


def _against_quality(score, truth, bad):
    if truth is None:
        return {}
    is_scored = np.isfinite(score)
    is_good = ~bad[is_scored]
    score = tied(score[is_scored])
    truth = tied(truth[is_scored])
    return {"spearman": spearman(score, truth), "auc": auc(score, is_good)}


def _copies(run, score):
    source = run.population.get("duplicate_of")
    if source is None or not (source >= 0).any():
        return {}
    in_pairs = source >= 0
    originals = source[in_pairs].astype(int)
    in_pairs[originals] = True
    of_pairs, of_others = score[in_pairs], score[~in_pairs]
    # The mean of nothing would be a warning.
    if not np.isfinite(of_pairs).any() or not np.isfinite(of_others).any():
        return {}
    mean_of_others = np.nanmean(of_others)
    if not mean_of_others:
        return {}
    return {"copies": float(np.nanmean(of_pairs) / mean_of_others)}


def _against_shapley(score, reference):
    both = np.isfinite(score) & np.isfinite(reference)
    a, b = score[both], reference[both]
    return {
        "cosine_distance": cosine_distance(a, b),
        "euclidean_distance": euclidean_distance(a, b),
        "max_distance": max_distance(a, b),
        "shapley_spearman": spearman(tied(a), tied(b)),
    }


def _cost(run, label):
    calls, seconds = run.rounds.get(f"calls_{label}"), run.rounds.get(f"score_{label}_s")
    cost = {}
    if calls is not None:
        cost["calls"] = int(calls.sum())
    if seconds is not None:
        cost["seconds"] = float(seconds.sum())
    return cost


def quality_found(run):
    """How well the run's own contributions find the bad clients.

    A dict of ``spearman`` and ``auc`` of the weighing estimator, ``weight_spearman``, ``bad`` and
    ``clients`` (numbers of scored clients); None if quality does not vary or fewer than two clients
    were scored."""
    truth = quality(run)
    label = next(iter(estimators(run)), None)
    if truth is None or label is None or not len(truth):
        return None
    score = scores(run).get(label)
    if score is None or np.ptp(tied(truth)) == 0:
        return None
    is_scored = np.isfinite(score)
    if is_scored.sum() < 2:
        return None
    numbers = judged(run)[label]
    columns = [name for name in ("spearman", "auc", "weight_spearman") if name in numbers]
    summary = {name: numbers[name] for name in columns}
    bad = is_bad(tied(truth), faulty(run))
    summary["bad"] = int(bad[is_scored].sum())
    summary["clients"] = int(is_scored.sum())
    return summary
