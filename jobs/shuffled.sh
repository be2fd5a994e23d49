#!/usr/bin/env bash
# Do weights by contribution fall for clients whose text is shuffled? Tiny Shakespeare, its speakers with the most text, a quarter of
# them shuffled; a GPT of 1 layer and 32 wide, windows of 32, 8 rounds of 10 steps. Each estimator weighs once, by relu.
# Expected: an AUC of honest over shuffled clients of 1. 9 runs of half a minute on one core.
#   DATA=... (tinyshakespeare/input.txt in it)   OUT=runs/shuffled   SEEDS="0 1 2"
set -euo pipefail
DATA=${DATA:-data} OUT=${OUT:-runs/shuffled}
mkdir -p "$OUT"
for seed in ${SEEDS:-0 1 2}; do
    for estimator in cosine loss-gain influence; do
        run="$OUT/$estimator-$seed.h5"
        [ -e "$run" ] || fedmpi train --task lm --data-dir "$DATA" --dataset shakespeare:context=32 \
            --model gpt:depth=1,width=32,heads=2 --partition natural:min_size=${LEAST:-500} --validation 0.05 --rounds 8 \
            --local-steps 10 --batch-size 16 --optimiser adamw:weight_decay=0.1 --lr 0.01 --strategy fedavg --pruner dense \
            --fault shuffled:share=0.25 --contribution $estimator --weighting relu --evaluate-every 8 --save-every 8 \
            --seed "$seed" --out "$run" > "${run%.h5}.log"
        fedmpi show "$run" | grep -a -A5 Spearman | grep -a -e weighs -e "weight in" | sed "s/^/$estimator seed $seed: /"
    done
done
