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
        status = self.attrs.get("status")
        return (f"{self.path}: {status}, {self.num_rounds} of {planned} rounds, "
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
            codes = frame["outcome"].to_numpy()
            frame["outcome"] = named(codes, legend)
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
        rounds = self._rounds.rounds
        return _layers(rounds, layers, flops_other)

    @cached_property
    def events(self):
        # The events come from several files: they must be of this run.
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
        rounds = _first_rows(run.rounds, self.num_rounds)
        clients = _first_rows(run.clients, self.num_participations)
        own = _first_rows(run.own, num_tested)
        return run._replace(rounds=rounds, clients=clients, own=own)

    def _checked_run(self, tables=()):
        """The run as its file is now, with these tables; UserError if it is another run by now."""
        if not os.path.exists(self.path):
            raise UserError(
                f"{self.path} was moved or removed since it was opened: open it where it is now")
        run = read_run(self.path, tables, PATIENCE_S)
        # The same path can hold a new run.
        run_id = run.attrs.get("run_id")
        if run_id != self.attrs.get("run_id"):
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
    # The process may change its folder before the first frame is read.
    path = os.path.abspath(path)
    run = read_run(path, (), PATIENCE_S)
    num_participations = _last_or_zero(run.ends)
    num_rounds = len(run.ends)
    return Frames(path, run.attrs, run.sessions, num_rounds, num_participations)


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
        columns_of_table = getattr(run, table)
        values = columns_of_table[name]
        column = run.columns[f"{table}/{name}"]
        for label, scalars in _scalar_columns(name, values):
            columns[label] = scalars
            texts[label] = (column.unit, column.description)
        # R reads the numbers of a CSV file as floats, which are exact up to 2^53 only.
        if values.dtype == np.uint64 and values.ndim == 1:
            label = f"{name}_text"
            texts_of_ids = hexadecimal(values)
            columns[label] = texts_of_ids.astype(str)
            texts[label] = ("", described(name))
    frame = pd.DataFrame(columns)
    return _with_texts(frame, texts)


def _scalar_columns(name, values):
    """[(label, (T,) values)] of a column (T,) or (T, ...); bytes are decoded."""
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    if values.ndim == 1:
        return [(name, values)]
    row_size = np.prod(values.shape[1:])
    # Not -1: numpy cannot infer a width where there is no row.
    width = int(row_size)
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
    distinct = np.unique(codes).tolist()
    used = set(distinct)
    # A newer version may know more codes.
    if not used <= names.keys():
        return codes
    numbers = codes.tolist()
    values = [names[code] for code in numbers]
    categories = list(names.values())
    return pd.Categorical(values, categories)


def _layers(rounds, layers, flops_other):
    """A row a layer and round, the layers of a round together.

    ``layers``: one ``[name, shape, uses]`` each; old run files leave out the uses."""
    kept = rounds.get("kept_layers")
    if kept is None or not layers:
        empty = pd.DataFrame(columns=list(LAYERS))
        return _with_texts(empty, LAYERS)
    T, L = kept.shape
    names = [name for name, *_ in layers]
    products = [np.prod(shape, dtype=np.int64) for _, shape, *_ in layers]
    # int64: a layer may have more than 2^31 weights.
    sizes = np.array(products)
    recorded_uses = [recorded[0] if recorded else np.nan for _, _, *recorded in layers]
    uses = np.array(recorded_uses)
    share_kept = kept / sizes
    sparsity = 1 - share_kept
    not_recorded = np.full((T, L), np.nan)
    mask_changed = rounds.get("mask_changed_layers", not_recorded)
    # A layer may keep no weight.
    with np.errstate(invalid="ignore", divide="ignore"):
        moved = mask_changed / 2
        churn = moved / kept
    flops_forward = 2 * kept * uses
    samples = _samples_trained(rounds, sizes, uses, flops_other)
    a_column = samples[:, None]
    flops_training = 3 * a_column * flops_forward
    one_round = np.arange(L)
    layer_numbers = np.tile(one_round, T)
    round_numbers = np.repeat(rounds["round"], L)
    # A category takes a byte a row, a text far more.
    layer_names = pd.Categorical.from_codes(layer_numbers, names)
    weights = np.tile(sizes, T)
    kept_weights = kept.ravel()
    sparsities = sparsity.ravel()
    flips = mask_changed.ravel()
    churns = churn.ravel()
    forward = flops_forward.ravel()
    training = flops_training.ravel()
    frame = pd.DataFrame({
        "round": round_numbers,
        "layer": layer_names,
        "weights": weights,
        "kept": kept_weights,
        "sparsity": sparsities,
        "mask_changed": flips,
        "churn": churns,
        "flops_forward": forward,
        "flops_training": training,
    })
    return _with_texts(frame, LAYERS)


def _samples_trained(rounds, sizes, uses, flops_other):
    """(T,) samples that clients trained on, from the FLOPs of a dense model.

    NaN where clients' masks differed: there ``kept_layers`` counts the union of their masks, and
    no FLOPs follow from it."""
    kept = rounds["kept_layers"]
    num_rounds = len(kept)
    unknown = np.full(num_rounds, np.nan)
    macs_of_layers = sizes * uses
    dense_macs = macs_of_layers.sum()
    # As flops.training counts a dense model: three passes, two where weights are frozen.
    flops_of_layers = 3 * 2 * dense_macs
    flops_of_trained = 3 * flops_other.get("dense", 0)
    flops_of_frozen = 2 * flops_other.get("frozen", 0)
    flops_of_others = flops_of_trained + flops_of_frozen
    sample_flops = flops_of_layers + flops_of_others
    flops_dense = rounds.get("flops_dense", unknown)
    samples = flops_dense / sample_flops
    num_kept = kept.sum(axis=1)
    num_weights = sizes.sum()
    # The run records the sparsity of a client's mask: it is that of the union if masks agree.
    share_kept = num_kept / num_weights
    recorded = rounds.get("sparsity", np.nan)
    sparsity_of_union = 1 - share_kept
    masks_agree = np.isclose(sparsity_of_union, recorded, rtol=0, atol=1e-9)
    return np.where(masks_agree, samples, np.nan)
