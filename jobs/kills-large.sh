#!/usr/bin/env bash
# Does a run of a model of 124 million weights, killed 20 times, end with the bits of one that nobody touched? Each start
# resumes what the last one left, on 1, 2 or 3 ranks in turn; a random rank is killed (SIGKILL) at a random moment, one in
# five while ranks still start. The gradient is given: rounds are messages, optimiser steps, sums and checkpoints.
# Expected: 20 of 20 resume, nothing that was committed is lost, one digest at the end. 20 min on two cores, 8 GB of
# memory, 3 GB on the disk of TMPDIR.
#   OUT=runs/kills-large.tsv KILLS=20 WEIGHTS=124e6
set -euo pipefail
OUT=${OUT:-runs/kills-large.tsv}
mkdir -p "$(dirname "$OUT")"
OMP_NUM_THREADS=1 python -m pytest -o addopts= -q tests/runs/test_killing_large.py --large-kills "${KILLS:-20}" \
    --large-weights "${WEIGHTS:-124e6}" --kills-log "$OUT"
column -t -s $'\t' "$OUT"
