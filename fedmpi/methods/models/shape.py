"""Shapes for networks: images that are large enough, numbers of features, scaled widths."""

import math

import torch


def image(shape, name, least):
    """``(C, H, W)``: ``shape`` itself, an image of at least ``least`` x ``least`` pixels.

    ``ValueError`` where it is none.
    """
    if len(shape) != 3:
        raise ValueError(f"{name} needs images (C, H, W), got shape {tuple(shape)}; "
                         "use logistic or mlp2nn, or gpt for tokens")
    if min(shape[1:]) < least:
        raise ValueError(f"{name} needs images of at least {least} x {least} pixels, "
                         f"got shape {tuple(shape)}; use small_cnn or mlp2nn")
    return shape


def num_features(body, shape):
    """How many numbers ``body`` makes of one input of ``shape``."""
    # By trial: padding and pooling round in ways of their own.
    one_input = torch.zeros(1, *shape)
    with torch.no_grad():
        return body(one_input).numel()


def padding_below(least, shape):
    """The padding of a 5 x 5 convolution: 2 for images smaller than ``least`` pixels, else 0.

    2 keeps the size of the image.
    """
    if min(shape[1:]) < least:
        return 2
    return 0


def scaled(width, *sizes):
    """``sizes`` times ``width``, rounded, at least 1; ``ValueError`` unless ``width`` is > 0."""
    if not (width > 0 and math.isfinite(width)):
        raise ValueError(f"a width must be > 0, got {width}")
    return [max(1, round(width * size)) for size in sizes]
