"""Outcomes of many runs in one table: a row a run, and means and spread over seeds where nothing else differs."""

import statistics

from fedmpi.read.headline import headline
from fedmpi.read.report.metrics import final_metrics
from fedmpi.core.wide import aligned

QUALITY = "final_", "chosen_"                 # before the names of losses and metrics
SPENT = ("up_bytes", "down_bytes", "flops_prunefl", "flops_rigl")
WHERE = {"out", "data_dir", "device", "server_device", "save_every", "keep", "until", "silence",
         "task_limit"}                                                   # options that say where and how, not what
NAMES = {"rounds": "planned_rounds"}                                     # those that outcomes have as well


def outcomes(runs):
    """``(varying, rows)`` of ``{path: Run}``: the options that differ between them, and for each run a dict of its
    path, these, its status and its outcomes, with ``seconds`` of all rounds; what was not recorded is None."""
    options = {path: {NAMES.get(key, key): _text(value)
                      for key, value in run.attrs["options"].items() if key not in WHERE}
               for path, run in runs.items()}
    keys = dict.fromkeys(key for each in options.values() for key in each)
    varying = [key for key in keys if len({each.get(key) for each in options.values()}) > 1]
    found = {path: final_metrics(run) for path, run in runs.items()}
    names = _outcome_names(runs.values(), found.values())
    rows = []
    for path, run in runs.items():
        rows.append({"run": path} | {key: options[path].get(key) for key in varying} | {"status": run.attrs["status"]}
                    | {name: found[path].get(name) for name in names}
                    | {"seconds": float(run.rounds["round_s"].sum()) if "round_s" in run.rounds else None})
    return varying, rows


def _outcome_names(runs, found):
    """The outcomes that rows have, by the headlines of the runs and what was ``found`` of each: those of clients' own
    test parts where any run has some."""
    headlines = {headline(run).name: headline(run) for run in runs}
    quality = [f"{part}_{name}" for name in headlines for part in ("final", "chosen")]
    own = [f"final_{name}" for each in headlines.values() for name in each.own]
    own = [name for name in own if any(name in each for each in found)]
    return ("rounds", *quality, "final_loss", *SPENT, *own)


def _text(value):
    return "+".join(map(str, value)) or "none" if isinstance(value, list) else value


def over_seeds(varying, rows):
    """A dict for each group of finished runs that differ in the seed only: what the groups differ in, ``n``, and
    ``NAME_mean`` and ``NAME_std`` (of the sample; None for one run) of every outcome."""
    told = [key for key in varying if key != "seed"]
    groups = {}
    for row in rows:
        if row["status"] == "finished":
            groups.setdefault(tuple(row[key] for key in told), []).append(row)
    return [dict(zip(told, values)) | {"n": len(group)} | {
        name: found for column in _numbers(rows) for name, found in _spread(column, group).items()}
        for values, group in groups.items()]


def _numbers(rows):
    """The outcomes that the rows have."""
    known = rows[0] if rows else ()
    return [name for name in known if name in ("rounds", *SPENT, "seconds") or name.startswith(QUALITY)]


def _spread(column, group):
    values = [row[column] for row in group]
    known = None not in values
    return {f"{column}_mean": statistics.fmean(values) if known else None,
            f"{column}_std": statistics.stdev(values) if known and len(values) > 1 else None}


def outcomes_text(varying, rows, width=None):
    """The rows as a table for the terminal, ``width`` columns wide, then the groups of seeds."""
    columns = [*varying, "status", *_numbers(rows)]
    lines = _numbered(["run", *map(_head, columns)],
                      [[row["run"], *(_cell(key, row[key]) for key in columns)] for row in rows],
                      len(varying) + 2, width)
    groups = over_seeds(varying, rows)
    if "seed" in varying and groups:
        told = [key for key in varying if key != "seed"]
        columns = [key for key in _numbers(rows) if key != "rounds"]
        lines += ["", "over seeds, mean ± standard deviation of finished runs:", *_numbered(
            [*told, "n", *map(_head, columns)],
            [[*(_cell(key, group[key]) for key in told), str(group["n"]), *(_mean(key, group) for key in columns)]
             for group in groups], len(told), width)]
    return "\n".join(lines)


def _numbered(head, rows, num_left, width):
    """The lines of a table whose rows have numbers. They tell the rows apart where the table is too wide and its
    columns stand below one another: one option alone may be the same in several rows."""
    numbered = [[str(number), *row] for number, row in enumerate(rows, 1)]
    return aligned(["#", *head], numbered, range(1, num_left + 1), width)


def _head(key):
    if key.startswith("chosen_"):
        return f"{key.removeprefix('chosen_').replace('_', ' ')} at best validation"
    units = {"up_bytes": "up MB", "down_bytes": "down MB",
             "flops_prunefl": "TFLOP (PruneFL)", "flops_rigl": "TFLOP (RigL)"}
    return units.get(key, key.replace("_", " "))


def _cell(key, value):
    if value is None:
        return "-"
    scale = 1e-6 if key.endswith("_bytes") else 1e-12 if key.startswith("flops") else None
    if scale is not None or key == "seconds":
        return f"{value * (scale or 1):.4g}"
    quality = key.startswith(QUALITY)
    return f"{value:.4f}" if isinstance(value, float) and quality else str(value)


def _mean(key, group):
    mean, std = group[f"{key}_mean"], group[f"{key}_std"]
    return _cell(key, mean) + (f" ± {_cell(key, std)}" if std is not None else "")
