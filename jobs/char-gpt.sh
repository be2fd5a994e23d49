#!/usr/bin/env bash
# nanoGPT's small set-up in one client: 4 layers, 128 wide, 64 characters of context, 2000 steps of 12 windows on tiny
# Shakespeare. Its README has 1.88 nats on the last tenth of the text; expected here: 1.88 +- .03, by gpt2, whose
# layers are nanoGPT's. One round is the whole training, as AdamW's moments start anew each round.
# Some 5 minutes a model on one core.
#   DATA=... (tinyshakespeare/input.txt in it)   OUT=runs/char-gpt   MODELS="gpt2 gpt"
set -euo pipefail
DATA=${DATA:-data} OUT=${OUT:-runs/char-gpt}
mkdir -p "$OUT"
for model in ${MODELS:-gpt2 gpt}; do
  fedmpi train --task lm --data-dir "$DATA" --dataset text:file=tinyshakespeare/input.txt,context=64 \
    --model "$model:depth=4,width=128,heads=4" --clients 1 --validation 0 --rounds 1 --local-steps 2000 \
    --batch-size 12 --optimiser adamw:beta2=0.99,weight_decay=0.1 --lr 0.001 --clip-norm 1 \
    --schedule cosine:final=0.1,warmup=100,over=run --strategy fedavg --pruner dense --contribution size \
    --seed "${SEED:-0}" --out "$OUT/$model.h5"
done
