"""Mirror images, left to right, by chance."""

import torch

from fedmpi.core.parts import Augmentation


def flip(p: float = 0.5):
    """Each image is mirrored with probability ``p``, drawn anew for each batch.

    Paper: none: usual in the training of image classifiers.
    Example: fedmpi train --augment flip
    """
    if not 0 < p <= 1:
        raise ValueError(f"p must be in (0, 1], got {p}")

    def draw(gen, n, shape):
        """(n, 1) int64: 1 for a mirrored image."""
        mirrored = gen.random((n, 1)) < p
        return torch.from_numpy(mirrored.astype("int64"))

    def apply(images, drawn):
        mirrored = drawn.bool().view(-1, 1, 1, 1)
        # Axis 3 is the width: (n, channels, height, width).
        flipped = images.flip(3)
        return torch.where(mirrored, flipped, images)

    return Augmentation(draw, apply, width=1)
