#!/usr/bin/env python3
"""The size of one update of GPT-2's 124 million weights: body sparsity .9 times top-k, against dense float32.

    python jobs/topk-size.py            # a minute, 3 GB of memory

No training: a size follows from the positions and values alone. The layout is that of --model gpt2; attention and MLPs keep a
tenth of their weights (ERK, at random), the tied table and all else is dense. Values are drawn twice: normal, with another scale in
each tensor; and Laplace, with half of the table's rows unseen in this round, hence 0. Both are encoded by --codec topk at its usual
options, positions within the mask, and put into a frame as clients send it. Expected: 500 times fewer bytes at least.
"""

import time

import numpy as np
import torch

from fedmpi.core.layout import bind
from fedmpi.core.mask import budgets, random_mask
from fedmpi.methods.codecs.topk import topk
from fedmpi.methods.models.gpt2 import gpt2
from fedmpi.wire import frame

CONTEXT, VOCAB, SPARSITY = 1024, 50257, 0.9


def normal(slot, gen):
    """Values of a tensor, normal with a scale of its own."""
    scale = np.exp(gen.normal())
    return scale * gen.standard_normal(slot.size, dtype=np.float32)


def laplace(slot, gen):
    """Values of a tensor of heavier tails; half of the rows of a table are 0."""
    values = np.exp(gen.normal()) * gen.laplace(size=slot.size).astype(np.float32)
    if slot.shape[0] == VOCAB:
        values.reshape(slot.shape)[gen.random(VOCAB) < 0.5] = 0
    return values


def update(layout, support, draw, gen):
    """(K,) float32: an update on the support."""
    whole = torch.zeros(layout.P)
    for slot in layout.trained:
        whole[slot.span] = torch.from_numpy(draw(slot, gen))
    return whole.index_select(0, support)


def main():
    torch.set_num_threads(1)
    layout, _, _ = bind(gpt2((CONTEXT,), VOCAB))
    gen = np.random.default_rng(0)
    mask = random_mask(layout, budgets(layout, SPARSITY, "erk"), gen)
    support = layout.support(mask)
    num_values, K = layout.num_values, len(support)
    dense_bytes = 4 * num_values
    print(f"{num_values:,} weights, {layout.num_weights:,} of them prunable; {K:,} kept, {K / num_values:.3f} of all")
    codec = topk()
    for draw in (normal, laplace):
        values = update(layout, support, draw, gen)
        begin = time.process_time()
        arrays = codec.encode(values)
        encode_s = time.process_time() - begin
        num_bytes = frame.size({}, arrays)
        print(f"{draw.__name__:8} {num_bytes:,} bytes, {8 * num_bytes / K:.4f} bits a kept weight, "
              f"{dense_bytes / num_bytes:.0f} times fewer than {dense_bytes:,}; encoded in {encode_s:.2f} s of one core")


if __name__ == "__main__":
    main()
