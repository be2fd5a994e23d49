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
    recorded = run.clients[name][first:]
    values = recorded.astype(float)
    is_scored = np.isfinite(values)
    values = values[is_scored]
    clients = run.clients["client"][first:]
    client = clients[is_scored]
    N = _num_clients(run, client)
    sums = np.bincount(client, values, N)
    counts = np.bincount(client, minlength=N)
    means = np.full(N, np.nan)
    return np.divide(sums, counts, out=means, where=counts > 0)


def _first_row(run, last):
    """The first row of /clients of the last share of the rounds."""
    T = len(run.ends)
    exact_rounds = T * last
    num_rounds = math.ceil(exact_rounds)
    if num_rounds >= T:
        return 0
    round_before = T - num_rounds - 1
    # The rows of a round begin after those of the round before.
    return run.ends[round_before]


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
    bounds = zip(starts, run.ends)
    return [slice(start, stop) for start, stop in bounds]


def _num_clients(run, client):
    """N, by the population or by the numbers ``client`` (n,)."""
    columns = run.population.values()
    sizes = [len(values) for values in columns]
    candidates = [*sizes, *(client + 1), 0]
    return max(candidates)


def scores(run):
    """``{label: (N,) scores}`` of the estimators of the run, the weighing one first."""
    recorded = run.attrs.get("estimators") or {}
    by_label = {}
    for label, column in estimators(run).items():
        estimator = recorded.get(label)
        if _is_cumulative(estimator):
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
        noise = run.population["noise"]
        return 1 - noise
    return None


def is_bad(worth, faulty=None):
    """(N,) bool: the bad clients by their ``worth (N,)``, the ``faulty (N,) bool`` among them."""
    if faulty is None:
        N = len(worth)
        faulty = np.zeros(N, bool)
    rest = worth[~faulty]
    middle = 0
    if len(rest):
        middle = (rest.min() + rest.max()) / 2
    is_low = worth < middle
    return faulty | is_low


def faulty(run):
    """(N,) bool: the clients with less than half their quality left by faults."""
    population = run.population.items()
    marks = [mark for name, mark in population if name.startswith("fault_")]
    truth = quality(run)
    if not marks:
        return np.zeros(len(truth), bool)
    is_marked = np.any(marks, axis=0)
    is_low = truth < 0.5
    return is_marked & is_low


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
    recorded = options(run).get("contribution")
    spec = str(recorded or "contribution")
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
        part_options = settings(catalog.CONTRIBUTIONS, spec)
        utility = part_options["of"]
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
    truth = quality(run)
    reference = exact(run)
    bad = None
    if truth is not None:
        bad = is_bad(tied(truth), faulty(run))
    numbers_of = {}
    for label, score in scores_of.items():
        numbers = _against_quality(score, truth, bad)
        numbers |= _copies(run, score)
        numbers |= _cost(run, label)
        if reference in scores_of and _plays_like(run, label, reference):
            exact_scores = scores_of[reference]
            numbers |= _against_shapley(score, exact_scores)
        numbers_of[label] = numbers
    weights = by_client(run, "weight")
    if numbers_of and weights is not None and truth is not None:
        in_order = numbers_of.values()
        weighing = next(iter(in_order))
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
    scored = score[is_scored]
    score = tied(scored)
    truth_of_scored = truth[is_scored]
    truth = tied(truth_of_scored)
    rank_correlation = spearman(score, truth)
    return {"spearman": rank_correlation, "auc": auc(score, is_good)}


def _copies(run, score):
    source = run.population.get("duplicate_of")
    if source is None or not (source >= 0).any():
        return {}
    in_pairs = source >= 0
    originals = source[in_pairs].astype(int)
    in_pairs[originals] = True
    of_pairs = score[in_pairs]
    of_others = score[~in_pairs]
    # The mean of nothing would be a warning.
    if not np.isfinite(of_pairs).any() or not np.isfinite(of_others).any():
        return {}
    mean_of_others = np.nanmean(of_others)
    # A ratio to 0 says nothing.
    if not mean_of_others:
        return {}
    mean_of_pairs = np.nanmean(of_pairs)
    return {"copies": float(mean_of_pairs / mean_of_others)}


def _against_shapley(score, reference):
    has_reference = np.isfinite(reference)
    both = np.isfinite(score) & has_reference
    a = score[both]
    b = reference[both]
    cosine = cosine_distance(a, b)
    euclidean = euclidean_distance(a, b)
    largest = max_distance(a, b)
    rank_correlation = spearman(tied(a), tied(b))
    return {
        "cosine_distance": cosine,
        "euclidean_distance": euclidean,
        "max_distance": largest,
        "shapley_spearman": rank_correlation,
    }


def _cost(run, label):
    calls = run.rounds.get(f"calls_{label}")
    seconds = run.rounds.get(f"score_{label}_s")
    cost = {}
    if calls is not None:
        cost["calls"] = int(calls.sum())
    if seconds is not None:
        total_s = seconds.sum()
        cost["seconds"] = float(total_s)
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
    num_bad = bad[is_scored].sum()
    summary["bad"] = int(num_bad)
    summary["clients"] = int(is_scored.sum())
    return summary
