"""The measures of a study, by name: each makes a number of a run, NaN without an answer.

Whatever is selected, is selected by the validation share of the training data; the test set is only
read off."""

import math

import numpy as np

from fedmpi.core.errors import UserError
from fedmpi.read.headline import headline
from fedmpi.read.report.chance import left_chance
from fedmpi.read.report.metrics import chosen, final_metrics
from fedmpi.read.report.statistics import auc, spearman, tied
from fedmpi.read.report.truth import by_client, quality, scores

LAST = 0.25                   # share of the rounds, at the end, that weights are averaged over
# Rates of wrong labels are drawn: closer ones belong to one level.
NEAR = 0.05


def accuracy(run):
    """test accuracy, or the headline of another task, after the last round"""
    return final_metrics(run).get(f"final_{headline(run).name}", math.nan)


def accuracy_best(run):
    """test accuracy, or headline, after the round where that of validation is best, the first of
    equals"""
    at = chosen(run)
    return math.nan if at is None else float(run.rounds[headline(run).name][at])


def accuracy_decline(run):
    """accuracy_best - accuracy: what is lost until the last round; the other way round where less
    is better"""
    lost = accuracy_best(run) - accuracy(run)
    return lost if headline(run).higher else -lost


def own_accuracy(run):
    """accuracy, or headline, of clients on their own test parts (--client-test) after the last
    round, their mean"""
    return final_metrics(run).get(f"final_{headline(run).own[0]}", math.nan)


def own_accuracy_weighted(run):
    """the same, weighted by clients' test samples"""
    return final_metrics(run).get(f"final_{headline(run).own[1]}", math.nan)


def own_accuracy_worst(run):
    """the same, of the worst tenth of the clients"""
    return final_metrics(run).get(f"final_{headline(run).own[2]}", math.nan)


def learned(run):
    """1 for a run whose test accuracy ever was 1.2 times that of guessing (of the most frequent
    class, at least), 0 for one that never left chance"""
    left = left_chance(run)
    return math.nan if left is None else float(left)


def up_mb(run):
    """MB that a client sends, in the mean over all clients"""
    return float(run.rounds["up_bytes"].sum()) / run.attrs["options"]["clients"] / 1e6


def mb(run):
    """MB that a client sends and gets, in the mean over all clients"""
    return float(_bytes(run)[-1]) / run.attrs["options"]["clients"] / 1e6


def tflop(run):
    """training FLOPs of all clients by RigL's convention, in 1e12"""
    return float(run.rounds["flops_rigl"].sum()) / 1e12


def sparsity(run):
    """fraction of zeros after the last round"""
    return final_metrics(run).get("sparsity", math.nan)


def seconds(run):
    """seconds of all rounds on the machine that played them"""
    return float(run.rounds["round_s"].sum())


def mb_to(run, least):
    """MB that a client sends and gets until the validation accuracy, or headline, reaches the value
    behind the colon"""
    reached = _first(run, least)
    return math.nan if reached is None else float(_bytes(run)[reached]) / run.attrs["options"]["clients"] / 1e6


def rounds_to(run, least):
    """rounds until the validation accuracy, or headline, reaches the value behind the colon"""
    reached = _first(run, least)
    return math.nan if reached is None else float(reached + 1)


def weight_noise_spearman(run):
    """Spearman's correlation of clients' weights, last quarter of the rounds, with their rate of
    wrong labels"""
    return _against_noise(run, by_client(run, "weight", LAST), spearman)


def weight_auc(run):
    """chance that a clean client (one of the cleanest, within .05) weighs more than another, last
    quarter of rounds"""
    return _clean_over_noisy(run, by_client(run, "weight", LAST))


def score_noise_spearman(run):
    """Spearman's correlation of clients' scores with their rate of wrong labels"""
    return _against_noise(run, _score(run), spearman)


def score_auc(run):
    """chance that a clean client (one of the cleanest, within .05) has a higher score than
    another"""
    return _clean_over_noisy(run, _score(run))


def noisy_weight(run):
    """weight of one of the noisiest clients, in the mean over the last quarter of the rounds"""
    trace = noisiest_weight(run)
    if trace is None:
        return math.nan
    num_last = max(1, round(LAST * len(trace)))
    return float(trace[-num_last:].mean())


def noisy_rise(run):
    """weight of the noisiest clients in the last tenth of the rounds less that at their lowest; the
    lowest window of odd rounds is sought in even ones, so that chance makes no rise from one round
    to the next; wandering makes some"""
    trace = noisiest_weight(run)
    if trace is None or len(trace) < 8:
        return math.nan
    even, odd = trace[0::2][: len(trace) // 2], trace[1::2]
    width = max(1, len(odd) // 10)
    low = lowest(even, width)
    at_end, at_lowest = odd[-width:], odd[low: low + width]
    return float(at_end.mean() - at_lowest.mean())


def noisy_low_at(run):
    """when the weight of the noisiest clients is lowest, as a fraction of all rounds"""
    trace = noisiest_weight(run)
    if trace is None:
        return math.nan
    width = max(1, len(trace) // 20)
    return (lowest(trace, width) + (width + 1) / 2) / len(trace)


def lowest(values, width):
    """The start of the window of ``width`` values with the least mean, the first of equals."""
    means = np.convolve(values, np.ones(width) / width, "valid")
    # Equal means differ by rounding errors.
    return int(np.argmin(means.round(12)))


def noisiest_weight(run):
    """(T,) mean weight in each round of the clients with the most wrong labels; None if no label is
    wrong."""
    noise = run.population.get("noise")
    if noise is None or not len(run.ends) or noise.max(initial=0) <= 0:
        return None
    is_noisiest = noise >= noise.max() - NEAR
    means = []
    for start, stop in zip([0, *run.ends], run.ends):
        rows = is_noisiest[run.clients["client"][start:stop]]
        if rows.any():
            weights = run.clients["weight"][start:stop]
            means.append(weights[rows].mean())
    return np.array(means)


def _score(run):
    """(N,) scores of the weighing estimator, or None."""
    return next(iter(scores(run).values()), None)


def _against_noise(run, values, statistic):
    """``statistic`` of ``values (N,)`` and the rates of wrong labels, over clients with a finite
    value."""
    noise = run.population.get("noise")
    if noise is None or values is None:
        return math.nan
    has_value = np.isfinite(values)
    if not has_value.any():
        return math.nan
    return statistic(tied(values[has_value]), tied(noise[has_value]))


def _clean_over_noisy(run, values):
    """AUC of the clients within NEAR of the best quality over all others.

    (``truth.is_bad`` cuts at the middle of the range. The thesis's noise has three of its clients
    there: chance would decide about them.)"""
    truth = quality(run)
    if truth is None or values is None:
        return math.nan
    has_value = np.isfinite(values)
    is_clean = truth[has_value] >= truth.max(initial=0) - NEAR
    return auc(tied(values[has_value]), is_clean)


def _bytes(run):
    """(T,) bytes up and down, by the end of each round."""
    both = run.rounds["up_bytes"] + run.rounds["down_bytes"].astype(float)
    return np.cumsum(both)


def _first(run, least):
    """The first round, from 0, with the validation headline at ``least`` or better; None if there
    is none."""
    leading = headline(run)
    is_reached = leading.reached(run.rounds[leading.validation], least)
    rounds = np.flatnonzero(is_reached)
    if not len(rounds):
        return None
    return int(rounds[0])


PLAIN = {f.__name__: f for f in (
    accuracy, accuracy_best, accuracy_decline, own_accuracy, own_accuracy_weighted, own_accuracy_worst,
    learned, up_mb, mb, tflop, sparsity, seconds, weight_noise_spearman,
    weight_auc, score_noise_spearman, score_auc, noisy_weight, noisy_rise, noisy_low_at)}
WITH_VALUE = {f.__name__: f for f in (mb_to, rounds_to)}      # written mb_to:0.6


def check_measure(text, where):
    """UserError for a name that is no measure."""
    if str(text) in PLAIN or _is_with_value(str(text)):
        return
    with_value = ", ".join(f"{name}:ACCURACY" for name in WITH_VALUE)
    raise UserError(f"{where}: unknown measure {text}; known are {', '.join(PLAIN)}, {with_value}")


def _is_with_value(text):
    """Whether ``text`` is such as mb_to:0.6."""
    name, _, value = text.partition(":")
    try:
        return name in WITH_VALUE and 0 < float(value) <= 1
    except ValueError:
        return False


def measure(run, text):
    """The number of the run that ``text`` names."""
    name, _, value = text.partition(":")
    if value:
        return WITH_VALUE[name](run, float(value))
    return PLAIN[name](run)


def described(text):
    """A line about the measure."""
    name = text.partition(":")[0]
    function = (PLAIN | WITH_VALUE)[name]
    return " ".join(function.__doc__.split())
