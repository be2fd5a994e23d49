"""A vision transformer for small images: patches as tokens, one more token for the class.

    x = [class token, patches W + b] + positions;   depth times attention and MLP, each added
    logits = head(norm(x) of the class token)

Masks prune the patches' layer, attention and MLPs; tokens, positions, norms and head stay dense.
"""

import torch
from torch import nn
from torch.nn import functional as F

from fedmpi.methods.models.shape import image
from fedmpi.methods.models.transformer import (STD, Attention, Block, Mlp, heads_of, initialise,
                                               sizes, through)


def vit(shape, classes, patch: int = 4, depth: int = 4, width: int = 128, heads: int = 4,
        dropout: float = 0.0, recompute: bool = False):
    """A transformer of image patches of ``patch`` x ``patch`` pixels.

    ``recompute``: activations of blocks are computed again in the backward pass, for less memory.

    Paper: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", arXiv 2010.11929.
    Example: fedmpi train --model vit:patch=2,depth=2,width=32 --optimiser adamw --lr 0.001
    """
    sizes(patch=patch, depth=depth, width=width)
    channels, height, across = image(shape, "vit", patch)
    heads_of(width, heads)
    if height % patch or across % patch:
        raise ValueError(f"patch must divide the image's {height} x {across} pixels, got {patch}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}")
    count = (height // patch) * (across // patch)
    network = Vit(channels, patch, count, classes, depth, width, heads, dropout, recompute)
    initialise(network, depth)
    for parameter in (network.class_token, network.positions):
        nn.init.normal_(parameter, std=STD)
    return network


class Vit(nn.Module):
    """Images (n, C, H, W) to logits (n, classes)."""

    def __init__(self, channels, patch, count, classes, depth, width, heads, dropout, recompute):
        super().__init__()
        num_recomputed = depth * recompute
        self.patch = patch
        self.patches = nn.Linear(channels * patch * patch, width)
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, count + 1, width))
        # One vector a place, like a table: not for masks.
        self.positions.prunable = False
        self.drop = nn.Dropout(dropout)
        blocks = []
        for _ in range(depth):
            attention = Attention(width, heads, bias=True, dropout=dropout)
            mlp = Mlp(width, 4 * width, F.gelu, bias=True)
            norms = nn.LayerNorm(width), nn.LayerNorm(width)
            blocks.append(Block(attention, mlp, norms, dropout))
        self.blocks = nn.ModuleList(blocks)
        # The modules whose activations training does not keep.
        self.recomputed = tuple(blocks[:num_recomputed])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        self.head.weight.prunable = False

    def forward(self, images):
        patches = cut(images, self.patch)
        rows = self.patches(patches)
        first = self.class_token.expand(len(rows), -1, -1)
        rows = torch.cat([first, rows], dim=1)
        x = self.drop(rows + self.positions)
        x = through(self.blocks, x, self.recomputed)
        features = self.norm(x[:, 0])
        return self.head(features)


def cut(images, patch):
    """(n, patches, C * patch * patch): the patches of images (n, C, H, W), row by row."""
    rows = images.unfold(2, patch, patch)
    patches = rows.unfold(3, patch, patch)
    by_place = patches.permute(0, 2, 3, 1, 4, 5)
    # Two dimensions are the place of a patch, three its own.
    return by_place.flatten(3).flatten(1, 2)
