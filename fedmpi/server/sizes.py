"""The size and the price of a client's network: the run's only one, or one of several."""

from fedmpi.core import flops


def costs_of(fed, client):
    """The ``flops.Costs`` of a client's network."""
    return fed.costs if fed.kinds is None else fed.kinds.costs_of(client)


def layout_of(fed, client):
    """The ``Layout`` of a client's network, without the others."""
    return fed.layout if fed.kinds is None else fed.kinds.of_client(client).layout


def mean_weights(fed, clients):
    """The number of prunable weights of a network, the mean over ``clients (A,)``."""
    if fed.kinds is None:
        return fed.layout.num_weights
    weights = [layout_of(fed, client).num_weights for client in clients.tolist()]
    return sum(weights) / max(len(clients), 1)


def dense_values(fed, clients):
    """The number of values of the unpruned networks of ``clients (A,)``, all together."""
    if fed.kinds is None:
        return len(clients) * fed.layout.num_values
    return sum(layout_of(fed, client).num_values for client in clients.tolist())


def dense_flops(fed, clients, seen):
    """FLOPs of training the unpruned networks of ``clients (A,)`` on ``seen (A,)`` samples."""
    full = fed.layout.full_mask()
    if fed.kinds is None:
        return flops.training(fed.layout, fed.costs, full, seen.sum(), 0, 0)[1]
    total = 0.0
    for number, costs in enumerate(fed.kinds.costs):
        trains_it = (fed.kinds.of[clients] == number).numpy()
        total += flops.training(fed.layout, costs, full, seen[trains_it].sum(), 0, 0)[1]
    return total
