"""Several augmentations as one."""

import torch

from fedmpi.core.parts import Augmentation


def joined(parts):
    """The ``Augmentation`` that applies ``parts`` one after the other; None for no parts."""
    if not parts:
        return None
    if len(parts) == 1:
        return parts[0]

    widths = [part.width for part in parts]

    def draw(gen, n, shape):
        columns = [part.draw(gen, n, shape) for part in parts]
        return torch.cat(columns, dim=1)

    def apply(images, drawn):
        columns_of = drawn.split(widths, dim=1)
        for part, columns in zip(parts, columns_of):
            images = part.apply(images, columns)
        return images

    return Augmentation(draw, apply, sum(widths))
