"""The size and the price of a client's network: the run's only one, or one of several."""

from fedmpi.core import flops


def costs_of(run, client):
    """The ``flops.Costs`` of a client's network."""
    return run.costs if run.kinds is None else run.kinds.costs_of(client)


def layout_of(run, client):
    """The ``Layout`` of a client's network, without the others."""
    return run.layout if run.kinds is None else run.kinds.of_client(client).layout


def mean_weights(run, clients):
    """The number of prunable weights of a network, the mean over ``clients (A,)``."""
    if run.kinds is None:
        return run.layout.num_weights
    weights = [layout_of(run, client).num_weights for client in clients.tolist()]
    return sum(weights) / max(len(clients), 1)


def dense_values(run, clients):
    """The number of values of the unpruned networks of ``clients (A,)``, all together."""
    if run.kinds is None:
        return len(clients) * run.layout.num_values
    return sum(layout_of(run, client).num_values for client in clients.tolist())


def dense_flops(run, clients, seen):
    """FLOPs of training the unpruned networks of ``clients (A,)`` on ``seen (A,)`` samples."""
    full = run.layout.full_mask()
    if run.kinds is None:
        return flops.training(run.layout, run.costs, full, seen.sum(), 0, 0)[1]
    total = 0.0
    for number, costs in enumerate(run.kinds.costs):
        trains_it = (run.kinds.of[clients] == number).numpy()
        total += flops.training(run.layout, costs, full, seen[trains_it].sum(), 0, 0)[1]
    return total
