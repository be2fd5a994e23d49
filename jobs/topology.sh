#!/usr/bin/env bash
# Is a mask that moves better than one that does not, at sparsity 0.95 and 0.9? CIFAR-10 under label skew
# (Dirichlet 0.5, 10 clients, 10,000 samples), LeNet-5 (61,770 weights), FedAvg by data size, everything else equal.
# Expected: dynamic above static, more so at the higher sparsity. 21 runs of 2 to 3 min on one core.
#   DATA=cifar10.h5 (x_train, y_train, x_test, y_test)   OUT=runs/topology   FEDMPI="mpirun -n 3 fedmpi"
set -euo pipefail
DATA=${DATA:-data/cifar10.h5} OUT=${OUT:-runs/topology} FEDMPI=${FEDMPI:-fedmpi}
mkdir -p "$OUT"
for sparsity in 0.95 0.9; do
  for seed in 0 1 2; do
    for pruner in static rigl residual set; do
      [ "$pruner$sparsity" = set0.9 ] && continue
      [ -e "$OUT/$pruner-$sparsity-s$seed.h5" ] && continue
      $FEDMPI train --dataset "$DATA" --train-samples 10000 --partition dirichlet:beta=0.5 --noise none \
        --model lenet5 --clients 10 --rounds 60 --local-epochs 2 --batch-size 32 --lr 0.02 --strategy fedavg \
        --pruner $pruner:sparsity=$sparsity,distribution=erk --seed $seed --out "$OUT/$pruner-$sparsity-s$seed.h5"
    done
  done
done
for sparsity in 0.95 0.9; do
  python "$(dirname "$0")/table.py" "$OUT"/*-$sparsity-s*.h5 --against static-$sparsity
done
