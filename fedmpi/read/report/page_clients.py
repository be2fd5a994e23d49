"""The table of all clients on a report page."""

import math

import numpy as np

from fedmpi.read.report.html import fold, table
from fedmpi.read.report.own import last
from fedmpi.read.report.text import human_bytes
from fedmpi.read.report.truth import by_client, options, quality

# The most rows of the table.
CLIENTS = 200
# Columns of texts, which stand to the left; all others are numbers.
TEXTS = ("client", "faults")


def client_table(run):
    """HTML of the clients and their results, at most CLIENTS of them, to unfold."""
    # Early run files, and young ones, lack them.
    if "samples" not in run.population or "client" not in run.clients:
        return ""
    N = len(run.population["samples"])
    columns = _columns(run, N)
    rows = []
    for client in range(min(N, CLIENTS)):
        rows.append([column[client] for column in columns.values()])
    numbers = [place for place, name in enumerate(columns) if name not in TEXTS]
    more = ""
    if N > CLIENTS:
        more = f"the first {CLIENTS} of {N:,}"
    inside = table("", list(columns), rows, numbers=numbers, wide=True)
    return fold("Every client", inside, more, kind="numbers")


def _columns(run, N):
    """``{head: an entry a client}``."""
    population = run.population
    asked, merged = _answers(run, N)
    columns = {
        "client": [_client_name(population, client) for client in range(N)],
        "samples": [f"{samples:,}" for samples in population["samples"]],
        "wrong labels (%)": _noise_texts(population, N),
        "quality": _number_texts(quality(run), ".2f", N),
        "faults": [_faults_of(run, client) for client in range(N)],
        "asked": asked,
        "merged": merged,
        "mean contribution": _number_texts(by_client(run, "contribution"), ".3f", N),
        "sent": _sent_texts(run, N),
    }
    tested = last(run)
    if tested is not None and len(tested.clients):
        values = dict(zip(tested.clients.tolist(), tested.values.tolist()))
        texts = [number_text(values.get(client), ".3f") for client in range(N)]
        columns["accuracy on its own test"] = texts
    return columns


def _client_name(population, client):
    """The client's number, and its name if the data set has natural clients."""
    if "name" not in population:
        return client
    name = population["name"][client].decode("utf-8", "replace")
    return f"{client}: {name}"


def _noise_texts(population, N):
    if "noise" not in population:
        return ["-"] * N
    return [f"{100 * rate:.0f}" for rate in population["noise"]]


def _faults_of(run, client):
    """The names of the client's faults."""
    names = []
    for number, spec in enumerate(options(run).get("fault") or ()):
        is_hit = run.population.get(f"fault_{number}")
        if is_hit is not None and is_hit[client]:
            names.append(spec.partition(":")[0])
    return ", ".join(names) or "-"


def _answers(run, N):
    """``(asked, merged)``, (N,) rounds each."""
    client = run.clients["client"]
    asked = np.bincount(client, minlength=N)
    # Early runs waited for everybody.
    if "outcome" not in run.clients:
        return asked, asked
    is_merged = run.clients["outcome"] == 0
    merged = np.bincount(client[is_merged], minlength=N)
    return asked, merged


def _sent_texts(run, N):
    """The bytes of each client, up and down, as far as recorded."""
    client = run.clients["client"]
    directions = [name for name in ("up_bytes", "down_bytes") if name in run.clients]
    if not directions:
        return ["-"] * N
    sent = sum(np.bincount(client, run.clients[name], N) for name in directions)
    return [human_bytes(number) for number in sent]


def _number_texts(values, form, N):
    """The texts of (N,) values, a dash for each without an answer."""
    if values is None:
        return ["-"] * N
    return [number_text(value, form) for value in values]


def number_text(value, form):
    """The value in a format such as ``.2f``; a dash for None and NaN."""
    if value is None or not math.isfinite(value):
        return "-"
    return format(value, form)
