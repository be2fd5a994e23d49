"""Feature skew by rotation: every client's images stand at another angle.

    client n = 0 .. N - 1 is turned by 360 n / N degrees, counter-clockwise
    quarter=true: one of 0, 90, 180, 270, equally often, in random order (IFCA, arXiv 2006.04088)

The recorded level is the angle. Angles between quarter turns are sampled bilinearly, which also
blurs a little; the edge is repeated outwards.
"""

import numpy as np

from fedmpi.core.effect import needs
from fedmpi.core.parts import Features
from fedmpi.methods.features.images import changes_ids, require_images, turned


@needs(shuffle="quarter=false")
def rotation(quarter: bool = False, shuffle: bool = False):
    """Images turned by a client's own angle; ``shuffle`` deals the angles out in random order.

    Paper: Ghosh et al. 2020, "An Efficient Framework for Clustered Federated Learning", arXiv
        2006.04088.
    """

    def levels(clients, gen):
        client = np.arange(clients)
        if quarter:
            return gen.permutation(client % 4 * 90.0)
        degrees = 360.0 * client / clients
        if shuffle:
            return gen.permutation(degrees)
        return degrees

    def apply(inputs, labels, level, classes, gen):
        require_images(inputs, "rotation")
        return turned(inputs, level)

    return Features(levels, apply, refuses=changes_ids)
