"""What an answer says in numbers. The last two are sent where the strategy asks for ``steps``."""

from enum import IntEnum


class Number(IntEnum):
    """Where what an answer says in numbers lies in its ``numbers`` (len(Number),) float64."""

    SAMPLES = 0      # that the client holds
    LOSS = 1         # the mean of the training, in the objective's unit
    SEEN = 2         # samples that the training saw, all epochs
    EXTRA = 3        # those that went through a pass of their own for the pruner, with a dense gradient
    DENSE = 4        # those of the training whose gradient was dense
    SECONDS = 5      # of the machine's clock
    BYTES = 6        # of the answer, were it sent whole; 0 where it is
    SUMMED = 7       # whether its update is in the worker's sums
    STEPS = 8        # of the optimiser
    TRAVELLED = 9    # the optimiser's, see parts.Trained; NaN where it has none


WORK = slice(Number.SEEN, Number.DENSE + 1)      # what ``flops.training`` takes

CAUSES = {                                       # of a divergence: what the user is told
    "training": "a smaller --lr may help",
    "model": "the model that it received has no finite loss on its samples: look at the model and the inputs",
    "fault": "which its --fault may explain",
}
