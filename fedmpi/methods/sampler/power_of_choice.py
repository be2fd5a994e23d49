"""Power of choice: of d candidates, the clients with the largest losses.

    A = d clients drawn without replacement in proportion to their samples
    cohort = the m of A with the largest loss         (Cho, Wang and Joshi 2020, arXiv 2010.01243)

d is ``candidates``, at least the cohort m; d = m draws by size, d = all takes the largest
losses of all. Every round the candidates are sent the model and asked for its loss on their
samples, before m of them train. With ``remembered`` (their rpow-d) nobody is asked: the loss is
the last one that a client reported when it took part, infinite for a client that never did;
among such clients the first drawn go first. A larger d is faster and more biased. The updates
are meant to weigh alike: ``--weighting uniform``.
"""

import torch

from fedmpi.core.parts import Sampler
from fedmpi.methods.sampler.race import drawn_by, race, available_clients


def power_of_choice(candidates: int = 20, remembered: bool = False):
    """The largest losses among ``candidates`` clients drawn by size.

    Paper: Cho, Wang and Joshi 2020, "Client Selection in Federated Learning: Convergence
        Analysis and Power-of-Choice Selection Strategies", arXiv 2010.01243.
    Up: one loss of every candidate, before the cohort's updates; nothing with remembered=true.
    Down: the model to every candidate, candidates / cohort times as much as uniform; no more
        with remembered=true.
    Example: fedmpi train --sampler power-of-choice:candidates=12 --weighting uniform --cohort 4
    """
    if candidates < 1:
        raise ValueError(f"candidates must be >= 1, got {candidates}")

    def refuses(facts):
        if not (remembered or facts.common_model):
            yield (f"it asks clients for the loss of one common model; {facts.named['pruner']} "
                   "gives everybody a model of their own")
        if facts.drawn == facts.clients:
            yield (f"it chooses who takes part, but all {facts.clients} clients do: give a "
                   "--cohort below that, or --sampler uniform")
        if candidates < facts.drawn:
            yield (f"candidates={candidates} are fewer than the cohort of {facts.drawn}, which "
                   f"leaves nothing to choose: give candidates={2 * facts.drawn}, say, or "
                   "--sampler size")

    def draw(gen, count, records):
        clients = available_clients(records)
        # Nothing to choose: nothing is drawn either.
        if count >= len(clients):
            return clients
        sizes = records.sizes[clients]
        if not remembered:
            return drawn_by(sizes, clients, count, gen)
        # In the order of the race, by which equal losses are told apart.
        drawn = clients[race(gen, sizes, max(count, candidates))]
        # A client without a loss goes first, as one of infinite loss.
        losses = records.losses[drawn].nan_to_num(nan=torch.inf, posinf=torch.inf)
        return choose(count, drawn, losses)

    if remembered:
        return Sampler(draw, refuses=refuses)
    return Sampler(draw, candidates, choose, refuses)


def choose(count, clients, losses):
    """int64, sorted: the ``count`` of ``clients (d,)`` with the largest ``losses (d,)``.

    Of equal losses the first count; NaN is the smallest.
    """
    comparable = losses.nan_to_num(nan=-torch.inf, posinf=torch.inf)
    order = torch.argsort(comparable, descending=True, stable=True)
    chosen = clients[order[:count]]
    return chosen.sort().values
