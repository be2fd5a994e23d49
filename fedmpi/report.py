"""A Run turned into what people look at: a summary, terminal pictures, figures for print, and JSON for scripts.

Columns that a run does not have are left out, never guessed. Rounds are counted from 1 here: "round 12" is the twelfth.
"""

import math
import os

import numpy as np

from fedmpi.errors import UserError

TIMES = ("publish_s", "train_s", "contribution_s", "merge_s", "evaluate_s")
FLOPS = {"flops_prunefl": "as PruneFL counts", "flops_rigl": "as RigL counts"}
LAST = 0.25  # share of the rounds, at the end, that the picture of the contribution averages over
WRONG = "true rate of wrong labels"
BLUE, ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito's, told apart by the colour-blind and in grey


# ---------------------------------------------------------------- statistics


def ranks(x):
    """Ranks (n,) float64 from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse.reshape(-1)]


def spearman(x, y):
    """Spearman's rank correlation, ties by mean ranks; NaN if one side does not vary or a pair is missing."""
    a, b = (ranks(v) - (len(v) + 1) / 2 for v in (np.asarray(x), np.asarray(y)))
    norm = math.sqrt(a @ a) * math.sqrt(b @ b)
    return float(a @ b) / norm if norm else math.nan


def auc(scores, positive):
    """Chance that a positive has a higher score than a negative, a tie counting one half; NaN without both kinds."""
    positive = np.asarray(positive, bool)
    num, other = int(positive.sum()), int((~positive).sum())
    if not num or not other:
        return math.nan
    return float(ranks(np.asarray(scores))[positive].sum() - num * (num + 1) / 2) / (num * other)


def by_client(run, name, last=1.0):
    """(N,) mean of the clients' column ``name`` over the last share of rounds, NaN for a client that took no part;
    None if the run has no such column."""
    if name not in run.clients or "client" not in run.clients:
        return None
    rounds = len(run.ends)
    first = run.ends[rounds - math.ceil(rounds * last) - 1] if math.ceil(rounds * last) < rounds else 0
    client, values = run.clients["client"][first:], run.clients[name][first:].astype(float)
    client, values = client[np.isfinite(values)], values[np.isfinite(values)]
    size = max([len(run.population.get("noise", ())), len(run.population.get("samples", ())), *(client + 1)])
    sums, counts = np.bincount(client, values, size), np.bincount(client, minlength=size)
    return np.divide(sums, counts, out=np.full(size, np.nan), where=counts > 0)


def is_noisy(noise):
    """(N,) bool: which clients count as noisy, those above the middle of the range of true rates."""
    return noise > (noise.min() + noise.max()) / 2


def noise_found(run):
    """How well contributions tell the noise: dict of spearman and auc of the mean score over all rounds,
    weight_spearman of the mean weight, noisy, clients; or None where noise does not vary."""
    noise, score, weight = run.population.get("noise"), by_client(run, "contribution"), by_client(run, "weight")
    if noise is None or score is None or not len(noise) or noise.min() == noise.max():
        return None
    known = np.isfinite(score)
    if known.sum() < 2:
        return None
    noisy = is_noisy(noise)[known]
    found = dict(spearman=spearman(score[known], noise[known]), auc=auc(-score[known], noisy),
                 noisy=int(noisy.sum()), clients=int(known.sum()))
    return found if weight is None else found | dict(weight_spearman=spearman(weight[known], noise[known]))


# ---------------------------------------------------------------- numbers of a run


def final_metrics(run):
    """Flat dict of the numbers a run is judged by; what was not recorded is missing."""
    found = dict(rounds=len(run.ends))
    found |= _quality(run.rounds) | _traffic(run) | _cost(run)
    noise = noise_found(run)
    return found | ({f"noise_{k}": v for k, v in noise.items()} if noise else {})


def _quality(rounds):
    last = {f"final_{k}": _last(rounds, k) for k in ("accuracy", "loss", "val_accuracy", "val_loss")}
    found = {k: v for k, v in last.items() if v is not None}
    accuracy = rounds.get("accuracy", np.empty(0))
    if np.isfinite(accuracy).any():
        found |= dict(best_accuracy=float(np.nanmax(accuracy)), best_round=int(np.nanargmax(accuracy)) + 1)
    sparsity = _last(rounds, "sparsity")
    return found if sparsity is None else found | dict(sparsity=sparsity)


def _last(rounds, name):
    """The last finite value, or None: not every round is evaluated."""
    values = rounds.get(name, np.empty(0))
    values = values[np.isfinite(values)]
    return float(values[-1]) if len(values) else None


def _traffic(run):
    """Bytes sent. ``dense_bytes`` is what a round would have sent up and down together with all weights as float32."""
    sums = {k: float(run.rounds[k].sum()) for k in ("up_bytes", "down_bytes") if k in run.rounds}
    found = dict(sums)
    participations = int(run.ends[-1]) if len(run.ends) else 0
    if participations:
        found |= {f"{k}_per_client": v / participations for k, v in sums.items()}
    dense = float(run.rounds["dense_bytes"].sum()) if "dense_bytes" in run.rounds else 0
    return found | (dict(bytes_against_dense=sum(sums.values()) / dense) if dense and len(sums) == 2 else {})


def _cost(run):
    """Training FLOPs, against the same rounds without pruning where ``flops_dense`` is recorded; seconds a round."""
    found = {k: float(run.rounds[k].sum()) for k in FLOPS if k in run.rounds}
    dense = float(run.rounds["flops_dense"].sum()) if "flops_dense" in run.rounds else 0
    found |= {f"{k}_against_dense": v / dense for k, v in found.items()} if dense else {}
    seconds = {k: run.rounds[k] for k in ("round_s", *TIMES) if k in run.rounds}
    return found | {k: float(np.nanmean(v)) for k, v in seconds.items() if np.isfinite(v).any()}


def to_json(run):
    """The run as a dict that ``json.dumps`` takes: options, final metrics, columns as lists, NaN as None."""
    plain = {k: v for k, v in run.attrs.items() if k != "options"}
    return _plain(
        dict(
            options=run.attrs.get("options", {}),
            attrs=plain,
            final=final_metrics(run),
            rounds=run.rounds,
            population=run.population,
            sessions=run.sessions,
        )
    )


def _plain(value):
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---------------------------------------------------------------- text


def human_bytes(number):
    """``4.4 MB``: three digits, decimal units."""
    return _scaled(number, ("B", "kB", "MB", "GB", "TB", "PB"))


def _scaled(number, units):
    power = 0
    while abs(number) >= 999.5 and power < len(units) - 1:
        number, power = number / 1000, power + 1
    digits = 0 if power == 0 and number == int(number) else max(0, 2 - int(math.log10(max(abs(number), 1))))
    return f"{number:.{digits}f} {units[power]}"


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


def round_line(row, total_rounds, eta_s):
    """One line of progress from a round's row; ``row["round"]`` counts from 1, ``eta_s`` None where nobody knows."""
    width = len(str(total_rounds))
    parts = [f"round {row['round']:>{width}}/{total_rounds}"] if "round" in row else []
    for name, form in (("accuracy", ".4f"), ("loss", ".4f"), ("sparsity", ".3f")):
        if name in row and np.isfinite(row[name]):
            parts.append(f"{name} {row[name]:{form}}")
    if "up_bytes" in row:
        parts.append(f"up {row['up_bytes'] / 1e6:.2f} MB")
    if "round_s" in row and np.isfinite(row["round_s"]):
        parts.append(f"{row['round_s']:.2f} s/round")
    return "  ".join(parts + ([f"{human_seconds(eta_s)} left"] if eta_s is not None else []))


def summary(run):
    """The run on one screen: a table with a label and a line of text in each row."""
    found = final_metrics(run)
    rows = [*_what(run.attrs), *_how_good(run, found), *_how_dear(found), *_how_long(found), *_who(found)]
    rows = [(label, text) for label, text in rows if text]
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in rows)


def _what(attrs):
    options = attrs.get("options") if isinstance(attrs.get("options"), dict) else {}

    def listed(*names):
        return ", ".join(f"{n} {options[n]}" for n in names if options.get(n) is not None)

    yield "run", str(attrs.get("command", ""))
    yield "data", listed("dataset", "partition", "noise", "clients", "cohort")
    yield "method", listed("model", "strategy", "pruner", "contribution", "codec", "seed")


def _how_good(run, found):
    planned = (run.attrs.get("options") or {}).get("rounds") if isinstance(run.attrs.get("options"), dict) else None
    done = f"{found['rounds']} of {planned} rounds" if planned is not None else f"{found['rounds']} rounds"
    created = f"created {run.attrs['created']}" if "created" in run.attrs else ""
    yield "status", ", ".join(filter(None, [str(run.attrs.get("status", "")), done, created]))
    if "best_accuracy" in found:
        best = f"best {found['best_accuracy']:.4f} in round {found['best_round']}"
        yield "accuracy", f"{best}, final {found['final_accuracy']:.4f}"
    yield "loss", f"final {found['final_loss']:.4f}" if "final_loss" in found else ""
    validation = {k: found.get(f"final_val_{k}") for k in ("accuracy", "loss")}
    yield "validation", ", ".join(f"{k} {v:.4f}" for k, v in validation.items() if v is not None)
    if "sparsity" in found:
        yield "sparsity", f"{found['sparsity']:.4f} of the prunable weights are zero{_kept(run)}"


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
            units = [f"{prefix}FLOP" for prefix in ("", "k", "M", "G", "T", "P", "E")]
            yield "FLOPs", f"{_scaled(found[name], units)} {counted}{dense}"


def _how_long(found):
    if "round_s" in found:
        spent = ", ".join(f"{k[:-2]} {found[k]:.3g}" for k in TIMES if k in found)
        yield "time", f"{found['round_s']:.3g} s a round" + (f": {spent}" if spent else "")


def _who(found):
    if "noise_spearman" in found:
        told = f"{found['noise_noisy']} noisy of {found['noise_clients']} clients"
        if math.isnan(found["noise_spearman"]):
            yield "noise", f"the contribution does not vary ({told})"
        else:
            yield "noise", (
                f"Spearman with it: contribution {found['noise_spearman']:+.3f}, weight "
                f"{found.get('noise_weight_spearman', math.nan):+.3f}; AUC noisy from clean {found['noise_auc']:.3f} ({told})"
            )


# ---------------------------------------------------------------- pictures


def curves(run):
    """[(label, rounds from 1, values)] of the learning curve, without the rounds that were not evaluated."""
    found = []
    for name, label in (("accuracy", "test"), ("val_accuracy", "validation")):
        values = run.rounds.get(name, np.empty(0))
        known = np.flatnonzero(np.isfinite(values))
        if len(known):
            found.append((label, known + 1, values[known]))
    return found


def shares(run):
    """(title, x label, x, y) of contribution against noise, or against samples where noise does not vary; or None."""
    weight = by_client(run, "contribution", LAST)
    if weight is None or not np.isfinite(weight).any():
        return None
    noise, samples = run.population.get("noise"), run.population.get("samples")
    if noise is not None and len(noise) == len(weight) and noise.min() < noise.max():
        label, x = WRONG, noise
    elif samples is not None and len(samples) == len(weight):
        label, x = "samples", samples
    else:
        label, x = "client", np.arange(len(weight))
    known = np.isfinite(weight)
    return "mean contribution, last quarter of rounds", label, np.asarray(x, float)[known], weight[known]


def picture(run, width=100, height=22, colour=False):
    """The learning curve and the contribution of each client as text, at most ``width`` wide and ``height`` high.

    Side by side where 80 columns allow it. Without ``colour`` there are no escape codes in it."""
    panels = [p for p in (_curve_panel(run), _share_panel(run)) if p]
    if not panels:
        return "no round has been evaluated yet"
    import plotext

    figure = plotext.figure  # the library has this one only
    figure.clear()
    plotext.terminal.limit(False, False)
    side = width >= 80
    figure.plot_size(width, height)
    if len(panels) > 1:
        figure.subplots(1, 2) if side else figure.subplots(2, 1)
    for i, draw in enumerate(panels):
        place = figure if len(panels) == 1 else figure.subplot(*((1, i + 1) if side else (i + 1, 1)))
        draw(place.theme("simple" if colour else "colorless"), width // len(panels) if side else width)
    text = figure.build().string(colorless=not colour)
    figure.clear()
    return "\n".join(line.rstrip() for line in text.rstrip("\n").split("\n"))


def _curve_panel(run):
    lines = curves(run)
    if not lines:
        return None

    def draw(place, width):
        keys = []
        for (label, x, y), (marker, sign) in zip(lines, (("braille", "line"), ("x", "x"))):
            every = 1 if sign == "line" else math.ceil(len(x) / max(1, width // 4))  # marks that let the line through
            place.draw(_signal(place, x[::every], y[::every], marker, joined=sign == "line"))
            keys.append(f"{sign}: {label}")
        place.title(f"accuracy ({', '.join(keys)})")
        _rule(place, "x", [x for _, x, _ in lines], width // 12, whole=True)
        _rule(place, "y", [y for _, _, y in lines], 5)
        place.label("round", axis="x")

    return draw


def _share_panel(run):
    found = shares(run)
    if found is None:
        return None
    title, label, x, y = found

    def draw(place, width):
        place.draw(_signal(place, x, y, "o"))
        place.title(title)
        span = run.population["noise"] if label == WRONG else x
        _rule(place, "x", [span], width // 12, whole=label != WRONG)
        _rule(place, "y", [y], 5)
        place.label(label, axis="x")

    return draw


def _signal(place, x, y, marker, joined=False):
    return place.signal(np.asarray(x).tolist(), np.asarray(y).tolist(), marker=marker).lines(joined)


def _rule(place, axis, series, most, whole=False):
    low, high = min(np.min(s) for s in series), max(np.max(s) for s in series)
    ticks, labels = nice_ticks(float(low), float(high), max(2, most), whole)
    place.ruler(axis).lim(min(float(low), ticks[0]), max(float(high), ticks[-1])).ticks(ticks, labels)


def nice_ticks(low, high, most, whole=False):
    """At most ``most`` + 1 round positions from ``low`` or below to ``high`` or below, with their labels."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step + 1e-9), math.floor(high / step + 1e-9)
    digits = 0 if whole else max(0, -math.floor(math.log10(step)))
    ticks = [i * step for i in range(first, max(last, first + 1) + 1)]
    return ticks, [f"{t:.{digits}f}" for t in ticks]


def save_picture(run, path):
    """Writes the same two panels for print; the kind follows the extension: png, svg or pdf."""
    kind = os.path.splitext(path)[1].lower().lstrip(".")
    if kind not in ("png", "svg", "pdf"):
        raise UserError(f"{path}: a picture must be .png, .svg or .pdf")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UserError(f"{path}: there is no folder {folder}")
    lines, points = curves(run), shares(run)
    if not lines and points is None:
        raise UserError(f"{path}: no round has been evaluated yet, there is nothing to draw")
    import matplotlib
    from matplotlib.figure import Figure  # with its own canvas: no window, no global state

    dateless = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)  # the same run, the same bytes
    with matplotlib.rc_context({"font.size": 8, "svg.hashsalt": "fedmpi", "pdf.fonttype": 42}):
        num = bool(lines) + (points is not None)
        figure = Figure(figsize=(3.4 * num, 2.6), layout="constrained")
        axes = list(np.ravel(figure.subplots(1, num)))
        if lines:
            _draw_curves(axes.pop(0), lines)
        if points is not None:
            _draw_shares(axes.pop(0), run, points)
        figure.savefig(path, dpi=300, metadata=dateless)


def _draw_curves(ax, lines):
    styles = ((BLUE, "-", "o"), (ORANGE, "--", "^"))
    for (label, x, y), (colour, line, marker) in zip(lines, styles):
        every = max(1, len(x) // 10)
        ax.plot(x, y, line, color=colour, marker=marker, markevery=every, markersize=3, linewidth=1.2, label=label)
    ax.set(xlabel="round", ylabel="accuracy (fraction right)", title="Learning curve")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(frameon=False)
    _plain_axes(ax)


def _draw_shares(ax, run, points):
    title, label, x, y = points
    noise = run.population.get("noise")
    noisy = np.zeros(len(x), bool)
    if noise is not None and label == WRONG:
        noisy = x > (noise.min() + noise.max()) / 2
    for chosen, colour, marker, name in ((~noisy, BLUE, "o", "clean"), (noisy, ORANGE, "^", "noisy")):
        ax.scatter(x[chosen], y[chosen], s=16, c=colour, marker=marker, alpha=0.75, linewidths=0, label=name)
    unit = {WRONG: " (fraction)", "samples": " (count)"}.get(label, "")
    name = title.split(",")[0]
    ax.set(xlabel=label + unit, ylabel=name + _unit(run, name.split()[-1]))
    ax.set_title("Contribution, last quarter of rounds")
    rho = spearman(y, x)
    if noisy.any():
        ax.legend(frameon=False, title=None if math.isnan(rho) else f"Spearman {rho:+.2f}")
    _plain_axes(ax)


def _unit(run, name):
    column = run.columns.get(f"clients/{name}")
    return "" if column is None or column.unit in ("", "1") else f" ({column.unit})"


def _plain_axes(ax):
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.3, linewidth=0.5)
