"""The headline numbers at the top of a report page: cards of one run, a table of several."""

import math

import numpy as np

from fedmpi.read.headline import common_headline, headline
from fedmpi.read.report.comparison import comparison, outcome_text, outcome_words
from fedmpi.read.report.html import Cell, key, table, text
from fedmpi.read.report.metrics import FLOPS, final_metrics
from fedmpi.read.report.summary import of_all_text
from fedmpi.read.report.series import flops_column, runs_of
from fedmpi.read.report.text import human_bytes, human_flops, human_seconds


def key_numbers(groups):
    """HTML of the headline numbers of one run, or of several set-ups."""
    runs = runs_of(groups)
    if len(runs) == 1:
        return _cards(runs[0])
    return _table_of_groups(groups)


def _cards(run):
    metrics = final_metrics(run)
    leading = headline(run)
    quality = _quality_cards(metrics, leading)
    costs = _cost_cards(run, metrics)
    rows = [*quality, *costs]
    cards = "".join(_card(*row) for row in rows)
    return f'<dl class="cards">{cards}</dl>'


def _card(name, value, more):
    return (f'<div><dt>{text(name)}</dt><dd class="value">{text(value)}</dd>'
            f'<dd class="more">{text(more)}</dd></div>')


def _quality_cards(metrics, leading):
    """(name, value, more) of the trained model, as far as recorded."""
    final = metrics.get(f"final_{leading.name}")
    if final is not None:
        yield f"Test {leading.word}", f"{final:.3f}", _selected_text(metrics, leading)
    mean, _, worst = (metrics.get(f"final_{name}") for name in leading.own)
    if mean is not None:
        yield "Clients' own tests", f"{mean:.3f}", f"mean of clients; worst tenth {worst:.3f}"
    loss = metrics.get("final_loss")
    if loss is not None:
        unit = _loss_unit(leading)
        yield "Test loss", f"{loss:.3f}", unit
    # NaN: no client is bad, or all are.
    auc = metrics.get("quality_auc", math.nan)
    if math.isfinite(auc):
        spearman = metrics["quality_spearman"]
        more = f"AUC; Spearman {spearman:+.2f} with true quality"
        yield "Bad clients found", f"{auc:.2f}", more


def _selected_text(metrics, leading):
    """The value of the round selected by validation, if there is validation."""
    chosen = metrics.get(f"chosen_{leading.name}")
    if chosen is None:
        return "after the last round"
    chosen_round = metrics["chosen_round"]
    return f"{chosen:.3f} in round {chosen_round}, the best by validation"


def _loss_unit(leading):
    if leading.share:
        return "nat, cross-entropy"
    # A ratio has no unit to show.
    if leading.unit == "1":
        return ""
    return leading.unit


def _cost_cards(run, metrics):
    """(name, value, more) of the costs of the run, as far as recorded."""
    sparsity = metrics.get("sparsity")
    if sparsity is not None:
        kept = _kept_text(run) + of_all_text(metrics)
        yield "Sparsity", f"{sparsity:.3f}", kept
    up = metrics.get("up_bytes")
    down = metrics.get("down_bytes")
    if up is not None and down is not None:
        share_of_dense = metrics.get("bytes_against_dense")
        dense = _dense_text(share_of_dense)
        up_text = human_bytes(up)
        down_text = human_bytes(down)
        more = f"{up_text} up, {down_text} down{dense}"
        total_bytes = up + down
        sent = human_bytes(total_bytes)
        yield "Sent", sent, more
    column = flops_column(run)
    flops = metrics.get(column)
    if flops is not None:
        flops_share = metrics.get(f"{column}_against_dense")
        dense = _dense_text(flops_share)
        flops_text = human_flops(flops)
        convention = FLOPS[column]
        yield "Training", flops_text, f"{convention}{dense}"
    round_s = metrics.get("round_s")
    if round_s is not None:
        num_rounds = metrics["rounds"]
        run_s = round_s * num_rounds
        total = human_seconds(run_s)
        yield "Time", total, f"{round_s:.3g} s a round"
    virtual_s = run.rounds.get("sim_total_s", np.zeros(0))
    yield from _virtual_time_card(virtual_s)


def _virtual_time_card(virtual_s):
    """``virtual_s`` (T,): by the end of each round; zeros if time is not simulated."""
    if not len(virtual_s) or virtual_s[-1] <= 0:
        return
    total_s = virtual_s[-1]
    round_s = total_s / len(virtual_s)
    a_round = human_seconds(round_s)
    total = human_seconds(total_s)
    yield "Virtual time", total, f"{a_round} a round"


def _kept_text(run):
    kept = run.rounds.get("kept")
    prunable = run.attrs.get("prunable")
    if kept is None or prunable is None:
        return "of prunable weights"
    in_all_layers = np.sum(kept[-1])
    # A column a layer.
    num_kept = int(in_all_layers)
    return f"{num_kept:,} of {prunable:,} weights kept"


def _dense_text(share):
    """The cost against the same run without pruning, or nothing for None."""
    # Early run files do not count a dense run's cost.
    if share is None:
        return ""
    percent = 100 * share
    return f", {percent:.0f} % of dense"


# ---------------------------------------------------------------- several set-ups


def _table_of_groups(groups):
    """A row a set-up; the best finished one of a column stands in bold."""
    leading = common_headline(runs_of(groups))
    words = outcome_words(leading)
    outcomes = comparison(groups)["outcomes"]
    names = [name for name in words if name in outcomes]
    best = _best_of(groups, outcomes)
    rows = []
    for number, group in enumerate(groups):
        cells = [group_name(number, group)]
        for name in names:
            outcome = outcomes[name][number]
            best_mean = best.get(name)
            cell = _outcome_cell(name, outcome, group, best_mean)
            cells.append(cell)
        rows.append(cells)
    caption = "What came of it"
    if any(len(group.runs) > 1 for group in groups):
        caption += ", mean ± standard deviation over seeds"
    heads = ["set-up", *(words[name] for name in names)]
    numbers = range(1, len(heads))
    inside = table(caption, heads, rows, numbers=numbers, wide=True)
    return f'<div class="keep first">{inside}</div>'


def _outcome_cell(name, outcome, group, best):
    num_seeds = len(group.runs)
    words = outcome_text(name, outcome, num_seeds)
    # A run that goes on may still lose its place.
    if outcome and _has_ended(group) and outcome.mean == best:
        escaped = text(words)
        return Cell(f'<span class="best">{escaped}</span>')
    return words


def _has_ended(group):
    runs = group.runs.values()
    return all(run.attrs.get("status", "finished") == "finished" for run in runs)


def _best_of(groups, outcomes):
    """``{outcome: the best mean of the finished groups}``; nothing for a single group."""
    # Nothing to win against.
    if len(groups) == 1:
        return {}
    best = {}
    for name, pick in _picks(common_headline(runs_of(groups))).items():
        means = []
        outcomes_of_name = outcomes.get(name, ())
        for outcome, group in zip(outcomes_of_name, groups):
            if outcome and _has_ended(group):
                means.append(outcome.mean)
        best[name] = pick(means, default=None)
    return best


def _picks(leading):
    """``{outcome: max or min}``, whichever finds the best."""
    better = max if leading.higher else min
    own_mean, _, own_worst = leading.own
    columns = (leading.name, own_mean, own_worst)
    picks = {f"final_{column}": better for column in columns}
    picks[f"chosen_{leading.name}"] = better
    return picks | {"final_loss": min, "bytes": min, "flops": min}


def group_name(number, group):
    """HTML of the group's letter and name, with its number of seeds if they are several."""
    label = group.label
    if len(group.runs) > 1:
        label += f", {len(group.runs)} seeds"
    return key(number, label)
