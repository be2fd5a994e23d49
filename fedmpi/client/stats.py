"""The numbers in a client's answer. The last two are sent if the strategy asks for ``steps``."""

from enum import IntEnum


class Stats(IntEnum):
    """The position of a number in an answer's ``numbers`` (len(Stats),) float64."""

    SAMPLES = 0      # of the client
    LOSS = 1         # the training's mean, in the objective's unit
    SEEN = 2         # samples that the training saw, all epochs
    EXTRA = 3        # samples in a pass of their own for the pruner, with a dense gradient
    DENSE = 4        # samples of the training with a dense gradient
    SECONDS = 5      # of the machine's clock
    BYTES = 6        # of the answer, were it sent whole; 0 if it is
    SUMMED = 7       # 1 if the update is in the worker's sums
    STEPS = 8        # of the optimiser
    TRAVELLED = 9    # the optimiser's, see parts.Trained; NaN for optimisers without


# The arguments of ``flops.training``.
WORK = slice(Stats.SEEN, Stats.DENSE + 1)

# Causes of a divergence, and the advice to the user.
CAUSES = {
    "training": "a smaller --lr may help",
    "model": "the model that it received has no finite loss on its samples: look at the model and "
             "the inputs",
    "fault": "which its --fault may explain",
    "codec": "its update was sound before it was encoded: take a --codec that loses less",
}
# Causes that may lie in what a codec has lost in earlier rounds.
OF_EARLIER_LOSSES = ("training", "model")


def advice(cause, exact):
    """Half a line to the user on a ``cause``, a key of ``CAUSES``; ``exact``: the codec loses
    nothing."""
    text = CAUSES[cause]
    if exact or cause not in OF_EARLIER_LOSSES:
        return text
    return f"{text}; or take a --codec that loses less"
