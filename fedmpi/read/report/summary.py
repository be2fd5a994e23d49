"""The summary of a run on one screen: a label and a line of text in each row."""

import math

import numpy as np

from fedmpi.core.wide import aligned, labelled
from fedmpi.core.words import plural
from fedmpi.read.headline import headline
from fedmpi.read.report.metrics import FLOPS, TIMES, final_metrics
from fedmpi.read.report.own import own_text
from fedmpi.read.report.statistics import tied
from fedmpi.read.report.text import LOST, human_bytes, human_flops, human_seconds, measure_text
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
    lines = labelled(rows, width)
    return "\n".join(lines)


def _set_up(run):
    """The options, by subject."""
    recorded = options(run)
    task = ()
    if recorded.get("task", "classification") != "classification":
        task = ("task",)
    unusual = [name for name, usual in USUAL.items() if recorded.get(name, usual) != usual]
    yield "run", str(run.attrs.get("command", ""))
    yield "data", _listed(recorded, DATA)
    method = (*NETWORKS, *task, *METHOD)
    yield "method", _listed(recorded, method)
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
        before = session.get("rounds_before")
        after = session.get("rounds")
        # Neither is recorded of a session that kept the number.
        if before != after:
            done = session["done"]
            rounds = plural(after, "round")
            yield "extended", f"from {before} to {rounds}, resumed after round {done}"


def _status(run, metrics):
    planned = options(run).get("rounds")
    done = f"{plural(metrics['rounds'], 'round')}"
    if planned is not None:
        done = f"{metrics['rounds']} of {plural(planned, 'round')}"
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
            yield name.replace("_", " "), f"final {measure_text(final)}"
    yield "validation", _validation_text(metrics, leading)
    if "sparsity" in metrics:
        share = metrics["sparsity"]
        sparsity = f"{share:.4f} of the prunable weights are zero"
        kept = _kept_text(run)
        yield "sparsity", sparsity + kept + of_all_text(metrics)
    yield "prunable", _prunable_text(run.attrs)


def of_all_text(metrics):
    """``; 0.8300 of all parameters``; empty if all can be pruned, and of older runs."""
    share = metrics.get("sparsity_all")
    if share is None or share == metrics["sparsity"]:
        return ""
    return f"; {share:.4f} of all parameters"


def _headline_text(metrics, leading):
    last = metrics[f"final_{leading.name}"]
    final = f"final {measure_text(last)}"
    chosen = metrics.get(f"chosen_{leading.name}")
    if chosen is None:
        return f"{final} (without validation samples no round can be called the best)"
    best = f"{measure_text(chosen)} in round {metrics['chosen_round']}"
    return f"{final}; {best}, the best by validation"


def _networks_text(run, leading):
    """The last headline of each network; empty if the run has one, or tests none of them."""
    trained = run.population.get("network")
    if trained is None:
        return ""
    names, clients = np.unique(trained, return_counts=True)
    parts = []
    for name, count in zip(names, clients):
        values = run.rounds.get(f"{leading.name}_{name}", np.empty(0))
        finite = values[np.isfinite(values)]
        if len(finite):
            parts.append(f"{name} {measure_text(finite[-1])} ({plural(count, 'client')})")
    return ", ".join(parts)


def _validation_text(metrics, leading):
    parts = []
    # The loss can be the headline itself.
    for name in dict.fromkeys((leading.name, "loss")):
        value = metrics.get(f"final_val_{name}")
        if value is not None:
            parts.append(f"{name.replace('_', ' ')} {measure_text(value)}")
    return ", ".join(parts)


def _kept_text(run):
    """`` (500 of 1,000 kept), the mask moved in 3 rounds``, as far as recorded."""
    kept = run.rounds.get("kept")
    if kept is None or not len(kept):
        return ""
    num_kept = np.sum(kept[-1])
    text = f"{int(num_kept):,}"
    if "prunable" in run.attrs:
        text += f" of {run.attrs['prunable']:,}"
    text = f" ({text} kept)"
    changed = run.rounds.get("mask_changed")
    if changed is None:
        return text
    return f"{text}, the mask moved in {plural(np.count_nonzero(changed), 'round')}"


def _prunable_text(attrs):
    """The share of the model in reach of masks; empty if an old run file does not say."""
    if not {"weights", "prunable"} <= attrs.keys():
        return ""
    percent = 100 * attrs["prunable"] / attrs["weights"]
    text = f"{percent:.3g} % of {attrs['weights']:,} trained parameters"
    if not attrs.get("frozen"):
        return text
    num_frozen = attrs["frozen"]
    return f"{text}; {num_frozen:,} more are frozen"


# ---------------------------------------------------------------- costs


def _spent(metrics):
    """Bytes and FLOPs."""
    for name, label in (("up_bytes", "up"), ("down_bytes", "down")):
        if name in metrics:
            total = human_bytes(metrics[name])
            per_client = _per_client_text(metrics, name)
            yield label, f"{total} in total{per_client}"
    if "bytes_against_dense" in metrics:
        share = metrics["bytes_against_dense"]
        yield "traffic", f"{share:.4f} of what dense float32 weights would take, up and down"
    for name, convention in FLOPS.items():
        if name in metrics:
            total = human_flops(metrics[name])
            dense = _dense_text(metrics, name)
            yield "FLOPs", f"{total} {convention}{dense}"


def _per_client_text(metrics, name):
    number = metrics.get(f"{name}_per_client")
    if number is None:
        return ""
    text = human_bytes(number)
    return f", {text} a client and round"


def _dense_text(metrics, name):
    share = metrics.get(f"{name}_against_dense")
    if share is None:
        return ""
    return f", {share:.3f} of dense"


def _seconds(metrics):
    if "round_s" not in metrics:
        return
    round_s = metrics["round_s"]
    text = f"{round_s:.3g} s a round"
    phases = []
    for name in TIMES:
        if name in metrics:
            phase = name.removesuffix("_s")
            phases.append(f"{phase} {metrics[name]:.3g}")
    if phases:
        listed = ", ".join(phases)
        text += f": {listed}"
    yield "time", text


def _answers(rounds):
    """Lost answers; nothing if all asked clients were merged."""
    asked = _sum(rounds, "asked")
    merged = _sum(rounds, "merged")
    if asked == merged:
        return
    text = f"{merged:,} of {asked:,} were merged"
    lost = []
    for name, words in LOST.items():
        number = _sum(rounds, name)
        if number:
            lost.append(f"{number:,} {words}")
    if lost:
        listed = ", ".join(lost)
        text += f": {listed}"
    yield "answers", text


def _sum(rounds, column):
    """The sum of a column of counts; 0 if it is not recorded."""
    if column not in rounds:
        return 0
    total = rounds[column].sum()
    return int(total)


def _virtual_time(rounds):
    seconds = rounds.get("sim_total_s", np.empty(0))
    # Zeros: time was not simulated.
    if len(seconds) and seconds[-1] > 0:
        round_s = seconds[-1] / len(seconds)
        total = human_seconds(seconds[-1])
        a_round = human_seconds(round_s)
        yield "virtual time", f"{total}, {a_round} a round"


# ---------------------------------------------------------------- bad clients, and who found them


def _bad_clients(run):
    truth = quality(run)
    if truth is None or not len(truth):
        return
    N = len(truth)
    bad = is_bad(tied(truth), faulty(run))
    injected = ", ".join([*_faults(run), *_wrong_labels(run.population.get("noise"))])
    if np.ptp(tied(truth)):
        yield "quality", f"{bad.sum()} bad of {plural(N, 'client')}: {injected}"
        return
    reason = injected or "no faults"
    yield "quality", f"all {N} clients are equally good ({reason}): nothing to find"


def _faults(run):
    """``2 label-flip`` of each fault, as the run's options name it."""
    specs = options(run).get("fault") or ()
    for number, spec in enumerate(specs):
        is_hit = run.population.get(f"fault_{number}")
        if is_hit is not None and is_hit.any():
            num_hit = np.count_nonzero(is_hit)
            yield f"{num_hit} {spec}"


def _wrong_labels(noise):
    if noise is None or noise.max() <= 0:
        return
    lowest = 100 * noise.min()
    low = f"{lowest:.3g}"
    highest = 100 * noise.max()
    high = f"{highest:.3g}"
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
        num_columns = len(names)
        rows.append(_weights_row(weighing, num_columns))
    reference = exact(run)
    yield "scores", _subject_text(names, reference)
    heads = [HEADS[name] for name in names]
    all_heads = ["", *heads]
    for line in aligned(all_heads, rows, width=width):
        yield "", line


def _weights_row(weighing, num_columns):
    numbers = {"spearman": weighing["weight_spearman"], "auc": weighing["auc"]}
    num_dashes = num_columns - 1
    dashes = ["-"] * num_dashes
    spearman = _cell("spearman", numbers)
    return ["weight in the merge", spearman, *dashes]


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
        form = FORMS.get(name, ".4f")
        return format(value, form)
    auc = numbers.get("auc", math.nan)
    quality_varies = math.isfinite(auc)
    if name == "spearman" and quality_varies:
        return "constant"
    return "-"
