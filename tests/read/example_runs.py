"""Runs made by hand, with exact numbers where a test reads them."""

import numpy as np

from fedmpi.build.options import DEFAULTS
from fedmpi.store import Column, MemoryStore

N, T = 20, 40
OPTIONS = dict(dataset="fashion_mnist", partition="dirichlet:alpha=0.5", noise="uniform:rate=0.5", model="mlp")
OPTIONS |= dict(clients=N, cohort=5, rounds=50, strategy="fedavg", pruner="rigl:sparsity=0.9", codec="gaps", seed=1)


def example(rounds=T, without=(), noise=None):
    """A run with plausible numbers that are exact where a test reads them."""
    noise = np.r_[np.zeros(N // 2), np.linspace(0.1, 0.8, N // 2)] if noise is None else noise
    curve = 0.9 - 0.8 * np.exp(-np.arange(T) / 8)
    scalars = dict(
        round=np.arange(T) + 1, accuracy=curve, loss=2 - curve, val_accuracy=curve - 0.02, sparsity=np.full(T, 0.9),
        up_bytes=np.full(T, 5e6), down_bytes=np.full(T, 5e6), dense_bytes=np.full(T, 1e8),
        flops_prunefl=np.full(T, 2e9), flops_dense=np.full(T, 8e9),
        round_s=np.full(T, 2.5), train_s=np.full(T, 2.0), merge_s=np.full(T, 0.25),
    )  # fmt: skip
    names = [n for n in scalars if n not in without]
    dtypes = dict(round="int64", client="int64")
    columns = [Column(n, dtypes.get(n, "float64"), "1", n) for n in names]
    columns += [Column("kept", "int64", "1", "k", width=2)]
    clients = [n for n in ("client", "contribution", "weight") if n not in without]
    clients = [Column(n, dtypes.get(n, "float64"), "1", n) for n in clients]
    population = {"noise": (noise, "1", "wrong"), "samples": (np.arange(N) + 100, "1", "n")}
    attrs = dict(options=OPTIONS, status="running", command="fedmpi train", created="2025-01-01", prunable=1000)
    store = MemoryStore(attrs, columns, clients, {k: v for k, v in population.items() if k not in without}, ([0], []))
    for t in range(rounds):
        cohort = (np.arange(5) + 5 * t) % N
        rows = dict(client=cohort, contribution=1 - noise[cohort] + (0.1 if t < 20 else 0), weight=1 - noise[cohort])
        row = {n: scalars[n][t] for n in names} | dict(kept=[60, 40])
        store.append(row, {c.name: rows[c.name] for c in clients})
    return store.run()


SCORES = {"loo": [3, 4, 2, 1], "shapley": [4, 3, 2, 1], "size": [1, 1, 1, 1]}
QUALITY = [1.0, 1.0, 0.5, 0.0]                # the middle is 0.5, so that only the last client is bad


def judged_run(scores=SCORES, quality=QUALITY, options=(), cumulative=(), told=(), **population):
    """Two rounds of four clients, scored by estimators of which the first weighs; in the second round one less."""
    labels, N = list(scores), len(quality)
    columns = ["contribution", *(f"score_{label}" for label in labels[1:])]
    rounds = [Column("round", "int64", "1", "t"), Column("accuracy", "float64", "1", "a")]
    for label in labels:
        rounds += [Column(f"calls_{label}", "int64", "1", "c"), Column(f"score_{label}_s", "float64", "s", "s")]
    facts = dict(quality=quality, noise=np.zeros(N), samples=np.full(N, 7)) | population
    specs = dict(contribution=labels[0], observe=labels[1:], fault=[]) | dict(options)
    attrs = dict(options=specs, estimators={
        label: dict(spec=dict(told).get(label, label), sees="updates", cumulative=label in cumulative)
        for label in labels})
    clients = [Column("client", "int64", "1", "n")] + [Column(c, "float64", "1", c) for c in [*columns, "weight"]]
    store = MemoryStore(attrs, rounds, clients, {k: (v, "1", k) for k, v in facts.items()}, ([0], []))
    for t in range(2):
        who = np.arange(N - t)
        row = {f"calls_{label}": 5 + t for label in labels} | {f"score_{label}_s": 0.25 for label in labels}
        change = (1 - 2 * t) * np.where(who < N - 1, 0.5, 0)        # which the mean over the two rounds takes back
        found = {c: np.array(scores[label], float)[who] + change for c, label in zip(columns, labels)}
        store.append(row | dict(round=t + 1, accuracy=0.5), found | dict(client=who, weight=-who / 10))
    return store.run()


def profiled(without=(), rounds=3, ranks=3, **attrs):
    """Three rounds with exact seconds: 10 in all, 6 of them training, 2 clients a round on two workers."""
    seconds = dict(encode_s=[0.5, 0.25, 0.25], train_s=[3, 2, 1], wait_s=[2, 1, 0.5], decode_s=[0.5] * 3,
                   evaluate_s=[0.5, np.nan, 0.25], store_s=[0, 0.25, 0.25], contribution_s=[0.25, 0.25, 0.5],
                   merge_s=[0.25, 0.25, 0.5], row_s=[0.5, 0.25, 0.25], round_s=[4.5, 3, 2.5])
    names = [name for name in seconds if name not in without]
    clients = [name for name in ("client", "train_s", "rank") if f"clients/{name}" not in without]
    rows = dict(client=[4, 7], rank=[1, 2])
    store = MemoryStore(dict(options={}, ranks=ranks) | attrs, [Column(n, "float64", "s", n) for n in names],
                        [Column(n, "float64" if n == "train_s" else "int64", "s", n) for n in clients], {}, ([0], []))
    for t in range(rounds):
        given = rows | dict(train_s=[2.5 - t / 2, 1.0])
        store.append({n: seconds[n][t] for n in names}, {n: np.array(given[n]) for n in clients})
    return store.run()


def run_of(accuracy, sent=1000, flops=5e9, status="finished", **options):
    """A run with that accuracy a round (NaN: not evaluated), ``sent`` bytes each way and ``flops`` a round."""
    accuracy = np.asarray(accuracy, float)
    columns = dict(round="int64", accuracy="float64", loss="float64", up_bytes="int64", down_bytes="int64",
                   flops_prunefl="float64", sparsity="float64", round_s="float64")
    store = MemoryStore(dict(options=DEFAULTS | {"rounds": len(accuracy)} | options, status=status),
                        [Column(name, dtype, "1", name) for name, dtype in columns.items()],
                        [Column("client", "int64", "1", "n")], {}, ([0], []))
    for t, value in enumerate(accuracy):
        store.append(dict(round=t + 1, accuracy=value, loss=1 - value, up_bytes=sent, down_bytes=sent,
                          flops_prunefl=flops, sparsity=0.5, round_s=0.25), dict(client=np.array([0])))
    return store.run()


def two_set_ups():
    """Set-ups of two seeds: the second sends half as much a round, and is better by 0.1 and 0.2 after 4 rounds."""
    curves = {("fedavg", 0): [0.1, 0.3, 0.5, 0.6], ("fedavg", 1): [0.2, 0.3, 0.4, 0.5],
              ("krum", 0): [0.1, 0.2, 0.65, 0.7], ("krum", 1): [0.2, 0.4, 0.6, 0.7]}
    return {f"{name}-{seed}.h5": run_of(curve, sent=1000 if name == "fedavg" else 500, strategy=name, seed=seed)
            for (name, seed), curve in curves.items()}


def with_failures():
    """Two set-ups of three seeds, of which one each failed: in the first round, and before a round was evaluated; then
    one that failed at once."""
    runs = {f"a{seed}.h5": run_of(curve, seed=seed) for seed, curve in enumerate(([0.1, 0.5], [0.2, 0.6], [0.3, 0.4]))}
    runs |= {"zero.h5": run_of([], lr=0.9, status="failed")}
    runs |= {f"b{seed}.h5": run_of(curve, lr=0.5, seed=seed) for seed, curve in enumerate(([0.1, 0.7], [0.2, 0.9]))}
    return runs | {"b2.h5": run_of([np.nan], lr=0.5, seed=2, status="failed", rounds=2)}


def three_set_ups():
    return two_set_ups() | {f"median-{seed}.h5": run_of([0.1, 0.2, 0.3, 0.3 + seed / 10], strategy="median", seed=seed)
                            for seed in (0, 1)}
