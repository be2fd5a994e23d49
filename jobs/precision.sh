#!/usr/bin/env bash
# Does --precision bf16 cost accuracy? Fashion-MNIST, 10,000 samples, the CNN of 582,026 weights, 10 clients, IID and under label
# skew (Dirichlet 0.5), dense FedAvg, and the thesis's algorithm at sparsity 0.9; everything else equal.
# Expected: within 0.5 points of float32. 18 runs of 1 to 2 min on one core.
#   DATA=... (fedmpi fetch fashion-mnist --data-dir $DATA)   OUT=runs/precision   FEDMPI="mpirun -n 3 fedmpi"   SEEDS="0 1"
set -euo pipefail
DATA=${DATA:-data} OUT=${OUT:-runs/precision} FEDMPI=${FEDMPI:-fedmpi}
mkdir -p "$OUT"
dense="--strategy fedavg --pruner dense --contribution size --weighting size"
for seed in ${SEEDS:-0 1 2}; do
  for precision in float32 bf16; do
    for arm in iid skew thesis; do
      out="$OUT/$arm-$precision-s$seed.h5"
      [ -e "$out" ] && continue
      what="$dense --partition iid"
      [ $arm = skew ] && what="$dense --partition dirichlet:beta=0.5"
      [ $arm = thesis ] && what="--strategy thesis --pruner rigl:sparsity=0.9 --contribution cosine --partition dirichlet:beta=0.5"
      $FEDMPI train --dataset fashion-mnist --data-dir "$DATA" --train-samples 10000 --noise none --model cnn --clients 10 \
        --rounds 20 --local-epochs 1 --batch-size 32 --lr 0.02 $what --precision $precision --seed $seed --out "$out"
    done
  done
done
for arm in iid skew thesis; do
  python "$(dirname "$0")/table.py" "$OUT"/$arm-*-s*.h5 --against $arm-float32
done
