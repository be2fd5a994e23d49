#!/bin/bash
# The pictures of the README, made anew by the commands that the README names: jobs/main-job.png and jobs/report.png.
# Needs a headless Chromium (CHROMIUM=... where it has another name) and some minutes. FEDMPI=... names the program.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
fedmpi=${FEDMPI:-fedmpi}
chromium=${CHROMIUM:-chromium}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# one process has the bits of 33 ranks
"$fedmpi" train --out main.h5
"$fedmpi" show main.h5 --picture main.png

shared=(--dataset digits --clients 10 --noise none --rounds 40)
for seed in 0 1; do
    "$fedmpi" train "${shared[@]}" --seed $seed --strategy fedavg --pruner dense --out "runs-dense-$seed.h5"
    "$fedmpi" train "${shared[@]}" --seed $seed --strategy fedavg --pruner rigl:every=4 --out "runs-rigl-$seed.h5"
    "$fedmpi" train "${shared[@]}" --seed $seed --strategy prunefl --out "runs-prunefl-$seed.h5"
done
"$fedmpi" report runs-*.h5 --out report.html
"$chromium" --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$work/browser" \
    --window-size=1266,1400 --screenshot="$work/report.png" "file://$work/report.html"

mv main.png "$here/main-job.png"
mv report.png "$here/report.png"
