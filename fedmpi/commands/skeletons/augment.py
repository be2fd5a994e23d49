"""NAME: a black square lies over every image, somewhere else each time."""

import torch

from fedmpi.core.parts import Augmentation


def NAME(size: int = 3):
    """A square of ``size`` pixels is 0, at a place drawn anew; pieces may lie outside the image.

    Paper: DeVries and Taylor 2017, "Improved Regularization of Convolutional Neural Networks with
        Cutout", arXiv 1708.04552.
    Example: fedmpi train --augment NAME:NAME:size=2
    """
    if size < 1:
        raise ValueError(f"size must be >= 1, got {size}")

    def draw(gen, n, shape):
        # All that chance decides of n images: row and column of the square's first pixel.
        _, height, width = shape
        places = gen.integers(1 - size, [height, width], (n, 2))
        return torch.from_numpy(places)

    def apply(images, drawn):
        # No chance here: the same numbers give the same images, on any device.
        n, _, height, width = images.shape
        row, column = drawn.view(n, 2, 1).unbind(1)
        rows = _covered(height, row)
        columns = _covered(width, column)
        # (n, 1, height, width), for all channels
        square = rows[:, None, :, None] & columns[:, None, None, :]
        return images.masked_fill(square, 0.0)

    def _covered(length, first):
        """bool (n, length): the pixels from ``first (n, 1)`` to the square's end."""
        places = torch.arange(length, device=first.device)
        begun = places >= first
        ended = places >= first + size
        return begun & ~ended

    return Augmentation(draw, apply, width=2)
