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
        rows = _covered(torch.arange(height, device=images.device), row)
        columns = _covered(torch.arange(width, device=images.device), column)
        square = rows[:, None, :, None] & columns[:, None, None, :]
        return images.masked_fill(square, 0.0)

    def _covered(places, first):
        return (places >= first) & (places < first + size)

    return Augmentation(draw, apply, width=2)
