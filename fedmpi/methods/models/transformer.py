"""Shared by transformers: attention, MLP, blocks, initial weights, the head."""

import math

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fedmpi.core.logits import Logits

# With more tokens than that, the loss takes logits in chunks.
LARGE = 4096
STD = 0.02


def tokens(shape, classes, name, context, vocab):
    """``(context, vocab)`` of a model of tokens: those of the data, which an option may confirm.

    ``ValueError`` for samples that are no windows of tokens, or another size than the data's.
    """
    if len(shape) != 1:
        raise ValueError(f"{name} needs windows of tokens (T,), got samples of shape "
                         f"{tuple(shape)}; take --dataset text or shakespeare, or another model")
    [window] = shape
    for option, wanted, of_data in (("context", context, window), ("vocab", vocab, classes)):
        if wanted not in (0, of_data):
            raise ValueError(f"{option} must be that of the data set, {of_data}, got {wanted}; "
                             "leave it out")
    return window, classes


def heads_of(width, heads):
    """The width of a head; ValueError unless heads share the ``width`` evenly."""
    if heads < 1 or width % heads:
        raise ValueError(f"heads must divide width={width}, got {heads}")
    return width // heads


def sizes(**options):
    """ValueError for the first of these options that is below 1."""
    for name, value in options.items():
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")


class Attention(nn.Module):
    """Self-attention of (n, T, width); ``turn(q or k (n, heads, T, d))`` comes before products.

    Four square matrices, so that masks treat each by itself.
    """

    def __init__(self, width, heads, bias=False, causal=False, turn=None, dropout=0.0):
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.turn = turn
        self.dropout = dropout
        self.query = nn.Linear(width, width, bias)
        self.key = nn.Linear(width, width, bias)
        self.value = nn.Linear(width, width, bias)
        self.out = nn.Linear(width, width, bias)

    def forward(self, x):
        q = self._by_head(self.query(x))
        k = self._by_head(self.key(x))
        v = self._by_head(self.value(x))
        if self.turn is not None:
            q = self.turn(q)
            k = self.turn(k)
        # The function does not know whether its module trains.
        rate = self.dropout * self.training
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=rate, is_causal=self.causal)
        by_place = mixed.transpose(1, 2)
        return self.out(by_place.flatten(2))

    def _by_head(self, x):
        """(n, heads, T, d) of (n, T, width)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Mlp(nn.Module):
    """Two linear layers of (n, T, width) with ``activation`` between, or a gated one (SwiGLU)."""

    def __init__(self, width, hidden, activation, bias=False, gated=False):
        super().__init__()
        self.activation = activation
        self.up = nn.Linear(width, hidden, bias)
        self.gate = nn.Linear(width, hidden, bias) if gated else None
        self.out = nn.Linear(hidden, width, bias)

    def forward(self, x):
        up = self.up(x)
        if self.gate is None:
            return self.out(self.activation(up))
        gates = self.activation(self.gate(x))
        return self.out(gates * up)


class Block(nn.Module):
    """Attention, then the MLP, each added to its input, and reading it through a norm."""

    def __init__(self, attention, mlp, norms, dropout=0.0):
        super().__init__()
        self.attention, self.mlp = attention, mlp
        self.norm_1, self.norm_2 = norms
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        attended = self.attention(self.norm_1(x))
        x = x + self.drop(attended)
        changed = self.mlp(self.norm_2(x))
        return x + self.drop(changed)


def through(blocks, x, recomputed=()):
    """``x`` after the blocks.

    The backward pass computes the activations of ``recomputed`` again, and holds one block's at a
    time.
    """
    for block in blocks:
        # Without gradients nothing is kept anyway.
        if block in recomputed and torch.is_grad_enabled():
            x = checkpoint(block, x, use_reentrant=False)
        else:
            x = block(x)
    return x


def initialise(model, depth):
    """Normal weights of deviation .02, biases 0, and .02 / sqrt(2 depth) where a block adds its
    output: the stream of depth blocks does not grow."""
    for name, module in model.named_modules():
        if not isinstance(module, (nn.Linear, nn.Embedding)):
            continue
        std = STD
        # The last layer of attention or of an MLP, whose output is added.
        if name.endswith(".out"):
            std = STD / math.sqrt(2 * depth)
        nn.init.normal_(module.weight, std=std)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)


def dense_head(width, vocab, embedding=None):
    """The layer from features to logits, which masks leave alone; tied to an ``embedding``'s
    table, if one is given."""
    head = nn.Linear(width, vocab, bias=False)
    if embedding is not None:
        head.weight = embedding.weight
    head.weight.prunable = False
    return head


def logits(features, head):
    """Logits (n, T, V), or ``Logits`` of a large vocabulary."""
    if len(head.weight) > LARGE:
        return Logits(features, head.weight)
    return head(features)
