"""Every picture of a run or of several: what it shows, how it is drawn, and what it says in a sentence.

A kind finds its numbers first (None where a run has not recorded them), then draws them and puts them into words from
the same numbers, so that a page, a paper and a screen reader tell the same.
"""

from typing import Callable, NamedTuple

import numpy as np

from fedmpi.read.headline import common_headline, headline
from fedmpi.read.report import draw
from fedmpi.read.report.figure import QUIET
from fedmpi.read.report.metrics import FLOPS, chosen
from fedmpi.read.report.own import last
from fedmpi.read.report.partition import clients_of
from fedmpi.read.report.pictures import curves, draw_shares, shares
from fedmpi.read.report.profile import OWN, profile
from fedmpi.read.report.series import Line, flops_column, mean_lines, prefix, spent
from fedmpi.read.report.statistics import spearman, tied
from fedmpi.read.report.text import OUTCOMES as LOST
from fedmpi.read.report.text import human_bytes, human_flops, human_seconds
from fedmpi.read.report.truth import faulty, is_bad, options, quality, scores

SINGLE = 40                       # clients that are drawn one by one
LAYERS = 8                        # that are drawn as lines; more as rows of a heat map
HEIGHT = 0.72                     # of most pictures, in widths
POINTS = 60                       # rounds at which judges are judged, bars of a long run


class Kind(NamedTuple):
    """``find(groups or run)`` -> what ``draw(place, found)`` draws on a figure or a part of it and ``say(found)`` puts
    into words, or None. ``each``: of one run, not of several in one picture. ``size(found)``: height over width,
    without the ``names(found)``, a number, that stand over it."""

    line: str
    find: Callable
    draw: Callable
    say: Callable
    each: bool = False
    size: Callable = lambda found: HEIGHT
    names: Callable = lambda found: 0


# ---------------------------------------------------------------- curves of groups of runs

AXES = {"rounds": ("round", "round"), "bytes": ("sent, up and down", "bytes sent, up and down"),
        "flops": ("training", "training FLOPs"), "virtual": ("virtual time", "virtual time"),
        "seconds": ("time of the rounds", "the rounds' own time")}              # on the axis, in a sentence
UNITS = {"bytes": "B", "flops": "FLOP", "virtual": "s", "seconds": "s"}
HEADLINE, OWN_TESTS = "headline", "own tests"      # stand for the columns that the runs' task names


def _column_of(column, leading):
    """``(column, what it is, word of its turning point, how that is found)`` for runs with this ``Headline``."""
    if column == "loss":
        return column, f"test {leading.loss_text()}", "lowest", np.nanargmin
    if column == "sparsity":
        return column, "sparsity (fraction of zeros)", "highest", np.nanargmax
    pick = np.nanargmax if leading.higher else np.nanargmin
    if column == OWN_TESTS:
        return leading.own[0], f"{leading.word} on clients' own tests", "highest" if leading.higher else "lowest", pick
    end = "maximum" if leading.higher else "minimum"
    return leading.name, f"test {leading.word}", f"the test set's own {end}", pick


class Curves(NamedTuple):
    """Lines of ``column`` and what they are drawn against."""

    lines: list
    column: str
    axis: str
    xlabel: str
    by: str                       # the axis in a sentence
    text: Callable                # of a place on the axis
    seeds: bool
    what: str = ""                # is drawn
    turn: str = ""                # a word for the point that is told of beside the last one
    pick: Callable = np.nanargmax # finds it
    chosen: float | None = None   # where on the axis the round is that validation chooses, of one run alone
    frame: draw.Frame = draw.Frame()


def curve_of(column, axis):
    """``find`` of the groups' curves of ``column`` against ``axis``; of one run alone also of its validation set, and
    of its worst clients."""
    def find(groups):
        leading = common_headline([run for group in groups for run in group.runs.values()])
        named = _column_of(column, leading)
        found = mean_lines(groups, named[0], axis)
        if found is None:
            return None
        best = None
        if column == OWN_TESTS and len(groups) == 1:
            labelled = [groups[0]._replace(label=label) for label in ("mean of clients", "worst tenth")]
            found = [line for group, each in zip(labelled, (leading.own[0], leading.own[2]))
                     for line in mean_lines([group], each, axis)]
        if column == HEADLINE and len(groups) == 1 and len(groups[0].runs) == 1:
            found, best = _with_validation(groups[0], axis)
        return _scaled(found, best, named, axis, groups)

    return find


def _with_validation(group, axis):
    """The lines of a run's test and validation sets, and where on the axis its best round is, None without one."""
    run = next(iter(group.runs.values()))
    cost, at = spent(run, axis), chosen(run)
    lines = [Line(label, cost[rounds - 1], values) for label, rounds, values in curves(run)]
    return lines, None if at is None else float(cost[at])


def _scaled(found, best, named, axis, groups):
    """The Curves of the column ``named``, with x in a unit that leaves one to three digits."""
    factor, letter = prefix(max(line.x.max() for line in found)) if axis in ("bytes", "flops") else (1.0, "")
    label, by = AXES[axis]
    xlabel = f"{label} ({letter}{UNITS[axis]})" if axis in UNITS else label
    if axis == "flops":
        by = f"training FLOPs ({FLOPS[flops_column(next(iter(groups[0].runs.values())))]})"
    text = {"rounds": lambda x: f"round {x:.0f}", "bytes": lambda x: human_bytes(x * factor),
            "flops": lambda x: human_flops(x * factor)}.get(axis, human_seconds)
    return Curves([line._replace(x=line.x / factor) for line in found], named[0], axis, xlabel, by, text,
                  any(len(group.runs) > 1 for group in groups), *named[1:], None if best is None else best / factor)


def _draw_curves(place, found):
    ax = place.subplots()
    low, high = (pick([pick(line.y) for line in found.lines]) for pick in (np.min, np.max))
    if found.column == "sparsity" and high - low < 0.02:           # what hardly changes shall look so
        ax.set_ylim(max(low - 0.1, -0.02), min(high + 0.1, 1.02))
        ax.set_autoscaley_on(False)
    ylabel = found.what.removeprefix("test " * (found.lines[0].label == "test"))
    draw.lines(ax, found.lines, found.xlabel, ylabel, whole=found.axis == "rounds", steps=found.axis == "virtual",
               frame=found.frame)


def _say_curves(found):
    what, told = found.what.partition(" (")[0], []
    for line in found.lines:
        word, best = _turn(found, line)
        last = f"{line.y[-1]:.3g} at {found.text(line.x[-1])}"
        name = f"{line.label}: " if len(found.lines) > 1 else ""
        told.append(name + (f"{word} {last}, the last" if best == len(line.y) - 1 else
                            f"{word} {line.y[best]:.3g} at {found.text(line.x[best])}, then {last}"))
    return (f"{_upper(what)} by {found.by}. {_all(told)}."
            + " Of several seeds the line is the mean, the band from the lowest to the highest." * found.seeds)


def _turn(found, line):
    """``(word, index)`` of the point that is told of a line beside its last one. Only validation tells the best."""
    if found.chosen is not None:
        return "best by validation", int(np.argmin(np.abs(line.x - found.chosen)))
    return found.turn, int(found.pick(line.y))


def _upper(text):
    return text[:1].upper() + text[1:]


def _all(told):
    """A sentence of what is told of each line; where there are several it begins with a name, which stays as it is."""
    return _upper(told[0]) if len(told) == 1 else "; ".join(told)


def _say_sparsity(found):
    told = [(f"{line.label}: " if len(found.lines) > 1 else "") + (
        f"{line.y[-1]:.3f} throughout" if np.ptp(line.y) < 5e-4 else f"from {line.y[0]:.3f} to {line.y[-1]:.3f}")
        for line in found.lines]
    return f"Sparsity, the fraction of zeros among prunable weights, by round. {_all(told)}."


def _churn(groups):
    found = []
    for group in groups:
        runs = [run for run in group.runs.values() if len(run.ends)]
        if any("mask_changed" not in run.rounds or "prunable" not in run.attrs for run in runs):
            return None
        if not runs:
            continue
        T = min(len(run.ends) for run in runs)
        share = np.mean([100 * run.rounds["mask_changed"][:T] / run.attrs["prunable"] for run in runs], axis=0)
        found.append(Line(group.label, np.arange(T) + 1.0, share))
    return found if any(line.y.any() for line in found) else None


def _own_clients(run):
    """The last evaluation of clients on their own test parts, from the worst client to the best."""
    found = last(run)
    if found is None or len(found.clients) < 2:
        return None
    worth = found.values if headline(run).higher else -found.values
    order = np.argsort(worth, kind="stable")
    return found._replace(**{name: getattr(found, name)[order] for name in ("clients", "samples", "values")})


def _draw_own_clients(place, found):
    ax = place.subplots()
    if found.metric == "accuracy":
        ax.set_ylim(-0.02, 1.02)
        ax.set_autoscaley_on(False)
    share = 100 * (np.arange(len(found.clients)) + 1) / len(found.clients)
    draw.lines(ax, [Line("clients", share, found.values)], "clients, from the worst (%)",
               f"{found.metric} on its own test")


def _say_own_clients(found):
    low, middle, high = np.percentile(found.values, [0, 50, 100])
    return (f"{_upper(found.metric)} of {len(found.clients)} clients on their own test parts after round "
            f"{found.round}, from the worst to the best: lowest {low:.3g}, median {middle:.3g}, highest {high:.3g}; "
            f"the worst is client {found.clients[0]}.")


def _draw_churn(place, found):
    draw.stems(place.subplots(), found, "round", "mask entries flipped (%)")


def _say_churn(found):
    told = []
    for line in found:
        moved = np.flatnonzero(line.y)
        name = f"{line.label}: " if len(found) > 1 else ""
        told.append(f"{name}in {len(moved)} of {len(line.y)} rounds" + (
            f", {line.y.sum():.3g} % of the prunable weights in all, most in round {line.x[line.y.argmax()]:.0f} "
            f"({line.y.max():.3g} %)" if len(moved) else ""))
    return f"Share of the mask's entries that a round's pruning and growing flipped. {_all(told)}."


# ---------------------------------------------------------------- one run: layers


class Layers(NamedTuple):
    lines: list
    total: np.ndarray             # (T,) of all layers together


def _layers(run):
    """Sparsity of each layer by round; None for a run without layers, or of one only."""
    kept, layers = run.rounds.get("kept_layers"), run.attrs.get("layers")
    if kept is None or not layers or len(layers) < 2 or len(layers) != kept.shape[-1] or not len(kept):
        return None
    sizes = np.array([np.prod(shape) for _, shape, *_ in layers], float)
    sparsity, x = 1 - kept / sizes, np.arange(len(kept)) + 1.0
    lines = [Line(str(name), x, sparsity[:, number]) for number, (name, *_) in enumerate(layers)]
    return Layers(lines, 1 - kept.sum(axis=1) / sizes.sum())


def _draw_layers(place, found):
    ax = place.subplots()
    if len(found.lines) <= LAYERS:
        ax.set_ylim(-0.02, 1.02)
        ax.set_autoscaley_on(False)
        draw.lines(ax, found.lines, "round", "sparsity (fraction of zeros)", whole=True)
        return
    image = draw.heat(ax, np.stack([line.y for line in found.lines]), 1.0)
    T = len(found.lines[0].y)
    image.set_extent((0.5, T + 0.5, len(found.lines) - 0.5, -0.5))
    ax.set_yticks(range(len(found.lines)), [line.label for line in found.lines], fontsize="small")
    ax.set(xlabel="round")
    place.colorbar(image, ax=ax, location="top", label="sparsity (fraction of zeros)", aspect=30, pad=0.02)


def _say_layers(found):
    last = sorted(found.lines, key=lambda line: line.y[-1])
    return (f"Sparsity of each layer by round. After the last one {last[0].label} is the densest "
            f"({last[0].y[-1]:.3f}) and {last[-1].label} the sparsest ({last[-1].y[-1]:.3f}); all together "
            f"{found.total[-1]:.3f}.")


# ---------------------------------------------------------------- one run: contributions and the truth


class Shares(NamedTuple):
    single: list                  # [(is it bad, x, y)] of each client
    means: list                   # [Line] of good and bad clients
    label: str                    # the estimator
    window: int                   # rounds that are averaged


def _contribution(run):
    """What clients' contributions were round by round, the good and the bad apart."""
    values, client = run.clients.get("contribution"), run.clients.get("client")
    if values is None or client is None or not np.isfinite(values).any():
        return None
    T, truth = len(run.ends), quality(run)
    t = np.repeat(np.arange(T), np.diff(run.ends, prepend=0))
    window = max(1, round(T / 12))
    known = np.isfinite(values)
    t, client, values = t[known], client[known], values[known].astype(float)
    split = truth is not None and np.ptp(tied(truth)) > 0
    bad = is_bad(tied(truth), faulty(run)) if split else np.zeros(client.max() + 1, bool)
    means = [_mean_by_round(name, t[rows], values[rows], T, window)
             for name, rows in ((("good" if split else "clients"), ~bad[client]), ("bad", bad[client])) if rows.any()]
    single = [(bool(bad[each]), *_smooth(t[client == each] + 1.0, values[client == each], window))
              for each in np.unique(client)] if len(np.unique(client)) <= SINGLE else []
    return Shares(single, means, next(iter(run.attrs.get("estimators") or ["contribution"])), window)


def _mean_by_round(name, t, values, T, window):
    """Line of the mean in each round, with the quartiles of the round's clients."""
    rounds = np.unique(t)
    parts = [values[t == each] for each in rounds]
    x = rounds + 1.0
    low, mean, high = (_smooth(x, np.array([pick(part) for part in parts]), window)[1] for pick in (
        lambda part: np.percentile(part, 25), np.mean, lambda part: np.percentile(part, 75)))
    return Line(name, x, mean, low, high)


def _smooth(x, y, window):
    """``x`` and the mean of the last ``window`` values of ``y`` at each, fewer at the start."""
    sums = np.concatenate([[0.0], np.cumsum(y)])
    start = np.maximum(np.arange(len(y)) - window + 1, 0)
    return x, (sums[1:] - sums[start]) / (np.arange(len(y)) + 1 - start)


def _draw_contribution(place, found):
    ax = place.subplots()
    for bad, x, y in found.single:
        ax.plot(x, y, linewidth=0.7, alpha=0.35, color=draw.style(int(bad))["color"])
    means = [line._replace(low=None, high=None) for line in found.means] if found.single else found.means
    ylabel = f"contribution, {found.label}"
    draw.lines(ax, means, "round", ylabel if len(ylabel) < 30 else found.label, whole=True)


def _say_contribution(found):
    told = " and ".join(f"{line.label} clients end at {line.y[-1]:.3g}" if line.label != "clients" else
                        f"they end at {line.y[-1]:.3g}" for line in found.means)
    how = "thin: each client" if found.single else "band: the middle half of the clients"
    many = f", mean of {found.window} rounds" if found.window > 1 else ""
    return f"Contribution by {found.label}, round by round{many}; thick: the mean, {how}. On average {told}."


def _found(run):
    """Spearman's correlation of quality with what each estimator knew after each round."""
    truth = quality(run)
    if truth is None or not len(truth) or np.ptp(tied(truth)) == 0 or not len(run.ends):
        return None
    T = len(run.ends)
    at = np.unique(np.linspace(1, T, min(T, POINTS)).round().astype(int))
    rho = {}
    for rounds in at:
        for label, score in scores(_until(run, rounds)).items():
            known = np.isfinite(score)
            values = rho.setdefault(label, {})
            values[rounds] = spearman(tied(score[known]), tied(truth[known])) if known.sum() > 1 else np.nan
    found = []
    for label, values in rho.items():
        x, y = np.array(list(values), float), np.array(list(values.values()))
        if np.isfinite(y).any():
            found.append(Line(label, x[np.isfinite(y)], y[np.isfinite(y)]))
    return found or None


def _until(run, rounds):
    """The run as it was after ``rounds`` rounds."""
    rows = run.ends[rounds - 1]
    return run._replace(ends=run.ends[:rounds], rounds={k: v[:rounds] for k, v in run.rounds.items()},
                        clients={k: v[:rows] for k, v in run.clients.items()})


def _draw_found(place, found):
    ax = place.subplots()
    ax.set_ylim(-1.05, 1.05)
    ax.set_autoscaley_on(False)
    ax.axhline(0, color=QUIET, linewidth=0.8)
    draw.lines(ax, found, "round", "Spearman, score and quality", whole=True)


def _say_found(found):
    told = "; ".join(f"{line.label}: {line.y[-1]:+.2f} after round {line.x[-1]:.0f}" for line in found)
    return f"Rank correlation of the clients' scores so far with their true quality; 1: found, 0: chance. {told}."


def _truth(run):
    points = shares(run)
    return None if points is None else (run, points)


def _draw_truth(place, found):
    run, points = found
    draw_shares(place.subplots(), run, points)


def _say_truth(found):
    _, (title, label, x, y) = found
    rho = spearman(tied(y), tied(x)) if len(x) > 1 else np.nan
    told = "" if np.isnan(rho) else f" Spearman {rho:+.2f}."
    return f"Each client's {title}, against {label}: {len(x)} clients.{told}"


# ---------------------------------------------------------------- one run: who holds what, time, answers


def _holdings(run):
    if not {"labels", "samples", "noise"} <= set(run.population):
        return None
    names = run.attrs.get("inputs", {}).get("names", [])
    return clients_of(run.population, options(run).get("fault") or ()) | {"class_names": names}


def _draw_holdings(place, found):
    from fedmpi.read.report.partition_figure import draw_partition
    draw_partition(place, found)


def _say_holdings(found):
    clients = found["clients"]
    N, K = clients["labels"].shape
    wrong, bad = clients["noise"], int(clients["faulty"].any(axis=1).sum()) if clients["faulty"].size else 0
    names = found["class_names"]
    classes = f"{K} classes" + f" ({', '.join(names)})" * (0 < len(names) <= 10)
    told = f"{clients['samples'].min():,} to {clients['samples'].max():,} samples of {classes} each"
    noise = f", {100 * wrong.min():.0f} to {100 * wrong.max():.0f} % of labels wrong" if wrong.max() > 0 else ""
    held = clients["classes_held"]
    return (f"What each of {N} clients holds: left, the share of each class, as the client sees it, the fuller the "
            f"more; right, its samples. {told}{noise}; between {held.min()} and {held.max()} classes a client"
            + (f"; {bad} clients with faults." if bad else "."))


def _time(run):
    found = profile(run)
    return found if found["phases"] and found["wall_s"] else None


def _draw_time(place, found):
    rows = [(("· " if each["kind"] != OWN else "") + name, each["seconds"],
             f"{100 * each['share']:.0f} %, {human_seconds(each['seconds'])}", each["kind"] != OWN)
            for name, each in found["phases"].items()]
    draw.bars(place.subplots(), rows, "seconds of all rounds")


def _say_time(found):
    own = sorted(((each["share"], name) for name, each in found["phases"].items() if each["kind"] == OWN), reverse=True)
    told = ", ".join(f"{name} {100 * share:.0f} %" for share, name in own[:3])
    return (f"Where {human_seconds(found['wall_s'])} of {found['rounds']} rounds went: {told}. Lighter bars are parts "
            "of train, or go on beside it" + ", or come after a round." * ("own tests" in found["phases"])
            + "." * ("own tests" not in found["phases"]))


OUTCOMES = {"merged": "merged"} | LOST


def _answers(run):
    """[(name, (bins,) clients a round, look)] and the rounds of the bins; None where all were merged."""
    rounds = run.rounds
    if not {"asked", "merged"} <= set(rounds) or (rounds["asked"] == rounds["merged"]).all():
        return None
    T = len(run.ends)
    step = -(-T // POINTS)
    starts = np.arange(0, T, step)
    sizes = np.diff(np.append(starts, T))
    found = [(text, np.add.reduceat(rounds[name], starts) / sizes, number)
             for number, (name, text) in enumerate(OUTCOMES.items()) if name in rounds and rounds[name].any()]
    sums = {name: int(rounds[name].sum()) for name in ("asked", *OUTCOMES) if name in rounds}
    return found, starts + (sizes + 1) / 2, sums


def _draw_answers(place, found):
    parts, x, _ = found
    draw.stacked(place.subplots(), x, parts, "round", "clients a round")


def _say_answers(found):
    _, _, sums = found
    others = ", ".join(f"{sums[name]:,} {text}" for name, text in OUTCOMES.items()
                       if name != "merged" and sums.get(name))
    return (f"What became of the clients that were asked, by round: {sums['merged']:,} of {sums['asked']:,} were merged"
            + (f", {others}." if others else ". The others were still at work when the run ended."))


def _curve(line, column, axis, say=_say_curves):
    def names(found):
        return draw.names_above(found.lines) if found.frame.named else 0

    return Kind(line, curve_of(column, axis), _draw_curves, say, names=names)


KINDS = {
    "accuracy": _curve("test accuracy, or the headline of another task, against rounds; of one run also of the "
                       "validation set", HEADLINE, "rounds"),
    "accuracy-bytes": _curve("test accuracy against bytes sent, up and down", HEADLINE, "bytes"),
    "accuracy-flops": _curve("test accuracy against training FLOPs", HEADLINE, "flops"),
    "accuracy-virtual": _curve("test accuracy against virtual time, where --devices simulates it", HEADLINE,
                               "virtual"),
    "accuracy-seconds": _curve("test accuracy against the rounds' own seconds", HEADLINE, "seconds"),
    "own": _curve("accuracy on clients' own test parts against rounds; of one set-up also of the worst tenth",
                  OWN_TESTS, "rounds"),
    "own-clients": Kind("accuracy of each client on its own test part, from the worst to the best", _own_clients,
                        _draw_own_clients, _say_own_clients, each=True),
    "loss": _curve("test loss against rounds", "loss", "rounds"),
    "sparsity": _curve("sparsity by round", "sparsity", "rounds", _say_sparsity),
    "churn": Kind("share of the mask that each round flipped", _churn, _draw_churn, _say_churn,
                  names=draw.names_above),
    "layers": Kind("sparsity of each layer by round", _layers, _draw_layers, _say_layers, each=True),
    "contribution": Kind("contributions by round, of good and bad clients", _contribution, _draw_contribution,
                         _say_contribution, each=True),
    "found": Kind("how well each estimator's scores rank the clients' true quality, by round", _found, _draw_found,
                  _say_found, each=True),
    "truth": Kind("contribution in the last quarter of the rounds against what is true of the client", _truth,
                  _draw_truth, _say_truth, each=True),
    "clients": Kind("who holds which classes, how many samples, and what is wrong with whom", _holdings, _draw_holdings,
                    _say_holdings, each=True,
                    size=lambda found: min(max(0.55, 0.35 + 0.032 * len(found["clients"]["samples"])), 1.5)),
    "time": Kind("where the time of the rounds went, by phase", _time, _draw_time, _say_time, each=True,
                 size=lambda found: 0.2 + 0.065 * len(found["phases"])),
    "answers": Kind("clients asked, merged, late, lost, by round", _answers, _draw_answers, _say_answers, each=True),
}
