"""A GPT of today: norms without parameters, rotary positions, normalised queries and keys.

    x = norm(table[tokens]);   depth times: x += attention(norm(x)), x += mlp(norm(x))
    logits = head(norm(x))

    rotary: the pair (a, b) at places i and i + d/2 of a head, of token t, turns by t / BASE^(2 i/d)
    mlp:    relu2 W2 max(0, W1 x)^2;   gelu W2 gelu(W1 x);   swiglu W2 (silu(W3 x) * W1 x)

There are no biases. Masks prune attention and MLPs; table, head and norms stay dense. A training
step takes 6 P + 12 depth width T FLOPs a token, P without the table.
"""

from functools import partial
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from fedmpi.methods.models.transformer import (Attention, Block, Mlp, dense_head, heads_of,
                                               initialise, logits, sizes, through, tokens)

BASE = 10_000.0


def gpt(shape, classes, depth: int = 4, width: int = 128, heads: int = 4,
        mlp: Literal["relu2", "gelu", "swiglu"] = "relu2", tied: bool = False,
        dropout: float = 0.0, recompute: bool = False, context: int = 0, vocab: int = 0):
    """A decoder of tokens, 0.8 million parameters for 65 characters at the usual size.

    ``tied``: table and head are one matrix. ``recompute``: activations of blocks are computed
    again in the backward pass, for less memory. ``context`` and ``vocab`` 0: those of the data.

    Paper: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners"; Su et al.
        2021, "RoFormer", arXiv 2104.09864; Shazeer 2020, "GLU Variants Improve Transformer",
        arXiv 2002.05202; So et al. 2021, "Primer", arXiv 2109.08668, for ReLU^2.
    Example: fedmpi train --task lm --dataset markov:tokens=4000,context=16 --lr 0.01
        --model gpt:depth=1,width=16,heads=2
    """
    sizes(depth=depth, width=width)
    window, num_tokens = tokens(shape, classes, "gpt", context, vocab)
    if heads_of(width, heads) % 2:
        raise ValueError(f"width / heads must be even, as rotary positions turn pairs, got {width} "
                         f"/ {heads}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}")
    network = Gpt(window, num_tokens, depth, width, heads, mlp, tied, dropout, recompute)
    initialise(network, depth)
    return network


class Gpt(nn.Module):
    """Windows of tokens (n, T) int64 to logits (n, T, vocab)."""

    def __init__(self, window, vocab, depth, width, heads, mlp, tied, dropout, recompute):
        super().__init__()
        num_recomputed = depth * recompute
        self.table = nn.Embedding(vocab, width)
        turn = Turn(window, width // heads)
        blocks = []
        for _ in range(depth):
            attention = Attention(width, heads, causal=True, turn=turn, dropout=dropout)
            block = Block(attention, _mlp(mlp, width), (norm, norm), dropout)
            blocks.append(block)
        self.blocks = nn.ModuleList(blocks)
        # The modules whose activations training does not keep.
        self.recomputed = tuple(blocks[:num_recomputed])
        shared = self.table if tied else None
        self.head = dense_head(width, vocab, shared)

    def forward(self, ids):
        rows = self.table(ids)
        x = norm(rows)
        x = through(self.blocks, x, self.recomputed)
        features = norm(x)
        return logits(features, self.head)


class Turn(nn.Module):
    """Rotary positions of (n, heads, T, d), then each head's vector at length sqrt(d)."""

    def __init__(self, window, d):
        super().__init__()
        # In double precision: the same float32 on every machine.
        shares = torch.arange(0, d, 2, dtype=torch.float64) / d
        places = torch.arange(window, dtype=torch.float64)
        angles = torch.outer(places, BASE ** -shares)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, x):
        T = x.shape[2]
        cos, sin = self.cos[:T], self.sin[:T]
        a, b = x.chunk(2, dim=3)
        turned_a = a * cos + b * sin
        turned_b = b * cos - a * sin
        turned = torch.cat([turned_a, turned_b], dim=3)
        return norm(turned).to(x.dtype)


def norm(x):
    """``x`` over the root of the mean of its squares, along the last dimension."""
    return F.rms_norm(x, x.shape[-1:])


def _mlp(kind, width):
    if kind == "swiglu":
        # Three matrices with about as many weights as two of four times the width.
        eighths = -(-width // 3)
        return Mlp(width, 8 * eighths, F.silu, gated=True)
    activation = relu2
    if kind == "gelu":
        activation = partial(F.gelu, approximate="tanh")
    return Mlp(width, 4 * width, activation)


def relu2(x):
    """max(0, x)^2."""
    return F.relu(x).square()
