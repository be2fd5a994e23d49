#!/usr/bin/env bash
# Robust merging against weighing by contribution, under attack: Fashion-MNIST, LeNet-5 at sparsity 0.8 (static mask),
# 10 clients of 300 samples, 3 of them bad, 20 rounds of 2 epochs.
# Expected: robust rules and contributions both hold where the plain mean breaks. 120 runs of 15 s on one core.
#   DATA=... (fedmpi fetch fashion-mnist --data-dir $DATA)   OUT=runs/robust   FEDMPI="mpirun -n 3 fedmpi"   SEEDS="0 1"
set -euo pipefail
DATA=${DATA:-data} OUT=${OUT:-runs/robust} FEDMPI=${FEDMPI:-fedmpi}
mkdir -p "$OUT"
declare -A ATTACKS=([none]="" [noise]="--noise symmetric:rate=0.6,share=0.3" [label-flip]="--fault label-flip:share=0.3"
  [sign-flip]="--fault sign-flip:share=0.3" [scaled]="--fault scaled:share=0.3"
  [rider]="--fault free-rider:kind=random,share=0.3")
declare -A ARMS=([mean]="--strategy fedavg" [median]="--strategy median" [trimmed]="--strategy trimmed-mean:trim=0.3"
  [krum]="--strategy krum:byzantine=0.3" [multi-krum]="--strategy multi-krum:byzantine=0.3"
  [geometric]="--strategy geometric-median" [fltrust]="--strategy fltrust --server-data 300"
  [cosine]="--strategy fedavg --contribution cosine" [loss-gain]="--strategy fedavg --contribution loss-gain"
  [gtg]="--strategy fedavg --contribution gtg-shapley:budget=51")
for seed in ${SEEDS:-0 1}; do
  for attack in none noise label-flip sign-flip scaled rider; do
    for arm in mean median trimmed krum multi-krum geometric fltrust cosine loss-gain gtg; do
      out="$OUT/$attack-$arm-s$seed.h5"
      [ -e "$out" ] && continue
      $FEDMPI train --dataset fashion-mnist --data-dir "$DATA" --train-samples 3300 --validation 0.0909 --partition iid \
        --noise none ${ATTACKS[$attack]} --model lenet5 --clients 10 --rounds 20 --local-epochs 2 --batch-size 16 --lr 0.03 \
        ${ARMS[$arm]} --pruner static:sparsity=0.8 --save-every 20 --seed $seed --out "$out" > "${out%.h5}.log" 2>&1 \
        || echo "$out failed: $(tail -n 1 "${out%.h5}.log")"
    done
  done
done
for attack in none noise label-flip sign-flip scaled rider; do
  python "$(dirname "$0")/table.py" "$OUT"/$attack-*.h5 --against $attack-mean
done
