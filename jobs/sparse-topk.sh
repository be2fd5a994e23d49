#!/usr/bin/env bash
# What masks times top-k updates cost a small language model: tiny Shakespeare, a GPT of 2 layers and 64 wide, 4 clients of iid text,
# DiLoCo with an outer SGD, 80 rounds of 5 steps (E10's setting at H 5). Perplexity within 5 % of dense is .049 nats.
# Half a minute a run on one core.
#   DATA=... (tinyshakespeare/input.txt in it)   OUT=runs/sparse-topk   SEEDS="0 1 2"
set -euo pipefail
DATA=${DATA:-data} OUT=${OUT:-runs/sparse-topk}
mkdir -p "$OUT"
topk=topk:share=0.0156,chunk=4096,bits=2,feedback=0.95
play() {
    [ -e "$OUT/$1-$seed.h5" ] || fedmpi train --task lm --data-dir "$DATA" --dataset shakespeare:context=32 \
        --model gpt:depth=2,width=64,heads=2 --partition iid --clients 4 --validation 0 --rounds 80 --local-steps 5 --batch-size 16 \
        --optimiser adamw:beta2=0.95,weight_decay=0.1 --lr 0.01 --schedule cosine:final=0.1,warmup=20,over=run \
        --strategy diloco:outer=sgd,server_lr=1 --contribution uniform --weighting uniform --evaluate-every 80 --save-every 80 \
        --pruner "$2" --codec "$3" --seed "$seed" --out "$OUT/$1-$seed.h5" > "$OUT/$1-$seed.log" 2>&1
    echo "$1 seed $seed: $(grep -a '^nats' "$OUT/$1-$seed.log" | head -1)"
}
for seed in ${SEEDS:-0 1 2}; do
    play dense dense float32
    play topk dense "$topk"
    play sparse-topk rigl:sparsity=0.9,every=5 "$topk"
    play sparse rigl:sparsity=0.9,every=5 float32
    play half-topk rigl:sparsity=0.5,every=5 "$topk"
done
