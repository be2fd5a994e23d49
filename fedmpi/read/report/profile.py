"""The time of a run's rounds: seconds by phase, the workers' load, the slowest clients.

The phases of a round, one after the other, add up to its seconds. Two kinds of entries lie inside
training and are not added again: parts of it, and rank 0's work beside it, in the time of waiting
for clients. Clients' own tests come after a round and are no part of its seconds.
"""

import numpy as np

OWN, PART, BESIDE, AFTER = "phase", "part of train", "beside train", "after the round"
PHASES = {"encode": ("encode_s", OWN), "train": ("train_s", OWN), "wait": ("wait_s", PART),
          "decode": ("decode_s", PART), "evaluate": ("evaluate_s", BESIDE), "store": ("store_s", BESIDE),
          "value": ("contribution_s", OWN), "merge": ("merge_s", OWN), "lab": ("lab_s", OWN), "row": ("row_s", OWN),
          "own tests": ("own_s", AFTER)}
# Phases of some runs only.
SOMETIMES = ("lab", "own tests")
SLOWEST = 3                   # clients that are named


def profile(run):
    """Nested dict of a run's times:

    * ``rounds``, ``wall_s``: the sum of ``round_s``, of the phases in old files;
    * ``phases``: ``{name: {kind, seconds, share, median_s, largest_s, largest_round}}``, with a
      ``rest``;
    * ``workers``, ``busy`` (None if unknown), ``client_s``, ``ranks``: ``{rank: seconds of its
      clients}``;
    * ``slowest`` clients, ``not_recorded`` columns."""
    rounds = run.rounds
    kinds = {name: _kind(kind, rounds) for name, (column, kind) in PHASES.items() if column in rounds}
    own = sum(_total(rounds, PHASES[name][0]) for name, kind in kinds.items() if kind == OWN)
    wall = own
    if "round_s" in rounds:
        wall = _total(rounds, "round_s")
    numbers = rounds.get("round", np.arange(len(run.ends)) + 1)
    phases = {}
    for name, kind in kinds.items():
        column = PHASES[name][0]
        phases[name] = {"kind": kind, **_spent(rounds[column], numbers, wall)}
    if wall - own > 1e-6 * wall:
        phases["rest"] = {"kind": OWN, "seconds": wall - own, "share": (wall - own) / wall}
    return {
        "rounds": len(run.ends),
        "wall_s": wall,
        "phases": phases,
        **_of_workers(run),
        "slowest": _slowest(run),
        "not_recorded": _not_recorded(run),
    }


def _total(rounds, column):
    return float(np.nansum(rounds[column]))


def _not_recorded(run):
    """Columns that every run of today has, and this file lacks."""
    columns = ["round_s", *(column for name, (column, _) in PHASES.items() if name not in SOMETIMES)]
    missing = [column for column in columns if column not in run.rounds]
    return missing + [f"clients/{name}" for name in ("train_s", "rank") if name not in run.clients]


def _kind(kind, rounds):
    """The kind of a phase; in files without ``wait_s`` nothing happened beside training yet."""
    if kind == BESIDE and "wait_s" not in rounds:
        return OWN
    return kind


def _spent(seconds, numbers, wall):
    """The numbers of one phase; a round without it is NaN and counts for nothing."""
    total = float(np.nansum(seconds))
    phase = {"seconds": total, "share": total / wall if wall else 0.0}
    rounds = np.flatnonzero(np.isfinite(seconds))
    if not len(rounds):
        return phase
    largest = rounds[np.argmax(seconds[rounds])]
    phase["median_s"] = float(np.median(seconds[rounds]))
    phase["largest_s"] = float(seconds[largest])
    phase["largest_round"] = int(numbers[largest])
    return phase


def _of_workers(run):
    """The number of workers, their seconds of training, and the share of training's seconds that
    this is."""
    seconds = run.clients.get("train_s")
    if seconds is None:
        return {"workers": None, "busy": None, "client_s": None, "ranks": {}}
    total, workers, busy = float(np.nansum(seconds)), None, None
    started = _started(run)
    if len(started) == 1:
        workers = max(min(started) - 1, 1)
    train = 0.0
    if "train_s" in run.rounds:
        train = _total(run.rounds, "train_s")
    if workers and train:
        busy = total / (workers * train)
    return {"workers": workers, "busy": busy, "client_s": total, "ranks": _by_rank(run, seconds)}


def _by_rank(run, seconds):
    """``{rank: seconds of its clients}``; ranks below 0 stand for unknown ones."""
    rank = run.clients.get("rank")
    if rank is None:
        return {}
    numbers = np.unique(rank[rank >= 0])
    return {int(number): float(np.nansum(seconds[rank == number])) for number in numbers}


def _started(run):
    """The numbers of ranks that the run was played on."""
    return {int(each["ranks"]) for each in [*run.sessions, run.attrs] if "ranks" in each}


def alone(run):
    """Whether all of it was played in one process."""
    return _started(run) == {1}


def _slowest(run):
    """The clients with the longest training, by their median."""
    seconds, client = run.clients.get("train_s"), run.clients.get("client")
    if seconds is None or client is None:
        return []
    is_timed = np.isfinite(seconds)
    medians = {}
    for number in np.unique(client[is_timed]):
        medians[int(number)] = float(np.median(seconds[is_timed & (client == number)]))
    slowest = sorted(medians, key=lambda number: (-medians[number], number))[:SLOWEST]
    samples = run.population.get("samples")
    rows = []
    for number in slowest:
        num_samples = None if samples is None else int(samples[number])
        rows.append({"client": number, "median_s": medians[number], "samples": num_samples})
    return rows
