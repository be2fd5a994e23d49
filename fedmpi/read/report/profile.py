"""Where the time of a run's rounds went: seconds by phase, how busy the workers were, who was slow.

What a round does one after the other adds up to its seconds. Two kinds of entries lie inside training and are not added
again: parts of it, and what rank 0 does beside it, while it would wait for clients. Clients' own tests come after a
round and are no part of its seconds.
"""

import numpy as np

OWN, PART, BESIDE, AFTER = "phase", "part of train", "beside train", "after the round"
PHASES = {"encode": ("encode_s", OWN), "train": ("train_s", OWN), "wait": ("wait_s", PART),
          "decode": ("decode_s", PART), "evaluate": ("evaluate_s", BESIDE), "store": ("store_s", BESIDE),
          "value": ("contribution_s", OWN), "merge": ("merge_s", OWN), "lab": ("lab_s", OWN), "row": ("row_s", OWN),
          "own tests": ("own_s", AFTER)}
SOMETIMES = ("lab", "own tests")          # phases that only some runs have
SLOWEST = 3                   # clients that are named


def profile(run):
    """Nested dict: ``rounds``, ``wall_s`` (the sum of ``round_s``, of the phases where there is none), ``phases``
    (``{name: {kind, seconds, share, median_s, largest_s, largest_round}}``, ``rest`` being what no phase has),
    ``workers`` and ``busy`` (None where unknown), ``client_s``, ``ranks`` (``{rank: seconds of its clients}``),
    ``slowest`` (clients), ``not_recorded`` (columns that the run file lacks)."""
    rounds = run.rounds
    known = {name: (column, _kind(kind, rounds)) for name, (column, kind) in PHASES.items() if column in rounds}
    own = sum(float(np.nansum(rounds[column])) for column, kind in known.values() if kind == OWN)
    wall = float(np.nansum(rounds["round_s"])) if "round_s" in rounds else own
    numbers = rounds.get("round", np.arange(len(run.ends)) + 1)
    phases = {name: {"kind": kind} | _spent(rounds[column], numbers, wall) for name, (column, kind) in known.items()}
    if wall - own > 1e-6 * wall:
        phases["rest"] = {"kind": OWN, "seconds": wall - own, "share": (wall - own) / wall}
    always = [column for name, (column, _) in PHASES.items() if name not in SOMETIMES]
    missing = [column for column in ("round_s", *always) if column not in rounds]
    missing += [f"clients/{name}" for name in ("train_s", "rank") if name not in run.clients]
    return {"rounds": len(run.ends), "wall_s": wall, "phases": phases, **_of_workers(run), "slowest": _slowest(run),
            "not_recorded": missing}


def _kind(kind, rounds):
    """Before waiting was recorded, rounds were evaluated and stored one after the other with the rest."""
    return OWN if kind == BESIDE and "wait_s" not in rounds else kind


def _spent(seconds, numbers, wall):
    """What is told of one phase; a round in which it did not happen is NaN and counts for nothing."""
    total, took = float(np.nansum(seconds)), np.flatnonzero(np.isfinite(seconds))
    found = {"seconds": total, "share": total / wall if wall else 0.0}
    if not len(took):
        return found
    largest = took[np.argmax(seconds[took])]
    return found | {"median_s": float(np.median(seconds[took])), "largest_s": float(seconds[largest]),
                    "largest_round": int(numbers[largest])}


def _of_workers(run):
    """How many there were, the seconds that they trained clients, and the share of training's seconds that this is."""
    seconds, rank = run.clients.get("train_s"), run.clients.get("rank")
    if seconds is None:
        return {"workers": None, "busy": None, "client_s": None, "ranks": {}}
    started = _started(run)
    workers = max(min(started) - 1, 1) if len(started) == 1 else None
    total = float(np.nansum(seconds))
    train = float(np.nansum(run.rounds["train_s"])) if "train_s" in run.rounds else 0.0
    known = () if rank is None else np.unique(rank[rank >= 0])
    ranks = {int(each): float(np.nansum(seconds[rank == each])) for each in known}
    return {"workers": workers, "busy": total / (workers * train) if workers and train else None, "client_s": total,
            "ranks": ranks}


def _started(run):
    """The numbers of ranks that the run was played on."""
    return {int(each["ranks"]) for each in [*run.sessions, run.attrs] if "ranks" in each}


def alone(run):
    """Whether all of it was played in one process."""
    return _started(run) == {1}


def _slowest(run):
    """The clients whose training took longest, by their median."""
    seconds, client = run.clients.get("train_s"), run.clients.get("client")
    if seconds is None or client is None:
        return []
    known = np.isfinite(seconds)
    medians = {int(each): float(np.median(seconds[known & (client == each)])) for each in np.unique(client[known])}
    samples = run.population.get("samples")
    return [{"client": each, "median_s": medians[each], "samples": None if samples is None else int(samples[each])}
            for each in sorted(medians, key=lambda each: (-medians[each], each))[:SLOWEST]]
