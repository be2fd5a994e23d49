"""Outcomes of many runs in one table: a row a run, and means and spread over seeds where nothing else differs."""

import statistics

from fedmpi.read.headline import headline
from fedmpi.read.report.metrics import final_metrics
from fedmpi.core.wide import aligned

SPENT = ("up_bytes", "down_bytes", "flops_prunefl", "flops_rigl")
OUTCOMES = ("rounds", "final_accuracy", "chosen_accuracy", "final_loss", *SPENT)         # of classification
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
    rows = []
    for path, run in runs.items():
        found = final_metrics(run)
        rows.append({"run": path} | {key: options[path].get(key) for key in varying} | {"status": run.attrs["status"]}
                    | {name: found.get(name) for name in outcome_names(runs.values())}
                    | {"seconds": float(run.rounds["round_s"].sum()) if "round_s" in run.rounds else None})
    return varying, rows


def outcome_names(runs):
    """The outcomes that rows have: those of each headline among the runs."""
    metrics = dict.fromkeys(headline(run).name for run in runs)
    quality = [f"{part}_{name}" for name in metrics for part in ("final", "chosen")]
    return ("rounds", *quality, "final_loss", *SPENT)


def _of_rows(rows, varying):
    """The names of the outcomes in rows of ``outcomes``."""
    other = {"run", "status", "seconds", *varying}
    return [name for name in rows[0] if name not in other] if rows else list(OUTCOMES)


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
    columns = [*_of_rows(rows, varying), "seconds"]
    return [dict(zip(told, values)) | {"n": len(group)} | {
        name: found for column in columns for name, found in _spread(column, group).items()}
        for values, group in groups.items()]


def _spread(column, group):
    values = [row[column] for row in group]
    known = None not in values
    return {f"{column}_mean": statistics.fmean(values) if known else None,
            f"{column}_std": statistics.stdev(values) if known and len(values) > 1 else None}


def outcomes_text(varying, rows, width=None):
    """The rows as a table for the terminal, ``width`` columns wide, then the groups of seeds."""
    names = _of_rows(rows, varying)
    columns = [*varying, "status", *names, "seconds"]
    lines = _numbered(["run", *map(_head, columns)],
                      [[row["run"], *(_cell(key, row[key]) for key in columns)] for row in rows],
                      len(varying) + 2, width)
    groups = over_seeds(varying, rows)
    if "seed" in varying and groups:
        told = [key for key in varying if key != "seed"]
        columns = [key for key in (*names, "seconds") if key != "rounds"]
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
    quality = key.startswith(("final_", "chosen_"))
    return f"{value:.4f}" if isinstance(value, float) and quality else str(value)


def _mean(key, group):
    mean, std = group[f"{key}_mean"], group[f"{key}_std"]
    return _cell(key, mean) + (f" ± {_cell(key, std)}" if std is not None else "")
