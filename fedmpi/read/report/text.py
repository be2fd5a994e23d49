"""A run in words: one line a round, a summary on one screen, and how numbers are written for people."""

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
    """``number`` with three digits in the largest of ``units``, each a thousand of the one before, that leaves one
    before the point."""
    power = 0
    while abs(number) >= 999.5 and power < len(units) - 1:
        number, power = number / 1000, power + 1
    digits = 0 if power == 0 and number == int(number) else max(0, 2 - int(math.log10(max(abs(number), 1))))
    return f"{number:.{digits}f} {units[power]}"


def human_flops(number):
    """``57.6 GFLOP``: three digits."""
    return scaled(number, [f"{prefix}FLOP" for prefix in ("", "k", "M", "G", "T", "P", "E")])


def human_seconds(seconds):
    """``42 s``, ``3 min 20 s``, ``2 h 05 min``, ``1 d 03 h``."""
    if seconds < 10:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 86400} d {seconds % 86400 // 3600:02d} h"


def round_line(row, total_rounds, eta_s, width=None, metric="accuracy"):
    """One line of progress from a round's row; ``row["round"]`` counts from 1, ``eta_s`` None where nobody knows;
    ``metric`` is the headline. Where it has more than ``width`` columns, the least telling numbers are left out."""
    found = _progress(row, total_rounds, eta_s, metric)
    for name in (*LEFT_OUT, metric):
        # as long as the time left may become, so that all lines of a run have the same columns
        longest = found | {"left": LONGEST_LEFT}
        if width is None or len("  ".join(longest.values())) <= width:
            break
        found.pop(name, None)
    return "  ".join(found.values())


# In this order, and then those of the headline, where a line is too long.
LEFT_OUT = ("sparsity", "up", "loss", "own", "seconds")
LONGEST_LEFT = "59 min 59 s left"


def _progress(row, total_rounds, eta_s, metric):
    """What is told of a round, by name."""
    digits, found = len(str(total_rounds)), {}
    if "round" in row:
        found["round"] = f"round {row['round']:>{digits}}/{total_rounds}"
    for name, word, form in ((metric, metric, ".4f"), (f"own_{metric}", "own", ".4f"), ("loss", "loss", ".4f"),
                             ("sparsity", "sparsity", ".3f")):
        if name in row and np.isfinite(row[name]):
            found[word] = f"{word.replace('_', ' ')} {row[name]:{form}}"
    if "up_bytes" in row:
        found["up"] = f"up {human_bytes(row['up_bytes'])}"
    if "round_s" in row and np.isfinite(row["round_s"]):
        found["seconds"] = f"{row['round_s']:.2f} s"
    if eta_s is not None:
        found["left"] = f"{human_seconds(eta_s)} left"
    return found


def summary(run, width=None):
    """The run on one screen: a table with a label and a line of text in each row, at most ``width`` wide."""
    found = final_metrics(run)
    rows = [*_what(run), *_extended(run), *_how_good(run, found), *_how_dear(found), *_how_long(found),
            *_who_answered(run), *_who_is_bad(run)]
    rows += _judges(run, None if width is None else width - LABEL)
    return "\n".join(labelled([(label, text) for label, text in rows if text], width))


LABEL = 14                    # columns of the labels, those of "virtual time" and the gap


def _what(run):
    given = options(run)

    def listed(*names):
        named = {name: given.get(name) for name in names}
        several = {name: " + ".join(value) if isinstance(value, list) else value for name, value in named.items()}
        return ", ".join(f"{name} {value}" for name, value in several.items() if value not in (None, ""))

    task = ["task"] if given.get("task", "classification") != "classification" else []
    yield "run", str(run.attrs.get("command", ""))
    yield "data", listed("dataset", "partition", "noise", "features", "fault", "clients", "cohort")
    yield "method", listed("model", *task, "strategy", "pruner", "contribution", "weighting", "codec", "seed")
    unusual = {"sampler": "uniform", "devices": "none", "aggregation": "sync"}
    yield "clients", listed(*(name for name, usual in unusual.items() if given.get(name, usual) != usual))


def _extended(run):
    """How the number of rounds was changed by a resume, where it was."""
    for session in run.sessions:
        before, after = session.get("rounds_before"), session.get("rounds")
        if before != after:
            yield "extended", f"from {before} to {after} rounds, resumed after round {session['done']}"


def _how_good(run, found):
    planned = options(run).get("rounds")
    done = f"{found['rounds']} of {planned} rounds" if planned is not None else f"{found['rounds']} rounds"
    created = f"created {run.attrs['created']}" if "created" in run.attrs else ""
    yield "status", ", ".join(filter(None, [str(run.attrs.get("status", "")), done, created]))
    leading = headline(run)
    if f"final_{leading.name}" in found:
        yield leading.word, _headline_text(found, leading)
    yield "own tests", own_text(found, leading)
    others = [name for name in leading.metrics if name != leading.name and f"final_{name}" in found]
    for name in others:
        yield name.replace("_", " "), f"final {found[f'final_{name}']:.4f}"
    yield "loss", f"final {found['final_loss']:.4f}" if "final_loss" in found else ""
    validation = {k: found.get(f"final_val_{k}") for k in (leading.name, "loss")}
    yield "validation", ", ".join(f"{k.replace('_', ' ')} {v:.4f}" for k, v in validation.items() if v is not None)
    if "sparsity" in found:
        yield "sparsity", f"{found['sparsity']:.4f} of the prunable weights are zero{_kept(run)}"
    yield "prunable", _prunable(run.attrs)


def _prunable(attrs):
    """How much of the model masks can reach; empty where an old run file does not say."""
    if not {"weights", "prunable"} <= attrs.keys():
        return ""
    share = 100 * attrs["prunable"] / attrs["weights"]
    frozen = f"; {attrs['frozen']:,} more are frozen" if attrs.get("frozen") else ""
    return f"{share:.3g} % of {attrs['weights']:,} trained parameters{frozen}"


def _headline_text(found, leading):
    final, chosen = f"final {found[f'final_{leading.name}']:.4f}", f"chosen_{leading.name}"
    if chosen not in found:
        return f"{final} (without validation samples no round can be called the best)"
    return f"{final}; {found[chosen]:.4f} in round {found['chosen_round']}, the best by validation"


def _kept(run):
    kept = run.rounds.get("kept")
    if kept is None or not len(kept):
        return ""
    of = f" of {run.attrs['prunable']:,}" if "prunable" in run.attrs else ""
    moved = run.rounds.get("mask_changed")
    told = "" if moved is None else f", the mask moved in {np.count_nonzero(moved)} rounds"
    return f" ({int(np.sum(kept[-1])):,}{of} kept){told}"


def _how_dear(found):
    for name, label in (("up_bytes", "up"), ("down_bytes", "down")):
        if name in found:
            each = found.get(f"{name}_per_client")
            each = "" if each is None else f", {human_bytes(each)} a client and round"
            yield label, f"{human_bytes(found[name])} in total{each}"
    if "bytes_against_dense" in found:
        yield "traffic", f"{found['bytes_against_dense']:.4f} of what dense float32 weights would take, up and down"
    for name, counted in FLOPS.items():
        if name in found:
            dense = f", {found[f'{name}_against_dense']:.3f} of dense" if f"{name}_against_dense" in found else ""
            yield "FLOPs", f"{human_flops(found[name])} {counted}{dense}"


def _how_long(found):
    if "round_s" in found:
        spent = ", ".join(f"{k[:-2]} {found[k]:.3g}" for k in TIMES if k in found)
        yield "time", f"{found['round_s']:.3g} s a round" + (f": {spent}" if spent else "")


def _who_answered(run):
    """Nothing where all that were asked were merged."""
    rounds = run.rounds
    asked, merged = (int(rounds[name].sum()) if name in rounds else 0 for name in ("asked", "merged"))
    told = [f"{int(rounds[name].sum()):,} {text}"
            for name, text in OUTCOMES.items() if name in rounds and rounds[name].any()]
    if asked != merged:
        yield "answers", f"{merged:,} of {asked:,} were merged" + (f": {', '.join(told)}" if told else "")
    seconds = rounds.get("sim_total_s", np.empty(0))
    if len(seconds) and seconds[-1] > 0:
        yield "virtual time", f"{human_seconds(seconds[-1])}, {human_seconds(seconds[-1] / len(seconds))} a round"


# ---------------------------------------------------------------- who is bad, and who found it

HEADS = {"spearman": "Spearman", "auc": "AUC", "cosine_distance": "cosine", "euclidean_distance": "Euclid",
         "max_distance": "largest", "shapley_spearman": "ranks", "calls": "coalitions", "seconds": "seconds"}
FORMS = {"spearman": "+.3f", "auc": ".3f", "shapley_spearman": "+.3f", "calls": ",d", "seconds": ".3g"}


def _who_is_bad(run):
    truth = quality(run)
    if truth is None or not len(truth):
        return
    bad = is_bad(tied(truth), faulty(run))
    injected = ", ".join([*_faults(run), *_wrong(run.population.get("noise"))])
    if not np.ptp(tied(truth)):
        yield "quality", f"all {len(truth)} clients are equally good ({injected or 'no faults'}): nothing to find"
    else:
        yield "quality", f"{bad.sum()} bad of {len(truth)} clients: {injected}"


def _faults(run):
    """``2 label-flip`` of each fault, as the run's options name it."""
    for number, spec in enumerate(options(run).get("fault") or ()):
        who = run.population.get(f"fault_{number}")
        if who is not None and who.any():
            yield f"{np.count_nonzero(who)} {spec}"


def _wrong(noise):
    if noise is not None and noise.max() > 0:
        low, high = f"{100 * noise.min():.3g}", f"{100 * noise.max():.3g}"
        yield f"{low} % of labels wrong" if low == high else f"{low} to {high} % of labels wrong"


def _judges(run, width=None):
    """A table with a line for each estimator, and one for the weights that the scores earned."""
    found = judged(run)
    names = [name for name in HEADS if any(name in numbers for numbers in found.values())]
    if not names:
        return
    rows = [[label + " (weighs)" * (number == 0), *(_cell(name, numbers) for name in names)]
            for number, (label, numbers) in enumerate(found.items())]
    first = next(iter(found.values()))
    if "weight_spearman" in first:
        numbers = {"spearman": first["weight_spearman"], "auc": first["auc"]}
        rows.append(["weight in the merge", _cell("spearman", numbers), *["-"] * (len(names) - 1)])
    yield "scores", _what_is_judged(names, exact(run))
    yield from (("", line) for line in aligned(["", *(HEADS[name] for name in names)], rows, width=width))


def _what_is_judged(names, reference):
    against = ["Spearman with quality, AUC of good over bad"] * ("spearman" in names)
    against += [f"against {reference}: distances, Spearman (ranks)"] * ("cosine_distance" in names)
    return "; ".join(against) or "what they cost"


def _cell(name, numbers):
    """``-`` for what there is not, ``constant`` where scores do not vary, though quality does."""
    value = numbers.get(name, math.nan)
    if math.isfinite(value):
        return format(value, FORMS.get(name, ".4f"))
    return "constant" if name == "spearman" and math.isfinite(numbers.get("auc", math.nan)) else "-"
