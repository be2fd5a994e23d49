"""FedAsync: every answer is merged when it comes (Xie, Koyejo and Gupta 2019, arXiv 1903.03934).

    x <- (1 - alpha_t) x + alpha_t x_new,    alpha_t = alpha s(tau)

x_new is the client's model, trained from the server's of tau merges ago. ``staleness`` names s:
``constant`` 1, ``polynomial`` (1 + tau)^-a, or ``hinge``, 1 where tau <= b, else 1 / (a (tau -
b) + 1). a = 0.5 is for polynomial; hinge is usually run with a = 10, b = 4. (Public
implementations agree on these formulas and values.) ``concurrency`` clients are at work at any
time. The paper adds a proximal term on the clients: ``--strategy fedprox``.
"""

from fedmpi.core.effect import needs
from fedmpi.core.parts import Timing
from fedmpi.methods.timing.staleness import Staleness, check_workers, staleness_function
from fedmpi.methods.timing.without_rounds import notes_of, refusals_of


@needs(a="staleness!=constant", b="staleness=hinge")
def fedasync(alpha: float = 0.6, staleness: Staleness = "polynomial", a: float = 0.5,
             b: float = 4.0, concurrency: int = 0):
    """Each answer mixed in at once, less the staler it is; ``concurrency`` 0: the cohort.

    Paper: Xie, Koyejo and Gupta 2019, "Asynchronous Federated Optimization", arXiv 1903.03934.
    Up: an update a merge.
    Down: a model a merge: as many bytes an update as sync.
    Example: fedmpi train --strategy fedprox --devices drawn --timing fedasync --cohort 4
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must be in (0, 1], got {alpha}")
    check_workers(concurrency)
    s = staleness_function(staleness, a, b)

    def discount(tau):
        return alpha * s(tau)

    # mixing: the model is pulled towards the answer, not moved by its update.
    return Timing(
        buffer=1,
        concurrency=concurrency,
        discount=discount,
        mixing=True,
        refuses=refusals_of(concurrency),
        notes=notes_of,
    )
