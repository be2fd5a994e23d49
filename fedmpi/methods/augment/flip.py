"""Mirror images, left to right, by chance."""

import torch

from fedmpi.core.parts import Augmentation


def flip(p: float = 0.5):
    """Each image is mirrored with probability ``p``, anew each time that it is seen.

    Paper: none: usual in the training of image classifiers.
    Example: fedmpi train --augment flip
    """
    if not 0 < p <= 1:
        raise ValueError(f"p must be in (0, 1], got {p}")

    def draw(gen, n, shape):
        return torch.from_numpy((gen.random((n, 1)) < p).astype("int64"))

    def apply(images, drawn):
        mirrored = drawn.bool().view(-1, 1, 1, 1)
        return torch.where(mirrored, images.flip(3), images)

    return Augmentation(draw, apply, width=1)
