"""LeNet-5 (LeCun 1998) with ReLU and max-pooling.

    conv 5x5, 6 - pool 2 - conv 5x5, 16 - pool 2 - fc 120 - fc 84 - fc classes

61,706 parameters on MNIST; on CIFAR-10 61,770 weights and 236 biases, 62,006 parameters. The first convolution pads
images smaller than 32 x 32 by 2, the second those smaller than 12 x 12.
"""

from torch import nn

from fedmpi.models.shape import image, num_features


def lenet5(shape, classes):
    """The network for images of at least 4 x 4 pixels.

    Paper: LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", Proc. IEEE 86(11).
    """
    channels, *size = image(shape, "lenet5", 4)
    body = nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=2 * (min(size) < 32)), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(6, 16, 5, padding=2 * (min(size) < 12)), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten())
    return nn.Sequential(
        *body, nn.Linear(num_features(body, shape), 120), nn.ReLU(),
        nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes))
