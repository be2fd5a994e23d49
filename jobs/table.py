#!/usr/bin/env python3
"""A table of runs whose files are named ARM-sSEED.h5: mean and spread over seeds, paired differences to one arm.

    python jobs/table.py runs/noise/*.h5 --against size
"""

import argparse
import math
import pathlib
import re
import statistics as st

from fedmpi.read.report import final_metrics
from fedmpi.store import read_run

COLUMNS = {"final": "final_accuracy", "best by validation": "chosen_accuracy", "Spearman of score with quality": "quality_spearman",
           "of weight with quality": "quality_weight_spearman", "AUC": "quality_auc", "up MB a client": "up",
           "FLOPs/dense (RigL)": "flops_rigl_against_dense", "(PruneFL)": "flops_prunefl_against_dense"}


def arm_and_seed(path):
    """``("sync", 2)`` of a run file sync-s2.h5."""
    found = re.fullmatch(r"(.+)-s(\d+)", path.stem)
    if not found:
        raise SystemExit(f"{path}: a run's file must be named ARM-sSEED.h5")
    return found[1], int(found[2])


def cell(values):
    if any(v is None or math.isnan(v) for v in values):
        return "-"
    return f"{st.mean(values):.4f}" + (f" ± {st.stdev(values):.4f}" if len(values) > 1 else "")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", type=pathlib.Path)
    parser.add_argument("--against", required=True)
    args = parser.parse_args()
    arms = {}
    for path in args.runs:
        arm, seed = arm_and_seed(path)
        run = read_run(path)
        if run.attrs["status"] != "finished":
            print(f"(left out: {path.name} is {run.attrs['status']})")
            continue
        found = final_metrics(run)
        found["up"] = found["up_bytes"] / run.attrs["options"]["clients"] / 1e6
        arms.setdefault(arm, {})[seed] = found
    print("| arm | seeds | " + " | ".join(COLUMNS) + f" | final - {args.against} | best by validation - {args.against} |")
    print("|---" * (len(COLUMNS) + 4) + "|")
    for arm, seeds in sorted(arms.items(), key=lambda item: item[0] != args.against):
        cells = [cell([found.get(key) for found in seeds.values()]) for key in COLUMNS.values()]
        for key in ("final_accuracy", "chosen_accuracy"):
            pairs = [(seeds[s].get(key), arms[args.against][s].get(key)) for s in seeds if s in arms[args.against]]
            paired = [one - other for one, other in pairs if None not in (one, other)]
            cells.append(cell(paired) if arm != args.against and paired else "-")
        print(f"| {arm} | {len(seeds)} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
