"""Synchronous rounds: ask a cohort, wait, merge.

    asked = ceil(cohort (1 + over))
    merged = the first ``cohort`` answers within ``deadline`` seconds

``over`` asks more clients than are needed, so that the slowest can be left out (Bonawitz 2019,
arXiv 1902.01046, asks 1.3 times as many). The work of a client that answers later is lost.
``deadline`` 0 waits for all. Without a model of time (``--devices none``) all answers come at
once: the first clients by number are merged, so leave over at 0 there.
"""

import math

from fedmpi.core.parts import Timing


def sync(deadline: float = 0.0, over: float = 0.0):
    """Rounds of a cohort; ``deadline`` in virtual seconds, 0: none.

    Paper: Bonawitz et al. 2019, "Towards Federated Learning at Scale: System Design", arXiv
        1902.01046.
    Up: an update a client that was asked, late ones in vain: (1 + over) times the merged ones.
    Down: the model, to every client that is asked.
    Example: fedmpi train --devices drawn --timing sync:over=0.3 --cohort 4
    """
    if not deadline >= 0:
        raise ValueError(f"deadline must be > 0 seconds, or 0 for none, got {deadline}")
    if not (over >= 0 and math.isfinite(over)):
        raise ValueError(f"over must be >= 0 and finite, got {over}")

    def refuses(facts):
        if (over or deadline) and not facts.timed:
            yield "it leaves the slow out, which needs a model of time: --devices drawn, say"
        if over and facts.candidates:
            yield (f"the candidates of {facts.named['sampler']} are already more than are needed; "
                   "leave over out")
        if over and facts.cohort == facts.clients:
            yield (f"it asks more clients than are needed, but all {facts.clients} are asked "
                   "already: give a --cohort below that, or no over")

    # Without a deadline the server waits for ever.
    return Timing(deadline=deadline or math.inf, over=over, refuses=refuses)
