"""The CNN without padding that many federated studies use: 582,026 parameters on 28 x 28 grey
images, 10 classes.

    conv 5x5, 32 - pool 2 - conv 5x5, 64 - pool 2 - fc 512 - fc classes

Images smaller than 16 x 16 are padded by 2 in both convolutions, as nothing would be left of them.
"""

from torch import nn

from fedmpi.methods.models.shape import image, num_features


def cnn(shape, classes):
    """Two 5 x 5 convolutions without padding and 512 hidden units, for images of at least 4 x 4
    pixels.

    Paper: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from
        Decentralized Data", arXiv 1602.05629, there with padding.
    """
    channels, height, width = image(shape, "cnn", 4)
    padding = 0 if min(height, width) >= 16 else 2
    body = nn.Sequential(
        nn.Conv2d(channels, 32, 5, padding=padding), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(32, 64, 5, padding=padding), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten())
    return nn.Sequential(*body, nn.Linear(num_features(body, shape), 512), nn.ReLU(), nn.Linear(512, classes))
