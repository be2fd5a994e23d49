#!/usr/bin/env bash
# Large language models on one GPU, in at most eight minutes: each part ends by itself or after its seconds.
#   1. GPT-2 of 124 million weights, 4 clients of 50 steps: rounds against the bare steps of torch's AdamW (the aim is
#      a ratio of 1.05 at most), and tokens a second
#   2. one round of a GPT of 1.3 billion weights, and the largest memory of the GPU (the aim is 80 GB at most)
#   3. 2:4 masks against dense products
#   OUT=runs/gpu-large      SIZE=toy: a minute on a CPU, to see that it works
set -uo pipefail
OUT=${OUT:-runs/gpu-large} SIZE=${SIZE:-full}
mkdir -p "$OUT"
if [ "$SIZE" = toy ]; then
  small="--vocab 64 --context 16 --batch-size 4 --precision float32 --device cpu"
  medium="--model gpt2:depth=1,width=16,heads=2 --local-steps 2 --clients 2 --repeats 1 $small"
  large="--model gpt:depth=2,width=32,heads=2,recompute=true --local-steps 1 --clients 1 --repeats 0 $small"
  sparse="--n 32 --batch 4 --sparsity 0.5 --repeats 1"
else
  medium="--model gpt2 --local-steps 50 --clients 4 --repeats 2 --device cuda"
  large="--model gpt:depth=24,width=2048,heads=16,recompute=true --context 1024 --batch-size 8 --local-steps 5"
  large="$large --clients 1 --repeats 0 --device cuda"
  sparse="--n 2048 --batch 2048 --sparsity 0.95 --repeats 3"
fi

failed=0
# part NAME SECONDS ARGUMENTS...: a bench, its output on the screen and in $OUT/NAME.log
part() {
  local name=$1 limit_s=$2 begin=$SECONDS
  shift 2
  echo "== $name: fedmpi $*"
  timeout --kill-after=10 "$limit_s" fedmpi "$@" 2>&1 | tee "$OUT/$name.log" || failed=1
  echo "== $name: $((SECONDS - begin)) s"
}

fedmpi --version | tee "$OUT/version.log"
# Unquoted: a word an argument.
part medium 200 bench language $medium
part large 180 bench language $large
part sparse 80 bench sparse $sparse --json "$OUT/sparse.json"
exit $failed
