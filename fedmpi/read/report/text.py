"""A run in words: one line a round, a summary on one screen, and numbers as people write them."""

import math

import numpy as np

from fedmpi.read.headline import headline
from fedmpi.read.report.metrics import FLOPS, TIMES, final_metrics
from fedmpi.read.report.own import own_text
from fedmpi.read.report.statistics import tied
from fedmpi.read.report.truth import exact, faulty, is_bad, judged, options, quality
from fedmpi.core.wide import aligned, labelled


OUTCOMES = {"late": "late", "dropped": "never came", "rejected": "diverged", "failed": "failed"}


def human_bytes(number):
    """``4.4 MB``: three digits, decimal units."""
    return scaled(number, ("B", "kB", "MB", "GB", "TB", "PB"))


def scaled(number, units):
    """``number`` with three digits in the largest of ``units`` that leaves one before the point.

    Each unit is a thousand of the one before."""
    power = 0
    while abs(number) >= 999.5 and power < len(units) - 1:
        number /= 1000
        power += 1
    digits = 0
    if power or number != int(number):
        before_point = 1 + int(math.log10(max(abs(number), 1)))
        digits = max(0, 3 - before_point)
    return f"{number:.{digits}f} {units[power]}"


def human_flops(number):
    """``57.6 GFLOP``: three digits."""
    return scaled(number, [f"{prefix}FLOP" for prefix in ("", "k", "M", "G", "T", "P", "E")])


def human_seconds(seconds):
    """``42 s``, ``3 min 20 s``, ``2 h 05 min``, ``1 d 03 h``."""
    if seconds < 1:
        return f"{seconds:.2g} s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 86400} d {seconds % 86400 // 3600:02d} h"


def round_line(row, total_rounds, eta_s, width=None, metric="accuracy"):
    """One line of progress from a round's row; ``row["round"]`` counts from 1, ``eta_s`` is None if
    unknown.

    ``metric`` is the headline. Beyond ``width`` columns the least important numbers are left
    out."""
    texts = _progress(row, total_rounds, eta_s, metric)
    for name in (*LEFT_OUT, metric):
        # Measured with the longest time left, so that all lines of a run have the same columns.
        longest = texts | {"left": LONGEST_LEFT}
        if width is None or len("  ".join(longest.values())) <= width:
            break
        texts.pop(name, None)
    return "  ".join(texts.values())


# A line that is too long loses its numbers in this order, and then the headline.
LEFT_OUT = ("sparsity", "up", "loss", "own", "seconds")
LONGEST_LEFT = "59 min 59 s left"


def _progress(row, total_rounds, eta_s, metric):
    """``{name: text}`` of the numbers of a round."""
    texts = {}
    if "round" in row:
        digits = len(str(total_rounds))
        texts["round"] = f"round {row['round']:>{digits}}/{total_rounds}"
    own = f"own_{metric}"
    columns = ((metric, metric, ".4f"), (own, "own", ".4f"), ("loss", "loss", ".4f"), ("sparsity", "sparsity", ".3f"))
    for name, word, form in columns:
        if name in row and np.isfinite(row[name]):
            texts[word] = f"{word.replace('_', ' ')} {row[name]:{form}}"
    if "up_bytes" in row:
        texts["up"] = f"up {human_bytes(row['up_bytes'])}"
    if "round_s" in row and np.isfinite(row["round_s"]):
        texts["seconds"] = f"{row['round_s']:.2f} s"
    if eta_s is not None:
        texts["left"] = f"{human_seconds(eta_s)} left"
    return texts


def summary(run, width=None):
    """The run on one screen: a table with a label and a line of text in each row, at most ``width``
    wide."""
    metrics = final_metrics(run)
    rows = [*_set_up(run), *_extended(run), *_status(run, metrics), *_model_quality(run, metrics)]
    rows += [*_spent(metrics), *_seconds(metrics), *_answers(run), *_bad_clients(run)]
    room = None
    if width is not None:
        room = width - LABEL
    rows += _judges(run, room)
    return "\n".join(labelled([(label, text) for label, text in rows if text], width))


def _set_up(run):
    """The options, by subject."""
    recorded = options(run)
    task = []
    if recorded.get("task", "classification") != "classification":
        task = ["task"]
    data = ("dataset", "partition", "noise", "features", "fault", "clients", "cohort")
    networks = ("model", "also_model", "server_model")
    method = (*networks, *task, "strategy", "pruner", "contribution", "weighting", "codec", "seed")
    usual = {"sampler": "uniform", "devices": "none", "timing": "sync"}
    clients = [name for name, default in usual.items() if recorded.get(name, default) != default]
    yield "run", str(run.attrs.get("command", ""))
    yield "data", _listed(recorded, data)
    yield "method", _listed(recorded, method)
    yield "clients", _listed(recorded, clients)


def _listed(recorded, names):
    """``model mlp, strategy fedavg`` of the named options that have a value."""
    parts = []
    for name in names:
        value = recorded.get(name)
        if isinstance(value, list):
            value = " + ".join(value)
        if value not in (None, ""):
            parts.append(f"{name.replace('_', '-')} {value}")
    return ", ".join(parts)


LABEL = 14                    # columns of the labels, those of "virtual time" and the gap


def _extended(run):
    """How a resume changed the number of rounds, if it did."""
    for session in run.sessions:
        before, after = session.get("rounds_before"), session.get("rounds")
        if before != after:
            yield "extended", f"from {before} to {after} rounds, resumed after round {session['done']}"


def _status(run, metrics):
    planned = options(run).get("rounds")
    done = f"{metrics['rounds']} rounds"
    if planned is not None:
        done = f"{metrics['rounds']} of {planned} rounds"
    parts = [str(run.attrs.get("status", "")), done]
    if "created" in run.attrs:
        parts.append(f"created {run.attrs['created']}")
    yield "status", ", ".join(filter(None, parts))


def _model_quality(run, metrics):
    leading = headline(run)
    if f"final_{leading.name}" in metrics:
        yield leading.word, _headline_text(metrics, leading)
    yield "networks", _of_networks(run, leading)
    yield "own tests", own_text(metrics, leading)
    for name in leading.metrics:
        if name != leading.name and f"final_{name}" in metrics:
            yield name.replace("_", " "), f"final {metrics[f'final_{name}']:.4f}"
    if "final_loss" in metrics:
        yield "loss", f"final {metrics['final_loss']:.4f}"
    yield "validation", _validation_text(metrics, leading)
    if "sparsity" in metrics:
        yield "sparsity", f"{metrics['sparsity']:.4f} of the prunable weights are zero{_kept(run)}"
    yield "prunable", _prunable(run.attrs)


def _headline_text(metrics, leading):
    final, chosen = metrics[f"final_{leading.name}"], f"chosen_{leading.name}"
    if chosen not in metrics:
        return f"final {final:.4f} (without validation samples no round can be called the best)"
    return f"final {final:.4f}; {metrics[chosen]:.4f} in round {metrics['chosen_round']}, the best by validation"


def _of_networks(run, leading):
    """The last headline of each network; empty if the run has one network, or tests none of them."""
    trained = run.population.get("network")
    if trained is None:
        return ""
    names, clients = np.unique(trained, return_counts=True)
    parts = []
    for name, count in zip(names, clients):
        values = run.rounds.get(f"{leading.name}_{name}", np.empty(0))
        known = values[np.isfinite(values)]
        if len(known):
            parts.append(f"{name} {known[-1]:.4f} ({count} clients)")
    return ", ".join(parts)


def _prunable(attrs):
    """The share of the model that masks can reach; empty if an old run file does not say."""
    if not {"weights", "prunable"} <= attrs.keys():
        return ""
    share = 100 * attrs["prunable"] / attrs["weights"]
    text = f"{share:.3g} % of {attrs['weights']:,} trained parameters"
    if not attrs.get("frozen"):
        return text
    return f"{text}; {attrs['frozen']:,} more are frozen"


def _validation_text(metrics, leading):
    parts = []
    for name in dict.fromkeys((leading.name, "loss")):
        value = metrics.get(f"final_val_{name}")
        if value is not None:
            parts.append(f"{name.replace('_', ' ')} {value:.4f}")
    return ", ".join(parts)


def _kept(run):
    """`` (500 of 1,000 kept), the mask moved in 3 rounds``, as far as recorded."""
    kept = run.rounds.get("kept")
    if kept is None or not len(kept):
        return ""
    text = f"{int(np.sum(kept[-1])):,}"
    if "prunable" in run.attrs:
        text += f" of {run.attrs['prunable']:,}"
    text = f" ({text} kept)"
    moved = run.rounds.get("mask_changed")
    if moved is None:
        return text
    return f"{text}, the mask moved in {np.count_nonzero(moved)} rounds"


def _spent(metrics):
    """Bytes and FLOPs."""
    for name, label in (("up_bytes", "up"), ("down_bytes", "down")):
        if name in metrics:
            yield label, f"{human_bytes(metrics[name])} in total{_per_client(metrics, name)}"
    if "bytes_against_dense" in metrics:
        share = metrics["bytes_against_dense"]
        yield "traffic", f"{share:.4f} of what dense float32 weights would take, up and down"
    for name, counted in FLOPS.items():
        if name in metrics:
            yield "FLOPs", f"{human_flops(metrics[name])} {counted}{_against_dense(metrics, name)}"


def _per_client(metrics, name):
    number = metrics.get(f"{name}_per_client")
    if number is None:
        return ""
    return f", {human_bytes(number)} a client and round"


def _against_dense(metrics, name):
    share = metrics.get(f"{name}_against_dense")
    if share is None:
        return ""
    return f", {share:.3f} of dense"


def _seconds(metrics):
    if "round_s" not in metrics:
        return
    text = f"{metrics['round_s']:.3g} s a round"
    phases = ", ".join(f"{name[:-2]} {metrics[name]:.3g}" for name in TIMES if name in metrics)
    if phases:
        text += f": {phases}"
    yield "time", text


def _answers(run):
    """Lost answers and the virtual time; nothing if all asked clients were merged."""
    rounds = run.rounds
    sums = {name: int(rounds[name].sum()) for name in ("asked", "merged", *OUTCOMES) if name in rounds}
    asked, merged = sums.get("asked", 0), sums.get("merged", 0)
    if asked != merged:
        text = f"{merged:,} of {asked:,} were merged"
        lost = [f"{sums[name]:,} {word}" for name, word in OUTCOMES.items() if sums.get(name)]
        if lost:
            text += f": {', '.join(lost)}"
        yield "answers", text
    seconds = rounds.get("sim_total_s", np.empty(0))
    if len(seconds) and seconds[-1] > 0:
        yield "virtual time", f"{human_seconds(seconds[-1])}, {human_seconds(seconds[-1] / len(seconds))} a round"


def _bad_clients(run):
    truth = quality(run)
    if truth is None or not len(truth):
        return
    bad = is_bad(tied(truth), faulty(run))
    injected = ", ".join([*_faults(run), *_wrong_labels(run.population.get("noise"))])
    if np.ptp(tied(truth)):
        yield "quality", f"{bad.sum()} bad of {len(truth)} clients: {injected}"
    else:
        yield "quality", f"all {len(truth)} clients are equally good ({injected or 'no faults'}): nothing to find"


# ---------------------------------------------------------------- who is bad, and who found it

HEADS = {"spearman": "Spearman", "auc": "AUC", "cosine_distance": "cosine", "euclidean_distance": "Euclid",
         "max_distance": "largest", "shapley_spearman": "ranks", "calls": "coalitions", "seconds": "seconds"}
FORMS = {"spearman": "+.3f", "auc": ".3f", "shapley_spearman": "+.3f", "calls": ",d", "seconds": ".3g"}


def _faults(run):
    """``2 label-flip`` of each fault, as the run's options name it."""
    for number, spec in enumerate(options(run).get("fault") or ()):
        is_hit = run.population.get(f"fault_{number}")
        if is_hit is not None and is_hit.any():
            yield f"{np.count_nonzero(is_hit)} {spec}"


def _wrong_labels(noise):
    if noise is None or noise.max() <= 0:
        return
    low, high = f"{100 * noise.min():.3g}", f"{100 * noise.max():.3g}"
    if low == high:
        yield f"{low} % of labels wrong"
    else:
        yield f"{low} to {high} % of labels wrong"


def _judges(run, width=None):
    """A table with a line for each estimator, and one for the weights that the scores earned."""
    by_label = judged(run)
    names = [name for name in HEADS if any(name in numbers for numbers in by_label.values())]
    if not names:
        return
    rows = [[label, *(_cell(name, numbers) for name in names)] for label, numbers in by_label.items()]
    rows[0][0] += " (weighs)"
    first = next(iter(by_label.values()))
    if "weight_spearman" in first:
        numbers = {"spearman": first["weight_spearman"], "auc": first["auc"]}
        dashes = ["-"] * (len(names) - 1)
        rows.append(["weight in the merge", _cell("spearman", numbers), *dashes])
    yield "scores", _measures_text(names, exact(run))
    for line in aligned(["", *(HEADS[name] for name in names)], rows, width=width):
        yield "", line


def _measures_text(names, reference):
    """The subject of the table of estimators."""
    parts = []
    if "spearman" in names:
        parts.append("Spearman with quality, AUC of good over bad")
    if "cosine_distance" in names:
        parts.append(f"against {reference}: distances, Spearman (ranks)")
    return "; ".join(parts) or "what they cost"


def _cell(name, numbers):
    """A number of an estimator: ``-`` without an answer, ``constant`` if its scores do not vary,
    though quality does."""
    value = numbers.get(name, math.nan)
    if math.isfinite(value):
        return format(value, FORMS.get(name, ".4f"))
    quality_varies = math.isfinite(numbers.get("auc", math.nan))
    if name == "spearman" and quality_varies:
        return "constant"
    return "-"
