"""Feature skew by rotation: every client's images stand at another angle.

    client n = 0 .. N - 1 is turned by 360 n / N degrees, counter-clockwise;   the recorded level is the angle
    quarter=true: one of 0, 90, 180, 270, as many clients each as can be, in random order (IFCA, arXiv 2006.04088)

Angles between quarter turns are sampled bilinearly, which also blurs a little; the edge is
repeated outwards.
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
        angles = np.arange(clients) % 4 * 90.0 if quarter else 360.0 * np.arange(clients) / clients
        return gen.permutation(angles) if quarter or shuffle else angles

    def apply(inputs, labels, level, classes, gen):
        require_images(inputs, "rotation")
        return turned(inputs, level)

    return Features(levels, apply, refuses=changes_ids)
