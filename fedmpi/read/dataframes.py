"""A run file as pandas frames: ``fedmpi.open``.

Every frame has ``attrs["units"]`` and ``attrs["descriptions"]``, a text for each column. A frame is
read when it is first asked for. It holds the rounds that were committed when the file was opened,
so the frames of a live run fit together. The path is made absolute, so frames stay readable after
the process changes its folder. Reading is a UserError once the file belongs to another run.
"""

import os
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from fedmpi.core.errors import UserError
from fedmpi.core.words import plural
from fedmpi.read.events import EVENTS, events_frame
from fedmpi.store import read_run
from fedmpi.store.rows import Run
from fedmpi.store.texts import described, hexadecimal

# A network file system may show a new file or its last rows late.
PATIENCE_S = 2.0
# These columns of /rounds are shown in the frame of layers instead.
BY_LAYER = ("kept_layers", "mask_changed_layers")
# {column: (unit, description)}
LAYERS = {
    "round": ("1", "round, from 1"),
    "layer": ("", "the prunable tensor"),
    "weights": ("1", "weights of the dense layer"),
    "kept": ("1", "weights kept of the model trained this round, by any client where masks differ"),
    "sparsity": ("1", "fraction of zeros: 1 - kept / weights"),
    "mask_changed": ("1", "mask entries that this round's update flipped"),
    "churn": ("1", "share of the kept weights that moved: half of mask_changed over kept"),
    "flops_forward": ("FLOP", "one sample's forward pass at this sparsity"),
    "flops_training": (
        "FLOP",
        "3 forward passes for each sample that clients trained on: RigL's convention, without "
        "passes for dense gradients; NaN where clients' masks differed"),
}


@dataclass(frozen=True, repr=False)
class Frames:
    """A run: its tables as pandas frames, and its attributes.

    ``rounds`` has a row a round; ``clients`` a row a participation; ``layers`` a row a layer and
    round; ``events`` a row an event; ``population`` a row a client. ``own`` has a row a client and
    evaluation on its own test part, and no row without --client-test. ``attrs`` is a dict,
    ``sessions`` a list of dicts."""

    path: str
    attrs: dict
    sessions: list
    num_rounds: int
    num_participations: int

    def __repr__(self):
        planned = self.attrs.get("options", {}).get("rounds", "?")
        rounds = plural(self.num_rounds, "round")
        return (f"{self.path}: {self.attrs.get('status')}, {rounds} of {planned}, "
                f"{self.num_participations} participations; "
                ".rounds .clients .layers .events .population .own .attrs .sessions")

    @cached_property
    def rounds(self):
        run = self._rounds
        names = [name for name in run.rounds if name not in BY_LAYER]
        return _frame(run, "rounds", names)

    @cached_property
    def clients(self):
        run = self._read("clients")
        frame = _frame(run, "clients", run.clients)
        if "outcome" in frame:
            legend = run.columns["clients/outcome"].description
            frame["outcome"] = named(frame["outcome"].to_numpy(), legend)
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
        layers = self.attrs.get("layers", [])
        flops_other = self.attrs.get("flops_other", {})
        return _layers(self._rounds.rounds, layers, flops_other)

    @cached_property
    def events(self):
        self._checked_run()
        frame = events_frame(self.path, self.attrs, self.sessions, self.clients, self.num_rounds)
        return _with_texts(frame, EVENTS)

    @cached_property
    def _rounds(self):
        # Both rounds and layers need this table: it is read once.
        return self._read("rounds")

    def _read(self, table):
        """The run with this table, up to the rounds committed when it was opened."""
        run = self._checked_run({table})
        own_ends = run.own_ends[: self.num_rounds]
        num_tested = _last_or_zero(own_ends)
        return run._replace(
            rounds=_first_rows(run.rounds, self.num_rounds),
            clients=_first_rows(run.clients, self.num_participations),
            own=_first_rows(run.own, num_tested))

    def _checked_run(self, tables=()):
        """The run as its file is now, with these tables; UserError if it is another run by now."""
        if not os.path.exists(self.path):
            raise UserError(
                f"{self.path} was moved or removed since it was opened: open it where it is now")
        run = read_run(self.path, tables, PATIENCE_S)
        if run.attrs.get("run_id") != self.attrs.get("run_id"):
            raise UserError(
                f"{self.path} is another run by now than when it was opened: open it again")
        num_rounds = len(run.ends)
        # A resume can begin before the last round that was committed.
        if num_rounds < self.num_rounds:
            raise UserError(
                f"{self.path} has {plural(num_rounds, 'round')} by now, {self.num_rounds} when it "
                "was opened: it was resumed; open it again")
        return run


def open_run(path):
    """The ``Frames`` of the run file ``path``, also while the run goes on.

    UserError in one line if it is no run file."""
    path = os.path.abspath(path)
    run = read_run(path, (), PATIENCE_S)
    num_participations = _last_or_zero(run.ends)
    return Frames(path, run.attrs, run.sessions, len(run.ends), num_participations)


def _last_or_zero(ends):
    """The number of rows after the last round, 0 before the first."""
    return int(ends[-1]) if len(ends) else 0


def _first_rows(columns, num_rows):
    return {name: values[:num_rows] for name, values in columns.items()}


def _frame(run: Run, table, names):
    """A DataFrame of the columns ``names`` of a table.

    A column (T, width) becomes ``width`` columns NAME_0, NAME_1 and so on. A column of 64-bit
    identifiers gets a second one with its text."""
    columns = {}
    texts = {}
    for name in names:
        values = getattr(run, table)[name]
        column = run.columns[f"{table}/{name}"]
        for label, scalars in _scalar_columns(name, values):
            columns[label] = scalars
            texts[label] = (column.unit, column.description)
        # R reads the numbers of a CSV file as floats, which are exact up to 2^53 only.
        if values.dtype == np.uint64 and values.ndim == 1:
            label = f"{name}_text"
            columns[label] = hexadecimal(values).astype(str)
            texts[label] = ("", described(name))
    return _with_texts(pd.DataFrame(columns), texts)


def _scalar_columns(name, values):
    """[(label, (T,) values)] of a column (T,) or (T, ...); bytes are decoded."""
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    if values.ndim == 1:
        return [(name, values)]
    # Not -1: numpy cannot infer a width where there is no row.
    width = int(np.prod(values.shape[1:]))
    flat = values.reshape(len(values), width)
    return [(f"{name}_{number}", flat[:, number]) for number in range(width)]


def _with_texts(frame, texts):
    """The frame itself, now with units and descriptions from ``{column: (unit, description)}``."""
    units = {name: unit for name, (unit, _) in texts.items()}
    descriptions = {name: description for name, (_, description) in texts.items()}
    frame.attrs = {"units": units, "descriptions": descriptions}
    return frame


def named(codes, legend):
    """A Categorical of ``codes``, by a legend such as ``0 merged, 1 late``.

    The codes themselves come back if the legend lacks one of them."""
    pairs = re.findall(r"(\d+) (\w+)", legend)
    names = {int(code): name for code, name in pairs}
    used = set(np.unique(codes).tolist())
    if not used <= names.keys():
        return codes
    values = [names[code] for code in codes.tolist()]
    return pd.Categorical(values, list(names.values()))


def _layers(rounds, layers, flops_other):
    """A row a layer and round, the layers of a round together.

    ``layers``: one ``[name, shape, uses]`` each; old run files leave out the uses."""
    kept = rounds.get("kept_layers")
    if kept is None or not layers:
        empty = pd.DataFrame(columns=list(LAYERS))
        return _with_texts(empty, LAYERS)
    T, L = kept.shape
    names = [name for name, *_ in layers]
    sizes = np.array([np.prod(shape, dtype=np.int64) for _, shape, *_ in layers])
    uses = np.array([recorded[0] if recorded else np.nan for _, _, *recorded in layers])
    sparsity = 1 - kept / sizes
    mask_changed = rounds.get("mask_changed_layers", np.full((T, L), np.nan))
    # A layer may keep no weight.
    with np.errstate(invalid="ignore", divide="ignore"):
        churn = mask_changed / 2 / kept
    flops_forward = 2 * kept * uses
    samples = _samples_trained(rounds, sizes, uses, flops_other)
    flops_training = 3 * samples[:, None] * flops_forward
    layer_numbers = np.tile(np.arange(L), T)
    frame = pd.DataFrame({
        "round": np.repeat(rounds["round"], L),
        "layer": pd.Categorical.from_codes(layer_numbers, names),
        "weights": np.tile(sizes, T),
        "kept": kept.ravel(),
        "sparsity": sparsity.ravel(),
        "mask_changed": mask_changed.ravel(),
        "churn": churn.ravel(),
        "flops_forward": flops_forward.ravel(),
        "flops_training": flops_training.ravel(),
    })
    return _with_texts(frame, LAYERS)


def _samples_trained(rounds, sizes, uses, flops_other):
    """(T,) samples that clients trained on, from the FLOPs of a dense model.

    NaN where clients' masks differed: there ``kept_layers`` counts the union of their masks, and
    no FLOPs follow from it."""
    kept = rounds["kept_layers"]
    unknown = np.full(len(kept), np.nan)
    # As flops.training counts a dense model: three passes, two where weights are frozen.
    flops_of_layers = 3 * 2 * (sizes * uses).sum()
    flops_of_others = 3 * flops_other.get("dense", 0) + 2 * flops_other.get("frozen", 0)
    sample_flops = flops_of_layers + flops_of_others
    samples = rounds.get("flops_dense", unknown) / sample_flops
    # The run records the sparsity of a client's mask: it is that of the union if masks agree.
    share_kept = kept.sum(axis=1) / sizes.sum()
    recorded = rounds.get("sparsity", np.nan)
    masks_agree = np.isclose(1 - share_kept, recorded, rtol=0, atol=1e-9)
    return np.where(masks_agree, samples, np.nan)
