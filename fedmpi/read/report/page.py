"""``fedmpi report``: one HTML page about one run or several, with everything in it: no script, no font, no request."""

import itertools
import math
import os

import numpy as np

from fedmpi import __version__
from fedmpi.read.headline import common_headline, headline
from fedmpi.read.report.chance import stuck, stuck_text
from fedmpi.read.report.comparison import (STATUS, WORDS, accuracy_text, comparison,
                                           difference_text, outcome_text, outcome_words,
                                           reach_text, spent_text)
from fedmpi.read.report.groups import grouped, option_text, unusual
from fedmpi.read.report.html import Cell, fold, key, picture, table, text
from fedmpi.read.report.kinds import KINDS
from fedmpi.read.report.kinds.answers import OUTCOMES as ANSWERS
from fedmpi.read.report.metrics import FLOPS, final_metrics
from fedmpi.read.report.own import last
from fedmpi.read.report.page_style import CSS
from fedmpi.read.report.profile import BESIDE, OWN, profile
from fedmpi.read.report.profile_text import notes
from fedmpi.read.report.series import flops_column
from fedmpi.read.report.text import human_bytes, human_flops, human_seconds
from fedmpi.read.report.truth import by_client, judged, options, quality

# {} stands for the name of the metric.
TITLES = {"accuracy": "{} by round", "accuracy-bytes": "{} by bytes sent",
          "accuracy-flops": "{} by training FLOPs", "accuracy-virtual": "{} by virtual time",
          "own": "{} on clients' own tests", "own-clients": "Clients from the worst to the best",
          "loss": "Loss by round", "sparsity": "Sparsity by round", "churn": "How the mask moved",
          "layers": "Sparsity by layer", "contribution": "Contribution by round", "found": "Who finds the bad clients",
          "truth": "Contribution against the truth", "clients": "Who holds what", "time": "Time by phase",
          "answers": "What became of those asked"}
LEARNING = ("accuracy", "accuracy-bytes", "accuracy-flops", "accuracy-virtual", "loss", "own")
PRUNING = ("sparsity", "churn")
OPENED = 3                        # runs whose part of a page about several is open
PRINTED = 4                       # set-ups of which a run's part is printed
ROWS = 50                         # rounds of a table
CLIENTS = 200                     # clients of a table
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(runs, title=None, remarks=()):
    """The HTML document about ``{path: Run}``, str, under a ``title``, which else names set-ups and data, with the
    ``remarks`` of its author below. Nothing in it depends on the time of writing."""
    groups, count = grouped(runs), itertools.count(1)
    single = len(runs) == 1
    first = next(iter(runs.values()))
    parts = [("Options", _options(groups)), ("Learning", _pictures(LEARNING, groups, count))]
    if single:
        parts += [(name, inside) for name, inside in _of_run(first, count, groups)]
    else:
        parts[1:1] = [("Comparison", _compared(groups))] if len(groups) > 1 else []
        parts += [("Pruning", _pictures(PRUNING, groups, count)), ("Runs", _runs(groups, count))]
    parts = [(name, inside) for name, inside in parts if inside]
    title, lead = title or _title(groups), _lead(groups)
    remarked = "".join(f'<p class="remark">{text(each)}</p>' for each in remarks)
    links = "".join(f'<li><a href="#{name.lower()}">{name}</a></li>' for name, _ in parts)
    body = "".join(f'<section id="{name.lower()}"><h2>{name}</h2>{inside}</section>' for name, inside in parts)
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
            f'<meta name="color-scheme" content="light dark"><title>{text(title)}: fedmpi</title>'
            f'<style>{CSS}</style></head>'
            f'<body><header><h1>{text(title)}</h1><p class="lead">{text(lead)}</p>{remarked}{_alarm(runs)}'
            f'{_never_left_chance(groups)}'
            f'<nav aria-label="Contents"><ul>{links}</ul></nav></header>'
            f'<main>{_cards(first) if single else _keys(groups)}{body}</main>'
            f"<footer>fedmpi {text(__version__)}, from {text(', '.join(map(os.path.basename, runs)))}. Rounds count "
            "from 1; bytes are counted from the buffers that were sent; sparsity is the fraction of zeros.</footer>"
            "</body></html>\n")


# ---------------------------------------------------------------- the head


def _title(groups):
    given = options(next(iter(groups[0].runs.values())))
    data = _data_name(given.get("dataset"))
    names = [group.label for group in groups]
    if len(groups) > 1:
        joined = " against ".join(names) if len(names) == 2 else f"{', '.join(names[:-1])} and {names[-1]}"
        named = joined if data in joined else f"{joined} on {data}"
        return named if len(named) <= 60 else f"{len(groups)} set-ups on {data}"
    if "strategy" not in given:
        return groups[0].label
    seeds = f", {len(groups[0].runs)} seeds" if len(groups[0].runs) > 1 else ""
    return f"{option_text(given['strategy'])} on {data}{seeds}"


def _lead(groups):
    runs = [run for group in groups for run in group.runs.values()]
    given = [options(run) for run in runs]
    told = []
    for name, form in (("dataset", "{}"), ("clients", "{} clients"), ("partition", "{}"), ("model", "{}")):
        values = list(dict.fromkeys(option_text(each[name]) for each in given if name in each))
        told += [form.format(" or ".join(values))] if 0 < len(values) <= 3 else []
    if len(runs) == 1:
        planned = given[0].get("rounds")
        told += [f"{len(runs[0].ends)} of {planned} rounds" if planned else f"{len(runs[0].ends)} rounds",
                 str(runs[0].attrs.get("status", ""))]
    else:
        told += [f"{len(runs)} runs"]
    return ", ".join(filter(None, [*told, _dates(runs)]))


def _data_name(spec):
    """What a data set is called: a file of the user's by its name."""
    name, _, rest = option_text(spec).partition(":")
    file = dict(item.partition("=")[::2] for item in rest.split(",")).get("file")
    return os.path.splitext(os.path.basename(file))[0] if name == "hdf5" and file else name


def _dates(runs):
    """The days on which the first and the last of the runs began."""
    days = sorted({str(run.attrs.get("created", ""))[:10] for run in runs} - {""})
    return f"{days[0]} to {days[-1]}" if len(days) > 1 else "".join(days)


def _never_left_chance(groups):
    """Which set-ups have learned nothing, as ``fedmpi compare`` says it."""
    told = [stuck_text(group.label, found) for group in groups if (found := stuck(group))]
    if not told:
        return ""
    more = " A difference from a set-up that did not learn says only that it did not learn." * (len(groups) > 1)
    return f'<p class="note">Never left chance: {text("; ".join(told))}.{more}</p>'


def _alarm(runs):
    """What a reader must know first: that it is not the end."""
    by_status = {}
    for path, run in runs.items():
        status = str(run.attrs.get("status", ""))
        if status not in ("finished", ""):
            by_status.setdefault(status, []).append(f"{os.path.basename(path)} after {len(run.ends)} rounds")
    return "".join(f'<p class="note">Not the end: {text(STATUS.get(status, status))}, {text(", ".join(names))}.</p>'
                   for status, names in by_status.items())


def _cards(run):
    """The headline numbers of one run."""
    found = final_metrics(run)
    cards = [*_quality_cards(found, headline(run)), *_cost_cards(run, found)]
    return '<dl class="cards">' + "".join(
        f'<div><dt>{text(name)}</dt><dd class="value">{text(value)}</dd><dd class="more">{text(more)}</dd></div>'
        for name, value, more in cards) + "</dl>"


def _quality_cards(found, leading):
    final, chosen = f"final_{leading.name}", f"chosen_{leading.name}"
    if final in found:
        more = "after the last round"
        if chosen in found:
            more = f"{found[chosen]:.3f} in round {found['chosen_round']}, the best by validation"
        yield f"Test {leading.word}", f"{found[final]:.3f}", more
    mean, _, worst = (f"final_{name}" for name in leading.own)
    if mean in found:
        yield "Clients' own tests", f"{found[mean]:.3f}", f"mean of clients; worst tenth {found[worst]:.3f}"
    if "final_loss" in found:
        unit = "" if leading.unit in ("", "1") else leading.unit
        yield "Test loss", f"{found['final_loss']:.3f}", "nat, cross-entropy" if leading.share else unit
    if math.isfinite(found.get("quality_auc", math.nan)):
        yield ("Bad clients found", f"{found['quality_auc']:.2f}",
               f"AUC; Spearman {found['quality_spearman']:+.2f} with true quality")


def _cost_cards(run, found):
    if "sparsity" in found:
        kept = f"{int(np.sum(run.rounds['kept'][-1])):,} of {run.attrs['prunable']:,} weights kept" if (
            "kept" in run.rounds and "prunable" in run.attrs) else "of prunable weights"
        yield "Sparsity", f"{found['sparsity']:.3f}", kept
    if "up_bytes" in found and "down_bytes" in found:
        dense = f", {100 * found['bytes_against_dense']:.0f} % of dense" if "bytes_against_dense" in found else ""
        yield ("Sent", human_bytes(found["up_bytes"] + found["down_bytes"]),
               f"{human_bytes(found['up_bytes'])} up, {human_bytes(found['down_bytes'])} down{dense}")
    column = flops_column(run)
    if column in found:
        share = found.get(f"{column}_against_dense")
        dense = "" if share is None else f", {100 * share:.0f} % of dense"
        yield "Training", human_flops(found[column]), f"{FLOPS[column]}{dense}"
    if "round_s" in found:
        yield "Time", human_seconds(found["round_s"] * found["rounds"]), f"{found['round_s']:.3g} s a round"
    virtual = run.rounds.get("sim_total_s", np.zeros(0))
    if len(virtual) and virtual[-1] > 0:
        yield "Virtual time", human_seconds(virtual[-1]), f"{human_seconds(virtual[-1] / len(virtual))} a round"


BETTER = {"final_loss": min, "bytes": min, "flops": min}


def _keys(groups):
    """The headline numbers of several: a row each, the best of a column, of those that have ended, in bold."""
    leading = common_headline([run for group in groups for run in group.runs.values()])
    better = max if leading.higher else min
    named = leading.name, f"own_{leading.name}", f"own_{leading.name}_worst"
    better_of = {f"final_{name}": better for name in named} | {f"chosen_{leading.name}": better} | BETTER
    found, words = comparison(groups)["outcomes"], outcome_words(leading)
    names = [name for name in words if name in found]
    ended = [all(run.attrs.get("status", "finished") == "finished" for run in group.runs.values()) for group in groups]
    best = {name: better((each.mean for each, end in zip(found[name], ended) if each and end), default=None)
            for name, better in better_of.items() if name in found and len(groups) > 1}
    rows = [[_name(number, group), *(_marked(name, found[name][number], best.get(name) if ended[number] else None,
                                             len(group.runs)) for name in names)]
            for number, group in enumerate(groups)]
    several = any(len(group.runs) > 1 for group in groups)
    caption = "What came of it" + ", mean ± standard deviation over seeds" * several
    heads = ["set-up", *(words[name] for name in names)]
    return f'<div class="keep first">{table(caption, heads, rows, numbers=range(1, len(heads)), wide=True)}</div>'


def _marked(name, found, best, of):
    """An outcome of ``of`` runs, in bold where it is the best."""
    told = outcome_text(name, found, of)
    return Cell(f'<span class="best">{text(told)}</span>') if found and found.mean == best else told


def _name(number, group):
    seeds = f", {len(group.runs)} seeds" if len(group.runs) > 1 else ""
    return key(number, group.label + seeds)


# ---------------------------------------------------------------- options, curves, comparison


def _options(groups):
    """What differs between the runs, what differs from the defaults, then all."""
    runs = [(path, run) for group in groups for path, run in group.runs.items()]
    head = ["option", *(_name(number, group) for number, group in enumerate(groups))]
    differ = comparison(groups)["differ"] if len(groups) > 1 else {}
    parts = [table("What differs between them", head, [[key, *texts] for key, texts in differ.items()], wide=True)
             if differ else ""]
    common = {name: told for name, told in unusual(runs[0][1]).items() if name not in differ and name != "seed"
              and all(unusual(run).get(name) == told for _, run in runs)}
    if len(runs) == 1 and options(runs[0][1]).get("seed"):
        common["seed"] = (option_text(options(runs[0][1])["seed"]), "0")
    caption = "What is not as by default" + ", in all of them" * (len(runs) > 1)
    rows = [[name, *told] for name, told in common.items()]
    parts.append(table(caption, ["option", "value", "default"], rows, quiet=(2,)) if common else
                 f"<p>{'Else all' if differ else 'All'} options are as by default.</p>")
    return "".join(parts) + (_record(runs[0][1]) if len(runs) == 1 else "")


def _record(run, kind="printed"):
    """All that was chosen, and what it ran on, to unfold."""
    parts = [fold("All options", f'<div class="folded">{_all_options(run)}</div>', kind=kind)] if options(run) else []
    return "".join([*parts, fold("Command, versions, machines", _provenance(run), kind=kind)])


def _all_options(run):
    return table("", ["option", "value"], [[name, option_text(value)] for name, value in options(run).items()])


def _provenance(run):
    attrs = run.attrs
    versions = attrs.get("versions")
    rows = [("command", Cell(f"<code>{text(attrs['command'])}</code>") if attrs.get("command") else ""),
            *((name, attrs.get(name, "")) for name in ("created", "ended")), ("hosts", option_text(attrs.get("hosts"))),
            *((name, attrs.get(name, "")) for name in ("ranks", "launcher")), ("commit", attrs.get("git_commit", "")),
            ("versions", ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else ""),
            ("weights", f"{attrs['weights']:,}, of which {attrs['prunable']:,} may be pruned"
             if {"weights", "prunable"} <= attrs.keys() else ""),
            ("data digest", Cell(f"<code>{text(attrs['data_digest'])}</code>") if attrs.get("data_digest") else "")]
    return table("", ["what", "value"], [[name, value] for name, value in rows if value != ""])


def _pictures(names, what, count):
    """Those of the kinds that are recorded of ``what``, groups or a run."""
    found = [(name, KINDS[name].find(what)) for name in names]
    runs = [run for group in what for run in group.runs.values()] if isinstance(what, list) else [what]
    word = _upper(common_headline(runs).word)
    figures = [picture(next(count), TITLES[name].format(word), KINDS[name], numbers)
               for name, numbers in found if numbers is not None]
    return f'<div class="pictures">{"".join(figures)}</div>' if figures else ""


def _upper(word):
    return word[:1].upper() + word[1:]


def _compared(groups):
    """At equal cost, what it takes to reach an accuracy, and the differences seed by seed."""
    found = comparison(groups)
    metric = found["headline"]
    word = metric.replace("_", " ")
    if not found["equal"]:
        return "<p>No round has been evaluated yet.</p>"
    names = [key(number, group.label) for number, group in enumerate(groups)]
    numbers = range(1, len(groups) + 1)
    rows = [[spent_text(axis, budget), *map(accuracy_text, row)] for axis, each in found["equal"].items()
            for budget, row in zip(each["budgets"], each[metric])]
    parts = [table(f"Test {word} at equal cost: after a quarter, half and all of what the cheapest spent",
                   ["spent", *names], rows, numbers=numbers, wide=True)]
    reach = found["reach"]
    if reach.get(metric) is not None:
        parts.append(table(f"What it took to reach a test {word} of {reach[metric]:.2f}, which all have reached",
                           ["", *names], [[WORDS[axis], *(reach_text(axis, values) for values in column)]
                                          for axis, column in reach.items() if axis != metric],
                           numbers=numbers, wide=True))
    if found["paired"]:
        labels = {each["tag"]: each["label"] for each in found["groups"]}
        rows = [[f"{labels[each['group']]} - {labels[each['against']]}",
                 spent_text(each["axis"], each["budget"]), len(each["seeds"]), difference_text(each["interval"])]
                for each in found["paired"]]
        parts.append(table(f"Differences of test {word} at equal cost, seed by seed: mean and 95 % interval",
                           ["difference of", "at", "seeds", "mean [95 %]"], rows, numbers=(2, 3), wide=True))
    return "".join(parts)


# ---------------------------------------------------------------- one run


def _of_run(run, count, groups=None):
    """[(name, HTML)] of what is shown of each run; curves of pruning where ``groups`` are its own."""
    pruning = _pictures(PRUNING, groups, count) if groups else ""
    yield "Pruning", _joined(pruning, _pictures(("layers",), run, count))
    yield "Clients", _pictures(("contribution", "found", "truth", "own-clients", "clients"), run, count) + _judges(run)
    yield "Time", _beside(_pictures(("time",), run, count), _phases(run))
    yield "Faults", _faults(run, count)
    rounds = "Every round" if len(run.ends) <= ROWS else f"{ROWS} of {len(run.ends)} rounds"
    yield "Numbers", (fold(rounds, _round_table(run), kind="numbers") if len(run.ends) else "") + _client_table(run)


def _beside(left, right):
    """A picture with words beside it, below it where there is no room."""
    return f'<div class="beside">{left}<div>{right}</div></div>' if left and right else left or right


def _joined(*grids):
    """Parts after one another, grids of pictures that meet as one."""
    return "".join(grids).replace('</div><div class="pictures">', "")


def _runs(groups, count):
    """Each run's own part of a page about several. Of each set-up the first run is printed, of at most PRINTED of
    them, which a line on paper says."""
    parts = []
    for number, group in enumerate(groups):
        for place, (path, run) in enumerate(group.runs.items()):
            inside = _joined(*(part for _, part in _of_run(run, count)), _record(run, kind="numbers"))
            printed = place == 0 and number < PRINTED
            parts.append(fold(key(number, group.label), f'<div class="inside">{inside}</div>', os.path.basename(path),
                              opened=len(parts) < OPENED, kind="run printed" if printed else "run unprinted"))
    return _left_out(groups) + "".join(parts)


def _left_out(groups):
    """A line, on paper alone, on runs whose own part is not printed."""
    num = sum(len(group.runs) for group in groups)
    shown = min(PRINTED, len(groups))
    if num == shown:
        return ""
    return (f'<p class="paper">On paper: one run of each of {shown} set-ups; the parts of the other {num - shown} runs '
            "are in the file that this was printed from.</p>")


def _phases(run):
    """The numbers of the picture of the phases, and what it cannot show."""
    found = profile(run)
    if not found["phases"] or not found["wall_s"]:
        return ""
    rows = [["·\u00a0" * (each["kind"] != OWN) + name + "\u00a0*" * (each["kind"] == BESIDE), f"{each['seconds']:.3g}",
             *(f"{1000 * each[key]:,.3g}" if key in each else "-" for key in ("median_s", "largest_s"))]
            for name, each in found["phases"].items()]
    return table("", ["phase", "seconds", "median (ms)", "largest (ms)"], rows, numbers=range(1, 4)) + "".join(
        f'<p class="aside">{text(line[0].upper() + line[1:])}.</p>' for line in notes(run, found))


def _judges(run):
    """How well each estimator found who is bad."""
    found = {label: each for label, each in judged(run).items() if math.isfinite(each.get("auc", math.nan))}
    if not found:
        return ""
    rows = [[label + " (weighs)" * (number == 0), _number(each.get("spearman"), "+.2f"), _number(each["auc"], ".2f"),
             _number(each.get("calls"), ",d"), _number(each.get("seconds"), ".3g")]
            for number, (label, each) in enumerate(found.items())]
    head = ["estimator", "Spearman", "AUC, good over bad", "coalitions", "seconds"]
    return table("Scores against true quality", head, rows, numbers=range(1, 5), wide=True)


def _number(value, form):
    return "-" if value is None or not math.isfinite(value) else format(value, form)


def _client_table(run):
    """Who they were and how they fared, at most CLIENTS of them."""
    population, client = run.population, run.clients.get("client")
    if "samples" not in population or client is None:
        return ""
    N = len(population["samples"])
    asked = np.bincount(client, minlength=N)
    merged = np.bincount(client[run.clients["outcome"] == 0], minlength=N) if "outcome" in run.clients else asked
    sent = sum(np.bincount(client, run.clients[name], N) for name in ("up_bytes", "down_bytes") if name in run.clients)
    score, truth = by_client(run, "contribution"), quality(run)
    tested = last(run)
    own = {} if tested is None else dict(zip(tested.clients.tolist(), tested.values.tolist()))
    rows = [[_client_name(population, client), f"{population['samples'][client]:,}",
             f"{100 * population['noise'][client]:.0f}" if "noise" in population else "-",
             _number(None if truth is None else truth[client], ".2f"), _faults_of(run, client), asked[client],
             merged[client], _number(None if score is None else score[client], ".3f"),
             human_bytes(sent[client]) if np.ndim(sent) else "-", *[_number(own.get(client), ".3f")] * bool(own)]
            for client in range(min(N, CLIENTS))]
    head = ["client", "samples", "wrong labels (%)", "quality", "faults", "asked", "merged", "mean contribution",
            "sent", *["accuracy on its own test"] * bool(own)]
    more = f"the first {CLIENTS} of {N:,}" if N > CLIENTS else ""
    return fold("Every client", table("", head, rows, numbers=(1, 2, 3, 5, 6, 7, 8, *[9] * bool(own)), wide=True), more,
                kind="numbers")


def _client_name(population, client):
    """The client's number, and what a data set of natural clients calls it."""
    if "name" not in population:
        return client
    return f"{client}: {population['name'][client].decode('utf-8', 'replace')}"


def _faults_of(run, client):
    names = [spec.partition(":")[0] for number, spec in enumerate(options(run).get("fault") or ())
             if run.population.get(f"fault_{number}", np.zeros(client + 1))[client]]
    return ", ".join(names) or "-"


def _faults(run, count):
    """Clients that were lost, and how often the run was begun again; a sentence where nothing happened."""
    sums = {name: int(run.rounds[name].sum()) for name in ("asked", *ANSWERS) if name in run.rounds}
    lost = {name: number for name, number in sums.items() if name not in ("asked", "merged") and number}
    told = [] if not sums.get("asked") else [
        f"{sums['merged']:,} of {sums['asked']:,} answers were merged"
        + (": " + ", ".join(f"{number:,} {ANSWERS[name]}" for name, number in lost.items()) if lost else "") + "."]
    times = len(run.sessions)
    told += ["The run was never resumed." if times < 2 else f"The run was resumed {times - 1} times."
             if times > 2 else "The run was resumed once."] if times else []
    sessions = table("Starts", ["time", "ranks", "hosts", "command"], [
        [*(each.get(name, "") for name in ("time", "ranks", "hosts")),
         Cell(f"<code>{text(each.get('command', ''))}</code>")] for each in run.sessions],
        numbers=(1,), wide=True) if times > 1 else ""
    return _beside(_pictures(("answers",), run, count), f"<p>{text(' '.join(told))}</p>" * bool(told) + sessions)


ROUND_COLUMNS = (("sparsity", "sparsity", lambda v: f"{v:.4f}"), ("mask_changed", "mask flips", lambda v: f"{v:,d}"),
                 ("up_bytes", "up", human_bytes), ("down_bytes", "down", human_bytes), ("asked", "asked", str),
                 ("merged", "merged", str), ("round_s", "seconds", lambda v: f"{v:.3g}"))


def _round_table(run):
    """The rounds, at most ROWS of them, the last among them."""
    T = len(run.ends)
    at = np.unique(np.linspace(0, T - 1, min(T, ROWS)).round().astype(int))
    leading = headline(run)
    own = zip(leading.own, ("own tests, mean", "by samples", "worst tenth"))
    quality = [(leading.name, f"test {leading.word}"), *(pair for pair in own if pair[1] != "by samples"),
               ("loss", f"test {leading.loss_text()}")]
    columns = [(name, head, "{:.4f}".format) for name, head in quality] + list(ROUND_COLUMNS)
    columns = [(name, head, show) for name, head, show in columns if name in run.rounds]
    rows = [[t + 1, *(show(run.rounds[name][t]) if np.isfinite(run.rounds[name][t]) else "-"
                      for name, _, show in columns)] for t in at]
    return table("", ["round", *(head for _, head, _ in columns)], rows, numbers=range(1, len(columns) + 1), wide=True)
