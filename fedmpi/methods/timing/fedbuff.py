"""FedBuff: answers are merged by the buffer (Nguyen et al. 2022, arXiv 2106.06639).

    x <- x + server_lr sum_{n in buffer} w_n s(tau_n) (x_n - x_start,n),    s(tau) = (1 + tau)^-a

with ``buffer`` answers a merge, 10 in the paper, and a = 0.5, 1 / sqrt(1 + tau). The weights w
sum to 1 (the paper's are 1 / buffer: ``--weighting uniform``) and are not normalised again
after s: stale buffers move the model less. An update is the difference from its client's
received model, of tau merges ago. ``concurrency`` clients are at work at any time;
``server_lr`` is the paper's server rate, beside which a strategy may have its own.
"""

import math

from fedmpi.core.parts import Timing
from fedmpi.methods.timing.staleness import check_workers, staleness_function
from fedmpi.methods.timing.without_rounds import notes_of, refusals_of


def fedbuff(buffer: int = 10, concurrency: int = 0, a: float = 0.5, server_lr: float = 1.0):
    """``buffer`` answers a merge, each scaled by its staleness; ``concurrency`` 0: the cohort.

    Paper: Nguyen et al. 2022, "Federated Learning with Buffered Asynchronous Aggregation",
        arXiv 2106.06639.
    Up: buffer updates a merge.
    Down: as many models a merge: as many bytes an update as sync.
    Example: fedmpi train --strategy fedavg --devices drawn --timing fedbuff:buffer=4
        --cohort 4
    """
    if buffer < 1:
        raise ValueError(f"buffer must be >= 1, got {buffer}")
    if not (server_lr > 0 and math.isfinite(server_lr)):
        raise ValueError(f"server_lr must be > 0 and finite, got {server_lr}")
    check_workers(concurrency)
    s = staleness_function("polynomial", a, 0)

    def discount(tau):
        return server_lr * s(tau)

    return Timing(
        buffer=buffer,
        concurrency=concurrency,
        discount=discount,
        refuses=refusals_of(concurrency),
        notes=notes_of,
    )
