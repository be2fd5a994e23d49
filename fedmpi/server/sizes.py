"""How large a client's network is, and what it costs: the run's only one, or one of several."""

from fedmpi.core import flops


def costs_of(fed, client):
    """The ``flops.Costs`` of the network that a client trains."""
    return fed.costs if fed.kinds is None else fed.kinds.costs_of(client)


def layout_of(fed, client):
    """The ``Layout`` of the network that a client trains, by itself."""
    return fed.layout if fed.kinds is None else fed.kinds.of_client(client).layout


def mean_weights(fed, clients):
    """How many prunable weights a client's network has, the mean over ``clients (A,)``."""
    if fed.kinds is None:
        return fed.layout.num_weights
    return sum(layout_of(fed, client).num_weights for client in clients.tolist()) / max(len(clients), 1)


def dense_values(fed, clients):
    """How many values the networks of ``clients (A,)`` have in all, nothing pruned."""
    if fed.kinds is None:
        return len(clients) * fed.layout.num_values
    return sum(layout_of(fed, client).num_values for client in clients.tolist())


def dense_flops(fed, clients, seen):
    """FLOPs of training the networks of ``clients (A,)``, nothing pruned, on as many samples as they have
    ``seen (A,)``."""
    layout = fed.layout
    full = layout.full_mask()
    if fed.kinds is None:
        return flops.training(layout, fed.costs, full, seen.sum(), 0, 0)[1]
    total = 0.0
    for number, costs in enumerate(fed.kinds.costs):
        trains_it = (fed.kinds.of[clients] == number).numpy()
        total += flops.training(layout, costs, full, seen[trains_it].sum(), 0, 0)[1]
    return total
