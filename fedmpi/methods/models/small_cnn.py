"""A CNN for small images and quick runs: 9,930 parameters on the 8 x 8 digits at the usual width.

    conv 3x3, w, same - conv 3x3, 2 w, same - pool 2 - fc outputs
"""

from torch import nn

from fedmpi.methods.models.shape import image, num_features


def small_cnn(shape, outputs, width: int = 16):
    """Two 3 x 3 convolutions of ``width`` and 2 ``width`` channels, for at least 2 x 2 pixels.

    Paper: none: made for quick runs.
    """
    if width < 1:
        raise ValueError(f"width must be >= 1, got {width}")
    channels, _, _ = image(shape, "small_cnn", 2)
    # Pooling before ReLU makes the same values, with less work.
    body = nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
    )
    features = num_features(body, shape)
    return nn.Sequential(*body, nn.Linear(features, outputs))
