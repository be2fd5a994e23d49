#!/usr/bin/env python3
"""What a round costs while one thing grows: clients a round, ranks, weights, coalitions.

    python jobs/scaling.py measure runs/scaling [NAME ...]     # all points, or those whose names begin so; the rest goes on
    python jobs/scaling.py table runs/scaling

A point is a run of some rounds on this machine with 2 samples a client, one step, and 10 test samples, so that rank 0
does little but serve. Measured, a round, without the first WARM: the phases and bytes of the run file, the time between
two lines of progress (the rows' and the checkpoint's writing included) and the processor time of rank 0 and of all workers,
of /proc/PID/task/*/schedstat. With more ranks than cores times tell of overheads only, processor time of all else.

The model of rank 0's processor time a round is linear in R ranks, C clients, P weights, K of them kept, C K where
updates come one by one, and the time spent waiting, which is no work and left out where it extrapolates. Its coefficients,
none negative, are fitted to the points of AXES with equal relative errors, held-out ones aside.
"""

import argparse
import csv
import itertools
import pathlib
import re
import subprocess
import sys
import time

import numpy as np
from memory import children

WARM, LIMIT_S, HIDDEN = 2, 150, {"10k": 90, "100k": 304, "1M": 990, "10M": 3150}
WAYS = {"sums": "--contribution size", "single": "--contribution cosine"}
TERMS = {                         # name: what it grows with, (point) -> number
    "a round": lambda p: 1,
    "a rank": lambda p: p["ranks"] - 1,
    "a client": lambda p: p["clients"],
    "a weight P": lambda p: p["P"],
    "a kept weight K and level of the trees": lambda p: p["K"] * levels(p),
    "a kept weight of a single update, C K": lambda p: p["clients"] * p["K"] * (p["way"] == "single"),
    "a second of waiting for answers": lambda p: p["train_s"],          # as measured: looking whether one is there
}


def point(way, ranks=3, clients=10, size="10k", *, nodes=1, sparsity=0.0, rounds=12, held_out=False):
    name = f"{way}-r{ranks}-c{clients}-{size}" + f"-n{nodes}" * (nodes > 1) + f"-s{sparsity:g}" * (sparsity > 0)
    return name, dict(way=way, ranks=ranks, clients=clients, size=size, nodes=nodes, sparsity=sparsity, rounds=rounds,
                      held_out=held_out)


AXES = dict(itertools.chain(
    (point(way, clients=clients) for way in WAYS for clients in (10, 100, 1000)),
    (point(way, size=size, rounds=7 if size == "10M" else 12) for way in WAYS for size in HIDDEN),
    (point(way, size="10M", sparsity=0.9, rounds=7) for way in WAYS),
    (point("sums", ranks, 64, "100k") for ranks in (2, 3, 5, 9, 17, 33)),
    (point("single", ranks, 64, "100k") for ranks in (3, 9, 33)),
    (point("sums", ranks, 64, "100k", nodes=nodes) for ranks, nodes in ((9, 3), (33, 5))),
    (point(way, 3, *rest, held_out=True) for way in WAYS for rest in ((100, "1M"), (1000, "100k"))),
    (point("shapley", 3, clients, "100k") for clients in (6, 7, 8, 9, 10))))


def levels(p):
    """Messages of K values that rank 0 sends or takes: down along one tree, up along one in the node and one of leaders."""
    here = -(-p["ranks"] // p["nodes"])
    down = (p["ranks"] - 1).bit_length()
    return down + (p["way"] == "sums") * 2 * ((here - 1).bit_length() + (p["nodes"] - 1).bit_length())


def data(out):
    """An HDF5 data set of 2,000 training samples and 10 test samples of 16 features, made once."""
    import h5py
    path, gen = out / "data.h5", np.random.default_rng(0)
    if not path.exists():
        with h5py.File(path, "w") as f:
            for part, n in (("train", 2000), ("test", 10)):
                f[f"y_{part}"] = np.arange(n) % 10
                f[f"x_{part}"] = gen.standard_normal((n, 16), np.float32) + (np.arange(n) % 10)[:, None].astype(np.float32) / 3
    return path


def spent(pids):
    """``(seconds of processor time of rank 0, of all other ranks)``."""
    seconds = {rank: sum(int(task.read_text().split()[0]) for task in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"))
               * 1e-9 for rank, pid in pids.items()}
    return seconds[0], sum(seconds.values()) - seconds[0]


def command(p, out, name):
    shapley = "--contribution shapley --weighting size --validation 0.1"
    samples = 2 * p["clients"] if p["way"] != "shapley" else 2000
    return (f"mpirun -n {p['ranks']} fedmpi train --dataset {data(out)} --train-samples {samples} --partition iid --noise none "
            f"--clients {p['clients']} --rounds {p['rounds']} --model 2nn:hidden={HIDDEN[p['size']]} --local-epochs 1 "
            f"--batch-size {2 if p['way'] != 'shapley' else 500} --lr 0.01 --strategy fedavg --seed 0 --save-every 1 "
            f"--pruner {'static:sparsity=%g' % p['sparsity'] if p['sparsity'] else 'dense'} "
            f"{'--validation 0 ' + WAYS[p['way']] if p['way'] in WAYS else shapley} --out {out / name}.h5").split()


def measure(out, name, p):
    """A row of the table, as ``{column: value}``; raises where the run failed or took longer than LIMIT_S."""
    from os import environ

    from fedmpi.store import read_run
    process = subprocess.Popen(command(p, out, name), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               env=environ | {"OMP_NUM_THREADS": "1", "MPIR_CVAR_NUM_CLIQUES": str(p["nodes"])})
    killer = subprocess.Popen(["sh", "-c", f"sleep {LIMIT_S}; kill {process.pid}"])
    try:
        marks, heard, pids = [], [], {}
        for line in process.stdout:
            heard.append(line)
            if told := re.match(r"round +(\d+)/", line):
                pids = pids or children(process.pid)
                if int(told[1]) in (WARM, p["rounds"]):
                    marks.append((time.perf_counter(), *spent(pids)))
        if process.wait() != 0 or len(marks) != 2:
            raise RuntimeError(f"{name}: exit code {process.returncode}: {''.join(heard[-3:])}")
    finally:
        killer.kill()
    run = read_run(out / f"{name}.h5")
    per_round = (np.array(marks[1]) - np.array(marks[0])) / (p["rounds"] - WARM)
    each = {column: float(np.median(run.rounds[column][WARM:])) for column in (
        "round_s", "encode_s", "train_s", "contribution_s", "merge_s", "evaluate_s", "utility_calls")}
    wire = {column: float(np.diff(run.rounds[column])[WARM - 1:].mean()) for column in ("wire_sent_bytes", "wire_received_bytes")}
    tail = run.attrs["weights"] - run.attrs["prunable"]
    return p | dict(P=run.attrs["weights"], K=int(run.rounds["kept"][-1]) + tail, wall_s=per_round[0], server_cpu_s=per_round[1],
                    workers_cpu_s=per_round[2], client_s=float(np.median(run.clients["train_s"]))) | each | wire


def measure_all(out, wanted):
    out.mkdir(parents=True, exist_ok=True)
    for name, p in AXES.items():
        path = out / f"{name}.tsv"
        if path.exists() or wanted and not any(name.startswith(each) for each in wanted):
            continue
        for old in [*out.glob(f"{name}.h5"), *out.glob(f"{name}.ckpt/*")]:
            old.unlink()
        try:
            row = measure(out, name, p)
        except RuntimeError as error:
            print(error, file=sys.stderr)
            continue
        with open(path, "w", newline="") as file:
            csv.writer(file, delimiter="\t").writerows([row, row.values()])
        for old in out.glob(f"{name}.ckpt/*"):
            old.unlink()
        print(f"{name}: {row['wall_s']:.3f} s a round, rank 0 {row['server_cpu_s'] * 1e3:.1f} ms of processor time", flush=True)


def read(out):
    def plain(value):
        try:
            return float(value)
        except ValueError:
            return value == "True" if value in ("True", "False") else value

    found = {}
    for name in AXES:
        if (out / f"{name}.tsv").exists():
            with open(out / f"{name}.tsv") as file:
                found[name] = {key: plain(value) for key, value in next(csv.DictReader(file, delimiter="\t")).items()}
                found[name] |= {key: int(found[name][key]) for key in ("ranks", "clients", "nodes")}
    return found


def fit(points):
    """``{term: seconds}`` that give rank 0's processor time a round, by non-negative least squares of relative errors."""
    from scipy.optimize import nnls
    A = np.array([[term(p) for term in TERMS.values()] for p in points], float)
    y = np.array([p["server_cpu_s"] for p in points])
    A /= y[:, None]
    scale = A.max(axis=0).clip(1e-300)
    return dict(zip(TERMS, nnls(A / scale, np.ones(len(y)))[0] / scale))


def told(found, p):
    return sum(seconds * TERMS[name](p) for name, seconds in found.items())


def table(out):
    points = read(out)
    base = {name: p for name, p in points.items() if p["way"] in WAYS}
    fitted = fit([p for p in base.values() if not p["held_out"]])
    print("| point | ranks | clients | P | K | round s | publish | train | contribution | merge | evaluate | between rounds | workers' "
          "processor s | rank 0's, ms | model, ms | error | MB received by rank 0 | told | KB sent a client |")
    print("|---" * 19 + "|")
    for name, p in points.items():
        guess = told(fitted, p) if name in base else None
        cells = [name + " (held out)" * p["held_out"], p["ranks"], p["clients"], f"{p['P']:,.0f}", f"{p['K']:,.0f}"]
        cells += [f"{p[key]:.3g}" for key in ("round_s", "encode_s", "train_s", "contribution_s", "merge_s", "evaluate_s")]
        cells += [f"{p['wall_s'] - p['round_s']:.3g}", f"{p['workers_cpu_s']:.3g}", f"{p['server_cpu_s'] * 1e3:.1f}"]
        cells += ["-", "-"] if guess is None else [f"{guess * 1e3:.1f}", f"{guess / p['server_cpu_s'] - 1:+.0%}"]
        cells += [f"{p['wire_received_bytes'] / 1e6:.3f}", f"{received(p) / 1e6:.3f}" if name in base else "-",
                  f"{p['wire_sent_bytes'] / 1e3 / p['clients']:.2f}"]
        print("| " + " | ".join(map(str, cells)) + " |")
    print("\n| term | seconds |\n|---|---|")
    for name, seconds in fitted.items():
        print(f"| {name} | {seconds:.3g} |")
    print("\n| extrapolated | rank 0's processor s | of which clients | of which C K | MB into rank 0 |\n|---|---|---|---|---|")
    for way, (ranks, nodes, clients, P, K) in itertools.product(WAYS, (
            (1024, 32, 1000, 11.2e6, 1.13e6), (1024, 32, 1000, 11.2e6, 11.2e6), (1024, 32, 100, 11.2e6, 1.13e6))):
        p = dict(way=way, ranks=ranks, nodes=nodes, clients=clients, P=P, K=K, train_s=0)
        parts = [fitted[name] * TERMS[name](p) for name in ("a client", "a kept weight of a single update, C K")]
        print(f"| {way}, {nodes} nodes, {ranks} ranks, {clients} clients, P {P:.3g}, K {K:.3g} | {told(fitted, p):.3g} | "
              + " | ".join(f"{part:.3g}" for part in parts) + f" | {received(p) / 1e6:,.0f} |")
    games = [p for p in points.values() if p["way"] == "shapley"]
    if len(games) > 1:
        slope, start = np.polyfit([p["utility_calls"] for p in games], [p["contribution_s"] for p in games], 1)
        print(f"\ncontribution_s of shapley = {start:.3g} + {slope:.3g} s a coalition")


def received(p):
    """Bytes into rank 0 a round: 192 of each answer's header and numbers, and sums of 8 bytes or updates of 4."""
    here = -(-p["ranks"] // p["nodes"])
    sums = 8 * p["K"] * ((here - 1).bit_length() + (p["nodes"] - 1).bit_length())
    return 192 * p["clients"] + (sums if p["way"] == "sums" else 4 * p["K"] * p["clients"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "table"))
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    if args.what == "measure":
        measure_all(args.out.absolute(), args.names)
    else:
        table(args.out)


if __name__ == "__main__":
    main()
