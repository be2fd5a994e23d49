"""A run file as pandas frames: ``fedmpi.open``.

Every frame has ``attrs["units"]`` and ``attrs["descriptions"]``, a text for each column. A frame is
read when it is first asked for, and holds what was committed when the file was opened, so that
frames of a live run fit together. It is of the run that was opened, wherever the process works by
then; UserError where the file is another run's by then.
"""

import os
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from fedmpi.core.errors import UserError
from fedmpi.core.paths import readable
from fedmpi.store import checkpoint_folder, checkpoints, read_run
from fedmpi.store.rows import Run
from fedmpi.store.texts import described, hexadecimal

PATIENCE_S = 2.0                     # for what a network file system brings late
BY_LAYER = ("kept_layers", "mask_changed_layers")          # of /rounds, in the frame of layers
LAYERS = {
    "round": ("1", "round, from 1"), "layer": ("", "the prunable tensor"),
    "weights": ("1", "weights of the dense layer"),
    "kept": ("1", "weights kept of the model trained this round, by any client where masks differ"),
    "sparsity": ("1", "fraction of zeros: 1 - kept / weights"),
    "mask_changed": ("1", "mask entries that this round's update flipped"),
    "churn": ("1", "share of the kept weights that moved: half of mask_changed over kept"),
    "flops_forward": ("FLOP", "one sample's forward pass at this sparsity"),
    "flops_training": ("FLOP", "3 forward passes for each sample that clients trained on: RigL's convention, without "
                       "passes for dense gradients; NaN where clients' masks differed"),
}
EVENTS = {
    "round": ("1", "after which, or in which it happened"), "event": ("", "what happened"),
    "client": ("1", "to which client"), "time": ("", "UTC, where it is known"), "text": ("", "more about it"),
}


@dataclass(frozen=True, repr=False)
class Frames:
    """A run: pandas frames ``rounds`` (a row a round), ``clients`` (a row a participation),
    ``layers`` (a row a layer and round), ``events``, ``population`` (a row a client) and ``own`` (a
    row a client and evaluation on its own test part, none without --client-test); ``attrs``, a
    dict, and ``sessions``, a list of dicts."""

    path: str
    attrs: dict
    sessions: list
    num_rounds: int
    num_participations: int

    def __repr__(self):
        planned = self.attrs.get("options", {}).get("rounds", "?")
        return (f"{self.path}: {self.attrs.get('status')}, {self.num_rounds} of {planned} rounds, "
                f"{self.num_participations} participations; "
                ".rounds .clients .layers .events .population .own .attrs .sessions")

    @cached_property
    def rounds(self):
        return _frame(self._rounds, "rounds", [name for name in self._rounds.rounds if name not in BY_LAYER])

    @cached_property
    def clients(self):
        run = self._read("clients")
        frame = _frame(run, "clients", run.clients)
        if "outcome" in frame:
            frame["outcome"] = named(frame["outcome"].to_numpy(), run.columns["clients/outcome"].description)
        return frame

    @cached_property
    def own(self):
        run = self._read("own")
        return _frame(run, "own", run.own)

    @cached_property
    def population(self):
        run = self._read("population")
        frame = _frame(run, "population", run.population)
        frame.index.name = "client"
        return frame

    @cached_property
    def layers(self):
        return _layers(self._rounds.rounds, self.attrs.get("layers", []), self.attrs.get("flops_other", {}))

    @cached_property
    def events(self):
        self._same_run()
        found = [*_answers(self.clients), *_checkpoints(self.path), *_sessions(self.sessions),
                 *_end(self.attrs, self.num_rounds)]
        known = [event for event in found if event[0] <= self.num_rounds]
        frame = pd.DataFrame(sorted(known, key=lambda event: event[0]), columns=list(EVENTS))   # stable: in this order
        frame = frame.astype({"round": "int64", "client": "Int64", "event": "str", "text": "str"})
        frame["time"] = pd.to_datetime(frame["time"], utc=True, format="ISO8601").dt.floor("s")
        return _described(frame, EVENTS)

    @cached_property
    def _rounds(self):
        return self._read("rounds")

    def _read(self, table):
        run = self._same_run({table})
        own_ends = run.own_ends[: self.num_rounds]
        tested = int(own_ends[-1]) if len(own_ends) else 0
        return run._replace(rounds={k: v[: self.num_rounds] for k, v in run.rounds.items()},
                            clients={k: v[: self.num_participations] for k, v in run.clients.items()},
                            own={k: v[:tested] for k, v in run.own.items()})

    def _same_run(self, wanted=()):
        """The run that was opened as it is now, with what is ``wanted`` of it."""
        if not os.path.exists(self.path):
            raise UserError(f"{self.path} was moved or removed since it was opened: open it where it is now")
        run = read_run(self.path, wanted, PATIENCE_S)
        if run.attrs.get("run_id") != self.attrs.get("run_id"):
            raise UserError(f"{self.path} is another run by now than when it was opened: open it again")
        if len(run.ends) < self.num_rounds:
            raise UserError(f"{self.path} has {len(run.ends)} rounds by now, {self.num_rounds} when it was opened: it "
                            "was resumed; open it again")
        return run


def open_run(path):
    """The ``Frames`` of the run file ``path``, also of one that is being written; UserError, one
    line, if it is none."""
    path = os.path.abspath(path)
    run = read_run(path, (), PATIENCE_S)
    return Frames(path, run.attrs, run.sessions, len(run.ends), int(run.ends[-1]) if len(run.ends) else 0)


def _frame(run: Run, table, names):
    """The columns ``names`` of a table; of one with a width a column each, NAME_0 and so on; of
    large integers their text, too."""
    columns, told = {}, {}
    for name in names:
        values, column = getattr(run, table)[name], run.columns[f"{table}/{name}"]
        for label, each in _split(name, values):
            columns[label], told[label] = each, (column.unit, column.description)
        if values.dtype == np.uint64 and values.ndim == 1:           # R reads a CSV's numbers up to 2^53
            label = f"{name}_text"
            columns[label], told[label] = hexadecimal(values).astype(str), ("", described(name))
    return _described(pd.DataFrame(columns), told)


def _split(name, values):
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    flat = values.reshape(len(values), -1) if len(values) else values.reshape(0, int(np.prod(values.shape[1:])))
    return [(name, values)] if values.ndim == 1 else [(f"{name}_{i}", flat[:, i]) for i in range(flat.shape[1])]


def _described(frame, told):
    frame.attrs = {"units": {name: unit for name, (unit, _) in told.items()},
                   "descriptions": {name: text for name, (_, text) in told.items()}}
    return frame


def named(codes, legend):
    """A Categorical of ``codes``, by a legend such as ``0 merged, 1 late``; the codes themselves
    where it lacks one."""
    names = {int(code): name for code, name in re.findall(r"(\d+) (\w+)", legend)}
    known = set(np.unique(codes).tolist()) <= names.keys()
    return pd.Categorical([names[code] for code in codes.tolist()], list(names.values())) if known else codes


def _layers(rounds, layers, other):
    """A row a layer and round, the layers of a round together."""
    kept = rounds.get("kept_layers")
    if kept is None or not layers:
        return _described(pd.DataFrame(columns=list(LAYERS)), LAYERS)
    T, L = kept.shape
    sizes = np.array([np.prod(shape, dtype=np.int64) for _, shape, *_ in layers])
    uses = np.array([use[0] if use else np.nan for _, _, *use in layers])
    changed = rounds.get("mask_changed_layers", np.full((T, L), np.nan))
    # As flops.training counts a dense model: three passes, two where weights are frozen.
    sample_flops = 3 * 2 * (sizes * uses).sum() + 3 * other.get("dense", 0) + 2 * other.get("frozen", 0)
    samples = rounds.get("flops_dense", np.full(T, np.nan)) / sample_flops
    shared = np.isclose(1 - kept.sum(axis=1) / sizes.sum(), rounds.get("sparsity", np.nan), rtol=0, atol=1e-9)
    samples = np.where(shared, samples, np.nan)            # else kept is the union of their masks
    forward = 2 * kept * uses
    with np.errstate(invalid="ignore", divide="ignore"):
        churn = changed / 2 / kept
    frame = pd.DataFrame({
        "round": np.repeat(rounds["round"], L), "layer": pd.Categorical.from_codes(
            np.tile(np.arange(L), T), [name for name, *_ in layers]),
        "weights": np.tile(sizes, T), "kept": kept.ravel(), "sparsity": (1 - kept / sizes).ravel(),
        "mask_changed": changed.ravel(), "churn": churn.ravel(), "flops_forward": forward.ravel(),
        "flops_training": (3 * samples[:, None] * forward).ravel()})
    return _described(frame, LAYERS)


# ---------------------------------------------------------------- events: (round, event, client, time, text)


def _sessions(sessions):
    for number, session in enumerate(sessions):
        done = session.get("done")
        if number and done is None:
            continue                                       # written before it was recorded where a session began
        ranks = session.get("ranks")
        where = f"{ranks} rank{'s' * (ranks != 1)} on {session.get('hosts')}"
        yield done or 0, "resumed" if number else "started", None, session.get("time"), where


def _answers(clients):
    """Those that were asked and not merged, and the rounds in which nobody was."""
    if "outcome" not in clients or not len(clients):
        return
    missed = clients[~clients["outcome"].isin(["merged", "passed"])]
    for round, client, outcome in zip(missed["round"], missed["client"], missed["outcome"]):
        yield round, str(outcome), client, None, ""
    merged = (clients["outcome"] == "merged").groupby(clients["round"]).any()
    yield from ((round, "nobody merged", None, None, "the model stays") for round in merged.index[~merged])


def _checkpoints(path):
    """Those that are still there."""
    folder = checkpoint_folder(path)
    for round, name in reversed(checkpoints(folder)):
        try:
            written = os.stat(os.path.join(folder, name)).st_mtime
        except FileNotFoundError:                          # a run that goes on has removed it meanwhile
            continue
        when = pd.Timestamp(written, unit="s", tz="UTC").isoformat()
        yield round, "checkpoint", None, when, readable(os.path.join(folder, name))


def _end(attrs, rounds):
    if attrs.get("status") not in (None, "running"):
        yield rounds, attrs["status"], None, attrs.get("ended"), attrs.get("error", "")
