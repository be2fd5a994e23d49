"""Sweeps: many runs from one TOML file, in one folder, each with a file of its options and a run file.

    folder = "runs/noise"      where they lie                      [default: runs/ and the file's name]
    [fixed]                    options of train that all runs share
    [grid]                     options with lists: a run for every combination
    [[run]]                    options of one more run; any number of such tables
    [slurm]                    resources, as the options of fedmpi sbatch and sweep are called

A run keeps its name as long as its options stay: NAME.toml holds them, whatever becomes of the file of the sweep.
"""

import itertools
import json
import os
import re
import signal
import subprocess
from typing import NamedTuple

from fedmpi.advice import check_keys
from fedmpi.errors import UserError
from fedmpi.launch import AUTO, FREE
from fedmpi.options import DEFAULTS
from fedmpi.stop import notices

TABLES = {"folder": str, "fixed": dict, "grid": dict, "run": list, "slurm": dict}
LONGEST = 200                 # characters of a name, below the 255 bytes of a file name


class Point(NamedTuple):
    """One run: what was ``given`` for it, and all its ``options``."""

    name: str
    given: dict
    options: dict


def check_tables(found, where):
    """UserError where a sweep's file holds what a sweep does not know."""
    for key in found.keys() - TABLES.keys():
        if key.replace("-", "_") in DEFAULTS:
            raise UserError(f"{where}: unknown {key}; options of train stand in a table: [fixed] or [grid]")
    check_keys(found, TABLES, where)
    for name, kind in TABLES.items():
        if not isinstance(found.get(name, kind()), kind):
            raise UserError(f"{where}: {name} must be {'text' if kind is str else 'a table'}")
    if not all(isinstance(each, dict) for each in found.get("run", [])):
        raise UserError(f"{where}: write [[run]], a table for each single run")
    for key, values in found.get("grid", {}).items():
        if not isinstance(values, list) or not values:
            raise UserError(f"{where}: [grid] {key} must be a list of values to try, got {values!r}")
        if key in found.get("fixed", {}):
            raise UserError(f"{where}: {key} is in [fixed] and in [grid]")
    if not found.get("grid") and not found.get("run"):
        raise UserError(f"{where}: nothing to run: neither [grid] nor [[run]]")


def combined(fixed, grid, runs):
    """What is given for each run: every combination of the lists of ``grid``, the last one fastest, then ``runs``."""
    found = [dict(zip(grid, values)) for values in itertools.product(*grid.values())] if grid else []
    return [fixed | each for each in [*found, *runs]]


def identity(options):
    """A text that is equal for options of equal runs."""
    return json.dumps({key: value for key, value in options.items() if key != "out"}, sort_keys=True)


def named(given, options, known, where):
    """A Point for each pair of the lists; ``known`` maps names of the folder to their runs' options. UserError for two
    runs of one name."""
    varying = [key for key in dict.fromkeys(key for each in given for key in each)
               if len({json.dumps(each[key]) for each in options}) > 1]
    old = {identity(each): name for name, each in known.items()}
    points = [Point(old.get(identity(o)) or name_of({key: o[key] for key in varying}), g, o)
              for g, o in zip(given, options)]
    numbers = {}
    for number, point in enumerate(points):
        if point.name in numbers:
            twin = points[numbers[point.name]]
            why = "are the same" if identity(twin.options) == identity(point.options) else f"would both be {point.name}"
            raise UserError(f"{where}: runs {numbers[point.name]} and {number} {why}")
        numbers[point.name] = number
    return points


def name_of(varying):
    """A file name, without its end, for the values of what varies: ``strategy-fedavg_seed-0``."""
    texts = {key: "+".join(value) or "none" if isinstance(value, list) else str(value)
             for key, value in varying.items()}
    texts = {key: re.sub("=/[^,]*/", "=", text) for key, text in texts.items()}      # files without their folders
    parts = [re.sub(r"[^A-Za-z0-9.+-]+", "-", f"{key}-{text}") for key, text in texts.items()]
    name = "_".join(parts) or "run"
    if len(name) > LONGEST:
        raise UserError(f"a run's name would be too long, {name[:60]}...; put what varies into fewer options")
    return name


def changed(options, recorded):
    """What of ``options`` a run that has recorded its own has otherwise, as texts: ``--lr 0.1 (it has 0.5)``."""
    return [f"--{key.replace('_', '-')} {value} (it has {recorded[key]})" for key, value in options.items()
            if key in recorded and key not in FREE and (key, value) not in AUTO and value not in (None, recorded[key])]


def check_known(points, known, folder):
    """UserError where a name of the folder stands for other options."""
    for point in points:
        other = changed(point.options, known.get(point.name, {}))
        if other or identity(point.options) != identity(known.get(point.name, point.options)):
            raise UserError(f"{path(folder, point.name, 'toml')} is of another run than {', '.join(other) or 'this'}: "
                            "take another folder, or remove that file and its run")


def path(folder, name, end):
    return os.path.join(folder, f"{name}.{end}")


def state(folder, point):
    """``(status, rounds)`` of the run, ``missing`` where there is none; UserError for a run file of other options."""
    from fedmpi.store import read_run
    file = path(folder, point.name, "h5")
    if not os.path.exists(file):
        return "missing", 0
    run = read_run(file)
    other = changed(point.options, run.attrs["options"])
    if other:
        raise UserError(f"{file} is of another run than {', '.join(other)}: take another folder, or remove it")
    return run.attrs["status"], len(run.rounds["round"])


def freeze(folder, points):
    """Write the options of each run beside where its run file will be."""
    os.makedirs(folder, exist_ok=True)
    for point in points:
        if not os.path.exists(path(folder, point.name, "toml")):
            with open(path(folder, point.name, "toml"), "x", encoding="utf-8") as file:
                file.write("".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n"
                                   for key, value in point.given.items()))


def train_arguments(folder, name):
    """What ``fedmpi train`` is to be given for the run, which goes on where it exists."""
    file = path(folder, name, "h5")
    return ["--config", path(folder, name, "toml"), "--resume" if os.path.exists(file) else "--out", file]


def play(argv):
    """The exit code of a command; signals that ask to stop are passed on to it."""
    process = subprocess.Popen(argv)
    before = {number: signal.signal(number, lambda number, frame: process.send_signal(number)) for number in notices()}
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()                                     # the terminal has told it as well
        return 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
