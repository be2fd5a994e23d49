"""A partition in words and in shades, for the terminal; no colour needed."""

import math

import numpy as np

from fedmpi.plugins.spec import split
from fedmpi.read.report.statistics import proportions
from fedmpi.core.wide import aligned, labelled, wrapped

ENDS = 20                         # of more than twice as many clients, the first and the last so many are shown
WIDTH = 100
BAR = 20                          # columns of the longest bar
BARS = "samples: = right, x wrong"
# (least share of a client's samples, its shade)
SHADES = ((0.0, "·"), (0.05, "░"), (0.15, "▒"), (0.3, "▓"), (0.6, "█"))


def partition_text(found, width=None):
    """What ``described`` found, at most ``width`` wide: a headline, a table with a line a client,
    and numbers of all clients."""
    head = list(_headline(found))
    if width is not None:
        head = [part for line in head for part in wrapped(line, width, "  ")]
    return "\n".join([*head, "", *_table(found, width), "", *_all_clients(found, width)])


def _headline(found):
    copies = found["dealt"] - found["distinct"]
    yield (f"{found['dataset']}: {found['targets']}; {found['dealt']:,} training samples dealt out to "
           f"{found['summary']['clients']:,} clients" + (f", {copies:,} of them copies" if copies else ""))
    own = f", {found['held_out']:,} in clients' own test parts" * bool(found["held_out"])
    server = f"{found['server']:,} for the server's own work, " * bool(found["server"])
    yield f"{found['validation']:,} samples for validation, {server}{found['test']:,} for testing{own}"
    yield ", ".join(f"{name} {found[name]}" for name in ("partition", "noise", "features", "seed"))
    if found["faults"]:
        counts = zip(found["faults"], found["clients"]["faulty"].sum(axis=0))
        yield "faults: " + ", ".join(f"{spec} ({_number(count, 'client')})" for spec, count in counts)


def _number(count, noun):
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def shown(N):
    """``(rows, number left out)``: all N rows, or the first and the last ``ENDS``."""
    if N <= 2 * ENDS:
        return np.arange(N), 0
    return np.r_[:ENDS, N - ENDS:N], N - 2 * ENDS


def _with_gap(lines, left_out, head):
    """The lines with one in the middle, behind ``head`` lines, that says how many clients are left
    out."""
    if left_out:
        lines.insert(head + ENDS, f"... {left_out:,} clients left out ...")
    return lines


def _table(found, width):
    """A line a client; columns that say the same of all clients (no skew of features, no faults)
    are left out."""
    clients = found["clients"]
    columns = {
        "client": lambda n: str(n),
        "name": lambda n: clients["name"][n],
        "samples": lambda n: f"{clients['samples'][n]:,}",
        "classes": lambda n: str(clients["classes_held"][n]),
        "entropy": lambda n: f"{clients['entropy_bits'][n]:.2f}",
        "most frequent": lambda n: _most_frequent(found, n),
        "wrong": lambda n: f"{100 * clients['noise'][n]:.1f} %",
        "features": lambda n: f"{clients['features'][n]:.3g}",
        "quality": lambda n: f"{clients['quality'][n]:.3f}",
        "copy of": lambda n: "-" if clients["duplicate_of"][n] < 0 else str(clients["duplicate_of"][n]),
        "faults": lambda n: _faults(found, n),
    }
    needless = {"name": not len(clients["name"]), "features": not clients["features"].any(),
                "copy of": not found["summary"]["duplicates"],
                **dict.fromkeys(("classes", "entropy", "most frequent", "wrong"), not found["classes"]),
                "faults": not found["summary"]["faulty"]}
    columns = {name: cell for name, cell in columns.items() if not needless.get(name)}
    rows, left_out = shown(len(clients["samples"]))
    cells = [[cell(n) for cell in columns.values()] for n in rows]
    last = {len(columns) - 1} if "faults" in columns else set()
    lines = aligned(list(columns), cells, last, width)
    a_line_a_client = len(lines) == len(cells) + 1
    if left_out and not a_line_a_client:
        return [*lines, f"({left_out:,} clients left out)"]
    return _with_gap(lines, left_out, head=1)


def _most_frequent(found, n):
    clients, names = found["clients"], found["class_names"]
    if not clients["samples"][n]:
        return "-"
    top = clients["top_class"][n]
    return f"{names[top] if names else top}: {100 * clients['top_share'][n]:.0f} %"


def _faults(found, n):
    names = [split(spec)[0] for spec in found["faults"]]
    return ", ".join(name for name, has in zip(names, found["clients"]["faulty"][n]) if has) or "-"


def _all_clients(found, width):
    whole = found["summary"]
    median = f"{whole['samples_median']:,.1f}".removesuffix(".0")
    rows = [
        ("samples", f"min {whole['samples_min']:,}, median {median}, max {whole['samples_max']:,}"),
        *(_of_labels(whole, found["classes"]) if found["classes"] else ()),
        ("faulty clients", f"{whole['faulty']} of {whole['clients']}, {_number(whole['duplicates'], 'duplicate')}"),
    ]
    return labelled(rows, width)


def _of_labels(whole, classes):
    """The rows about labels."""
    return (
        ("label entropy", f"mean {whole['entropy_bits_mean']:.2f} bits of a client, {whole['entropy_bits_whole']:.2f} "
                          f"of all together (at most {math.log2(classes):.2f})"),
        ("label skew", f"mean {whole['label_skew']:.3f}, max {whole['label_skew_max']:.3f}: total variation distance "
                       "of a client's labels to all"),
        ("wrong labels", f"mean {100 * whole['noise_mean']:.1f} %, max {100 * whole['noise_max']:.1f} %"),
    )


def partition_picture(found, width=WIDTH):
    """Clients by classes, if there are any, as shades, and a bar of samples a client, its end for
    wrong labels; at most ``width`` wide."""
    clients = found["clients"]
    rows, left_out = shown(len(clients["samples"]))
    longest = max(int(clients["samples"].max()), 1)
    digits, label = len(f"{longest:,}"), max(len("client"), len(f"{rows[-1]}*"))
    room = width - label - len("   ") - max(digits + 1 + BAR, len(BARS))
    K = max(found["classes"], 1)
    each = -(-K // room)                                           # classes that share a column
    wide = max(1, min(3, room // K))
    share = proportions(clients["labels"])
    lines = [f"{'client':>{label}} {_class_numbers(found['classes'], each, wide)}  {BARS}"]
    for n in rows:
        mark = "*" if clients["faulty"][n].any() else " "
        cells = "".join(_shade(part) * wide for part in _merged(share[n], each))
        bar = _bar(clients["samples"][n], clients["noise"][n], longest)
        lines.append(f"{f'{n}{mark}':>{label}} {cells}  {clients['samples'][n]:>{digits},} {bar}".rstrip())
    legend = [part for line in _legend(found, each) for part in wrapped(line, width, "  ")]
    return "\n".join([*legend, *_with_gap(lines, left_out, head=1)])


def _legend(found, each):
    if found["classes"]:
        steps = [f"{100 * low:.0f}" for low, _ in SHADES[1:]] + ["100"]
        shades = "  ".join(f"{shade} to {step}" for (_, shade), step in zip(SHADES, steps))
        yield f"share of a client's samples (%) by label:  {shades}, blank: none"
    notes = ["* faulty"] * bool(found["summary"]["faulty"]) + [f"each column is {each} classes"] * (each > 1)
    if notes:
        yield ", ".join(notes)


def _class_numbers(classes, each, wide):
    """The numbers of classes above their columns, those that fit."""
    columns = -(-classes // each)
    step = 1 if wide > len(str(classes - 1)) else 5
    starts = [column for column in range(0, columns, step) if column * wide + len(str(column * each)) <= columns * wide]
    return "".join(str(column * each).ljust(step * wide) for column in starts)[: columns * wide].ljust(columns * wide)


def _merged(share, each):
    return [share[start:start + each].sum() for start in range(0, len(share), each)]


def _shade(part):
    return next((shade for low, shade in reversed(SHADES) if part > 0 and part >= low), " ")


def _bar(samples, noise, longest):
    length = math.ceil(BAR * samples / longest)
    wrong = min(length, math.ceil(length * noise - 0.5)) if noise > 0 else 0
    return "=" * (length - wrong) + "x" * wrong
