"""The thesis's network for CIFAR-10: 782,006 parameters on 32 x 32 colour images, 10 classes.

    conv 5x5, 6 - pool 3 stride 1 - conv 5x5, 16 - pool 3 stride 1 - fc 120 - fc 84 - fc outputs

The widths multiply the channels and the hidden units, rounded. Small dense networks to hold
sparse ones against:

    wanted   conv_width  fc_width  parameters  layers
     78,368         0.5       0.2      78,265  conv 3, 8    fc 24, 17
    156,736         0.5       0.4     156,500  conv 3, 8    fc 48, 34

Images smaller than 13 x 13 are padded by 2 in both convolutions. The thesis ends with softmax
and applies it again in the loss; here the output is logits.
"""

from torch import nn

from fedmpi.methods.models.shape import image, num_features, padding_below, scaled


def cifar10net(shape, outputs, conv_width: float = 1.0, fc_width: float = 1.0):
    """The thesis's network for CIFAR-10, for images of at least 5 x 5 pixels.

    Paper: the thesis (2023) that this project implements, on training large models federatedly
        by pruning.
    """
    channels, _, _ = image(shape, "cifar10net", 5)
    first, second = scaled(conv_width, 6, 16)
    wide, narrow = scaled(fc_width, 120, 84)
    padding = padding_below(13, shape)
    # Pooling before ReLU makes the same values, with less work.
    body = nn.Sequential(
        nn.Conv2d(channels, first, 5, padding=padding),
        nn.MaxPool2d(3, 1),
        nn.ReLU(),
        nn.Conv2d(first, second, 5, padding=padding),
        nn.MaxPool2d(3, 1),
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
