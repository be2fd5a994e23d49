"""The time of a run's rounds: seconds by phase, the workers' load, the slowest clients.

The phases of a round, one after the other, add up to its seconds. Two kinds of entries lie inside
training and are not added again: parts of it, and rank 0's work beside it, in the time of waiting
for clients. Clients' own tests come after a round and are no part of its seconds.
"""

import numpy as np

OWN, PART, BESIDE, AFTER = "phase", "part of train", "beside train", "after the round"
# {phase: (its column of /rounds, its kind)}
PHASES = {
    "encode": ("encode_s", OWN),
    "train": ("train_s", OWN),
    "wait": ("wait_s", PART),
    "decode": ("decode_s", PART),
    "evaluate": ("evaluate_s", BESIDE),
    "store": ("store_s", BESIDE),
    "contribution": ("contribution_s", OWN),
    "merge": ("merge_s", OWN),
    "lab": ("lab_s", OWN),
    "row": ("row_s", OWN),
    "own tests": ("own_s", AFTER),
}
# Phases of some runs only.
SOMETIMES = ("lab", "own tests")
# Clients that are named.
SLOWEST = 3


def profile(run):
    """Nested dict of a run's times:

    * ``rounds``, ``wall_s``: the sum of ``round_s``, of the phases in old files;
    * ``phases``: ``{name: {kind, seconds, share, median_s, largest_s, largest_round}}``, with a
      ``rest``;
    * ``workers``, ``busy`` (None if unknown), ``client_s``, ``ranks``: ``{rank: seconds of its
      clients}``;
    * ``slowest`` clients, ``not_recorded`` columns."""
    wall_s, phases = _phases(run)
    return {
        "rounds": len(run.ends),
        "wall_s": wall_s,
        "phases": phases,
        **_of_workers(run),
        "slowest": _slowest(run),
        "not_recorded": _not_recorded(run),
    }


def _phases(run):
    """``(wall_s, phases)`` of the ``profile``."""
    rounds = run.rounds
    phases = {}
    own_s = 0
    for name, (column, usual_kind) in PHASES.items():
        if column not in rounds:
            continue
        phase = _times(run, column)
        phase["kind"] = _kind(usual_kind, rounds)
        if phase["kind"] == OWN:
            own_s += phase["seconds"]
        phases[name] = phase
    wall_s = own_s
    # It also counts the work between phases.
    if "round_s" in rounds:
        wall_s = _total(rounds, "round_s")
    for phase in phases.values():
        phase["share"] = phase["seconds"] / wall_s if wall_s else 0.0
    rest_s = wall_s - own_s
    # Less is the rounding error of the sums.
    if rest_s > 1e-6 * wall_s:
        phases["rest"] = {"kind": OWN, "seconds": rest_s, "share": rest_s / wall_s}
    return wall_s, phases


def _total(rounds, column):
    return float(np.nansum(rounds[column]))


def _not_recorded(run):
    """Columns of every run of today, missing in this file."""
    columns = ["round_s"]
    columns += [column for name, (column, _) in PHASES.items() if name not in SOMETIMES]
    missing = [column for column in columns if column not in run.rounds]
    for name in ("train_s", "rank"):
        if name not in run.clients:
            missing.append(f"clients/{name}")
    return missing


def _kind(kind, rounds):
    """The kind of a phase; in files without ``wait_s`` nothing happened beside training yet."""
    if kind == BESIDE and "wait_s" not in rounds:
        return OWN
    return kind


def _times(run, column):
    """The times of one phase without its ``kind`` and ``share``.

    A round without the phase is NaN and counts for nothing."""
    seconds = run.rounds[column]
    # The places of kind and share are kept, so that JSON has them in this order.
    phase = {"kind": None, "seconds": _total(run.rounds, column), "share": None}
    is_timed = np.isfinite(seconds)
    if not is_timed.any():
        return phase
    numbers = run.rounds.get("round", np.arange(len(run.ends)) + 1)
    largest = np.nanargmax(seconds)
    phase["median_s"] = float(np.median(seconds[is_timed]))
    phase["largest_s"] = float(seconds[largest])
    phase["largest_round"] = int(numbers[largest])
    return phase


def _of_workers(run):
    """The number of workers, their seconds of training, and their share of the seconds of
    training."""
    seconds = run.clients.get("train_s")
    if seconds is None:
        return {"workers": None, "busy": None, "client_s": None, "ranks": {}}
    client_s = float(np.nansum(seconds))
    workers = _num_workers(run)
    train_s = 0.0
    if "train_s" in run.rounds:
        train_s = _total(run.rounds, "train_s")
    busy = None
    if workers and train_s:
        # Several ranks may train a client; older files do not say.
        options = run.attrs.get("options", {})
        ranks_s = client_s * options.get("ranks_per_client", 1)
        busy = ranks_s / (workers * train_s)
    by_rank = _by_rank(run, seconds)
    return {"workers": workers, "busy": busy, "client_s": client_s, "ranks": by_rank}


def _num_workers(run):
    """None if the run was resumed on another number of ranks, or does not record them."""
    started = _started(run)
    # A mean over sessions of different sizes would mislead.
    if len(started) != 1:
        return None
    # Rank 0 is the server, and in one process also the worker.
    num_ranks = started.pop()
    return max(num_ranks - 1, 1)


def _by_rank(run, seconds):
    """``{rank: seconds of its clients}``; ranks below 0 stand for unknown ones."""
    rank = run.clients.get("rank")
    if rank is None:
        return {}
    by_rank = {}
    for number in np.unique(rank[rank >= 0]):
        by_rank[int(number)] = float(np.nansum(seconds[rank == number]))
    return by_rank


def _started(run):
    """The numbers of ranks of the run's sessions."""
    records = [*run.sessions, run.attrs]
    return {int(record["ranks"]) for record in records if "ranks" in record}


def alone(run):
    """Whether all of it was played in one process."""
    return _started(run) == {1}


def _slowest(run):
    """The clients with the longest training, by their median."""
    seconds = run.clients.get("train_s")
    client = run.clients.get("client")
    if seconds is None or client is None:
        return []
    is_timed = np.isfinite(seconds)
    seconds = seconds[is_timed]
    client = client[is_timed]
    medians = []
    for number in np.unique(client):
        median_s = float(np.median(seconds[client == number]))
        medians.append((-median_s, int(number)))
    slowest = sorted(medians)[:SLOWEST]
    samples = run.population.get("samples")
    rows = []
    for negative_s, number in slowest:
        num_samples = None if samples is None else int(samples[number])
        rows.append({"client": number, "median_s": -negative_s, "samples": num_samples})
    return rows
