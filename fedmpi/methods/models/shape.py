"""What a network needs to know about its input: is it an image, is it large enough, how many
features come out."""

import math

import torch


def image(shape, name, least):
    """``(C, H, W)``; raises ``ValueError`` unless ``shape`` is an image of at least ``least`` x
    ``least`` pixels."""
    if len(shape) != 3:
        raise ValueError(f"{name} needs images (C, H, W), got shape {tuple(shape)}; use logistic or mlp2nn")
    if min(shape[1:]) < least:
        raise ValueError(f"{name} needs images of at least {least} x {least} pixels, got shape {tuple(shape)}; "
                         "use small_cnn or mlp2nn")
    return shape


def num_features(body, shape):
    """How many numbers ``body`` makes of one input of ``shape``."""
    with torch.no_grad():
        return body(torch.zeros(1, *shape)).numel()


def scaled(width, *sizes):
    """``sizes`` times ``width``, rounded, at least 1; raises ``ValueError`` for a width that is
    not > 0."""
    if not (width > 0 and math.isfinite(width)):
        raise ValueError(f"a width must be > 0, got {width}")
    return [max(1, round(width * size)) for size in sizes]
