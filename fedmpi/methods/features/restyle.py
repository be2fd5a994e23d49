"""Same label, different features (P(x|y) differs): each client has styles of its own for classes.

    images of class k on client n:  turned by 0, 90, 180 or 270 degrees, mirrored or not,
                                    inverted or not, channels shifted by 0 .. C - 1;
                                    uniform over the 16 C - 1 styles that change something

A client restyles round(fraction classes) random classes, at least one where ``fraction`` > 0,
all samples of a class alike; the recorded level is ``fraction``. Inverting turns the sign of
the normalised pixels, that is, mirrors them at the channel's mean. A style may be a label's
undoing: a 6 turned by 180 degrees is a 9.
"""

import torch

from fedmpi.core.parts import Features
from fedmpi.methods.features.images import changes_ids, require_images, turned
from fedmpi.methods.noise.corrupt import fraction as in_unit_interval
from fedmpi.methods.noise.corrupt import shared_rates


def restyle(fraction: float = 1.0, share: float = 1.0):
    """A style per client and class, for ``fraction`` of the classes on a ``share`` of the clients.

    round(share * clients) clients are drawn at random.

    Paper: none of its own; the kind of skew is of Kairouz et al. 2021, "Advances and Open
        Problems in Federated Learning", arXiv 1912.04977.
    """
    in_unit_interval(fraction=fraction)

    def apply(inputs, labels, level, classes, gen):
        require_images(inputs, "restyle")
        if level and not classes:
            raise ValueError("it restyles classes, and these data have none; "
                             "take gaussian or rotation")
        chosen = gen.permutation(classes)[:num_restyled(level, classes)]
        num_styles = 16 * inputs.shape[1]
        # From 1, since style 0 changes nothing.
        styles = gen.integers(1, num_styles, classes)
        restyled = inputs.clone()
        for k in chosen.tolist():
            rows = torch.nonzero(labels == k).flatten()
            # A client may hold no sample of the class.
            if len(rows):
                restyled[rows] = _styled(inputs[rows], int(styles[k]))
        return restyled

    return Features(shared_rates(fraction, share), apply, refuses=changes_ids)


def num_restyled(level, classes):
    """How many of the ``classes`` a client restyles."""
    if not level:
        return 0
    return max(1, round(level * classes))


def _styled(images, style):
    """Style 0 .. 16 C - 1 of ``images`` (n, C, H, W); 0 changes nothing."""
    # The digits of a style: 4 turns, 2 mirrorings, 2 inversions, C shifts.
    style, quarters = divmod(style, 4)
    style, mirrors = divmod(style, 2)
    shift, inverts = divmod(style, 2)
    images = turned(images, 90.0 * quarters)
    if mirrors:
        images = images.flip(3)
    if inverts:
        images = -images
    return torch.roll(images, shift, 1)
