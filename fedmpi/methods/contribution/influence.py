"""Influence: by how much an update lowers the loss on the server's samples, to first order.

    influence            phi_n = <-g, Delta_n>,    g = grad L_val(x) of the received model
    influence-hessian    phi_n = <-s, Delta_n>,    (H + damping I) s = g,    H the Hessian of L_val

The update stands for minus the client's gradient (Koh & Liang, arXiv 1703.04730, there with the
Hessian of the training loss, which no server has). The inverse weighs directions by how little
they bend: a step along a flat one is worth more than the slope alone says.

s is found once a round by conjugate gradients on the trained support; pruned weights take no part,
neither in g nor in H. H of a network is not positive definite: at a direction of curvature <= 0, s
is the last iterate before it, and g itself (hence ``influence``) at the first step. More damping
makes that rarer and draws phi towards ``influence / damping``. In 15 rounds of small-cnn on digits
at sparsity 0.8, dampings of 0.01 (Koh & Liang's), 0.1 and 0.3 met one in every round, after 1 to 7
good steps; 1 met none and took 4 to 7 products.

Cost: one gradient of the validation loss a round; for influence-hessian up to ``iterations``
Hessian products besides, each about two gradients. No coalition is evaluated. Sees: updates,
labels of the server's own samples. Blind spots: phi grows with the length of an update, so a
client with many steps or a large rate looks good; it is linear, so duplicates each earn the whole;
near an optimum g is noise. Running statistics do not count.
"""

import torch

from fedmpi.core.parts import Contribution, Scores
from fedmpi.methods.contribution.game import SEES


def influence():
    """First-order decrease of the validation loss.

    Paper: Koh and Liang 2017, "Understanding Black-box Predictions via Influence Functions", arXiv
        1703.04730, to first order and of validation loss.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    """

    def score(state, cohort, utility, gen):
        """phi = <-g, Delta>."""
        g = slope(cohort, utility)
        return Scores(-dots(cohort.updates, g))

    return Contribution(
        score,
        validated=True,
        sees=SEES,
    )


def influence_hessian(damping: float = 1.0, iterations: int = 20, tolerance: float = 0.01):
    """Influence function: slopes weighed by the inverse Hessian.

    Paper: Koh and Liang 2017, "Understanding Black-box Predictions via Influence Functions", arXiv
        1703.04730.
    Up: nothing more: it judges the updates that are sent anyway.
    Down: nothing more.
    """
    if not damping >= 0:
        raise ValueError(f"damping must be >= 0, got {damping}")
    if iterations < 1:
        raise ValueError(f"iterations must be >= 1, got {iterations}")
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must be in [0, 1), got {tolerance}: the residual over the "
                         "gradient")

    def score(state, cohort, utility, gen):
        """phi = <-s, Delta>."""
        support = trained(cohort)

        def product(v):
            """``(H + damping I) v``, on the trained support."""
            dense = torch.zeros(cohort.layout.R)
            dense[support] = v.float()
            bent = utility.curvature(cohort.x, dense)
            return bent[support].double() + damping * v

        g = slope(cohort, utility)
        s = solve(product, g, iterations, tolerance)
        return Scores(-dots(cohort.updates, s))

    return Contribution(
        score,
        validated=True,
        sees=SEES,
    )


def trained(cohort):
    """The positions of the trained columns, int64."""
    return cohort.updates.support[: cohort.updates.trained].long()


def slope(cohort, utility):
    """float64, a trained column each: the gradient of the validation loss at the received model."""
    gradient = utility.gradient(cohort.x)
    return gradient[trained(cohort)].double()


def dots(updates, v, block=1 << 16):
    """``(C,) float64``: the inner product of every update with ``v``, an entry a trained column.

    Entries outside a client's mask do not count."""
    total = torch.zeros(len(updates.U), dtype=torch.float64)
    for start in range(0, updates.trained, block):
        end = min(start + block, updates.trained)
        columns = slice(start, end)
        part = updates.U[:, columns].double()
        if updates.B is not None:
            part = part * updates.B[:, columns]
        total += part @ v[columns]
    return total


def solve(product, g, iterations, tolerance):
    """``s`` with ``|product(s) - g| <= tolerance |g|`` by conjugate gradients.

    Or the best of ``iterations`` of them; at a direction of curvature <= 0 the last iterate, and
    ``g`` at the first step (Newton-CG's rule).
    """
    s = torch.zeros_like(g)
    residual = g.clone()
    direction = g.clone()
    square = g @ g
    goal = tolerance ** 2 * square
    for step in range(iterations):
        if square <= goal:
            break
        image = product(direction)
        bend = direction @ image
        if bend <= 0 and step == 0:
            return g
        if bend <= 0:
            return s
        length = square / bend
        s = s + length * direction
        residual = residual - length * image
        before = square
        square = residual @ residual
        turn = square / before
        direction = residual + turn * direction
    return s
