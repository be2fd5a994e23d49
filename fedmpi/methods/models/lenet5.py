"""LeNet-5 (LeCun 1998) with ReLU and max-pooling.

    conv 5x5, 6 - pool 2 - conv 5x5, 16 - pool 2 - fc 120 - fc 84 - fc outputs

61,706 parameters on MNIST; on CIFAR-10 61,770 weights and 236 biases, 62,006 parameters. The
first convolution pads images smaller than 32 x 32 by 2, the second images smaller than 12 x 12.
``width`` multiplies the channels and the hidden units. Dense networks with as many weights as a
sparse one keeps, on MNIST and CIFAR-10:

    width   weights on MNIST   on CIFAR-10
    0.44    12,206 (0.199)     12,356 (0.200)
    0.305    6,147 (0.100)      6,247 (0.101)
    0.22     3,373 (0.055)      3,423 (0.055)
"""

from torch import nn

from fedmpi.methods.models.shape import image, num_features, padding_below, scaled


def lenet5(shape, outputs, width: float = 1.0):
    """LeNet-5, ``width`` times as wide, for images of at least 4 x 4 pixels.

    Paper: LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", Proc.
        IEEE 86(11).
    """
    channels, _, _ = image(shape, "lenet5", 4)
    first, second, wide, narrow = scaled(width, 6, 16, 120, 84)
    # Pooling before ReLU makes the same values, with less work.
    body = nn.Sequential(
        nn.Conv2d(channels, first, 5, padding=padding_below(32, shape)),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(first, second, 5, padding=padding_below(12, shape)),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
    )
    features = num_features(body, shape)
    return nn.Sequential(
        *body,
        nn.Linear(features, wide),
        nn.ReLU(),
        nn.Linear(wide, narrow),
        nn.ReLU(),
        nn.Linear(narrow, outputs),
    )
