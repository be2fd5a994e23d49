#!/usr/bin/env bash
# Does a run that is killed 50 times end up as one that nobody touched? Three ranks under mpirun; in turn a worker, the
# server, a worker is killed (SIGKILL) or halted (SIGSTOP) at a random moment, one in ten while ranks still load torch; each
# start resumes what the last one left. Expected: every end within seconds (of --silence 4), told in one line, nothing that
# was committed lost, the same bits at the end. 10 min on two cores.
#   OUT=runs/kills.tsv KILLS=50
set -euo pipefail
OUT=${OUT:-runs/kills.tsv}
mkdir -p "$(dirname "$OUT")"
OMP_NUM_THREADS=1 python -m pytest tests/runs/test_killing.py --kills "${KILLS:-50}" --kills-log "$OUT"
column -t -s $'\t' "$OUT" | cut -c 1-200
