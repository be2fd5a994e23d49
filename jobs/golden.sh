#!/usr/bin/env bash
# Golden runs: fourteen small runs over strategies, pruners, estimators, codecs, faults, time and teams.
#
#   jobs/golden.sh before            # with the fedmpi of one commit on PATH
#   jobs/golden.sh after             # with that of another
#   jobs/golden.sh after before      # are the bits the same, and where do two runs first differ?
#
# Bits depend on the processor and on torch, so both are recorded on the same machine. Every option that a default
# could change is given here.
set -euo pipefail
folder=$1
mkdir -p "$folder"

if [ $# = 2 ]; then
    for run in "$folder"/*.h5; do
        # Options and columns that one of the commits does not know yet are no difference in the numbers.
        differences=$(fedmpi verify "$2/$(basename "$run")" "$run" 2>&1 \
            | grep -v -e '^option ' -e ': only in the \(first\|second\) run$' || true)
        echo "$(basename "$run" .h5): ${differences:-the same numbers}"
    done
    exit
fi

# Runs of an earlier commit would be compared as if they were of this one.
if compgen -G "$folder/*.h5" > /dev/null; then
    echo "$folder has runs already: name another folder" >&2
    exit 2
fi

# play NAME OPTIONS...: one run of three rounds, on the digits, in one process
play() {
    local name=$1
    shift
    fedmpi train --dataset digits --partition dirichlet:beta=0.5 --noise symmetric:rate=0.4,share=0.5 --clients 6 \
        --rounds 3 --local-epochs 1 --batch-size 16 --lr 0.05 --seed 3 --device cpu --validation 0.1 \
        --model small-cnn:width=8 --out "$folder/$name.h5" "$@" > "$folder/$name.log" 2>&1 \
        || { echo "$name: $(tail -1 "$folder/$name.log")"; exit 1; }
    echo "$name"
}

play fedavg-dense --strategy fedavg --pruner dense --contribution size --weighting size
play fedprox-static --strategy fedprox:mu=0.1 --pruner static:sparsity=0.8 --contribution size --weighting size
play thesis-rigl --strategy thesis --pruner rigl:sparsity=0.8,every=1 --contribution cosine --weighting relu
play thesis-code --strategy thesis-code --pruner residual:every=1 --contribution cosine --weighting thesis
play feddst --strategy feddst --pruner feddst:sparsity=0.8,every=1 --contribution size --weighting size \
    --local-epochs 2
play prunefl --strategy prunefl --pruner prunefl:every=1 --contribution size --weighting size
play adaptive --strategy fedavg --pruner adaptive:sparsity=0.6 --contribution loo-cosine --weighting softmax
play set-resnet --strategy fedavg --pruner set:sparsity=0.8,every=1 --contribution size --weighting size \
    --model torchvision:name=resnet18 --dataset synthetic:samples=120,size=8 --rounds 2 --clients 3
play shapley --strategy fedavg --pruner static:sparsity=0.5 --contribution shapley --weighting relu --observe influence \
    --observe shapfed --observe focus
play krum --strategy krum --pruner dense --contribution uniform --weighting uniform --fault sign-flip:share=0.2 \
    --fault label-flip:share=0.2
play int8 --strategy fedavg --pruner static:sparsity=0.8 --codec int8:entropy=true --contribution size --weighting size
play sign --strategy fedavg --pruner static:sparsity=0.8 --codec sign --contribution size --weighting size
play fedbuff --strategy fedavg --pruner static:sparsity=0.8 --contribution cosine --weighting relu \
    --devices drawn:correlation=0.5 --timing fedbuff:buffer=2 --cohort 3
play together --strategy fedavg --pruner static:sparsity=0.5 --contribution size --weighting size --together 3

# A run that was stopped and resumed has the bits of one that was not.
play resumed --strategy fedprox:mu=0.1 --pruner static:sparsity=0.8 --contribution size --weighting size --until 1
fedmpi train --resume "$folder/resumed.h5" > "$folder/resumed.log" 2>&1
fedmpi verify "$folder/fedprox-static.h5" "$folder/resumed.h5" | tail -1
