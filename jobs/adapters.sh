#!/usr/bin/env bash
# Fine-tuning with adapters: a small GPT trained on one half of the speakers of tiny Shakespeare, then fine-tuned by
# eight speakers of the other half. All weights by FedAvg, adapters by FedIT, FFA-LoRA and FLoRA. The rate of each
# method is chosen among RATES by the validation loss at seed 0; further seeds take this rate. Half an hour on one
# idle core, by estimate. Results: jobs/results/adapters.md.
#   DATA=... (tinyshakespeare/input.txt in it)   OUT=runs/adapters   SEEDS="0 1 2"   RATES="..."   METHODS="full fedit ffa flora"
set -euo pipefail
DATA=${DATA:-data} OUT=${OUT:-runs/adapters} HERE=$(dirname "$0")
PYTHON=${PYTHON:-python}
mkdir -p "$OUT"
"$PYTHON" "$HERE/adapters.py" split "$DATA/tinyshakespeare/input.txt" "$OUT"

train() {    # out, then options; a finished run stays
  local out=$1; shift
  [ -e "$out.done" ] && return
  fedmpi train --task lm --model gpt:depth=2,width=64,heads=4 --batch-size 12 --clip-norm 1 --pruner dense \
    --contribution size --evaluate-every 1000 --device cpu "$@" --out "$out" --overwrite > "$out.log"
  touch "$out.done"
}

# One client has the first half's text.
train "$OUT/base.h5" --data-dir "$OUT/first" --dataset shakespeare:context=64 --partition iid --clients 1 \
  --strategy fedavg --optimiser adamw:beta2=0.99,weight_decay=0.1 --lr 0.003 --rounds 1 \
  --local-steps "${STEPS:-2000}" --schedule cosine:final=0.1,warmup=50,over=run
fedmpi export-model "$OUT/base.h5" --out "$OUT/base.safetensors" --overwrite

tune() {     # method, rate, seed
  local more
  case $1 in
    none) more="--strategy fedavg --rounds 1 --local-steps 1" ;;    # the model as it comes
    full) more="--strategy fedavg" ;;
    fedit) more="--strategy fedavg --adapters lora:rank=4,on=all" ;;
    ffa) more="--strategy fedavg --adapters ffa-lora:rank=4,on=all" ;;
    flora) more="--strategy flora --adapters lora:rank=4,on=all" ;;
  esac
  # shellcheck disable=SC2086
  train "$OUT/$1-lr$2-s$3.h5" --init-from "$OUT/base.safetensors" --data-dir "$OUT/second" \
    --dataset shakespeare:context=64 --partition natural:min_size=216 --optimiser adam --lr "$2" --rounds 10 \
    --local-steps 10 --seed "$3" $more
}

tune none 0.0000001 0
for method in ${METHODS:-full fedit ffa flora}; do
  tried=()
  for rate in ${RATES:-0.0003 0.001 0.003 0.01}; do
    tune $method "$rate" 0
    tried+=("$OUT/$method-lr$rate-s0.h5")
  done
  best=$("$PYTHON" "$HERE/adapters.py" best "${tried[@]}")
  rate=${best##*-lr} rate=${rate%-s0.h5}
  for seed in ${SEEDS:-0 1 2}; do tune $method "$rate" "$seed"; done
done
"$PYTHON" "$HERE/adapters.py" table "$OUT"
