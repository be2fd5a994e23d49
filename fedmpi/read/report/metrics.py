"""The numbers that a run is judged by, and the whole run as JSON takes it."""

import math

import numpy as np

from fedmpi.read.headline import headline
from fedmpi.read.report.profile import profile
from fedmpi.read.report.truth import judged, quality_found

TIMES = ("encode_s", "train_s", "contribution_s", "merge_s", "evaluate_s")
FLOPS = {"flops_prunefl": "as PruneFL counts", "flops_rigl": "as RigL counts"}


def final_metrics(run):
    """Flat dict of the numbers a run is judged by; what was not recorded is missing."""
    found = dict(rounds=len(run.ends))
    found |= _quality(run) | _traffic(run) | _cost(run)
    truth = quality_found(run)
    return found | ({f"quality_{k}": v for k, v in truth.items()} if truth else {})


def _quality(run):
    """Losses and metrics after the last evaluation; the headline where validation chooses."""
    rounds, name = run.rounds, headline(run).name
    names = [name, "loss", *(other for other in headline(run).metrics if other != name)]
    names = [each for part in ("", "val_") for each in (part + other for other in names)]
    last = {f"final_{k}": _last(rounds, k) for k in (*names, *headline(run).own)}
    found = {k: v for k, v in last.items() if v is not None}
    at = chosen(run)
    if at is not None:
        found |= {f"chosen_{name}": float(rounds[name][at]), "chosen_round": at + 1}
    sparsity = _last(rounds, "sparsity")
    return found if sparsity is None else found | dict(sparsity=sparsity)


def chosen(run):
    """The best round, from 0: the evaluated one with the best headline on validation samples, the first of equals; None
    without one. Whatever is called best anywhere is of this round: a round that the test set selects makes the model
    look better than it is."""
    leading = headline(run)
    values, validation = (run.rounds.get(name, np.empty(0)) for name in (leading.name, leading.validation))
    if len(values) != len(validation):
        return None
    known = np.flatnonzero(np.isfinite(values) & np.isfinite(validation))
    return int(known[leading.best(validation[known])]) if len(known) else None


def _last(rounds, name):
    """The last finite value, or None: not every round is evaluated."""
    values = rounds.get(name, np.empty(0))
    values = values[np.isfinite(values)]
    return float(values[-1]) if len(values) else None


def _traffic(run):
    """Bytes sent. ``dense_bytes`` is what a round would have sent up and down together with all weights as float32."""
    sums = {k: float(run.rounds[k].sum()) for k in ("up_bytes", "down_bytes") if k in run.rounds}
    found = dict(sums)
    participations = int(run.ends[-1]) if len(run.ends) else 0
    if participations:
        found |= {f"{k}_per_client": v / participations for k, v in sums.items()}
    dense = float(run.rounds["dense_bytes"].sum()) if "dense_bytes" in run.rounds else 0
    return found | (dict(bytes_against_dense=sum(sums.values()) / dense) if dense and len(sums) == 2 else {})


def _cost(run):
    """Training FLOPs, against the same rounds without pruning where ``flops_dense`` is recorded; seconds a round."""
    found = {k: float(run.rounds[k].sum()) for k in FLOPS if k in run.rounds}
    dense = float(run.rounds["flops_dense"].sum()) if "flops_dense" in run.rounds else 0
    found |= {f"{k}_against_dense": v / dense for k, v in found.items()} if dense else {}
    seconds = {k: run.rounds[k] for k in ("round_s", *TIMES) if k in run.rounds}
    return found | {k: float(np.nanmean(v)) for k, v in seconds.items() if np.isfinite(v).any()}


def to_json(run):
    """The run as a dict that ``json.dumps`` takes: options, final metrics, profile, columns as lists, NaN as None."""
    attrs = {k: v for k, v in run.attrs.items() if k != "options"}
    return plain(
        dict(
            options=run.attrs.get("options", {}),
            attrs=attrs,
            final=final_metrics(run),
            judged=judged(run),
            profile=profile(run),
            rounds=run.rounds,
            population=run.population,
            own=run.own,
            sessions=run.sessions,
        )
    )


def plain(value):
    """A copy that strict JSON can say: arrays are lists, what is not finite is None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return None if isinstance(value, float) and not math.isfinite(value) else value
