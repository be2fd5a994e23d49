"""Shift images by a few pixels: a random window of the image with a border.

The border is 0 after normalisation, the mean colour of the data set.
"""

import torch
from torch.nn import functional as F

from fedmpi.core.parts import Augmentation


def crop(pad: int = 4):
    """A window of the image's own size at random in the image with a border of ``pad`` pixels, anew each time that it
    is seen.

    Paper: He et al. 2016, "Deep Residual Learning for Image Recognition", arXiv 1512.03385.
    Example: fedmpi train --augment crop:pad=1
    """
    if pad < 1:
        raise ValueError(f"pad must be at least 1 pixel, got {pad}")

    def draw(gen, n, shape):
        return torch.from_numpy(gen.integers(0, 2 * pad + 1, (n, 2)))

    def apply(images, drawn):
        n, _, height, width = images.shape
        rows = drawn[:, :1] + torch.arange(height, device=images.device)
        columns = drawn[:, 1:] + torch.arange(width, device=images.device)
        # Channels last, so that one index takes a pixel's colours together.
        pixels = F.pad(images, (pad,) * 4).permute(0, 2, 3, 1)
        image = torch.arange(n, device=images.device)
        return pixels[image[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    return Augmentation(draw, apply, width=2)
