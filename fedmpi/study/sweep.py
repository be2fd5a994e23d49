"""Sweeps: many runs from one TOML file, in one folder, each with a file of its options and a run
file.

    folder = "runs/noise"      where they lie                      [default: runs/ and the file's name]
    [fixed]                    options of train that all runs share
    [grid]                     options with lists: a run for every combination
    [[run]]                    options of one more run; any number of such tables
    [slurm]                    resources, as the options of fedmpi sbatch and sweep are called

A run keeps its name as long as its options stay: NAME.toml holds them, whatever becomes of the file
of the sweep. A new name tells the options in which the runs of the sweep differ, and of those as
little as tells them apart.
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
    """UserError for a sweep's file with unknown keys or values of wrong types."""
    for key in found.keys() - TABLES.keys():
        if key.replace("-", "_") in DEFAULTS:
            raise UserError(f"{where}: unknown {key}; options of train stand in a table: [fixed] or [grid]")
    check_keys(found, TABLES, where)
    for name, kind in TABLES.items():
        if not isinstance(found.get(name, kind()), kind):
            wanted = "text" if kind is str else "a table"
            raise UserError(f"{where}: {name} must be {wanted}")
    if not all(isinstance(run, dict) for run in found.get("run", [])):
        raise UserError(f"{where}: write [[run]], a table for each single run")
    for key, values in found.get("grid", {}).items():
        if not isinstance(values, list) or not values:
            raise UserError(f"{where}: [grid] {key} must be a list of values to try, got {values!r}")
        if key in found.get("fixed", {}):
            raise UserError(f"{where}: {key} is in [fixed] and in [grid]")
    if not found.get("grid") and not found.get("run"):
        raise UserError(f"{where}: nothing to run: neither [grid] nor [[run]]")


def combined(grid, runs):
    """The options of each run beside [fixed]: every combination of the lists of ``grid``, the last
    one fastest, then ``runs``."""
    if not grid:
        return [*runs]
    points = [dict(zip(grid, values)) for values in itertools.product(*grid.values())]
    return [*points, *runs]


def identity(options):
    """A text that is equal for options of equal runs."""
    return json.dumps({key: value for key, value in options.items() if key != "out"}, sort_keys=True)


def named(own, given, options, known, played, where):
    """A Point for each run of the lists; UserError for the same run twice.

    ``own`` are the options of the run beside [fixed], ``given`` both together, ``options`` all.
    ``known`` maps names of the folder to their runs' options, ``played`` are the names of its run
    files."""
    identities = [identity(each) for each in options]
    _refuse_twice(identities, where)
    keys = dict.fromkeys(key for each in given for key in each)
    varying = [key for key in keys if len({json.dumps(each[key]) for each in options}) > 1]
    kept = {identity(each): name for name, each in known.items()}
    names = []
    for mine, older in zip(identities, _older_names(varying, options)):
        if mine not in kept and older in played:
            names.append(older)
        else:
            names.append(kept.get(mine))
    names = _with_new_names(names, varying, own, options)
    return [Point(*point) for point in zip(names, given, options)]


def _refuse_twice(identities, where):
    first_at = {}
    for number, mine in enumerate(identities):
        first = first_at.setdefault(mine, number)
        if first < number:
            raise UserError(f"{where}: runs {first} and {number} are the same")


def _with_new_names(names, varying, own, options):
    """The names, with a short one for each None; equal names get a digest of their options."""
    short = _names(varying, own, options)
    count = Counter(name or new for name, new in zip(names, short))
    complete = []
    for name, new, each in zip(names, short, options):
        if not name and count[new] > 1:
            digest = _digest({key: each[key] for key in varying})
            complete.append(f"{new}_{digest}")
        else:
            complete.append(name or new)
    return complete


def _names(varying, own, options):
    """A short name for each run: the options of its own that vary, and its seed if seeds do."""
    texts = [{} for _ in options]
    for key in varying:
        numbers = [number for number, each in enumerate(own) if key in each or key == "seed"]
        values = [options[number][key] for number in numbers]
        for number, text in zip(numbers, short_texts(key, values)):
            texts[number][key.replace("_", "-")] = text
    return [name_of(varied) for varied in texts]


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
    options = [_options_of(rest) for _, rest in parts]
    texts = []
    for head, mine in zip(heads, options):
        kin = [others for name, others in zip(heads, options) if name == head]
        texts.append(_part_text(head, mine, kin, set(heads)))
    return texts


def _options_of(rest):
    """``{option: value}`` of the text behind a part's colon."""
    return dict(item.partition("=")[::2] for item in rest.split(",") if item)


def _part_text(head, options, kin, heads):
    """A part by its name, if there are several, and by the options in which it differs from its
    ``kin``."""
    words = []
    for option in dict.fromkeys(option for other in kin for option in other):
        values = {other.get(option) for other in kin}
        if len(values) > 1 and option in options:
            words.append(_word(option, options[option]))
    if len(heads) > 1 or not words:
        words.insert(0, head)
    return "-".join(words)


def _heads(names):
    """The names of parts; of ``package.module:function`` the function, where that tells them
    apart."""
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
    if not isinstance(value, float):
        return value
    short = f"{value:g}"
    if float(short) != value:
        return value
    return short


def name_of(varying):
    """A file name, without its end, for the values of what varies: ``strategy-fedavg_seed-0``. One
    that would be too long ends in a digest."""
    name = _long_name(varying)
    if len(name) <= LONGEST:
        return name
    return f"{name[:LONGEST - 7].rstrip('-_.')}_{_digest(varying)}"


def _long_name(varying):
    texts = {key: re.sub("=/[^,]*/", "=", _text(value)) for key, value in varying.items()}   # files without folders
    parts = [re.sub(r"[^A-Za-z0-9.+-]+", "-", f"{key}-{text}") for key, text in texts.items()]
    return "_".join(parts) or "run"


def changed(options, recorded):
    """The options in which a recorded run differs, as texts: ``--lr 0.1 (it has 0.5)``."""
    texts = []
    for key, value in options.items():
        if key not in recorded or key in FREE:
            continue
        if value is None or value == recorded[key] or (key, value) in AUTO:
            continue
        texts.append(f"--{key.replace('_', '-')} {value} (it has {recorded[key]})")
    return texts


def path(folder, name, end):
    return os.path.join(folder, f"{name}.{end}")


class State(NamedTuple):
    """The progress of a run: ``status`` (``missing`` without a run file), ``rounds``, and, as
    texts, the options in which the files under its name differ from it."""

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
    """The names whose run, if there is one, is to be played anew: runs without a committed round,
    and, by ``overwrite``, failed runs and those of other options.

    UserError if other options are in the way, or a run that would have to go is being written."""
    return [point.name for point, state in zip(points, states) if _is_replaced(folder, point, state, overwrite)]


def _is_replaced(folder, point, state, overwrite):
    from fedmpi.store import check_replaceable
    file = path(folder, point.name, "h5")
    is_missing = state.status == "missing"
    is_begun = is_missing or state.rounds > 0
    if is_begun and state.differs and not overwrite:
        there = path(folder, point.name, "toml") if is_missing else file
        raise UserError(f"{there} is of another run than {', '.join(state.differs)}: give --overwrite to play it "
                        "anew, or take another folder")
    if not is_begun and not state.differs and _is_written(file):
        return False
    if is_begun and not state.differs and not (overwrite and state.status == "failed"):
        return False
    if not is_missing:
        check_replaceable(file, overwrite)
    return True


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
    """Write the options of each run beside the place of its run file."""
    os.makedirs(folder, exist_ok=True)
    for point in points:
        file_path = path(folder, point.name, "toml")
        if os.path.exists(file_path):
            continue
        with open(file_path, "x", encoding="utf-8") as file:
            for key, value in point.given.items():
                file.write(f"{key} = {json.dumps(value, ensure_ascii=False)}\n")


def train_arguments(folder, name):
    """What ``fedmpi train`` is to be given for the run, which goes on where it exists."""
    file = path(folder, name, "h5")
    return ["--config", path(folder, name, "toml"), "--resume" if os.path.exists(file) else "--out", file]
