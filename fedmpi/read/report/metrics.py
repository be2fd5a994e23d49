"""The final numbers of a run, and the whole run as JSON takes it."""

import math

import numpy as np

from fedmpi.read.headline import headline
from fedmpi.read.report.profile import profile
from fedmpi.read.report.truth import judged, quality_found

TIMES = ("encode_s", "train_s", "contribution_s", "merge_s", "evaluate_s")
FLOPS = {"flops_prunefl": "as PruneFL counts", "flops_rigl": "as RigL counts"}


def final_metrics(run):
    """Flat dict of a run's final numbers; unrecorded numbers are missing."""
    numbers = {"rounds": len(run.ends)}
    numbers |= _quality(run)
    numbers |= _traffic(run)
    numbers |= _cost(run)
    found_quality = quality_found(run) or {}
    for name, value in found_quality.items():
        numbers[f"quality_{name}"] = value
    return numbers


def _quality(run):
    """Losses and metrics after the last evaluation, and the headline of the round selected by
    validation."""
    leading = headline(run)
    numbers = {}
    for column in (*_evaluated_columns(leading), *leading.own):
        value = _last(run.rounds, column)
        _put(numbers, f"final_{column}", value)
    best_round = chosen(run)
    if best_round is not None:
        values = run.rounds[leading.name]
        numbers[f"chosen_{leading.name}"] = float(values[best_round])
        numbers["chosen_round"] = best_round + 1
    for column in ("sparsity", "sparsity_all"):
        value = _last(run.rounds, column)
        _put(numbers, column, value)
    return numbers


def _evaluated_columns(leading):
    """The headline, the loss and the other metrics: of the test set, then of the validation set."""
    others = [name for name in leading.metrics if name != leading.name]
    test = [leading.name, "loss", *others]
    return [*test, *(f"val_{name}" for name in test)]


def _put(numbers, name, value):
    """Add a number to the dict, unless it is None."""
    if value is not None:
        numbers[name] = value


def chosen(run):
    """The best round, from 0: the evaluated one with the best headline on validation samples, the
    first of equals.

    None without one. Every "best" of a report is of this round: a round that the test set selects
    would make the model look better than it is."""
    leading = headline(run)
    values = run.rounds.get(leading.name, np.empty(0))
    validation = run.rounds.get(leading.validation, np.empty(0))
    # A run without validation samples has no such column.
    if len(values) != len(validation):
        return None
    is_evaluated = np.isfinite(values) & np.isfinite(validation)
    rounds = np.flatnonzero(is_evaluated)
    if not len(rounds):
        return None
    candidates = validation[rounds]
    place = leading.best(candidates)
    return int(rounds[place])


def _last(rounds, name):
    """The last finite value, or None: not every round is evaluated."""
    values = rounds.get(name, np.empty(0))
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    return float(values[-1])


def _traffic(run):
    """Bytes sent: in all, a client and round, and against all weights as float32 both ways
    (``dense_bytes``)."""
    rounds = run.rounds
    numbers = _sums(rounds, ("up_bytes", "down_bytes"))
    total = sum(numbers.values())
    # The dense bytes are of both ways, so they need both sums beside them.
    both_ways = len(numbers) == 2
    participations = 0
    if len(run.ends):
        participations = int(run.ends[-1])
    if participations:
        numbers |= {f"{name}_per_client": value / participations for name, value in numbers.items()}
    dense = _sum(rounds, "dense_bytes")
    if dense and both_ways:
        numbers["bytes_against_dense"] = total / dense
    return numbers


def _cost(run):
    """Training FLOPs, also against the same rounds without pruning (``flops_dense``); seconds a
    round."""
    rounds = run.rounds
    numbers = _sums(rounds, FLOPS)
    dense = _sum(rounds, "flops_dense")
    if dense:
        numbers |= {f"{name}_against_dense": value / dense for name, value in numbers.items()}
    for name in ("round_s", *TIMES):
        seconds = rounds.get(name, np.empty(0))
        if np.isfinite(seconds).any():
            mean_s = np.nanmean(seconds)
            numbers[name] = float(mean_s)
    return numbers


def _sums(rounds, columns):
    """``{column: its sum}`` of the recorded ones among ``columns``."""
    return {name: float(rounds[name].sum()) for name in columns if name in rounds}


def _sum(rounds, column):
    """The sum of a column, 0 if it is not recorded."""
    if column not in rounds:
        return 0
    total = rounds[column].sum()
    return float(total)


def to_json(run):
    """The run as a dict for ``json.dumps``: options, final metrics, profile, columns as lists, NaN
    as None."""
    attrs = {name: value for name, value in run.attrs.items() if name != "options"}
    recorded = run.attrs.get("options", {})
    final = final_metrics(run)
    return plain({
        "options": recorded,
        "attrs": attrs,
        "final": final,
        "judged": judged(run),
        "profile": profile(run),
        "rounds": run.rounds,
        "population": run.population,
        "own": run.own,
        "sessions": run.sessions,
    })


def plain(value):
    """A copy for strict JSON: arrays as lists, NaN and infinity as None."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        # json knows no types of numpy.
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, bytes):
        # HDF5 stores texts as bytes.
        return value.decode("utf-8", "replace")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
