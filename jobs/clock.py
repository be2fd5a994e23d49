#!/usr/bin/env python3
"""Runs named ARM-sSEED.h5 by virtual time: seconds to an accuracy, and accuracy when the first of the seed's runs ends.

    python jobs/clock.py runs/clock/*.h5 --against sync --accuracy 0.7
"""

import argparse
import math
import pathlib
import statistics as st

import numpy as np
from table import arm_and_seed

from fedmpi.store import read_run

WINDOW_S = 20.0          # accuracy at a time is the mean of the tests in so many virtual seconds before it


def seconds_to(rounds, accuracy):
    """Virtual seconds until the test accuracy is reached, NaN where it never is."""
    reached = np.flatnonzero(rounds["accuracy"] >= accuracy)
    return float(rounds["sim_total_s"][reached[0]]) if len(reached) else math.nan


def accuracy_at(rounds, seconds):
    """Mean test accuracy of the rounds that end in the window before ``seconds``."""
    ends = rounds["sim_total_s"]
    return float(np.nanmean(rounds["accuracy"][(ends <= seconds) & (ends > seconds - WINDOW_S)]))


def cell(values, digits):
    if not values or any(math.isnan(value) for value in values):
        return "-"
    return f"{st.mean(values):.{digits}f}" + (f" ± {st.stdev(values):.{digits}f}" if len(values) > 1 else "")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+", type=pathlib.Path)
    parser.add_argument("--against", required=True)
    parser.add_argument("--accuracy", type=float, required=True)
    args = parser.parse_args()
    runs = {arm_and_seed(path): read_run(path).rounds for path in args.runs}
    end = {seed: min(rounds["sim_total_s"][-1] for (_, other), rounds in runs.items() if other == seed) for _, seed in runs}
    found = {key: (seconds_to(rounds, args.accuracy), accuracy_at(rounds, end[key[1]]), rounds["sim_total_s"][-1] / len(
        rounds["round"]), 100 * rounds["merged"].sum() / rounds["asked"].sum()) for key, rounds in runs.items()}
    print(f"| arm | seeds | s to {args.accuracy:g} | times faster than {args.against} | accuracy in equal time | "
          f"minus {args.against} | s a merge | % merged |")
    print("|---" * 8 + "|")
    for arm in sorted({arm for arm, _ in runs}, key=lambda arm: (arm != args.against, arm)):
        seeds = [seed for other, seed in runs if other == arm]
        mine = [found[arm, seed] for seed in seeds]
        base = [found.get((args.against, seed), (math.nan,) * 4) for seed in seeds]
        print(f"| {arm} | {len(seeds)} | {cell([m[0] for m in mine], 0)} | {cell([b[0] / m[0] for m, b in zip(mine, base)], 2)} | "
              f"{cell([m[1] for m in mine], 4)} | {cell([m[1] - b[1] for m, b in zip(mine, base)], 4)} | "
              f"{cell([m[2] for m in mine], 2)} | {cell([m[3] for m in mine], 0)} |")


if __name__ == "__main__":
    main()
