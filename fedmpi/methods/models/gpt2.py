"""GPT-2: learned positions, layer norms, GELU, biases, a head tied to the table.

    x = table[tokens] + positions;   depth times: x += attention(norm(x)), x += mlp(norm(x))
    logits = norm(x) times the transposed table

124,439,808 parameters at depth 12, width 768, 12 heads, 1024 tokens of context and 50,257 tokens.
Masks prune attention and MLPs; table, positions and norms stay dense.
"""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from fedmpi.methods.models.transformer import (Attention, Block, Mlp, dense_head, heads_of,
                                               initialise, logits, sizes, through, tokens)


def gpt2(shape, classes, depth: int = 12, width: int = 768, heads: int = 12,
         dropout: float = 0.0, recompute: bool = False, context: int = 0, vocab: int = 0):
    """The decoder of 2019, at its smallest size by default.

    ``recompute``: activations of blocks are computed again in the backward pass, for less memory.
    ``context`` and ``vocab`` 0: those of the data.

    Paper: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
    Example: fedmpi train --task lm --dataset markov:tokens=4000,context=16 --lr 0.01
        --model gpt2:depth=1,width=16,heads=2
    """
    sizes(depth=depth, width=width)
    window, num_tokens = tokens(shape, classes, "gpt2", context, vocab)
    heads_of(width, heads)
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}")
    network = Gpt2(window, num_tokens, depth, width, heads, dropout, recompute)
    initialise(network, depth)
    return network


class Gpt2(nn.Module):
    """Windows of tokens (n, T) int64 to logits (n, T, vocab)."""

    def __init__(self, window, vocab, depth, width, heads, dropout, recompute):
        super().__init__()
        num_recomputed = depth * recompute
        self.table = nn.Embedding(vocab, width)
        self.positions = nn.Embedding(window, width)
        self.drop = nn.Dropout(dropout)
        gelu = partial(F.gelu, approximate="tanh")
        blocks = []
        for _ in range(depth):
            attention = Attention(width, heads, bias=True, causal=True, dropout=dropout)
            mlp = Mlp(width, 4 * width, gelu, bias=True)
            norms = nn.LayerNorm(width), nn.LayerNorm(width)
            blocks.append(Block(attention, mlp, norms, dropout))
        self.blocks = nn.ModuleList(blocks)
        # The modules whose activations training does not keep.
        self.recomputed = tuple(blocks[:num_recomputed])
        self.norm = nn.LayerNorm(width)
        self.head = dense_head(width, vocab, self.table)

    def forward(self, ids):
        window = ids.shape[1]
        places = torch.arange(window, device=ids.device)
        rows = self.table(ids) + self.positions(places)
        x = self.drop(rows)
        x = through(self.blocks, x, self.recomputed)
        features = self.norm(x)
        return logits(features, self.head)
