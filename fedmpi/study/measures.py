"""The measures of a study, by name: each makes a number of a run, NaN without an answer.

A round is selected by the validation share of the training data, never by the test set.

The docstring of a measure is a line about it in tables, and begins without a capital."""

import math

import numpy as np

from fedmpi.core.errors import UserError
from fedmpi.read.headline import headline
from fedmpi.read.report.chance import left_chance
from fedmpi.read.report.metrics import chosen, final_metrics
from fedmpi.read.report.statistics import auc, spearman, tied
from fedmpi.read.report.truth import by_client, quality, scores

# Weights are averaged over this share of the rounds, at the end.
LAST = 0.25
# Rates of wrong labels are drawn: closer ones belong to one level.
NEAR = 0.05


def accuracy(run):
    """test accuracy, or the headline of another task, after the last round"""
    return _final(run, headline(run).name)


def accuracy_best(run):
    """test accuracy, or headline, after the round with the best validation, the first of equals"""
    at = chosen(run)
    if at is None:
        return math.nan
    values = run.rounds[headline(run).name]
    return float(values[at])


def accuracy_decline(run):
    """accuracy_best - accuracy: the loss until the last round; the other way round if less is
    better"""
    difference = accuracy_best(run) - accuracy(run)
    if headline(run).higher:
        return difference
    return -difference


def own_accuracy(run):
    """accuracy, or headline, of clients on their own test parts (--client-test) after the last
    round, their mean"""
    name, _, _ = headline(run).own
    return _final(run, name)


def own_accuracy_weighted(run):
    """the same, weighted by clients' test samples"""
    _, name, _ = headline(run).own
    return _final(run, name)


def own_accuracy_worst(run):
    """the same, of the worst tenth of the clients"""
    _, _, name = headline(run).own
    return _final(run, name)


def learned(run):
    """1 for a run whose test accuracy ever was 1.2 times that of guessing (of the most frequent
    class, at least), 0 for one that never left chance"""
    left = left_chance(run)
    if left is None:
        return math.nan
    return float(left)


def up_mb(run):
    """MB sent by a client, in the mean over all clients"""
    num_bytes = float(run.rounds["up_bytes"].sum())
    return _client_mb(run, num_bytes)


def up_peak_mb(run):
    """MB sent by a client in the round with the most of them, in the mean over all clients"""
    num_bytes = float(run.rounds["up_bytes"].max())
    return _client_mb(run, num_bytes)


def mb(run):
    """MB sent and received by a client, in the mean over all clients"""
    num_bytes = float(_bytes(run)[-1])
    return _client_mb(run, num_bytes)


def tflop(run):
    """training FLOPs of all clients by RigL's convention, in 1e12"""
    flops = float(run.rounds["flops_rigl"].sum())
    return flops / 1e12


def sparsity(run):
    """fraction of zeros after the last round"""
    return final_metrics(run).get("sparsity", math.nan)


def seconds(run):
    """seconds of all rounds on the machine of the run"""
    round_s = run.rounds["round_s"]
    return float(round_s.sum())


def mb_to(run, least):
    """MB sent and received by a client until the validation accuracy, or headline, reaches the
    value behind the colon"""
    reached = _first(run, least)
    if reached is None:
        return math.nan
    num_bytes = float(_bytes(run)[reached])
    return _client_mb(run, num_bytes)


def rounds_to(run, least):
    """rounds until the validation accuracy, or headline, reaches the value behind the colon"""
    reached = _first(run, least)
    if reached is None:
        return math.nan
    # Rounds count from 1.
    return float(reached + 1)


def weight_noise_spearman(run):
    """Spearman's correlation of clients' weights, last quarter of the rounds, with their rate of
    wrong labels"""
    weights = by_client(run, "weight", LAST)
    return _against_noise(run, weights, spearman)


def weight_auc(run):
    """chance that a clean client (one of the cleanest, within .05) weighs more than another, last
    quarter of rounds"""
    weights = by_client(run, "weight", LAST)
    return _clean_over_noisy(run, weights)


def score_noise_spearman(run):
    """Spearman's correlation of clients' scores with their rate of wrong labels"""
    values = _score(run)
    return _against_noise(run, values, spearman)


def score_auc(run):
    """chance that a clean client (one of the cleanest, within .05) has a higher score than
    another"""
    values = _score(run)
    return _clean_over_noisy(run, values)


def noisy_weight(run):
    """weight of one of the noisiest clients, in the mean over the last quarter of the rounds"""
    trace = noisiest_weight(run)
    if trace is None:
        return math.nan
    num_last = max(1, round(LAST * len(trace)))
    return float(trace[-num_last:].mean())


def noisy_rise(run):
    """weight of the noisiest clients in the last tenth of the rounds less their weight at its
    lowest; the lowest window of odd rounds is sought in even ones, so that chance makes no rise
    from one round to the next; wandering makes some"""
    trace = noisiest_weight(run)
    if trace is None:
        return math.nan
    num_pairs = len(trace) // 2
    # Fewer rounds have no windows to compare.
    if num_pairs < 4:
        return math.nan
    # Two samples of one course.
    even = trace[0::2][:num_pairs]
    odd = trace[1::2]
    width = max(1, num_pairs // 10)
    start = lowest(even, width)
    stop = start + width
    at_lowest = odd[start:stop]
    at_end = odd[-width:]
    return float(at_end.mean() - at_lowest.mean())


def noisy_low_at(run):
    """when the weight of the noisiest clients is lowest, as a fraction of all rounds"""
    trace = noisiest_weight(run)
    if trace is None:
        return math.nan
    width = max(1, len(trace) // 20)
    # Rounds count from 1: the middle of a window that begins at index 0 is (width + 1) / 2.
    middle = lowest(trace, width) + (width + 1) / 2
    return middle / len(trace)


def lowest(values, width):
    """The start of the window of ``width`` values with the least mean, the first of equals."""
    means = np.convolve(values, np.ones(width) / width, "valid")
    # Equal means differ by rounding errors.
    return int(np.argmin(means.round(12)))


def noisiest_weight(run):
    """(T,) mean weight in each round of the clients with the most wrong labels; None if no label is
    wrong."""
    noise = wrong_labels(run)
    if noise is None or not len(run.ends):
        return None
    is_noisiest = noise >= noise.max() - NEAR
    means = []
    for clients, weights in round_weights(run):
        is_noisy_row = is_noisiest[clients]
        # None of them may have been in the round's cohort.
        if is_noisy_row.any():
            of_noisiest = weights[is_noisy_row]
            means.append(of_noisiest.mean())
    return np.array(means)


def wrong_labels(run):
    """(N,) the clients' rates of wrong labels; None if no label is wrong."""
    noise = run.population.get("noise")
    if noise is None:
        return None
    if noise.max(initial=0) <= 0:
        return None
    return noise


def round_weights(run):
    """Yield ``(clients (C,), weights (C,))`` of each round."""
    start = 0
    for stop in run.ends:
        clients = run.clients["client"][start:stop]
        weights = run.clients["weight"][start:stop]
        yield clients, weights
        start = stop


def _final(run, name):
    """The number of column ``name`` after the last round, or NaN."""
    return final_metrics(run).get(f"final_{name}", math.nan)


def _client_mb(run, num_bytes):
    """MB a client, in the mean over all clients, of the bytes of all."""
    return num_bytes / run.attrs["options"]["clients"] / 1e6


def _score(run):
    """(N,) scores of the weighing estimator, or None."""
    by_estimator = scores(run)
    return next(iter(by_estimator.values()), None)


def _against_noise(run, values, statistic):
    """``statistic`` of ``values (N,)`` and the rates of wrong labels, over clients with a finite
    value."""
    noise = run.population.get("noise")
    if noise is None or values is None:
        return math.nan
    has_value = np.isfinite(values)
    if not has_value.any():
        return math.nan
    finite_values = tied(values[has_value])
    rates = tied(noise[has_value])
    return statistic(finite_values, rates)


def _clean_over_noisy(run, values):
    """AUC of the clients within NEAR of the best quality over all others."""
    truth = quality(run)
    if truth is None or values is None:
        return math.nan
    # ``truth.is_bad`` cuts at the middle of the range. The thesis's noise has three of its clients
    # there: chance would decide about them.
    least_clean = truth.max(initial=0) - NEAR
    has_value = np.isfinite(values)
    is_clean = truth[has_value] >= least_clean
    finite_values = tied(values[has_value])
    return auc(finite_values, is_clean)


def _bytes(run):
    """(T,) bytes up and down, by the end of each round."""
    up = run.rounds["up_bytes"]
    down = run.rounds["down_bytes"].astype(float)
    return np.cumsum(up + down)


def _first(run, least):
    """The first round, from 0, with the validation headline at ``least`` or better; None if there
    is none."""
    leading = headline(run)
    values = run.rounds[leading.validation]
    is_reached = leading.reached(values, least)
    rounds = np.flatnonzero(is_reached)
    if not len(rounds):
        return None
    return int(rounds[0])


# The measures without a value, as recipes name them.
PLAIN = {function.__name__: function for function in (
    accuracy,
    accuracy_best,
    accuracy_decline,
    own_accuracy,
    own_accuracy_weighted,
    own_accuracy_worst,
    learned,
    up_mb,
    up_peak_mb,
    mb,
    tflop,
    sparsity,
    seconds,
    weight_noise_spearman,
    weight_auc,
    score_noise_spearman,
    score_auc,
    noisy_weight,
    noisy_rise,
    noisy_low_at)}
# The measures with a value: mb_to:0.6.
WITH_VALUE = {function.__name__: function for function in (mb_to, rounds_to)}


def check_measure(text, where):
    """UserError for an unknown measure."""
    # Recipes are files that people write: the text may be a number.
    name = str(text)
    if name in PLAIN or _is_with_value(name):
        return
    with_value = [f"{name}:ACCURACY" for name in WITH_VALUE]
    listed = ", ".join([*PLAIN, *with_value])
    raise UserError(f"{where}: unknown measure {text}; known are {listed}")


def _is_with_value(text):
    """Whether ``text`` is such as mb_to:0.6."""
    name, _, value_text = text.partition(":")
    if name not in WITH_VALUE:
        return False
    try:
        value = float(value_text)
    except ValueError:
        return False
    return 0 < value <= 1


def measure(run, text):
    """The number of the run for a measure, such as ``accuracy`` or ``mb_to:0.6``."""
    name, _, value = text.partition(":")
    if value:
        function = WITH_VALUE[name]
        return function(run, float(value))
    function = PLAIN[name]
    return function(run)


def described(text):
    """A line about the measure."""
    name = text.partition(":")[0]
    function = (PLAIN | WITH_VALUE)[name]
    return " ".join(function.__doc__.split())
