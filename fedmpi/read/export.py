"""Run files as other programs read them: CSV, Parquet, TensorBoard's event files."""

import contextlib
import json
import os

import numpy as np
import pandas as pd

from fedmpi.core.errors import UserError
from fedmpi.core.paths import readable
from fedmpi.core.words import plural
from fedmpi.read.dataframes import open_run
from fedmpi.read.headline import headline_of
from fedmpi.store.disk import refused_by

TABLES = ("rounds", "clients", "layers", "events", "population", "own")
KINDS = ("csv", "parquet", "tensorboard")
# TensorBoard writes this in front of the names of its files.
EVENT_FILE = "events.out.tfevents."
# {unit of a column: group of its TensorBoard tag}
GROUPS = {"B": "bytes", "FLOP": "flops", "s": "seconds", "nat": "loss"}
OUTCOMES = ("asked", "merged", "late", "dropped", "rejected", "failed")
# Columns of /clients whose spread over clients TensorBoard shows.
HISTOGRAMS = ("contribution", "weight", "loss", "up_bytes")
# Columns of /rounds without a curve: counters, and digits that mean nothing as a number.
WITHOUT_CURVE = ("round", "weights_digest", "recorded")


def kind_of(place, kind):
    """``(kind, is_file)``: the kind of export, one of KINDS, and whether ``place`` is a file.

    The extension of ``place`` decides if it is .csv or .parquet. UserError if ``kind`` names
    another. Without either, the kind is csv."""
    suffix = os.path.splitext(place)[1].lower()
    extension = suffix.lstrip(".")
    is_file = extension in ("csv", "parquet")
    # A folder gets all tables.
    if not is_file:
        return kind or "csv", False
    # Two kinds for one file.
    if kind not in (None, extension):
        raise UserError(
            f"{place} ends in .{extension}, and --format says {kind}: name a folder, or leave "
            "--format out")
    return extension, True


def run_names(paths):
    """A name for each run file, [str]; its folder in an export has the same name.

    It is the file's name without extension; if two are alike, with folders too; if these are
    alike too (a.h5 beside a.hdf5), with the extension."""
    stems = [_without_extension(os.path.basename(path)) for path in paths]
    if _all_differ(stems):
        return stems
    full_paths = [os.path.realpath(path) for path in paths]
    names = [_without_extension(path) for path in full_paths]
    if not _all_differ(names):
        names = full_paths
    folders = [os.path.dirname(name) for name in names]
    # The folders common to all runs say nothing.
    common = os.path.commonpath(folders)
    return [os.path.relpath(name, common) for name in names]


def _without_extension(path):
    return os.path.splitext(path)[0]


def _all_differ(names):
    num_different = len(set(names))
    return num_different == len(names)


def to_file(paths, place, table="rounds"):
    """Writes one table of the runs to the file ``place``; returns a line about it. Several runs
    become one table; its first column ``run`` has their names."""
    kind, _ = kind_of(place, None)
    frames = {}
    for path, name in zip(paths, run_names(paths)):
        frame = getattr(open_run(path), table)
        frames[readable(name)] = _with_index_column(frame)
    frame = next(iter(frames.values()))
    if len(frames) > 1:
        frame = _joined(frames)
    _write(frame, place, kind)
    return f"{place}: {table}, {plural(len(frame), 'row')}, {plural(len(frame.columns), 'column')}"


def _joined(frames):
    """One DataFrame of ``{run name: DataFrame}``, with a first column ``run``."""
    texts = {"units": {}, "descriptions": {}}
    parts = []
    for name, frame in frames.items():
        for key, of_columns in texts.items():
            of_columns.update(frame.attrs[key])
        part = frame.assign(run=name)
        # Left in place, the attrs of all parts would be compared by concat.
        part.attrs = {}
        parts.append(part)
    joined = pd.concat(parts, ignore_index=True)
    names = joined.pop("run")
    # The names of runs were added last.
    joined.insert(0, "run", names)
    joined.attrs = texts
    return joined


def to_folder(paths, folder, kind, overwrite=False):
    """Writes the runs to ``folder/NAME`` each, and yields a line for each file.

    UserError if there is an export already, unless ``overwrite`` says to replace it."""
    places = [os.path.join(folder, name) for name in run_names(paths)]
    taken = [place for place in places if _old_export(place, kind)]
    if taken and not overwrite:
        listed = ", ".join(taken)
        raise UserError(
            f"{listed}: holds an export already; give --overwrite, or another folder")
    for path, place in zip(paths, places):
        run = open_run(path)
        os.makedirs(place, exist_ok=True)
        # Tables of the old export that the new one lacks would stay otherwise.
        for name in _old_export(place, kind):
            os.remove(os.path.join(place, name))
        if kind == "tensorboard":
            yield from _to_tensorboard(run, place)
        else:
            yield from _to_tables(run, place, kind)


def _old_export(place, kind):
    """[name] of the files in the folder ``place``; an export of this kind replaces them."""
    if not os.path.isdir(place):
        return []
    names = sorted(os.listdir(place))
    if kind == "tensorboard":
        return [name for name in names if name.startswith(EVENT_FILE)]
    tables = {f"{table}.{kind}" for table in TABLES}
    # Only files of an export may be removed.
    written = tables | {"columns.csv", "run.json"}
    return [name for name in names if name in written]


def _to_tables(run, place, kind):
    """Writes a file a table, one of all units and descriptions, one of attributes and sessions."""
    columns = []
    for table in TABLES:
        stored = getattr(run, table)
        frame = _with_index_column(stored)
        # A run without clients' own tests has no such table.
        if table == "own" and not len(frame.columns):
            continue
        path = os.path.join(place, f"{table}.{kind}")
        _write(frame, path, kind)
        units = frame.attrs["units"]
        descriptions = frame.attrs["descriptions"]
        columns += [(table, name, units[name], descriptions[name]) for name in frame]
        yield f"{path}: {plural(len(frame), 'row')}, {plural(len(frame.columns), 'column')}"
    yield _write_columns(columns, place)
    yield _write_attributes(run, place)


def _write_columns(columns, place):
    path = os.path.join(place, "columns.csv")
    frame = pd.DataFrame(columns, columns=["table", "column", "unit", "description"])
    frame.to_csv(path, index=False)
    return f"{path}: units and descriptions"


def _write_attributes(run, place):
    path = os.path.join(place, "run.json")
    with open(path, "w", encoding="utf-8") as file:
        record = {"attrs": run.attrs, "sessions": run.sessions}
        json.dump(record, file, indent=1)
    return f"{path}: options and all that is true of the run as a whole"


def _write(frame, path, kind):
    full_path = os.path.abspath(path)
    with refused_by(full_path):
        if kind == "csv":
            frame.to_csv(path, index=False)
            return
        # An open file, since pyarrow refuses a name that is no UTF-8. It also writes the attrs, so
        # units and descriptions come back on reading.
        with _or_missing("pyarrow"), open(path, "wb") as file:
            frame.to_parquet(file, index=False)


def _with_index_column(frame):
    """The frame, with its index (the clients' numbers) as a column if the index has a name."""
    name = frame.index.name
    if name is None:
        return frame
    own_unit = {name: "1"}
    units = own_unit | frame.attrs["units"]
    own_description = {name: f"{name}, from 0"}
    descriptions = own_description | frame.attrs["descriptions"]
    # This loses the attrs.
    frame = frame.reset_index()
    frame.attrs = {"units": units, "descriptions": descriptions}
    return frame


@contextlib.contextmanager
def _or_missing(library):
    """UserError in one line if the block misses a library of the extra [export]."""
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"this needs {library}, which is not installed here: pip install 'fedmpi[export]'"
        ) from error


# ---------------------------------------------------------------- TensorBoard


def _to_tensorboard(run, place):
    """Writes curves of rounds and layers, spreads over clients, and the options as a text."""
    with _or_missing("tensorboard"):
        from torch.utils.tensorboard import SummaryWriter
    times_s = wall_times(run)
    scalars = [*_round_scalars(run), *_layer_scalars(run)]
    histograms = list(_client_values(run))
    writer = SummaryWriter(place)
    try:
        # A text needs a time, and a run without a round has none.
        if len(times_s):
            recorded = run.attrs.get("options", {})
            options = _options_table(recorded)
            writer.add_text("options", options, 0, times_s[0])
        for tag, values in scalars:
            for t in np.flatnonzero(np.isfinite(values)):
                writer.add_scalar(tag, values[t], t + 1, times_s[t])
        for tag, round, values in histograms:
            time_s = times_s[round - 1]
            writer.add_histogram(tag, values, round, walltime=time_s)
    finally:
        writer.close()
    event_file = next(name for name in os.listdir(place) if name.startswith(EVENT_FILE))
    path = os.path.join(place, event_file)
    tags = {tag for tag, *_ in histograms}
    num_spreads = len(tags)
    yield (f"{path}: {len(scalars)} scalars, {num_spreads} distributions over clients, "
           f"{plural(run.num_rounds, 'round')}")


def wall_times(run):
    """(T,) seconds since 1970 at the end of each round.

    Early run files do not record them: there they follow from the start of the run and how long
    its rounds took, a second each if that is unknown too."""
    rounds = run.rounds
    if "recorded" in rounds:
        return rounds["recorded"].to_numpy()
    text = run.attrs.get("created", "1970-01-01")
    created = pd.Timestamp(text)
    # A time without a zone is UTC.
    if created.tzinfo is None:
        created = created.tz_localize("UTC")
    a_second_each = np.ones(len(rounds))
    round_s = pd.Series(a_second_each)
    if "round_s" in rounds:
        round_s = rounds["round_s"].fillna(0)
    elapsed_s = round_s.cumsum().to_numpy()
    return created.timestamp() + elapsed_s


def _round_scalars(run):
    """(tag, (T,) values) of each column of numbers."""
    metrics = headline_of(run.attrs).metrics
    units = run.rounds.attrs["units"]
    for name in run.rounds:
        values = run.rounds[name]
        is_number = pd.api.types.is_numeric_dtype(values)
        if not is_number or name in WITHOUT_CURVE:
            continue
        group = _group(name, units[name], metrics)
        floats = values.to_numpy(float)
        yield f"{group}/{name}", floats


def _group(name, unit, metrics):
    """The group of a column's curve: TensorBoard shows the curves of a group together."""
    if name in OUTCOMES:
        return "clients"
    if name.startswith(("calls_", "utility_")):
        return "contribution"
    if name.endswith("loss"):
        return "loss"
    column = name.removeprefix("val_")
    metric = column.removesuffix("_before")
    # Metrics of all tasks share the group of accuracy.
    if metric in metrics:
        return "accuracy"
    return GROUPS.get(unit, "model")


def _layer_scalars(run):
    """(tag, (T,) values) of sparsity and churn of each layer."""
    by_layer = run.layers.groupby("layer", observed=True)
    for layer, frame in by_layer:
        for name in ("sparsity", "churn"):
            values = frame[name].to_numpy(float)
            yield f"layers_{name}/{layer}", values


def _client_values(run):
    """(tag, round, values): the finite values of a round's participations."""
    names = [name for name in run.clients if _has_histogram(name)]
    by_round = run.clients.groupby("round")
    for round, rows in by_round:
        for name in names:
            values = rows[name].to_numpy(float)
            finite = values[np.isfinite(values)]
            if len(finite):
                yield f"clients/{name}", int(round), finite


def _has_histogram(name):
    if name in HISTOGRAMS:
        return True
    return name.startswith("score_") and "_error" not in name


def _options_table(options):
    """The options as a table in Markdown."""
    rows = [f"| {key} | {value} |" for key, value in options.items()]
    lines = ["| option | value |", "|---|---|", *rows]
    return "\n".join(lines)
