"""``fedmpi report``: one HTML page about one run or several, with everything in it: no script, no
font, no request."""

import itertools
import math
import os

import numpy as np

from fedmpi import __version__
from fedmpi.read.headline import common_headline, headline, task_lines
from fedmpi.read.report.chance import stuck, stuck_text
from fedmpi.read.report.comparison import (STATUS, WORDS, accuracy_text, comparison,
                                           difference_text, outcome_text, outcome_words,
                                           reach_text, spent_text)
from fedmpi.read.report.groups import grouped, option_text, unusual
from fedmpi.read.report.html import Cell, fold, key, picture, table, text
from fedmpi.read.report.kinds import KINDS
from fedmpi.read.report.kinds.answers import OUTCOMES as ANSWERS
from fedmpi.read.report.kinds.kind import capitalized
from fedmpi.read.report.metrics import FLOPS, final_metrics
from fedmpi.read.report.own import last
from fedmpi.read.report.page_style import CSS
from fedmpi.read.report.profile import BESIDE, OWN, profile
from fedmpi.read.report.profile_text import notes
from fedmpi.read.report.series import flops_column
from fedmpi.read.report.text import human_bytes, human_flops, human_seconds
from fedmpi.read.report.truth import by_client, judged, options, quality

# {} stands for the name of the metric.
TITLES = {
    "accuracy": "{} by round",
    "accuracy-bytes": "{} by bytes sent",
    "accuracy-flops": "{} by training FLOPs",
    "accuracy-virtual": "{} by virtual time",
    "own": "{} on clients' own tests",
    "own-clients": "Clients from the worst to the best",
    "loss": "Loss by round",
    "sparsity": "Sparsity by round",
    "churn": "How the mask moved",
    "layers": "Sparsity by layer",
    "contribution": "Contribution by round",
    "found": "Who finds the bad clients",
    "truth": "Contribution against the truth",
    "clients": "Who holds what",
    "time": "Time by phase",
    "answers": "What became of those asked",
}
LEARNING = ("accuracy", "accuracy-bytes", "accuracy-flops", "accuracy-virtual", "loss", "own")
PRUNING = ("sparsity", "churn")
OPENED = 3                        # runs whose part of a page about several is open
PRINTED = 4                       # set-ups of which a run's part is printed
ROWS = 50                         # rounds of a table
CLIENTS = 200                     # clients of a table
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(runs, title=None, remarks=()):
    """The HTML document about ``{path: Run}``, str. Nothing in it depends on the time of writing.

    ``title`` names set-ups and data by default; the author's ``remarks`` stand below it."""
    groups = grouped(runs)
    title = title or _title(groups)
    sections = [(name, inside) for name, inside in _sections(groups) if inside]
    body = "".join(f'<section id="{name.lower()}"><h2>{name}</h2>{inside}</section>' for name, inside in sections)
    names = [name for name, _ in sections]
    return (f'<!doctype html>\n<html lang="en">{_head(title)}'
            f"<body>{_header(runs, groups, title, remarks, names)}"
            f"<main>{_key_numbers(groups)}{body}</main>"
            f"{_footer(runs)}</body></html>\n")


def _runs_of(groups):
    return [run for group in groups for run in group.runs.values()]


def _sections(groups):
    """(name, HTML) of each section, empty HTML for those with nothing to show."""
    count = itertools.count(1)
    yield "Options", _options(groups)
    if len(groups) > 1:
        yield "Comparison", _compared(groups)
    yield "Learning", _pictures(LEARNING, groups, count)
    runs = _runs_of(groups)
    if len(runs) == 1:
        yield from _of_run(runs[0], count, groups)
    else:
        yield "Pruning", _pictures(PRUNING, groups, count)
        yield "Runs", _runs(groups, count)


def _head(title):
    return ('<head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
            f'<meta name="color-scheme" content="light dark"><title>{text(title)}: fedmpi</title>'
            f"<style>{CSS}</style></head>")


def _header(runs, groups, title, remarks, names):
    remarked = "".join(f'<p class="remark">{text(remark)}</p>' for remark in remarks)
    links = "".join(f'<li><a href="#{name.lower()}">{name}</a></li>' for name in names)
    return (f'<header><h1>{text(title)}</h1><p class="lead">{text(_lead(groups))}</p>{remarked}'
            f"{_alarm(runs)}{_different_tasks(runs)}{_never_left_chance(groups)}"
            f'<nav aria-label="Contents"><ul>{links}</ul></nav></header>')


def _key_numbers(groups):
    runs = _runs_of(groups)
    if len(runs) == 1:
        return _cards(runs[0])
    return _keys(groups)


def _footer(runs):
    files = ", ".join(map(os.path.basename, runs))
    return (f"<footer>fedmpi {text(__version__)}, from {text(files)}. Rounds count "
            "from 1; bytes are counted from the buffers that were sent; sparsity is the fraction of zeros.</footer>")


# ---------------------------------------------------------------- the head


def _title(groups):
    first = options(next(iter(groups[0].runs.values())))
    data = _data_name(first.get("dataset"))
    if len(groups) > 1:
        return _title_of_several(groups, data)
    if "strategy" not in first:
        return groups[0].label
    title = f"{option_text(first['strategy'])} on {data}"
    num_seeds = len(groups[0].runs)
    if num_seeds > 1:
        title += f", {num_seeds} seeds"
    return title


def _title_of_several(groups, data):
    *others, last = [group.label for group in groups]
    if len(others) == 1:
        title = f"{others[0]} against {last}"
    else:
        title = f"{', '.join(others)} and {last}"
    if data not in title:
        title += f" on {data}"
    if len(title) > 60:
        return f"{len(groups)} set-ups on {data}"
    return title


def _lead(groups):
    """Data, clients, model, rounds and dates in a line; options with more than three values are
    left out."""
    runs = _runs_of(groups)
    recorded = [options(run) for run in runs]
    parts = []
    for name, form in (("dataset", "{}"), ("clients", "{} clients"), ("partition", "{}"), ("model", "{}")):
        values = list(dict.fromkeys(option_text(of_run[name]) for of_run in recorded if name in of_run))
        if 0 < len(values) <= 3:
            parts.append(form.format(" or ".join(values)))
    if len(runs) > 1:
        parts.append(f"{len(runs)} runs")
    else:
        parts += [_rounds_text(runs[0]), str(runs[0].attrs.get("status", ""))]
    parts.append(_dates(runs))
    return ", ".join(filter(None, parts))


def _rounds_text(run):
    planned = options(run).get("rounds")
    if planned:
        return f"{len(run.ends)} of {planned} rounds"
    return f"{len(run.ends)} rounds"


def _data_name(spec):
    """The name of a data set; a file of the user's by its own name."""
    name, _, rest = option_text(spec).partition(":")
    file = dict(item.partition("=")[::2] for item in rest.split(",")).get("file")
    if name == "hdf5" and file:
        return os.path.splitext(os.path.basename(file))[0]
    return name


def _dates(runs):
    """The days on which the first and the last of the runs began."""
    days = sorted({str(run.attrs.get("created", ""))[:10] for run in runs} - {""})
    if len(days) > 1:
        return f"{days[0]} to {days[-1]}"
    return "".join(days)


def _different_tasks(runs):
    """A note if the runs' tasks differ, as ``fedmpi compare`` says it."""
    lines = task_lines(runs.values())
    if not lines:
        return ""
    first, meaning = lines
    meaning = meaning.strip()
    return f'<p class="note">{text(first.capitalize())}. {text(meaning.capitalize())}.</p>'


def _never_left_chance(groups):
    """The set-ups that have learned nothing, as ``fedmpi compare`` says it."""
    texts = []
    for group in groups:
        runs = stuck(group)
        if runs:
            texts.append(stuck_text(group.label, runs))
    if not texts:
        return ""
    more = ""
    if len(groups) > 1:
        more = " A difference from a set-up that did not learn says only that it did not learn."
    return f'<p class="note">Never left chance: {text("; ".join(texts))}.{more}</p>'


def _alarm(runs):
    """A note for each status of unfinished runs: a reader must know first that it is not the
    end."""
    by_status = {}
    for path, run in runs.items():
        status = str(run.attrs.get("status", ""))
        if status not in ("finished", ""):
            progress = f"{os.path.basename(path)} after {len(run.ends)} rounds"
            if run.attrs.get("error"):
                progress += f" ({run.attrs['error']})"
            by_status.setdefault(status, []).append(progress)
    notes = []
    for status, names in by_status.items():
        said = text(STATUS.get(status, status))
        notes.append(f'<p class="note">Not the end: {said}, {text(", ".join(names))}.</p>')
    return "".join(notes)


def _cards(run):
    """The headline numbers of one run."""
    metrics = final_metrics(run)
    cards = []
    for name, value, more in (*_quality_cards(metrics, headline(run)), *_cost_cards(run, metrics)):
        cards.append(f'<div><dt>{text(name)}</dt><dd class="value">{text(value)}</dd>'
                     f'<dd class="more">{text(more)}</dd></div>')
    return f'<dl class="cards">{"".join(cards)}</dl>'


def _quality_cards(metrics, leading):
    final, chosen = f"final_{leading.name}", f"chosen_{leading.name}"
    if final in metrics:
        more = "after the last round"
        if chosen in metrics:
            more = f"{metrics[chosen]:.3f} in round {metrics['chosen_round']}, the best by validation"
        yield f"Test {leading.word}", f"{metrics[final]:.3f}", more
    mean, _, worst = (f"final_{name}" for name in leading.own)
    if mean in metrics:
        yield "Clients' own tests", f"{metrics[mean]:.3f}", f"mean of clients; worst tenth {metrics[worst]:.3f}"
    if "final_loss" in metrics:
        yield "Test loss", f"{metrics['final_loss']:.3f}", _loss_unit(leading)
    if math.isfinite(metrics.get("quality_auc", math.nan)):
        more = f"AUC; Spearman {metrics['quality_spearman']:+.2f} with true quality"
        yield "Bad clients found", f"{metrics['quality_auc']:.2f}", more


def _loss_unit(leading):
    if leading.share:
        return "nat, cross-entropy"
    if leading.unit == "1":
        return ""
    return leading.unit


def _cost_cards(run, metrics):
    if "sparsity" in metrics:
        yield "Sparsity", f"{metrics['sparsity']:.3f}", _kept_text(run)
    if "up_bytes" in metrics and "down_bytes" in metrics:
        up, down = metrics["up_bytes"], metrics["down_bytes"]
        dense = _dense_text(metrics.get("bytes_against_dense"))
        yield "Sent", human_bytes(up + down), f"{human_bytes(up)} up, {human_bytes(down)} down{dense}"
    column = flops_column(run)
    if column in metrics:
        dense = _dense_text(metrics.get(f"{column}_against_dense"))
        yield "Training", human_flops(metrics[column]), f"{FLOPS[column]}{dense}"
    if "round_s" in metrics:
        each = metrics["round_s"]
        yield "Time", human_seconds(each * metrics["rounds"]), f"{each:.3g} s a round"
    virtual = run.rounds.get("sim_total_s", np.zeros(0))
    if len(virtual) and virtual[-1] > 0:
        yield "Virtual time", human_seconds(virtual[-1]), f"{human_seconds(virtual[-1] / len(virtual))} a round"


def _kept_text(run):
    if "kept" not in run.rounds or "prunable" not in run.attrs:
        return "of prunable weights"
    kept = int(np.sum(run.rounds["kept"][-1]))
    return f"{kept:,} of {run.attrs['prunable']:,} weights kept"


def _dense_text(share):
    """The cost against the same run without pruning, or nothing for None."""
    if share is None:
        return ""
    return f", {100 * share:.0f} % of dense"


def _keys(groups):
    """The headline numbers of several set-ups: a row each, the best finished one of a column in
    bold."""
    words = outcome_words(common_headline(_runs_of(groups)))
    outcomes = comparison(groups)["outcomes"]
    names = [name for name in words if name in outcomes]
    best = _best_of(groups, outcomes)
    rows = []
    for number, group in enumerate(groups):
        cells = [_name(number, group)]
        for name in names:
            outcome = outcomes[name][number]
            is_best = outcome and _has_ended(group) and outcome.mean == best.get(name)
            cells.append(_marked(outcome_text(name, outcome, len(group.runs)), is_best))
        rows.append(cells)
    caption = "What came of it"
    if any(len(group.runs) > 1 for group in groups):
        caption += ", mean ± standard deviation over seeds"
    heads = ["set-up", *(words[name] for name in names)]
    return f'<div class="keep first">{table(caption, heads, rows, numbers=range(1, len(heads)), wide=True)}</div>'


def _has_ended(group):
    return all(run.attrs.get("status", "finished") == "finished" for run in group.runs.values())


def _best_of(groups, outcomes):
    """``{outcome: the best mean of the finished groups}``; nothing for a group that is alone."""
    if len(groups) == 1:
        return {}
    leading = common_headline(_runs_of(groups))
    better = max if leading.higher else min
    columns = (leading.name, f"own_{leading.name}", f"own_{leading.name}_worst")
    better_of = {f"final_{column}": better for column in columns}
    better_of[f"chosen_{leading.name}"] = better
    better_of |= {"final_loss": min, "bytes": min, "flops": min}
    best = {}
    for name, pick in better_of.items():
        means = [outcome.mean for outcome, group in zip(outcomes.get(name, ()), groups)
                 if outcome and _has_ended(group)]
        best[name] = pick(means, default=None)
    return best


def _marked(words, is_best):
    """The text of an outcome, in bold if it is the best."""
    if is_best:
        return Cell(f'<span class="best">{text(words)}</span>')
    return words


def _name(number, group):
    label = group.label
    if len(group.runs) > 1:
        label += f", {len(group.runs)} seeds"
    return key(number, label)


# ---------------------------------------------------------------- options, curves, comparison


def _options(groups):
    """Options that differ between the runs, options that differ from the defaults, then all."""
    runs = _runs_of(groups)
    differ = {}
    if len(groups) > 1:
        differ = comparison(groups)["differ"]
    parts = [_differing_table(groups, differ), _unusual_table(runs, differ)]
    if len(runs) == 1:
        parts.append(_record(runs[0]))
    return "".join(parts)


def _differing_table(groups, differ):
    if not differ:
        return ""
    head = ["option", *(_name(number, group) for number, group in enumerate(groups))]
    rows = [[name, *texts] for name, texts in differ.items()]
    return table("What differs between them", head, rows, wide=True)


def _unusual_table(runs, differ):
    """Options that all runs have alike, but not as by default."""
    common = _unusual_in_all(runs, differ)
    if not common:
        subject = "Else all" if differ else "All"
        return f"<p>{subject} options are as by default.</p>"
    caption = "What is not as by default"
    if len(runs) > 1:
        caption += ", in all of them"
    rows = [[name, *texts] for name, texts in common.items()]
    return table(caption, ["option", "value", "default"], rows, quiet=(2,))


def _unusual_in_all(runs, differ):
    first, *others = [unusual(run) for run in runs]
    common = {}
    for name, texts in first.items():
        if name in differ or name == "seed":
            continue
        if all(other.get(name) == texts for other in others):
            common[name] = texts
    if not others and options(runs[0]).get("seed"):
        common["seed"] = (option_text(options(runs[0])["seed"]), "0")
    return common


def _record(run, kind="printed"):
    """All options, and the run's machines and versions, to unfold."""
    parts = ""
    if options(run):
        parts = fold("All options", f'<div class="folded">{_all_options(run)}</div>', kind=kind)
    return parts + fold("Command, versions, machines", _provenance(run), kind=kind)


def _all_options(run):
    rows = [[name, option_text(value)] for name, value in options(run).items()]
    return table("", ["option", "value"], rows)


def _provenance(run):
    attrs = run.attrs
    values = {
        "command": _code(attrs.get("command")),
        "created": attrs.get("created", ""),
        "ended": attrs.get("ended", ""),
        "hosts": option_text(attrs.get("hosts")),
        "ranks": attrs.get("ranks", ""),
        "launcher": attrs.get("launcher", ""),
        "commit": attrs.get("git_commit", ""),
        "versions": _versions_text(attrs.get("versions")),
        "weights": _weights_text(attrs),
        "data digest": _code(attrs.get("data_digest")),
    }
    rows = [[name, value] for name, value in values.items() if value != ""]
    return table("", ["what", "value"], rows)


def _code(value):
    """A text in the font of commands; empty for none."""
    if not value:
        return ""
    return Cell(f"<code>{text(value)}</code>")


def _versions_text(versions):
    if not isinstance(versions, dict):
        return ""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _weights_text(attrs):
    if not {"weights", "prunable"} <= attrs.keys():
        return ""
    return f"{attrs['weights']:,}, of which {attrs['prunable']:,} may be pruned"


def _pictures(names, subject, count):
    """The kinds ``names`` of pictures of the ``subject``, groups or a run; kinds that were not
    recorded are left out."""
    runs = _runs_of(subject) if isinstance(subject, list) else [subject]
    word = capitalized(common_headline(runs).word)
    figures = []
    for name in names:
        numbers = KINDS[name].find(subject)
        if numbers is not None:
            title = TITLES[name].format(word)
            figures.append(picture(next(count), title, KINDS[name], numbers))
    if not figures:
        return ""
    return f'<div class="pictures">{"".join(figures)}</div>'


def _compared(groups):
    """At equal cost, the cost of an accuracy, and the differences seed by seed."""
    found = comparison(groups)
    if not found["equal"]:
        return "<p>No round has been evaluated yet.</p>"
    names = [key(number, group.label) for number, group in enumerate(groups)]
    return _equal_table(found, names) + _reach_table(found, names) + _paired_table(found)


def _equal_table(found, names):
    metric = found["headline"]
    rows = []
    for axis, at in found["equal"].items():
        for budget, values in zip(at["budgets"], at[metric]):
            rows.append([spent_text(axis, budget), *map(accuracy_text, values)])
    caption = (f"Test {metric.replace('_', ' ')} at equal cost: after a quarter, half and all of what the cheapest "
               "spent")
    return table(caption, ["spent", *names], rows, numbers=range(1, len(names) + 1), wide=True)


def _reach_table(found, names):
    metric, reach = found["headline"], found["reach"]
    if reach.get(metric) is None:
        return ""
    rows = []
    for axis, column in reach.items():
        if axis != metric:
            rows.append([WORDS[axis], *(reach_text(axis, values) for values in column)])
    caption = (f"What it took to reach a test {metric.replace('_', ' ')} of {reach[metric]:.2f}, which all have "
               "reached")
    return table(caption, ["", *names], rows, numbers=range(1, len(names) + 1), wide=True)


def _paired_table(found):
    if not found["paired"]:
        return ""
    labels = {record["tag"]: record["label"] for record in found["groups"]}
    rows = []
    for pair in found["paired"]:
        name = f"{labels[pair['group']]} - {labels[pair['against']]}"
        place = spent_text(pair["axis"], pair["budget"])
        rows.append([name, place, len(pair["seeds"]), difference_text(pair["interval"])])
    caption = (f"Differences of test {found['headline'].replace('_', ' ')} at equal cost, seed by seed: mean and "
               "95 % interval")
    return table(caption, ["difference of", "at", "seeds", "mean [95 %]"], rows, numbers=(2, 3), wide=True)


# ---------------------------------------------------------------- one run


def _of_run(run, count, groups=None):
    """[(name, HTML)] of the sections about each run; curves of pruning if ``groups`` hold this run
    only."""
    pruning = ""
    if groups:
        pruning = _pictures(PRUNING, groups, count)
    yield "Pruning", _joined(pruning, _pictures(("layers",), run, count))
    clients = ("contribution", "found", "truth", "own-clients", "clients")
    yield "Clients", _pictures(clients, run, count) + _judges(run)
    yield "Time", _beside(_pictures(("time",), run, count), _phases(run))
    yield "Faults", _faults(run, count)
    yield "Numbers", _folded_rounds(run) + _client_table(run)


def _folded_rounds(run):
    T = len(run.ends)
    if not T:
        return ""
    title = "Every round"
    if T > ROWS:
        title = f"{ROWS} of {T} rounds"
    return fold(title, _round_table(run), kind="numbers")


def _beside(left, right):
    """A picture with words beside it, below it if there is no room."""
    if left and right:
        return f'<div class="beside">{left}<div>{right}</div></div>'
    return left or right


def _joined(*grids):
    """Parts after one another, grids of pictures that meet as one."""
    return "".join(grids).replace('</div><div class="pictures">', "")


def _runs(groups, count):
    """Each run's own part of a page about several.

    Of at most PRINTED set-ups the first run is printed, and a line on paper says so."""
    parts = []
    for number, group in enumerate(groups):
        for place, (path, run) in enumerate(group.runs.items()):
            sections = [section for _, section in _of_run(run, count)]
            inside = _joined(*sections, _record(run, kind="numbers"))
            is_printed = place == 0 and number < PRINTED
            kind = "run printed" if is_printed else "run unprinted"
            parts.append(fold(
                key(number, group.label), f'<div class="inside">{inside}</div>', os.path.basename(path),
                opened=len(parts) < OPENED, kind=kind))
    return _left_out(groups) + "".join(parts)


def _left_out(groups):
    """A line, on paper only, on the runs without a printed part."""
    num = len(_runs_of(groups))
    shown = min(PRINTED, len(groups))
    if num == shown:
        return ""
    return (f'<p class="paper">On paper: one run of each of {shown} set-ups; the parts of the other {num - shown} runs '
            "are in the file that this was printed from.</p>")


def _phases(run):
    """The numbers of the picture of the phases, and remarks that it cannot show."""
    found = profile(run)
    if not found["phases"] or not found["wall_s"]:
        return ""
    rows = [_phase_row(name, phase) for name, phase in found["phases"].items()]
    remarks = "".join(f'<p class="aside">{text(capitalized(line))}.</p>' for line in notes(run, found))
    return table("", ["phase", "seconds", "median (ms)", "largest (ms)"], rows, numbers=range(1, 4)) + remarks


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


def _judges(run):
    """How well each estimator found the bad clients."""
    rows = []
    for label, numbers in judged(run).items():
        if not math.isfinite(numbers.get("auc", math.nan)):
            continue
        rows.append([label, _number(numbers.get("spearman"), "+.2f"), _number(numbers["auc"], ".2f"),
                     _number(numbers.get("calls"), ",d"), _number(numbers.get("seconds"), ".3g")])
    if not rows:
        return ""
    rows[0][0] += " (weighs)"
    head = ["estimator", "Spearman", "AUC, good over bad", "coalitions", "seconds"]
    return table("Scores against true quality", head, rows, numbers=range(1, 5), wide=True)


def _number(value, form):
    if value is None or not math.isfinite(value):
        return "-"
    return format(value, form)


def _client_table(run):
    """The clients and their results, at most CLIENTS of them."""
    if "samples" not in run.population or "client" not in run.clients:
        return ""
    N = len(run.population["samples"])
    columns = _client_columns(run, N)
    rows = [[column[client] for column in columns.values()] for client in range(min(N, CLIENTS))]
    texts = ("client", "faults")
    numbers = [place for place, name in enumerate(columns) if name not in texts]
    more = ""
    if N > CLIENTS:
        more = f"the first {CLIENTS} of {N:,}"
    return fold("Every client", table("", list(columns), rows, numbers=numbers, wide=True), more, kind="numbers")


def _client_columns(run, N):
    """``{head: an entry a client}`` of the table of clients."""
    population, client = run.population, run.clients["client"]
    asked = np.bincount(client, minlength=N)
    merged = asked
    if "outcome" in run.clients:
        merged = np.bincount(client[run.clients["outcome"] == 0], minlength=N)
    columns = {
        "client": [_client_name(population, number) for number in range(N)],
        "samples": [f"{number:,}" for number in population["samples"]],
        "wrong labels (%)": ["-"] * N,
        "quality": _numbers(quality(run), ".2f", N),
        "faults": [_faults_of(run, number) for number in range(N)],
        "asked": asked,
        "merged": merged,
        "mean contribution": _numbers(by_client(run, "contribution"), ".3f", N),
        "sent": _sent_texts(run, N),
    }
    if "noise" in population:
        columns["wrong labels (%)"] = [f"{100 * rate:.0f}" for rate in population["noise"]]
    tested = last(run)
    if tested is not None and len(tested.clients):
        own = dict(zip(tested.clients.tolist(), tested.values.tolist()))
        columns["accuracy on its own test"] = [_number(own.get(number), ".3f") for number in range(N)]
    return columns


def _numbers(values, form, N):
    """The texts of (N,) values, a dash for each without an answer."""
    if values is None:
        return ["-"] * N
    return [_number(value, form) for value in values]


def _sent_texts(run, N):
    sent = None
    for name in ("up_bytes", "down_bytes"):
        if name in run.clients:
            of_clients = np.bincount(run.clients["client"], run.clients[name], N)
            sent = of_clients if sent is None else sent + of_clients
    if sent is None:
        return ["-"] * N
    return [human_bytes(number) for number in sent]


def _client_name(population, client):
    """The client's number, and what a data set of natural clients calls it."""
    if "name" not in population:
        return client
    return f"{client}: {population['name'][client].decode('utf-8', 'replace')}"


def _faults_of(run, client):
    names = []
    for number, spec in enumerate(options(run).get("fault") or ()):
        is_hit = run.population.get(f"fault_{number}")
        if is_hit is not None and is_hit[client]:
            names.append(spec.partition(":")[0])
    return ", ".join(names) or "-"


def _faults(run, count):
    """Lost clients, and the starts of the run; a sentence if nothing happened."""
    sentences = " ".join(filter(None, [_merged_text(run), _resumed_text(len(run.sessions))]))
    words = ""
    if sentences:
        words = f"<p>{text(sentences)}</p>"
    return _beside(_pictures(("answers",), run, count), words + _starts(run))


def _merged_text(run):
    sums = {name: int(run.rounds[name].sum()) for name in ("asked", *ANSWERS) if name in run.rounds}
    if not sums.get("asked"):
        return ""
    said = f"{sums['merged']:,} of {sums['asked']:,} answers were merged"
    lost = [f"{number:,} {ANSWERS[name]}" for name, number in sums.items()
            if name not in ("asked", "merged") and number]
    if lost:
        said += f": {', '.join(lost)}"
    return f"{said}."


def _resumed_text(num_starts):
    if not num_starts:
        return ""
    if num_starts == 1:
        return "The run was never resumed."
    if num_starts == 2:
        return "The run was resumed once."
    return f"The run was resumed {num_starts - 1} times."


def _starts(run):
    """A table of the starts of a run that was resumed."""
    if len(run.sessions) < 2:
        return ""
    rows = []
    for session in run.sessions:
        command = Cell(f"<code>{text(session.get('command', ''))}</code>")
        rows.append([session.get("time", ""), session.get("ranks", ""), session.get("hosts", ""), command])
    return table("Starts", ["time", "ranks", "hosts", "command"], rows, numbers=(1,), wide=True)


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


def _round_table(run):
    """The rounds, at most ROWS of them, the last among them."""
    T = len(run.ends)
    evenly = np.linspace(0, T - 1, min(T, ROWS))
    leading = headline(run)
    mean, _, worst = leading.own
    quality_heads = {
        leading.name: f"test {leading.word}",
        mean: "own tests, mean",
        worst: "worst tenth",
        "loss": f"test {leading.loss_text()}",
    }
    columns = [(name, head, "{:.4f}".format) for name, head in quality_heads.items()]
    columns = [column for column in (*columns, *ROUND_COLUMNS) if column[0] in run.rounds]
    rows = []
    for t in np.unique(evenly.round().astype(int)):
        rows.append([t + 1, *(_round_cell(run.rounds[name][t], show) for name, _, show in columns)])
    heads = ["round", *(head for _, head, _ in columns)]
    return table("", heads, rows, numbers=range(1, len(heads)), wide=True)


def _round_cell(value, show):
    if not np.isfinite(value):
        return "-"
    return show(value)
