"""Sweeps: many runs from one TOML file, in one folder, each with a file of its options and a run file.

    folder = "runs/noise"      where they lie                      [default: runs/ and the file's name]
    [fixed]                    options of train that all runs share
    [grid]                     options with lists: a run for every combination
    [[run]]                    options of one more run; any number of such tables
    [slurm]                    resources, as the options of fedmpi sbatch and sweep are called

A run keeps its name as long as its options stay: NAME.toml holds them, whatever becomes of the file of the sweep.
A new name tells the options in which the runs of the sweep differ, and of those as little as tells them apart.
"""

import hashlib
import itertools
import json
import os
import re
from collections import Counter
from typing import NamedTuple

from fedmpi.build.advice import check_keys
from fedmpi.plugins.spec import split
from fedmpi.core.errors import UserError
from fedmpi.run.resume import AUTO, FREE
from fedmpi.build.options import DEFAULTS, PARTS

TABLES = {"folder": str, "fixed": dict, "grid": dict, "run": list, "slurm": dict}
LONGEST = 120                 # characters of a name: a file name may have 255 bytes, a terminal has 80 columns


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


def combined(grid, runs):
    """What is given for each run beside [fixed]: every combination of the lists of ``grid``, the last one fastest, then
    ``runs``."""
    found = [dict(zip(grid, values)) for values in itertools.product(*grid.values())] if grid else []
    return [*found, *runs]


def identity(options):
    """A text that is equal for options of equal runs."""
    return json.dumps({key: value for key, value in options.items() if key != "out"}, sort_keys=True)


def named(own, given, options, known, played, where):
    """A Point for each run of the lists: ``own`` are the options that it has beside [fixed], ``given`` with those,
    ``options`` all. ``known`` maps names of the folder to their runs' options, ``played`` are the names of its run
    files. UserError for the same run twice."""
    identities = [identity(each) for each in options]
    for number, each in enumerate(identities):
        if identities.index(each) < number:
            raise UserError(f"{where}: runs {identities.index(each)} and {number} are the same")
    varying = [key for key in dict.fromkeys(key for each in given for key in each)
               if len({json.dumps(each[key]) for each in options}) > 1]
    kept = {identity(each): name for name, each in known.items()}
    short, once = _names(varying, own, options), _older_names(varying, options)
    old = [kept.get(mine) or (name if name in played else None) for mine, name in zip(identities, once)]
    count = Counter([mine or new for mine, new in zip(old, short)])
    digests = [_digest({key: each[key] for key in varying}) for each in options]
    names = [mine or (new if count[new] == 1 else f"{new}_{digest}")
             for mine, new, digest in zip(old, short, digests)]
    return [Point(*each) for each in zip(names, given, options)]


def _names(varying, own, options):
    """A short name for each run: the options of its own that vary, and its seed where seeds do."""
    texts = [{} for _ in options]
    for key in varying:
        tell = [number for number, each in enumerate(own) if key in each or key == "seed"]
        for number, text in zip(tell, short_texts(key, [options[number][key] for number in tell])):
            texts[number][key.replace("_", "-")] = text
    return [name_of(each) for each in texts]


def _older_names(varying, options):
    """The names that the same runs would have had before names were shortened."""
    return [_long_name({key: each[key] for key in varying}) for each in options]


def _digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:6]


def short_texts(key, values):
    """A text for each of the values of one option, as short as tells them apart."""
    if key not in PARTS or not all(isinstance(value, str) for value in values):
        return [_text(_number(value)) for value in values]
    parts = [split(value) for value in values]
    heads = _heads([head for head, _ in parts])
    options = [dict(item.partition("=")[::2] for item in rest.split(",") if item) for _, rest in parts]
    return [_part_text(head, each, [other for name, other in zip(heads, options) if name == head], set(heads))
            for head, each in zip(heads, options)]


def _part_text(head, options, kin, heads):
    """A part by its name, where there are several, and by the options in which it differs from its ``kin``."""
    differing = [option for option in dict.fromkeys(option for each in kin for option in each)
                 if len({each.get(option) for each in kin}) > 1]
    words = [_word(option, options[option]) for option in differing if option in options]
    named = [head] if len(heads) > 1 or not words else []
    return "-".join([*named, *words])


def _heads(names):
    """The names of parts; of ``package.module:function`` the function, where that tells them apart."""
    short = [name.rpartition(":")[2] for name in names]
    return short if len(set(short)) == len(set(names)) else names


def _word(option, value):
    """An option of a part and its value; a file by its name alone."""
    if os.path.isabs(value):
        return os.path.splitext(os.path.basename(value))[0]
    return f"{option}-{value}"


def _text(value):
    if isinstance(value, list):
        return "+".join(value) or "none"
    return str(value)


def _number(value):
    """A number as short as it stays itself: 1e+09, not 1000000000.0."""
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else value


def name_of(varying):
    """A file name, without its end, for the values of what varies: ``strategy-fedavg_seed-0``. One that would be too
    long ends in a digest."""
    name = _long_name(varying)
    if len(name) <= LONGEST:
        return name
    return f"{name[:LONGEST - 7].rstrip('-_.')}_{_digest(varying)}"


def _long_name(varying):
    texts = {key: re.sub("=/[^,]*/", "=", _text(value)) for key, value in varying.items()}   # files without folders
    parts = [re.sub(r"[^A-Za-z0-9.+-]+", "-", f"{key}-{text}") for key, text in texts.items()]
    return "_".join(parts) or "run"


def changed(options, recorded):
    """What of ``options`` a run that has recorded its own has otherwise, as texts: ``--lr 0.1 (it has 0.5)``."""
    return [f"--{key.replace('_', '-')} {value} (it has {recorded[key]})" for key, value in options.items()
            if key in recorded and key not in FREE and (key, value) not in AUTO and value not in (None, recorded[key])]


def path(folder, name, end):
    return os.path.join(folder, f"{name}.{end}")


class State(NamedTuple):
    """How far a run is: ``status`` (``missing`` where there is no run file), ``rounds``, and the options in which what
    lies there under its name differs from it, as texts."""

    status: str
    rounds: int
    differs: list


def state(folder, point, known):
    """The State of a run; ``known`` maps names of the folder to the options in their files."""
    from fedmpi.store import read_run
    file, noted = path(folder, point.name, "h5"), known.get(point.name, point.options)
    of_note = [] if identity(noted) == identity(point.options) else changed(point.options, noted) or ["this"]
    if not os.path.exists(file):
        return State("missing", 0, of_note)
    run = read_run(file, {"rounds/round"})
    return State(run.attrs["status"], len(run.ends), changed(point.options, run.attrs["options"]) or of_note)


def replaced(folder, points, states, overwrite):
    """The names whose run, if there is one, is to be played anew: those that never committed a round, and, by
    ``overwrite``, those that failed or are runs of other options. UserError where other options are in the way, or
    where a run that would have to go is being written."""
    from fedmpi.store import check_replaceable
    found = []
    for point, (status, rounds, differs) in zip(points, states):
        file = path(folder, point.name, "h5")
        begun = status == "missing" or rounds > 0
        if begun and differs and not overwrite:
            there = path(folder, point.name, "toml" if status == "missing" else "h5")
            raise UserError(f"{there} is of another run than {', '.join(differs)}: give --overwrite to play it "
                            "anew, or take another folder")
        if not begun and not differs and _is_written(file):
            continue
        if not begun or differs or overwrite and status == "failed":
            if status != "missing":
                check_replaceable(file, overwrite)
            found.append(point.name)
    return found


def _is_written(file):
    """Whether a process may be at work on that run, which nobody has to replace: it goes on."""
    from fedmpi.store import check_replaceable
    try:
        check_replaceable(file, True)
    except UserError:
        return True
    return False


def clear(folder, names):
    """Remove the runs of these names, and their options."""
    from fedmpi.store import remove_run
    for name in names:
        if os.path.exists(path(folder, name, "h5")):
            remove_run(path(folder, name, "h5"))
        if os.path.exists(path(folder, name, "toml")):
            os.unlink(path(folder, name, "toml"))


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
