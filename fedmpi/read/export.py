"""Run files as other programs read them: CSV, Parquet, TensorBoard's event files."""

import contextlib
import json
import os

import numpy as np
import pandas as pd

from fedmpi.read.headline import headline_of
from fedmpi.core.errors import UserError
from fedmpi.read.frames import open_run
from fedmpi.core.paths import readable
from fedmpi.store.disk import refused_by

TABLES = ("rounds", "clients", "layers", "events", "population", "own")
KINDS = ("csv", "parquet", "tensorboard")
EVENT_FILE = "events.out.tfevents."
GROUPS = {"B": "bytes", "FLOP": "flops", "s": "seconds", "nat": "loss"}        # of TensorBoard's tags, by unit
HISTOGRAMS = ("contribution", "weight", "loss", "up_bytes")


def kind_of(place, kind):
    """``csv``, ``parquet`` or ``tensorboard``, as named, else by the extension of ``place``; and
    whether it is a file."""
    by_name = os.path.splitext(place)[1].lower().lstrip(".")
    is_file = by_name in ("csv", "parquet")
    if is_file and kind not in (None, by_name):
        raise UserError(f"{place} ends in .{by_name}, and --format says {kind}: name a folder, or leave --format out")
    return (by_name if is_file else kind or "csv"), is_file


def run_names(paths):
    """A name for each run file, which is its folder in an export: the file's name, with folders
    where two are alike."""
    stems = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    whole = [os.path.splitext(os.path.realpath(path))[0] for path in paths]
    if len(set(whole)) < len(whole):                       # a.h5 and a.hdf5
        whole = [os.path.realpath(path) for path in paths]
    return [os.path.relpath(path, os.path.commonpath([os.path.dirname(each) for each in whole])) for path in whole]


def to_file(paths, place, table="rounds"):
    """Writes one table of the runs to the file ``place``, with a first column ``run`` where there
    are several; returns a line that says so."""
    kind, _ = kind_of(place, None)
    names = map(readable, run_names(paths))
    frames = {name: _indexed(getattr(open_run(path), table)) for name, path in zip(names, paths)}
    frame = next(iter(frames.values()))
    if len(frames) > 1:
        told = {key: {name: text for each in frames.values() for name, text in each.attrs[key].items()}
                for key in frame.attrs}
        parts = [each.assign(run=name) for name, each in frames.items()]
        for each in parts:
            each.attrs = {}                                # which concat compares
        frame = pd.concat(parts, ignore_index=True)
        frame.insert(0, "run", frame.pop("run"))
        frame.attrs = told
    _write(frame, place, kind)
    return f"{place}: {table}, {len(frame)} rows, {len(frame.columns)} columns"


def to_folder(paths, folder, kind, overwrite=False):
    """Writes the runs to ``folder/NAME`` each, and yields a line for each file."""
    places = [os.path.join(folder, name) for name in run_names(paths)]
    taken = [place for place in places if os.path.isdir(place) and _ours(place, kind)]
    if taken and not overwrite:
        raise UserError(f"{', '.join(taken)}: holds an export already; give --overwrite, or another folder")
    for path, place in zip(paths, places):
        run = open_run(path)
        os.makedirs(place, exist_ok=True)
        for name in _ours(place, kind):
            os.remove(os.path.join(place, name))
        yield from _to_tensorboard(run, place) if kind == "tensorboard" else _to_tables(run, place, kind)


def _ours(place, kind):
    """The files in the folder ``place`` that an export of that kind would replace."""
    names = {f"{table}.{kind}" for table in TABLES} | {"columns.csv", "run.json"}
    return [name for name in sorted(os.listdir(place))
            if (name.startswith(EVENT_FILE) if kind == "tensorboard" else name in names)]


def _to_tables(run, place, kind):
    """A file a table, one with units and descriptions, one with attributes and sessions."""
    told = []
    for table in TABLES:
        frame, path = _indexed(getattr(run, table)), os.path.join(place, f"{table}.{kind}")
        # A run without clients' own tests has no such table.
        if table == "own" and not len(frame.columns):
            continue
        _write(frame, path, kind)
        told += [(table, name, frame.attrs["units"][name], frame.attrs["descriptions"][name]) for name in frame]
        yield f"{path}: {len(frame)} rows, {len(frame.columns)} columns"
    path = os.path.join(place, "columns.csv")
    pd.DataFrame(told, columns=["table", "column", "unit", "description"]).to_csv(path, index=False)
    yield f"{path}: units and descriptions"
    path = os.path.join(place, "run.json")
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"attrs": run.attrs, "sessions": run.sessions}, file, indent=1)
    yield f"{path}: options and all that is true of the run as a whole"


def _write(frame, path, kind):
    with refused_by(os.path.abspath(path)):
        if kind == "csv":
            frame.to_csv(path, index=False)
            return
        # An open file, as pyarrow takes no name that is no UTF-8. With attrs: units and descriptions come back.
        with _or_missing("pyarrow"), open(path, "wb") as file:
            frame.to_parquet(file, index=False)


def _indexed(frame):
    """The frame with its index as a column where that has a name: clients' numbers."""
    told, name = frame.attrs, frame.index.name
    if name is None:
        return frame
    frame = frame.reset_index()
    frame.attrs = {"units": {name: "1"} | told["units"],
                   "descriptions": {name: f"{name}, from 0"} | told["descriptions"]}
    return frame


@contextlib.contextmanager
def _or_missing(library):
    """UserError in one line where the block misses a library of the extra [export]."""
    try:
        yield
    except ImportError as error:
        raise UserError(f"this needs {library}, which is not installed here: pip install 'fedmpi[export]'") from error


def _to_tensorboard(run, place):
    """Scalars of rounds, of layers, and distributions over clients, by round and wall time; the
    options as a text."""
    with _or_missing("tensorboard"):
        from torch.utils.tensorboard import SummaryWriter
    writer, when = SummaryWriter(place), wall_times(run)
    try:
        if len(when):
            writer.add_text("options", _options_table(run.attrs.get("options", {})), 0, when[0])
        scalars = list(_round_scalars(run)) + list(_layer_scalars(run))
        for tag, values in scalars:
            for t in np.flatnonzero(np.isfinite(values)):
                writer.add_scalar(tag, values[t], t + 1, when[t])
        histograms = list(_client_values(run))
        for tag, t, values in histograms:
            writer.add_histogram(tag, values, t, walltime=when[t - 1])
    finally:
        writer.close()
    name = next(name for name in os.listdir(place) if name.startswith(EVENT_FILE))
    spread = len({tag for tag, *_ in histograms})
    yield (f"{os.path.join(place, name)}: {len(scalars)} scalars, {spread} distributions over clients, "
           f"{run.num_rounds} rounds")


def wall_times(run):
    """(T,) seconds since 1970 at the end of each round; of run files that do not record it, from
    when the run was created and how long its rounds took."""
    rounds = run.rounds
    if "recorded" in rounds:
        return rounds["recorded"].to_numpy()
    created = pd.Timestamp(run.attrs.get("created", "1970-01-01"))
    created = created.tz_localize("UTC") if created.tzinfo is None else created
    spent = rounds["round_s"] if "round_s" in rounds else pd.Series(np.ones(len(rounds)))
    return created.timestamp() + spent.fillna(0).cumsum().to_numpy()


def _round_scalars(run):
    metrics = headline_of(run.attrs).metrics
    for name in run.rounds:
        number = pd.api.types.is_numeric_dtype(run.rounds[name])
        if number and name not in ("round", "weights_digest", "recorded"):
            yield f"{_group(name, run.rounds.attrs['units'][name], metrics)}/{name}", run.rounds[name].to_numpy(float)


def _group(name, unit, metrics):
    if name in ("asked", "merged", "late", "dropped", "rejected", "failed"):
        return "clients"
    if name.startswith(("calls_", "utility_")):
        return "contribution"
    if name.endswith("loss"):
        return "loss"
    metric = name.removeprefix("val_").removesuffix("_before")
    return "accuracy" if metric in metrics else GROUPS.get(unit, "model")


def _layer_scalars(run):
    for layer, frame in run.layers.groupby("layer", observed=True):
        yield from ((f"layers_{name}/{layer}", frame[name].to_numpy(float)) for name in ("sparsity", "churn"))


def _client_values(run):
    """``(tag, round, values)``: one value a participation."""
    names = [name for name in run.clients if name in HISTOGRAMS or (name.startswith("score_") and "_error" not in name)]
    for t, rows in run.clients.groupby("round"):
        for name in names:
            values = rows[name].to_numpy(float)
            if np.isfinite(values).any():
                yield f"clients/{name}", int(t), values[np.isfinite(values)]


def _options_table(options):
    return "\n".join(["| option | value |", "|---|---|", *(f"| {key} | {value} |" for key, value in options.items())])
