#!/usr/bin/env python3
"""Tables of jobs/contribution.sh, whose run files are named FAULT-PARTITION-sSEED.h5: every estimator against every
fault and partition, means over seeds.

    python jobs/grid.py runs/contribution/*.h5
"""

import math
import pathlib
import re
import statistics as st
import sys

from fedmpi.read.report import judged
from fedmpi.store import read_run

GRADED = ("graded", "fedcorr", "mixed", "majority", "majority-pair")     # quality takes several values: judged by Spearman as well


def read(paths):
    """``{(estimator, fault, partition): [judged, a seed]}``."""
    found = {}
    for path in map(pathlib.Path, paths):
        fault, partition, _ = re.fullmatch(r"(.+)-([a-z]+)-s(\d+)", path.stem).groups()
        run = read_run(path)
        if run.attrs["status"] != "finished":
            print(f"(left out: {path.name} is {run.attrs['status']})")
            continue
        for name, found_by in judged(run).items():
            found.setdefault((name, fault, partition), []).append(found_by)
    return found


def cell(values):
    values = [v for v in values if v is not None and not math.isnan(v)]
    return f"{st.mean(values):.2f}".replace("0.", ".") if values else "-"


def table(title, names, columns, value):
    """Print a table of ``value(name, column) -> list of numbers``, its last column the mean of all."""
    print(f"\n{title}\n\n| estimator | " + " | ".join(columns) + " | mean |\n" + "|---" * (len(columns) + 2) + "|")
    rows = {name: [value(name, column) for column in columns] for name in names}
    for name in sorted(names, key=lambda n: -st.mean([v for cells in rows[n] for v in cells if v is not None] or [-9])):
        flat = [v for cells in rows[name] for v in cells]
        print(f"| {name} | " + " | ".join(map(cell, rows[name])) + f" | {cell(flat)} |")


def main():
    found = read(sys.argv[1:])
    names, faults, partitions = ([*dict.fromkeys(key[i] for key in found)] for i in range(3))
    for partition in partitions:
        table(f"AUC of good over bad clients, partition {partition}", names, faults,
              lambda name, fault: [j.get("auc") for j in found.get((name, fault, partition), [])])
    graded = [fault for fault in faults if fault in GRADED]
    table("Spearman with quality, all partitions", names, graded,
          lambda name, fault: [j.get("spearman") for p in partitions for j in found.get((name, fault, p), [])])
    near = {"cosine distance": "cosine_distance", "Euclidean": "euclidean_distance", "largest": "max_distance",
            "Spearman": "shapley_spearman", "coalitions": "calls", "seconds": "seconds"}
    everything = {name: [j for (n, _, _), js in found.items() if n == name for j in js] for name in names}
    print("\nAgainst exact Shapley, medians over all cells; cost of a run of 6 rounds\n\n| estimator | " + " | ".join(near)
          + " |\n" + "|---" * (len(near) + 1) + "|")
    for name in names:
        medians = [[j[key] for j in everything[name] if not math.isnan(j.get(key, math.nan))] for key in near.values()]
        print(f"| {name} | " + " | ".join(f"{st.median(v):.3g}" if v else "-" for v in medians) + " |")


if __name__ == "__main__":
    main()
