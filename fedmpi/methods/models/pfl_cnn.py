"""The CIFAR-10 network of the pfl-research benchmarks (2404.06430): 1,626,442 parameters.

    conv 3x3, 32 - conv 3x3, 64 - pool 2 - dropout 1/4 - fc 128 - dropout 1/2 - fc outputs

Weights start as Glorot's.
"""

from torch import nn

from fedmpi.methods.models.shape import image, num_features


def pfl_cnn(shape, outputs, dropout: bool = True):
    """pfl-research's CNN for CIFAR-10, for images of at least 6 x 6 pixels.

    ``dropout=False`` leaves dropout out.

    Paper: Granqvist et al. 2024, "pfl-research: simulation framework for accelerating research
        in Private Federated Learning", arXiv 2404.06430.
    """
    channels, _, _ = image(shape, "pfl_cnn", 6)
    early_rate, late_rate = (0.25, 0.5) if dropout else (0.0, 0.0)
    # Pooling before ReLU makes the same values, with less work.
    body = nn.Sequential(
        nn.Conv2d(channels, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
    )
    model = nn.Sequential(
        *body,
        nn.Dropout(early_rate),
        nn.Linear(num_features(body, shape), 128),
        nn.ReLU(),
        nn.Dropout(late_rate),
        nn.Linear(128, outputs),
    )
    # The weights of the benchmark's program, not torch's.
    for layer in model:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight)
    return model
