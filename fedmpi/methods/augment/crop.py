"""Shift images by a few pixels: a random window of the image with a border.

The border is 0 after normalisation, the mean colour of the data set.
"""

import torch
from torch.nn import functional as F

from fedmpi.core.parts import Augmentation


def crop(pad: int = 4):
    """A random window of the image with a border of ``pad`` pixels.

    The window has the image's own size, and is drawn anew for each batch.

    Paper: He et al. 2016, "Deep Residual Learning for Image Recognition", arXiv 1512.03385.
    Example: fedmpi train --augment crop:pad=1
    """
    if pad < 1:
        raise ValueError(f"pad must be at least 1 pixel, got {pad}")
    num_offsets = 2 * pad + 1

    def draw(gen, n, shape):
        """(n, 2) int64: the window's top row and left column."""
        offsets = gen.integers(0, num_offsets, (n, 2))
        return torch.from_numpy(offsets)

    def apply(images, offsets):
        n, _, height, width = images.shape
        device = images.device
        top = offsets[:, :1]
        left = offsets[:, 1:]
        # Three indices that broadcast to (n, height, width).
        image = torch.arange(n, device=device)[:, None, None]
        rows = (top + torch.arange(height, device=device))[:, :, None]
        columns = (left + torch.arange(width, device=device))[:, None, :]
        padded = F.pad(images, (pad,) * 4)
        # Channels last, so that one index takes a pixel's colours together.
        pixels = padded.permute(0, 2, 3, 1)
        windows = pixels[image, rows, columns]
        return windows.permute(0, 3, 1, 2)

    return Augmentation(draw, apply, width=2)
