"""Sweeps: many runs from one TOML file, in one folder, each with a file of its options and a run
file.

    folder = "runs/noise"      the place of the runs     [default: runs/ and the file's name]
    [fixed]                    options of train, for all runs
    [grid]                     options with lists: a run for every combination
    [[run]]                    options of one more run; any number of such tables
    [slurm]                    resources, as the options of fedmpi sbatch and sweep are called

A run keeps its name as long as its options stay: NAME.toml holds them, also if the file of the
sweep changes. A new name tells the options in which the runs of the sweep differ, and of these as
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
from fedmpi.build.options import DEFAULTS, PARTS
from fedmpi.core.errors import UserError
from fedmpi.plugins.spec import split
from fedmpi.run.resume import AUTO, FREE

TABLES = {"folder": str, "fixed": dict, "grid": dict, "run": list, "slurm": dict}
# Characters of a name: a file name may have 255 bytes, a terminal has 80 columns.
LONGEST = 120


class Point(NamedTuple):
    """One run: the options ``written`` for it, and all its ``options``."""

    name: str
    written: dict
    options: dict


def path(folder, name, end):
    return os.path.join(folder, f"{name}.{end}")


# ------------------------------------------------------------- the file of a sweep


def check_tables(tables, where):
    """UserError for a sweep's file with unknown keys or values of wrong types."""
    for key in tables.keys() - TABLES.keys():
        if key.replace("-", "_") in DEFAULTS:
            raise UserError(
                f"{where}: unknown {key}; options of train stand in a table: [fixed] or [grid]")
    check_keys(tables, TABLES, where)
    for name, value in tables.items():
        _check_type(name, value, where)
    runs = tables.get("run", [])
    if not all(isinstance(run, dict) for run in runs):
        raise UserError(f"{where}: write [[run]], a table for each single run")
    grid = tables.get("grid", {})
    _check_grid(grid, tables.get("fixed", {}), where)
    if not grid and not runs:
        raise UserError(f"{where}: nothing to run: neither [grid] nor [[run]]")


def _check_type(name, value, where):
    kind = TABLES[name]
    if isinstance(value, kind):
        return
    wanted = "text" if kind is str else "a table"
    raise UserError(f"{where}: {name} must be {wanted}")


def _check_grid(grid, fixed, where):
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise UserError(
                f"{where}: [grid] {key} must be a list of values to try, got {values!r}")
        if key in fixed:
            raise UserError(f"{where}: {key} is in [fixed] and in [grid]")


def combined(grid, runs):
    """The options of each run beside [fixed]: every combination of the lists of ``grid``, the last
    one fastest, then ``runs``."""
    if not grid:
        return [*runs]
    points = []
    for values in itertools.product(*grid.values()):
        points.append(dict(zip(grid, values)))
    return [*points, *runs]


def identity(options):
    """A text, equal for options of equal runs."""
    # A run is the same wherever its file lies.
    decisive = dict(options)
    decisive.pop("out", None)
    return json.dumps(decisive, sort_keys=True)


# ------------------------------------------------------------- the names of its runs


def named(own, written, options, recorded, played, where):
    """A Point for each run of the lists; UserError for the same run twice.

    ``own`` are the options of the run beside [fixed], ``written`` both together, ``options`` all.
    ``recorded`` maps names of the folder to their runs' options, ``played`` are the names of its
    run files."""
    identities = [identity(of_run) for of_run in options]
    _refuse_twice(identities, where)
    varying = _varying(written, options)
    names = _kept_names(identities, recorded)
    older_names = _older_names(varying, options)
    for number, older in enumerate(older_names):
        if names[number] is None and older in played:
            names[number] = older
    names = _with_new_names(names, varying, own, options)
    return [Point(*point) for point in zip(names, written, options)]


def _refuse_twice(identities, where):
    first_at = {}
    for number, own_identity in enumerate(identities):
        first = first_at.setdefault(own_identity, number)
        if first < number:
            raise UserError(f"{where}: runs {first} and {number} are the same")


def _varying(written, options):
    """The options of the sweep with several values over its runs, in the order written."""
    keys = dict.fromkeys(key for of_run in written for key in of_run)
    varying = []
    for key in keys:
        # Lists are values, too, and have no hash.
        values = {json.dumps(of_run[key]) for of_run in options}
        if len(values) > 1:
            varying.append(key)
    return varying


def _kept_names(identities, recorded):
    """The name of each run in the folder, or None."""
    name_of_identity = {}
    for name, options in recorded.items():
        name_of_identity[identity(options)] = name
    return [name_of_identity.get(own_identity) for own_identity in identities]


def _older_names(varying, options):
    """The names of the same runs in older folders, from before names were shortened."""
    names = []
    for of_run in options:
        values = {key: of_run[key] for key in varying}
        names.append(_long_name(values))
    return names


def _with_new_names(names, varying, own, options):
    """The names, with a short one for each None; equal names get a digest of their options."""
    short_names = _short_names(varying, own, options)
    wanted = [name or short for name, short in zip(names, short_names)]
    count = Counter(wanted)
    complete = []
    for name, short, of_run in zip(names, short_names, options):
        if name:
            complete.append(name)
        elif count[short] == 1:
            complete.append(short)
        else:
            values = {key: of_run[key] for key in varying}
            complete.append(f"{short}_{_digest(values)}")
    return complete


def _short_names(varying, own, options):
    """A short name for each run: the options of its own that vary, and its seed if seeds do."""
    text_of = [{} for _ in options]
    for key in varying:
        numbers = []
        for number, of_run in enumerate(own):
            # Runs are repeated by seed: a name without its seed would mislead.
            if key in of_run or key == "seed":
                numbers.append(number)
        values = [options[number][key] for number in numbers]
        texts = short_texts(key, values)
        flag = key.replace("_", "-")
        for number, text in zip(numbers, texts):
            text_of[number][flag] = text
    return [name_of(of_run) for of_run in text_of]


def name_of(varying):
    """A file name, without its end, of varying values: ``strategy-fedavg_seed-0``. A name above
    LONGEST ends in a digest."""
    name = _long_name(varying)
    if len(name) <= LONGEST:
        return name
    digest = _digest(varying)
    num_left = LONGEST - len(digest) - 1
    start = name[:num_left].rstrip("-_.")
    return f"{start}_{digest}"


def _long_name(varying):
    parts = []
    for key, value in varying.items():
        # Files without their folders.
        text = re.sub("=/[^,]*/", "=", _text(value))
        parts.append(re.sub(r"[^A-Za-z0-9.+-]+", "-", f"{key}-{text}"))
    return "_".join(parts) or "run"


def _digest(value):
    text = json.dumps(value, sort_keys=True)
    digest = hashlib.sha256(text.encode())
    return digest.hexdigest()[:6]


# ------------------------------------------------------------- values in names


def short_texts(key, values):
    """A text for each of the values of one option, as short as tells them apart."""
    are_specs = all(isinstance(value, str) for value in values)
    if key not in PARTS or not are_specs:
        return [_text(_number(value)) for value in values]
    names, options = [], []
    for value in values:
        name, rest = split(value)
        names.append(name)
        options.append(_options_of(rest))
    heads = _heads(names)
    kin_of = {head: [] for head in heads}
    for head, own_options in zip(heads, options):
        kin_of[head].append(own_options)
    texts = []
    for head, own_options in zip(heads, options):
        text = _part_text(head, own_options, kin_of[head], set(heads))
        texts.append(text)
    return texts


def _options_of(rest):
    """``{option: value}`` of the text behind a part's colon."""
    value_of = {}
    for item in filter(None, rest.split(",")):
        option, _, value = item.partition("=")
        value_of[option] = value
    return value_of


def _part_text(head, options, kin, heads):
    """A part by its name, if there are several, and by the options in which it differs from its
    ``kin``."""
    words = []
    # An ordered set of the options of all kin.
    kin_options = dict.fromkeys(option for other in kin for option in other)
    for option in kin_options:
        values = {other.get(option) for other in kin}
        if len(values) > 1 and option in options:
            words.append(_word(option, options[option]))
    if len(heads) > 1 or not words:
        words.insert(0, head)
    return "-".join(words)


def _heads(names):
    """The names of parts; of ``package.module:function`` the function, if functions suffice to
    tell them apart."""
    short = [name.rpartition(":")[2] for name in names]
    if len(set(short)) == len(set(names)):
        return short
    return names


def _word(option, value):
    """An option of a part and its value; a file by its name alone."""
    if not os.path.isabs(value):
        return f"{option}-{value}"
    file_name = os.path.basename(value)
    name, _ = os.path.splitext(file_name)
    return name


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


# ------------------------------------------------------------- the runs in the folder


class State(NamedTuple):
    """The progress of a run: ``status`` (``missing`` without a run file), ``rounds``, and, as
    texts, the options in which the files under its name differ from it."""

    status: str
    rounds: int
    differs: list


def changed(options, recorded):
    """The options in which a recorded run differs, as texts: ``--lr 0.1 (it has 0.5)``."""
    texts = []
    for key, value in options.items():
        if key not in recorded or key in FREE:
            continue
        old = recorded[key]
        # A value may leave the choice to the run, which then records its own.
        is_automatic = value is None or (key, value) in AUTO
        if is_automatic or value == old:
            continue
        flag = key.replace("_", "-")
        texts.append(f"--{flag} {value} (it has {old})")
    return texts


def state(folder, point, recorded):
    """The State of a run; ``recorded`` maps names of the folder to the options in their files."""
    from fedmpi.store import read_run
    file = path(folder, point.name, "h5")
    of_note = _differences_noted(point, recorded.get(point.name, point.options))
    if not os.path.exists(file):
        return State("missing", 0, of_note)
    run = read_run(file, {"rounds/round"})
    of_file = changed(point.options, run.attrs["options"])
    return State(run.attrs["status"], len(run.ends), of_file or of_note)


def _differences_noted(point, noted):
    """The differences to the options in NAME.toml, as texts."""
    if identity(noted) == identity(point.options):
        return []
    # Options may differ that the file leaves out.
    return changed(point.options, noted) or ["this"]


def replaced(folder, points, states, overwrite):
    """The names of the runs to be played anew: runs without a committed round, and, by
    ``overwrite``, failed runs and those of other options.

    UserError if other options are in the way, or a run that would have to go is being written."""
    names = []
    for point, run_state in zip(points, states):
        if _is_replaced(folder, point, run_state, overwrite):
            names.append(point.name)
    return names


def _is_replaced(folder, point, run_state, overwrite):
    from fedmpi.store import check_replaceable
    file = path(folder, point.name, "h5")
    is_missing = run_state.status == "missing"
    is_begun = is_missing or run_state.rounds > 0
    if run_state.differs:
        if is_begun and not overwrite:
            in_the_way = path(folder, point.name, "toml") if is_missing else file
            differences = ", ".join(run_state.differs)
            raise UserError(
                f"{in_the_way} is of another run than {differences}: give --overwrite to play it "
                "anew, or take another folder")
    elif is_begun:
        is_to_be_repeated = overwrite and run_state.status == "failed"
        if not is_to_be_repeated:
            return False
    elif _is_written(file):
        return False
    if not is_missing:
        check_replaceable(file, overwrite)
    return True


def _is_written(file):
    """Whether a process may be at work on that run: it goes on, and nobody has to replace it."""
    from fedmpi.store import check_replaceable
    try:
        check_replaceable(file, True)
    # It names the process that holds the file.
    except UserError:
        return True
    return False


def clear(folder, names):
    """Remove the runs of these names, and their options."""
    from fedmpi.store import remove_run
    for name in names:
        run_file = path(folder, name, "h5")
        if os.path.exists(run_file):
            remove_run(run_file)
        options_file = path(folder, name, "toml")
        if os.path.exists(options_file):
            os.unlink(options_file)


def freeze(folder, points):
    """Write the options of each run beside the place of its run file."""
    os.makedirs(folder, exist_ok=True)
    for point in points:
        file_path = path(folder, point.name, "toml")
        # Options that have been played stay as they are.
        if os.path.exists(file_path):
            continue
        with open(file_path, "x", encoding="utf-8") as file:
            for key, value in point.written.items():
                toml_value = json.dumps(value, ensure_ascii=False)
                file.write(f"{key} = {toml_value}\n")


def train_arguments(folder, name):
    """The arguments of ``fedmpi train`` for the run, which goes on if it exists."""
    options_file = path(folder, name, "toml")
    run_file = path(folder, name, "h5")
    flag = "--resume" if os.path.exists(run_file) else "--out"
    return ["--config", options_file, flag, run_file]
