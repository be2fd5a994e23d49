"""Shared by all kinds of feature skew: noise on inputs, turned images, checks.

With feature skew the inputs of the clients differ, their labels stay (P(x) or P(x|y) differs). A
kind is a factory of ``Features(levels, apply)``. Inputs are changed after normalisation,
where a channel has mean 0 and variance 1 over the training data; nothing is done to the server's
validation and test samples.
"""

import numpy as np
import torch
from torch.nn import functional as F


def require_images(inputs, kind):
    """Raise ``ValueError`` unless ``inputs`` are (n, C, H, W)."""
    if inputs.ndim != 4:
        raise ValueError(f"{kind} works on images: expected inputs (n, channels, height, width), "
                         f"got {tuple(inputs.shape)}")


def changes_ids(facts):
    """``refuses`` of a change of the inputs' values: another id is no noisier id."""
    if facts.ids and facts.touched:
        yield ("it changes the values of inputs, and these are whole numbers that reach the model "
               "as they are; leave it out, or say normalise=true of the data set")


def noised(inputs, std, gen):
    """A copy of ``inputs`` plus Gaussian noise of deviation ``std``, the same on every device."""
    # Drawn on the CPU, since a GPU has other generators.
    numbers = gen.standard_normal(tuple(inputs.shape), np.float32)
    noise = torch.from_numpy(numbers).to(inputs.device)
    return noise.mul_(std).add_(inputs)


def turned(images, degrees):
    """A copy of ``images`` (n, C, H, W) turned counter-clockwise about the centre, same shape.

    Quarter turns of a square and half turns are exact; others are bilinear, and pixels from
    outside repeat the edge, which is the background of digits.
    """
    quarters, rest = divmod(degrees, 90)
    is_square = images.shape[2] == images.shape[3]
    keeps_shape = is_square or quarters % 2 == 0
    if rest or not keeps_shape:
        grid = _grid(images, np.deg2rad(degrees))
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    turned_images = torch.rot90(images, int(quarters) % 4, (2, 3))
    return turned_images.clone(memory_format=torch.contiguous_format)


def _grid(images, angle):
    """(n, H, W, 2): the source of each pixel of a turned image, in half widths and half heights."""
    n, _, height, width = images.shape
    # affine_grid counts in halves of each side, so an angle needs the sides' ratio.
    aspect = height / width
    cos, sin = np.cos(angle), np.sin(angle)
    rows = [
        [cos, -sin * aspect, 0],
        [sin / aspect, cos, 0],
    ]
    turn = torch.tensor(rows, dtype=torch.float32, device=images.device)
    turns = turn.expand(n, 2, 3)
    return F.affine_grid(turns, list(images.shape), align_corners=False)
