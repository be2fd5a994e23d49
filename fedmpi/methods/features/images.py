"""What feature skew is: the inputs of the clients differ, their labels stay (P(x) or P(x|y)
differs).

A kind is a factory that returns ``Features(levels, apply)``. Inputs are changed after
normalisation, where a channel has mean 0 and variance 1 over the training data; nothing is done
to the server's validation and test samples.
"""

import numpy as np
import torch
from torch.nn import functional as F


def require_images(inputs, kind):
    """Raise ``ValueError`` unless ``inputs`` are (n, C, H, W)."""
    if inputs.ndim != 4:
        raise ValueError(f"{kind} works on images: expected inputs (n, channels, height, width), got "
                         f"{tuple(inputs.shape)}")


def changes_ids(facts):
    """``refuses`` of a part that changes the values of inputs: another id is not a little
    noisier."""
    if facts.ids and facts.touched:
        yield ("it changes the values of inputs, and these are whole numbers that reach the model as they are; leave "
               "it out, or say normalise=true of the data set")


def noised(inputs, std, gen):
    """A copy of ``inputs`` plus Gaussian noise of deviation ``std``, drawn on the CPU: the same
    on every device."""
    noise = torch.from_numpy(gen.standard_normal(tuple(inputs.shape), np.float32))
    return noise.to(inputs.device).mul_(std).add_(inputs)


def turned(images, degrees):
    """A copy of ``images`` (n, C, H, W) turned counter-clockwise about the centre, of the same
    shape.

    Quarter turns of a square and half turns are exact; others are bilinear, and what comes from
    outside repeats the edge, which is the background of digits.
    """
    quarters, odd = divmod(degrees, 90)
    if not odd and (quarters % 2 == 0 or images.shape[2] == images.shape[3]):
        return torch.rot90(images, int(quarters) % 4, (2, 3)).clone(memory_format=torch.contiguous_format)
    return F.grid_sample(images, _grid(images, np.deg2rad(degrees)), padding_mode="border", align_corners=False)


def _grid(images, angle):
    """Where each pixel of a turned image comes from, (n, H, W, 2) in units of half a width and
    half a height."""
    cos, sin, aspect = np.cos(angle), np.sin(angle), images.shape[2] / images.shape[3]
    turn = torch.tensor([[cos, -sin * aspect, 0], [sin / aspect, cos, 0]], dtype=torch.float32, device=images.device)
    return F.affine_grid(turn.expand(len(images), 2, 3), list(images.shape), align_corners=False)
