"""The CNN without padding of many federated studies: 582,026 parameters on MNIST.

    conv 5x5, 32 - pool 2 - conv 5x5, 64 - pool 2 - fc 512 - fc outputs

Images smaller than 16 x 16 are padded by 2 in both convolutions, as nothing would be left of
them.
"""

from torch import nn

from fedmpi.methods.models.shape import image, num_features, padding_below


def cnn(shape, outputs):
    """Two unpadded 5 x 5 convolutions and 512 hidden units, for images of at least 4 x 4 pixels.

    Paper: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from
        Decentralized Data", arXiv 1602.05629, there with padding.
    """
    channels, _, _ = image(shape, "cnn", 4)
    padding = padding_below(16, shape)
    # Pooling before ReLU makes the same values, with less work.
    body = nn.Sequential(
        nn.Conv2d(channels, 32, 5, padding=padding),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(32, 64, 5, padding=padding),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
    )
    return nn.Sequential(
        *body,
        nn.Linear(num_features(body, shape), 512),
        nn.ReLU(),
        nn.Linear(512, outputs),
    )
