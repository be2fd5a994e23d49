"""A partition in words, for the terminal: a headline, a line a client, numbers of all clients."""

import math

import numpy as np

from fedmpi.core.wide import aligned, labelled, wrapped
from fedmpi.core.words import plural
from fedmpi.plugins.spec import split

# Of more than twice as many clients, only the first and the last so many are shown.
ENDS = 20


def partition_text(federation, width=None):
    """The text of a partition as ``described`` returns it, at most ``width`` wide (None: any)."""
    head = list(_headline(federation))
    if width is not None:
        head = [part for line in head for part in wrapped(line, width, "  ")]
    table = _table(federation, width)
    summary = _all_clients(federation, width)
    return "\n".join([*head, "", *table, "", *summary])


def _headline(federation):
    yield _dealt_text(federation)
    yield _other_samples_text(federation)
    options = ("partition", "noise", "features", "seed")
    yield ", ".join(f"{name} {federation[name]}" for name in options)
    if federation["faults"]:
        yield _faults_text(federation)


def _dealt_text(federation):
    num_clients = federation["summary"]["clients"]
    line = (f"{federation['dataset']}: {federation['targets']}; {federation['dealt']:,} training "
            f"samples dealt out to {plural(num_clients, 'client')}")
    copies = federation["dealt"] - federation["distinct"]
    # Only the fault of duplicates makes copies.
    if copies:
        line += f", {copies:,} of them copies"
    return line


def _other_samples_text(federation):
    """The samples outside of training."""
    parts = [f"{plural(federation['validation'], 'sample')} for validation"]
    if federation["server"]:
        parts.append(f"{federation['server']:,} for the server's own work")
    parts.append(f"{federation['test']:,} for testing")
    if federation["held_out"]:
        parts.append(f"{federation['held_out']:,} in clients' own test parts")
    return ", ".join(parts)


def _faults_text(federation):
    is_faulty = federation["clients"]["faulty"]
    counts = is_faulty.sum(axis=0)
    parts = []
    for spec, count in zip(federation["faults"], counts):
        clients = _number(count, "client")
        parts.append(f"{spec} ({clients})")
    return "faults: " + ", ".join(parts)


def _number(count, noun):
    plural = "" if count == 1 else "s"
    return f"{count:,} {noun}{plural}"


def shown(N):
    """``(rows, number left out)``: all N rows, or the first and the last ``ENDS``."""
    if N <= 2 * ENDS:
        all_rows = np.arange(N)
        return all_rows, 0
    both_ends = np.r_[:ENDS, N - ENDS:N]
    return both_ends, N - 2 * ENDS


def with_gap(lines, left_out, head):
    """The lines with one more in their middle, about clients left out. The first ``head`` lines are
    the table's head."""
    if left_out:
        lines.insert(head + ENDS, f"... {plural(left_out, 'client')} left out ...")
    return lines


def _table(federation, width):
    """The lines of a table with a row a client."""
    num_clients = len(federation["clients"]["samples"])
    rows, left_out = shown(num_clients)
    columns = _columns(federation, rows)
    in_columns = columns.values()
    cells = list(zip(*in_columns))
    last = len(columns) - 1
    # Words stand to the left, numbers to the right.
    left = {last} if "faults" in columns else set()
    heads = list(columns)
    lines = aligned(heads, cells, left, width)
    lines_if_wide = len(cells) + 1
    # A narrow table takes several lines a client, so that it has no middle.
    a_line_a_client = len(lines) == lines_if_wide
    if left_out and not a_line_a_client:
        return [*lines, f"({plural(left_out, 'client')} left out)"]
    return with_gap(lines, left_out, head=1)


def _columns(federation, rows):
    """``{head: [text]}`` of the clients ``rows``.

    Columns with the same text for all clients (no skew of features, no faults) are left out."""
    summary = federation["summary"]
    of_all = federation["clients"]
    # A data set may have no names for its clients. Only shown clients get a text: there may be a
    # hundred thousand others.
    clients = {name: values[rows] for name, values in of_all.items() if len(values)}
    labels = [str(client) for client in rows]
    columns = {"client": labels}
    if "name" in clients:
        columns["name"] = clients["name"]
    columns["samples"] = _formatted(clients["samples"], ",")
    if federation["classes"]:
        class_names = federation["class_names"]
        of_classes = _class_columns(clients, class_names)
        columns |= of_classes
    has_skew = of_all["features"].any()
    if has_skew:
        features = clients["features"]
        columns["features"] = _formatted(features, ".3g")
    quality = clients["quality"]
    columns["quality"] = _formatted(quality, ".3f")
    if summary["duplicates"]:
        columns["copy of"] = [_copy_text(original) for original in clients["duplicate_of"]]
    if summary["faulty"]:
        is_faulty = clients["faulty"]
        columns["faults"] = _fault_names(federation["faults"], is_faulty)
    return columns


def _formatted(values, form):
    return [format(value, form) for value in values]


def _class_columns(clients, class_names):
    classes_held = _formatted(clients["classes_held"], "d")
    entropies = _formatted(clients["entropy_bits"], ".2f")
    most_frequent = _most_frequent(clients, class_names)
    wrong = [f"{100 * rate:.1f} %" for rate in clients["noise"]]
    return {
        "classes": classes_held,
        "entropy": entropies,
        "most frequent": most_frequent,
        "wrong": wrong,
    }


def _most_frequent(clients, class_names):
    """[text]: each client's most frequent label, and its share."""
    texts = []
    columns = (clients["samples"], clients["top_class"], clients["top_share"])
    rows = zip(*columns)
    for samples, label, share in rows:
        if samples:
            # Data sets may leave their classes without names.
            name = class_names[label] if class_names else label
            percent = 100 * share
            texts.append(f"{name}: {percent:.0f} %")
        else:
            texts.append("-")
    return texts


def _copy_text(original):
    return "-" if original < 0 else str(original)


def _fault_names(specs, faulty):
    """[text]: the names of the faults of each client, by ``faulty`` (n, F) bool."""
    names = [split(spec)[0] for spec in specs]
    texts = []
    for has_fault in faulty:
        pairs = zip(names, has_fault)
        hit = [name for name, is_hit in pairs if is_hit]
        texts.append(", ".join(hit) or "-")
    return texts


def _all_clients(federation, width):
    """Lines of numbers of all clients."""
    summary = federation["summary"]
    classes = federation["classes"]
    samples = _samples_text(summary)
    rows = [("samples", samples)]
    if classes:
        of_labels = _label_rows(summary, classes)
        rows += of_labels
    duplicates = _number(summary["duplicates"], "duplicate")
    num_clients = summary["clients"]
    rows.append(("faulty clients", f"{summary['faulty']} of {num_clients}, {duplicates}"))
    return labelled(rows, width)


def _samples_text(summary):
    text = f"{summary['samples_median']:,.1f}"
    # The median of an even number of clients may end in .5.
    median = text.removesuffix(".0")
    least = summary["samples_min"]
    most = summary["samples_max"]
    return f"min {least:,}, median {median}, max {most:,}"


def _label_rows(summary, classes):
    """[(name, text)] about labels."""
    mean = summary["entropy_bits_mean"]
    whole = summary["entropy_bits_whole"]
    # The entropy of equally frequent classes.
    most = math.log2(classes)
    entropy = (f"mean {mean:.2f} bits of a client, {whole:.2f} of all together (at most "
               f"{most:.2f})")
    mean = summary["label_skew"]
    most = summary["label_skew_max"]
    skew = (f"mean {mean:.3f}, max {most:.3f}: total variation distance of a client's labels to "
            "all")
    mean = 100 * summary["noise_mean"]
    most = 100 * summary["noise_max"]
    wrong = f"mean {mean:.1f} %, max {most:.1f} %"
    return [("label entropy", entropy), ("label skew", skew), ("wrong labels", wrong)]
