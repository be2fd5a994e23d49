"""The thesis's network for MNIST: 261,840 parameters on 28 x 28 grey images, 10 classes.

    conv 5x5, 10 - pool 3 stride 1 - conv 5x5, 20 - pool 3 stride 1 - fc 50 - fc outputs

The widths multiply the channels and the hidden units. Images smaller than 13 x 13 are padded by
2 in both convolutions. The thesis ends with softmax and applies it again in the loss; here the
output is logits.
"""

from torch import nn

from fedmpi.methods.models.shape import image, num_features, padding_below, scaled


def mnistnet(shape, outputs, conv_width: float = 1.0, fc_width: float = 1.0):
    """The thesis's network for MNIST, for images of at least 5 x 5 pixels.

    Paper: the thesis (2023) that this project implements, on training large models federatedly
        by pruning.
    """
    channels, _, _ = image(shape, "mnistnet", 5)
    first, second = scaled(conv_width, 10, 20)
    hidden, = scaled(fc_width, 50)
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
    return nn.Sequential(
        *body,
        nn.Linear(num_features(body, shape), hidden),
        nn.ReLU(),
        nn.Linear(hidden, outputs),
    )
