"""What a study measures of a run, by name. Whatever is selected, is selected by the validation share of the training
data; the test set is only read off. NaN where a run has no answer."""

import math

import numpy as np

from fedmpi.core.errors import UserError
from fedmpi.read.headline import headline
from fedmpi.read.report.chance import left_chance
from fedmpi.read.report.metrics import chosen, final_metrics
from fedmpi.read.report.statistics import auc, spearman, tied
from fedmpi.read.report.truth import by_client, quality, scores

LAST = 0.25                   # share of the rounds, at the end, that weights are averaged over
NEAR = 0.05                   # rates of wrong labels so near to one another are one level: they are drawn


def accuracy(run):
    """test accuracy, or the headline of another task, after the last round"""
    return final_metrics(run).get(f"final_{headline(run).name}", math.nan)


def accuracy_best(run):
    """test accuracy, or headline, after the round where that of validation is best, the first of equals"""
    at = chosen(run)
    return math.nan if at is None else float(run.rounds[headline(run).name][at])


def accuracy_decline(run):
    """accuracy_best - accuracy: what is lost until the last round; the other way round where less is better"""
    lost = accuracy_best(run) - accuracy(run)
    return lost if headline(run).higher else -lost


def own_accuracy(run):
    """accuracy, or headline, of clients on their own test parts (--client-test) after the last round, their mean"""
    return final_metrics(run).get(f"final_{headline(run).own[0]}", math.nan)


def own_accuracy_weighted(run):
    """the same, weighted by clients' test samples"""
    return final_metrics(run).get(f"final_{headline(run).own[1]}", math.nan)


def own_accuracy_worst(run):
    """the same, of the worst tenth of the clients"""
    return final_metrics(run).get(f"final_{headline(run).own[2]}", math.nan)


def learned(run):
    """1 for a run whose test accuracy ever was 1.2 times that of guessing (of the most frequent class, at least), 0 for
    one that never left chance"""
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
    """MB that a client sends and gets until the validation accuracy, or headline, reaches the value behind the colon"""
    reached = _first(run, least)
    return math.nan if reached is None else float(_bytes(run)[reached]) / run.attrs["options"]["clients"] / 1e6


def rounds_to(run, least):
    """rounds until the validation accuracy, or headline, reaches the value behind the colon"""
    reached = _first(run, least)
    return math.nan if reached is None else float(reached + 1)


def weight_noise_spearman(run):
    """Spearman's correlation of clients' weights, last quarter of the rounds, with their rate of wrong labels"""
    return _against_noise(run, by_client(run, "weight", LAST), spearman)


def weight_auc(run):
    """chance that a clean client (one of the cleanest, within .05) weighs more than another, last quarter of rounds"""
    return _clean_over_noisy(run, by_client(run, "weight", LAST))


def score_noise_spearman(run):
    """Spearman's correlation of clients' scores with their rate of wrong labels"""
    return _against_noise(run, _score(run), spearman)


def score_auc(run):
    """chance that a clean client (one of the cleanest, within .05) has a higher score than another"""
    return _clean_over_noisy(run, _score(run))


def noisy_weight(run):
    """weight of one of the noisiest clients, in the mean over the last quarter of the rounds"""
    trace = noisiest_weight(run)
    return math.nan if trace is None else float(trace[-max(1, round(LAST * len(trace))):].mean())


def noisy_rise(run):
    """weight of the noisiest clients in the last tenth of the rounds less that at their lowest; the lowest window of
    odd rounds is sought in even ones, so that chance makes no rise from one round to the next; wandering makes some"""
    trace = noisiest_weight(run)
    if trace is None or len(trace) < 8:
        return math.nan
    even, odd = trace[0::2][: len(trace) // 2], trace[1::2]
    width = max(1, len(odd) // 10)
    low = lowest(even, width)
    return float(odd[-width:].mean() - odd[low: low + width].mean())


def noisy_low_at(run):
    """when the weight of the noisiest clients is lowest, as a fraction of all rounds"""
    trace = noisiest_weight(run)
    if trace is None:
        return math.nan
    width = max(1, len(trace) // 20)
    return (lowest(trace, width) + (width + 1) / 2) / len(trace)


def lowest(values, width):
    """The start of the window of ``width`` values with the least mean, the first of equals."""
    return int(np.argmin(np.convolve(values, np.ones(width) / width, "valid").round(12)))


def noisiest_weight(run):
    """(T,) mean weight in each round of the clients with the most wrong labels; None where no label is wrong."""
    noise = run.population.get("noise")
    if noise is None or not len(run.ends) or noise.max(initial=0) <= 0:
        return None
    chosen = noise >= noise.max() - NEAR
    means = [run.clients["weight"][a:b][chosen[run.clients["client"][a:b]]].mean()
             for a, b in zip([0, *run.ends], run.ends) if chosen[run.clients["client"][a:b]].any()]
    return np.array(means)


def _score(run):
    return next(iter(scores(run).values()), None)


def _against_noise(run, values, statistic):
    noise = run.population.get("noise")
    if noise is None or values is None or not np.isfinite(values).any():
        return math.nan
    known = np.isfinite(values)
    return statistic(tied(values[known]), tied(noise[known]))


def _clean_over_noisy(run, values):
    """AUC of the clients within NEAR of the best quality over all others. (``truth.is_bad`` cuts at the middle of the
    range, which is where the thesis's noise has three of its clients: chance would say on which side.)"""
    truth = quality(run)
    if truth is None or values is None:
        return math.nan
    known = np.isfinite(values)
    return auc(tied(values[known]), truth[known] >= truth.max(initial=0) - NEAR)


def _bytes(run):
    return np.cumsum(run.rounds["up_bytes"] + run.rounds["down_bytes"].astype(float))


def _first(run, least):
    leading = headline(run)
    reached = np.flatnonzero(leading.reached(run.rounds[leading.validation], least))
    return int(reached[0]) if len(reached) else None


PLAIN = {f.__name__: f for f in (
    accuracy, accuracy_best, accuracy_decline, own_accuracy, own_accuracy_weighted, own_accuracy_worst,
    learned, up_mb, mb, tflop, sparsity, seconds, weight_noise_spearman,
    weight_auc, score_noise_spearman, score_auc, noisy_weight, noisy_rise, noisy_low_at)}
WITH_VALUE = {f.__name__: f for f in (mb_to, rounds_to)}      # written mb_to:0.6


def check_measure(text, where):
    """UserError for a name that is no measure."""
    try:
        name, _, value = str(text).partition(":")
        if name in WITH_VALUE and 0 < float(value) <= 1 or str(text) in PLAIN:
            return
    except ValueError:
        pass
    raise UserError(f"{where}: unknown measure {text}; known are {', '.join(PLAIN)}, "
                    f"{', '.join(f'{name}:ACCURACY' for name in WITH_VALUE)}")


def measure(run, text):
    """The number of the run that ``text`` names."""
    name, _, value = text.partition(":")
    return WITH_VALUE[name](run, float(value)) if value else PLAIN[name](run)


def described(text):
    """What the measure is, in a line."""
    name = text.partition(":")[0]
    return " ".join((PLAIN | WITH_VALUE)[name].__doc__.split())
