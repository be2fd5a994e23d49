"""Outcomes of many runs in one table: a row a run, and means and spread over seeds."""

import itertools
import statistics

from fedmpi.core.wide import aligned
from fedmpi.read.headline import headline
from fedmpi.read.report.metrics import final_metrics
from fedmpi.read.report.text import measure_text

# The names of losses and metrics begin with one of these.
QUALITY = ("final_", "chosen_")
SPENT = ("up_bytes", "down_bytes", "flops_prunefl", "flops_rigl")
# Options about the place and the manner of a run, not about its results.
WHERE = {
    "out", "data_dir", "device", "server_device", "save_every", "keep", "until", "silence",
    "task_limit"}
# New names of the options that share their name with an outcome.
NAMES = {"rounds": "planned_rounds"}
UNITS = {
    "up_bytes": "up MB",
    "down_bytes": "down MB",
    "flops_prunefl": "TFLOP (PruneFL)",
    "flops_rigl": "TFLOP (RigL)",
}


def outcomes(runs):
    """``(varying, rows)`` of ``{path: Run}``: the names of the differing options, and a dict a run.

    A row has the run's path, these options, its status and its outcomes, with ``seconds`` of all
    rounds; None stands for an unrecorded number."""
    options = {path: _options(run) for path, run in runs.items()}
    options_of = options.values()
    varying = _varying(options_of)
    metrics = {path: final_metrics(run) for path, run in runs.items()}
    all_runs = runs.values()
    metrics_of = metrics.values()
    names = _outcome_names(all_runs, metrics_of)
    rows = []
    for path, run in runs.items():
        own_options = {key: options[path].get(key) for key in varying}
        own_outcomes = {name: metrics[path].get(name) for name in names}
        seconds = _seconds(run)
        rows.append({
            "run": path,
            **own_options,
            "status": run.attrs["status"],
            **own_outcomes,
            "seconds": seconds,
        })
    return varying, rows


def _options(run):
    """``{name: value}`` of the options about the run's results."""
    chosen = {}
    for key, value in run.attrs["options"].items():
        if key not in WHERE:
            name = NAMES.get(key, key)
            chosen[name] = _text(value)
    return chosen


def _varying(options):
    """The names of the options with several values."""
    varying = []
    for key in dict.fromkeys(itertools.chain(*options)):
        values = {of_run.get(key) for of_run in options}
        if len(values) > 1:
            varying.append(key)
    return varying


def _seconds(run):
    if "round_s" not in run.rounds:
        return None
    seconds = run.rounds["round_s"].sum()
    return float(seconds)


def _outcome_names(runs, metrics):
    """The outcomes of the rows, by the headlines of the runs and their ``final_metrics``.

    Columns of clients' own test parts are among them if any run has some."""
    by_name = {}
    for run in runs:
        leading = headline(run)
        by_name[leading.name] = leading
    recorded = set().union(*metrics)
    quality = []
    own = []
    for name, leading in by_name.items():
        quality += [f"final_{name}", f"chosen_{name}"]
        of_clients = [f"final_{column}" for column in leading.own]
        own += [column for column in of_clients if column in recorded]
    return ("rounds", *quality, "final_loss", *SPENT, *own)


def _text(value):
    if isinstance(value, list):
        return "+".join(map(str, value)) or "none"
    return value


def over_seeds(varying, rows):
    """A dict for each group of finished runs, alike but for the seed. It has the differing options
    of the groups, ``n``, and ``NAME_mean`` and ``NAME_std`` of every outcome (of the sample; None
    for one run)."""
    keys = [key for key in varying if key != "seed"]
    groups = {}
    for row in rows:
        status = row["status"]
        if status == "finished":
            values = tuple(row[key] for key in keys)
            groups.setdefault(values, []).append(row)
    columns = _numbers(rows)
    summaries = []
    for values, group in groups.items():
        summary = dict(zip(keys, values))
        summary["n"] = len(group)
        for column in columns:
            summary |= _spread(column, group)
        summaries.append(summary)
    return summaries


def _numbers(rows):
    """The outcomes in the rows."""
    if not rows:
        return []
    return [name for name in rows[0] if _is_outcome(name)]


def _is_outcome(name):
    if name in ("rounds", *SPENT, "seconds"):
        return True
    return name.startswith(QUALITY)


def _spread(column, group):
    """Mean and standard deviation of a column; None if a run lacks it."""
    values = [row[column] for row in group]
    mean = std = None
    # A mean over fewer runs would not be comparable.
    if None not in values:
        mean = statistics.fmean(values)
        if len(values) > 1:
            std = statistics.stdev(values)
    return {f"{column}_mean": mean, f"{column}_std": std}


def outcomes_text(varying, rows, width=None):
    """The rows as a table for the terminal, ``width`` columns wide, then the groups of seeds."""
    columns = [*varying, "status", *_numbers(rows)]
    heads = ["run", *map(_head, columns)]
    texts = []
    for row in rows:
        cells = [_cell(key, row[key]) for key in columns]
        texts.append([row["run"], *cells])
    # The run, its options and its status.
    num_left = len(varying) + 2
    lines = _numbered(heads, texts, num_left, width)
    if "seed" in varying:
        seeds = _seeds_lines(varying, rows, width)
        lines += seeds
    return "\n".join(lines)


def _seeds_lines(varying, rows, width):
    """A table with a row a group of seeds; nothing without groups."""
    groups = over_seeds(varying, rows)
    if not groups:
        return []
    keys = [key for key in varying if key != "seed"]
    columns = [key for key in _numbers(rows) if key != "rounds"]
    heads = [*keys, "n", *map(_head, columns)]
    texts = []
    for group in groups:
        options = [_cell(key, group[key]) for key in keys]
        means = [_mean(key, group) for key in columns]
        num_runs = str(group["n"])
        texts.append([*options, num_runs, *means])
    num_left = len(keys)
    table = _numbered(heads, texts, num_left, width)
    return ["", "over seeds, mean ± standard deviation of finished runs:", *table]


def _numbered(head, rows, num_left, width):
    """The lines of a table with numbered rows.

    Numbers tell the rows apart if the table is too wide and its columns stand below one another:
    one option alone may be the same in several rows."""
    heads = ["#", *head]
    rows_from_1 = enumerate(rows, 1)
    numbered = [[str(number), *row] for number, row in rows_from_1]
    end = num_left + 1
    left = range(1, end)
    return aligned(heads, numbered, left, width)


def _head(key):
    if key.startswith("chosen_"):
        metric = key.removeprefix("chosen_").replace("_", " ")
        return f"{metric} at best validation"
    words = key.replace("_", " ")
    return UNITS.get(key, words)


def _cell(key, value):
    if value is None:
        return "-"
    # MB and TFLOP, as the heads say.
    if key.endswith("_bytes"):
        megabytes = value * 1e-6
        return f"{megabytes:.4g}"
    if key.startswith("flops"):
        teraflops = value * 1e-12
        return f"{teraflops:.4g}"
    if key == "seconds":
        return f"{value:.4g}"
    if isinstance(value, float) and key.startswith(QUALITY):
        return measure_text(value)
    return str(value)


def _mean(key, group):
    mean = group[f"{key}_mean"]
    std = group[f"{key}_std"]
    text = _cell(key, mean)
    if std is None:
        return text
    std_text = _cell(key, std)
    return f"{text} ± {std_text}"
