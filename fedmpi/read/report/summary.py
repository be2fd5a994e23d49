"""The summary of a run on one screen: a label and a line of text in each row."""

import math

import numpy as np

from fedmpi.core.wide import aligned, labelled
from fedmpi.read.headline import headline
from fedmpi.read.report.metrics import FLOPS, TIMES, final_metrics
from fedmpi.read.report.own import own_text
from fedmpi.read.report.statistics import tied
from fedmpi.read.report.text import LOST, human_bytes, human_flops, human_seconds
from fedmpi.read.report.truth import exact, faulty, is_bad, judged, options, quality

# Columns of the labels: the longest, "virtual time", and the gap.
LABEL = 14
DATA = ("dataset", "partition", "noise", "features", "fault", "clients", "cohort")
NETWORKS = ("model", "also_model", "server_model")
METHOD = ("strategy", "pruner", "contribution", "weighting", "codec", "seed")
# Options that are told only if they are not as here.
USUAL = {"sampler": "uniform", "devices": "none", "timing": "sync"}
# {number of an estimator: head of its column}
HEADS = {
    "spearman": "Spearman",
    "auc": "AUC",
    "cosine_distance": "cosine",
    "euclidean_distance": "Euclid",
    "max_distance": "largest",
    "shapley_spearman": "ranks",
    "calls": "coalitions",
    "seconds": "seconds",
}
# {number of an estimator: its format}, .4f for all others.
FORMS = {
    "spearman": "+.3f", "auc": ".3f", "shapley_spearman": "+.3f", "calls": ",d", "seconds": ".3g"}


def summary(run, width=None):
    """The run as a table with a label and a line of text in each row, at most ``width`` wide."""
    metrics = final_metrics(run)
    room = None
    if width is not None:
        room = width - LABEL
    rows = [
        *_set_up(run),
        *_extended(run),
        *_status(run, metrics),
        *_model_quality(run, metrics),
        *_spent(metrics),
        *_seconds(metrics),
        *_answers(run.rounds),
        *_virtual_time(run.rounds),
        *_bad_clients(run),
        *_estimators(run, room),
    ]
    rows = [(label, text) for label, text in rows if text]
    return "\n".join(labelled(rows, width))


def _set_up(run):
    """The options, by subject."""
    recorded = options(run)
    task = ()
    if recorded.get("task", "classification") != "classification":
        task = ("task",)
    unusual = [name for name, usual in USUAL.items() if recorded.get(name, usual) != usual]
    yield "run", str(run.attrs.get("command", ""))
    yield "data", _listed(recorded, DATA)
    yield "method", _listed(recorded, (*NETWORKS, *task, *METHOD))
    yield "clients", _listed(recorded, unusual)


def _listed(recorded, names):
    """``model mlp, strategy fedavg`` of the named options with a value."""
    parts = []
    for name in names:
        value = recorded.get(name)
        if isinstance(value, list):
            value = " + ".join(value)
        if value not in (None, ""):
            parts.append(f"{name.replace('_', '-')} {value}")
    return ", ".join(parts)


def _extended(run):
    """How a resume changed the number of rounds, if it did."""
    for session in run.sessions:
        before, after = session.get("rounds_before"), session.get("rounds")
        # Neither is recorded of a session that kept the number.
        if before != after:
            done = session["done"]
            yield "extended", f"from {before} to {after} rounds, resumed after round {done}"


def _status(run, metrics):
    planned = options(run).get("rounds")
    done = f"{metrics['rounds']} rounds"
    if planned is not None:
        done = f"{metrics['rounds']} of {planned} rounds"
    parts = [str(run.attrs.get("status", "")), done]
    if "created" in run.attrs:
        parts.append(f"created {run.attrs['created']}")
    yield "status", ", ".join(filter(None, parts))
    # Older files do not record the reason.
    if run.attrs.get("error"):
        yield "error", run.attrs["error"]


# ---------------------------------------------------------------- the model


def _model_quality(run, metrics):
    leading = headline(run)
    if f"final_{leading.name}" in metrics:
        yield leading.word, _headline_text(metrics, leading)
    yield "networks", _networks_text(run, leading)
    yield "own tests", own_text(metrics, leading)
    others = [name for name in leading.metrics if name != leading.name]
    for name in (*others, "loss"):
        final = metrics.get(f"final_{name}")
        if final is not None:
            yield name.replace("_", " "), f"final {final:.4f}"
    yield "validation", _validation_text(metrics, leading)
    if "sparsity" in metrics:
        sparsity = f"{metrics['sparsity']:.4f} of the prunable weights are zero"
        yield "sparsity", sparsity + _kept_text(run)
    yield "prunable", _prunable_text(run.attrs)


def _headline_text(metrics, leading):
    final = f"final {metrics[f'final_{leading.name}']:.4f}"
    chosen = metrics.get(f"chosen_{leading.name}")
    if chosen is None:
        return f"{final} (without validation samples no round can be called the best)"
    return f"{final}; {chosen:.4f} in round {metrics['chosen_round']}, the best by validation"


def _networks_text(run, leading):
    """The last headline of each network; empty if the run has one network, or tests none of them."""
    trained = run.population.get("network")
    if trained is None:
        return ""
    names, clients = np.unique(trained, return_counts=True)
    parts = []
    for name, count in zip(names, clients):
        values = run.rounds.get(f"{leading.name}_{name}", np.empty(0))
        finite = values[np.isfinite(values)]
        if len(finite):
            parts.append(f"{name} {finite[-1]:.4f} ({count} clients)")
    return ", ".join(parts)


def _validation_text(metrics, leading):
    parts = []
    # The loss can be the headline itself.
    for name in dict.fromkeys((leading.name, "loss")):
        value = metrics.get(f"final_val_{name}")
        if value is not None:
            parts.append(f"{name.replace('_', ' ')} {value:.4f}")
    return ", ".join(parts)


def _kept_text(run):
    """`` (500 of 1,000 kept), the mask moved in 3 rounds``, as far as recorded."""
    kept = run.rounds.get("kept")
    if kept is None or not len(kept):
        return ""
    text = f"{int(np.sum(kept[-1])):,}"
    if "prunable" in run.attrs:
        text += f" of {run.attrs['prunable']:,}"
    text = f" ({text} kept)"
    changed = run.rounds.get("mask_changed")
    if changed is None:
        return text
    return f"{text}, the mask moved in {np.count_nonzero(changed)} rounds"


def _prunable_text(attrs):
    """The share of the model in reach of masks; empty if an old run file does not say."""
    if not {"weights", "prunable"} <= attrs.keys():
        return ""
    percent = 100 * attrs["prunable"] / attrs["weights"]
    text = f"{percent:.3g} % of {attrs['weights']:,} trained parameters"
    if not attrs.get("frozen"):
        return text
    return f"{text}; {attrs['frozen']:,} more are frozen"


# ---------------------------------------------------------------- costs


def _spent(metrics):
    """Bytes and FLOPs."""
    for name, label in (("up_bytes", "up"), ("down_bytes", "down")):
        if name in metrics:
            total = human_bytes(metrics[name])
            yield label, f"{total} in total{_per_client_text(metrics, name)}"
    if "bytes_against_dense" in metrics:
        share = metrics["bytes_against_dense"]
        yield "traffic", f"{share:.4f} of what dense float32 weights would take, up and down"
    for name, convention in FLOPS.items():
        if name in metrics:
            total = human_flops(metrics[name])
            yield "FLOPs", f"{total} {convention}{_dense_text(metrics, name)}"


def _per_client_text(metrics, name):
    number = metrics.get(f"{name}_per_client")
    if number is None:
        return ""
    return f", {human_bytes(number)} a client and round"


def _dense_text(metrics, name):
    share = metrics.get(f"{name}_against_dense")
    if share is None:
        return ""
    return f", {share:.3f} of dense"


def _seconds(metrics):
    if "round_s" not in metrics:
        return
    text = f"{metrics['round_s']:.3g} s a round"
    phases = []
    for name in TIMES:
        if name in metrics:
            phases.append(f"{name.removesuffix('_s')} {metrics[name]:.3g}")
    if phases:
        text += f": {', '.join(phases)}"
    yield "time", text


def _answers(rounds):
    """Lost answers; nothing if all asked clients were merged."""
    asked, merged = _sum(rounds, "asked"), _sum(rounds, "merged")
    if asked == merged:
        return
    text = f"{merged:,} of {asked:,} were merged"
    lost = []
    for name, words in LOST.items():
        number = _sum(rounds, name)
        if number:
            lost.append(f"{number:,} {words}")
    if lost:
        text += f": {', '.join(lost)}"
    yield "answers", text


def _sum(rounds, column):
    """The sum of a column of counts; 0 if it is not recorded."""
    if column not in rounds:
        return 0
    return int(rounds[column].sum())


def _virtual_time(rounds):
    seconds = rounds.get("sim_total_s", np.empty(0))
    # Zeros: time was not simulated.
    if len(seconds) and seconds[-1] > 0:
        round_s = seconds[-1] / len(seconds)
        total = human_seconds(seconds[-1])
        yield "virtual time", f"{total}, {human_seconds(round_s)} a round"


# ---------------------------------------------------------------- bad clients, and who found them


def _bad_clients(run):
    truth = quality(run)
    if truth is None or not len(truth):
        return
    N = len(truth)
    bad = is_bad(tied(truth), faulty(run))
    injected = ", ".join([*_faults(run), *_wrong_labels(run.population.get("noise"))])
    if np.ptp(tied(truth)):
        yield "quality", f"{bad.sum()} bad of {N} clients: {injected}"
        return
    reason = injected or "no faults"
    yield "quality", f"all {N} clients are equally good ({reason}): nothing to find"


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


def _estimators(run, width=None):
    """A table with a line for each estimator, and one for the weights earned by the scores."""
    by_label = judged(run)
    recorded = set().union(*by_label.values())
    names = [name for name in HEADS if name in recorded]
    if not names:
        return
    rows = []
    for label, numbers in by_label.items():
        rows.append([label, *(_cell(name, numbers) for name in names)])
    # The first estimator decides the weights in the merge.
    rows[0][0] += " (weighs)"
    weighing = next(iter(by_label.values()))
    if "weight_spearman" in weighing:
        rows.append(_weights_row(weighing, len(names)))
    yield "scores", _subject_text(names, exact(run))
    heads = [HEADS[name] for name in names]
    for line in aligned(["", *heads], rows, width=width):
        yield "", line


def _weights_row(weighing, num_columns):
    numbers = {"spearman": weighing["weight_spearman"], "auc": weighing["auc"]}
    dashes = ["-"] * (num_columns - 1)
    return ["weight in the merge", _cell("spearman", numbers), *dashes]


def _subject_text(names, reference):
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
