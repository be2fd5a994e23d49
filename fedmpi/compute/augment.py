"""Several augmentations as one."""

import torch

from fedmpi.core.parts import Augmentation


def joined(parts):
    """The ``Augmentation`` that does one of ``parts`` after the other; None where there is none."""
    if len(parts) < 2:
        return parts[0] if parts else None

    widths = [part.width for part in parts]

    def draw(gen, n, shape):
        return torch.cat([part.draw(gen, n, shape) for part in parts], dim=1)

    def apply(images, drawn):
        for part, columns in zip(parts, drawn.split(widths, dim=1)):
            images = part.apply(images, columns)
        return images

    return Augmentation(draw, apply, sum(widths))
