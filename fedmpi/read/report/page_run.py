"""The sections of a report page about one run."""

import math

import numpy as np

from fedmpi.read.headline import headline
from fedmpi.read.report.html import Cell, fold, table, text
from fedmpi.read.report.kinds.picture import capitalized
from fedmpi.read.report.page_clients import client_table, number_text
from fedmpi.read.report.page_pictures import run_pictures
from fedmpi.read.report.profile import BESIDE, OWN, profile
from fedmpi.read.report.profile_text import notes
from fedmpi.read.report.text import LOST, human_bytes
from fedmpi.read.report.truth import judged

# The most rounds of a table.
ROWS = 50
CLIENTS = ("contribution", "found", "truth", "own-clients", "clients")
# (column of /rounds, head, value -> text)
ROUND_COLUMNS = (
    ("sparsity", "sparsity", "{:.4f}".format),
    ("mask_changed", "mask flips", "{:,d}".format),
    ("up_bytes", "up", human_bytes),
    ("down_bytes", "down", human_bytes),
    ("asked", "asked", str),
    ("merged", "merged", str),
    ("round_s", "seconds", "{:.3g}".format),
)


def of_run(run, count, pruning=""):
    """(name, HTML) of each section about the run; pictures are numbered by the iterator ``count``.

    ``pruning``: HTML, first in the section of this name."""
    def drawn(*names):
        return run_pictures(names, run, count)

    yield "Pruning", joined(pruning, drawn("layers"))
    yield "Clients", drawn(*CLIENTS) + _estimators_table(run)
    yield "Time", _beside(drawn("time"), _phases(run))
    yield "Faults", _beside(drawn("answers"), _faults(run))
    yield "Numbers", _folded_rounds(run) + client_table(run)


def _beside(left, right):
    """A picture with words beside it, below it if there is no room."""
    if left and right:
        return f'<div class="beside">{left}<div>{right}</div></div>'
    return left or right


def joined(*grids):
    """Parts after one another; adjacent grids of pictures become one."""
    return "".join(grids).replace('</div><div class="pictures">', "")


# ---------------------------------------------------------------- time


def _phases(run):
    """The numbers of the picture of the phases, and remarks that it cannot show."""
    times = profile(run)
    # Old run files have no times, young ones no round.
    if not times["phases"] or not times["wall_s"]:
        return ""
    rows = [_phase_row(name, phase) for name, phase in times["phases"].items()]
    heads = ["phase", "seconds", "median (ms)", "largest (ms)"]
    remarks = ""
    for line in notes(run, times):
        remarks += f'<p class="aside">{text(capitalized(line))}.</p>'
    return table("", heads, rows, numbers=range(1, 4)) + remarks


def _phase_row(name, phase):
    """Marks as in the picture: a dot for a part of another phase, a star for work beside
    training."""
    if phase["kind"] != OWN:
        name = f"·\u00a0{name}"
    if phase["kind"] == BESIDE:
        name = f"{name}\u00a0*"
    row = [name, f"{phase['seconds']:.3g}"]
    for column in ("median_s", "largest_s"):
        row.append(f"{1000 * phase[column]:,.3g}" if column in phase else "-")
    return row


# ---------------------------------------------------------------- clients


def _estimators_table(run):
    """How well each estimator found the bad clients."""
    rows = []
    for label, numbers in judged(run).items():
        # Without good and bad clients, there is nothing to find.
        if math.isfinite(numbers.get("auc", math.nan)):
            rows.append(_estimator_row(label, numbers))
    if not rows:
        return ""
    # The first estimator decides the weights in the merge.
    rows[0][0] += " (weighs)"
    heads = ["estimator", "Spearman", "AUC, good over bad", "coalitions", "seconds"]
    return table("Scores against true quality", heads, rows, numbers=range(1, 5), wide=True)


def _estimator_row(label, numbers):
    return [
        label,
        number_text(numbers.get("spearman"), "+.2f"),
        number_text(numbers["auc"], ".2f"),
        number_text(numbers.get("calls"), ",d"),
        number_text(numbers.get("seconds"), ".3g"),
    ]


# ---------------------------------------------------------------- faults


def _faults(run):
    """Lost clients, and the starts of the run; nothing if neither is recorded."""
    sentences = [_merged_text(run), _resumed_text(len(run.sessions))]
    words = " ".join(filter(None, sentences))
    paragraph = f"<p>{text(words)}</p>" if words else ""
    return paragraph + _starts(run)


def _merged_text(run):
    columns = [name for name in ("asked", "merged", *LOST) if name in run.rounds]
    sums = {name: int(run.rounds[name].sum()) for name in columns}
    # Early run files do not count the clients that were asked.
    if not sums.get("asked"):
        return ""
    line = f"{sums['merged']:,} of {sums['asked']:,} answers were merged"
    lost = []
    for name, words in LOST.items():
        if sums.get(name):
            lost.append(f"{sums[name]:,} {words}")
    if lost:
        line += f": {', '.join(lost)}"
    return f"{line}."


def _resumed_text(num_starts):
    if not num_starts:
        return ""
    if num_starts == 1:
        return "The run was never resumed."
    if num_starts == 2:
        return "The run was resumed once."
    return f"The run was resumed {num_starts - 1} times."


def _starts(run):
    """A table of the starts of a resumed run."""
    if len(run.sessions) < 2:
        return ""
    rows = []
    for session in run.sessions:
        command = Cell(f"<code>{text(session.get('command', ''))}</code>")
        place = [session.get(name, "") for name in ("time", "ranks", "hosts")]
        rows.append([*place, command])
    return table("Starts", ["time", "ranks", "hosts", "command"], rows, numbers=(1,), wide=True)


# ---------------------------------------------------------------- rounds


def _folded_rounds(run):
    T = len(run.ends)
    if not T:
        return ""
    title = "Every round"
    if T > ROWS:
        title = f"{ROWS} of {T} rounds"
    return fold(title, _round_table(run), kind="numbers")


def _round_table(run):
    """The rounds, at most ROWS of them, the last among them."""
    T = len(run.ends)
    # Both ends are among them.
    evenly = np.linspace(0, T - 1, min(T, ROWS))
    rounds = np.unique(evenly.round().astype(int))
    # Rounds count from 1.
    columns = {"round": rounds + 1}
    for name, head, show in _round_columns(run):
        values = run.rounds[name][rounds]
        columns[head] = [_round_cell(value, show) for value in values]
    rows = [list(row) for row in zip(*columns.values())]
    numbers = range(1, len(columns))
    return table("", list(columns), rows, numbers=numbers, wide=True)


def _round_columns(run):
    """(column of /rounds, head, value -> text) of the run's columns."""
    leading = headline(run)
    mean, _, worst = leading.own
    quality_heads = {
        leading.name: f"test {leading.word}",
        mean: "own tests, mean",
        worst: "worst tenth",
        "loss": f"test {leading.loss_text()}",
    }
    columns = [(name, head, "{:.4f}".format) for name, head in quality_heads.items()]
    return [column for column in (*columns, *ROUND_COLUMNS) if column[0] in run.rounds]


def _round_cell(value, show):
    if not np.isfinite(value):
        return "-"
    return show(value)
