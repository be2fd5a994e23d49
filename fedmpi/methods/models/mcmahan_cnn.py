"""The CNN of McMahan (1602.05629): 1,663,370 parameters on MNIST.

    conv 5x5, 32, same - pool 2 - conv 5x5, 64, same - pool 2 - fc 512 - fc outputs
"""

from torch import nn

from fedmpi.methods.models.shape import image, num_features


def mcmahan_cnn(shape, outputs):
    """Two padded 5 x 5 convolutions and 512 hidden units, for images of at least 4 x 4 pixels.

    Paper: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from
        Decentralized Data", arXiv 1602.05629.
    """
    channels, _, _ = image(shape, "mcmahan_cnn", 4)
    # Pooling before ReLU makes the same values, with less work.
    body = nn.Sequential(
        nn.Conv2d(channels, 32, 5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(32, 64, 5, padding=2),
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
