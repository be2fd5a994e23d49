"""The size and the price of a client's network: the run's only one, or one of several."""

from fedmpi.core import flops


def costs_of(run, client):
    """The ``flops.Costs`` of a client's network."""
    if run.kinds is None:
        return run.costs
    return run.kinds.costs_of(client)


def layout_of(run, client):
    """The ``Layout`` of a client's network, without the others."""
    if run.kinds is None:
        return run.layout
    return run.kinds.of_client(client).layout


def mean_weights(run, clients):
    """``(weights, parameters)`` of a network, prunable ones and all: means over ``clients (A,)``."""
    if run.kinds is None:
        return run.layout.num_weights, run.layout.num_parameters
    layouts = [layout_of(run, client) for client in clients.tolist()]
    # A round may have nobody.
    count = max(len(layouts), 1)
    weights = sum(layout.num_weights for layout in layouts)
    parameters = sum(layout.num_parameters for layout in layouts)
    return weights / count, parameters / count


def dense_values(run, clients):
    """The number of values of the unpruned networks of ``clients (A,)``, all together."""
    if run.kinds is None:
        return len(clients) * run.layout.num_values
    total = 0
    for client in clients.tolist():
        total += layout_of(run, client).num_values
    return total


def dense_flops(run, clients, seen):
    """FLOPs of training the unpruned networks of ``clients (A,)`` on ``seen (A,)`` samples."""
    if run.kinds is None:
        return _of_dense(run, run.costs, seen.sum())
    total = 0.0
    numbers = run.kinds.of[clients].numpy()
    for number, costs in enumerate(run.kinds.costs):
        trains_it = numbers == number
        total += _of_dense(run, costs, seen[trains_it].sum())
    return total


def _of_dense(run, costs, samples):
    """FLOPs of training an unpruned network of these ``costs`` on so many samples."""
    full = run.layout.full_mask()
    # Both conventions agree on dense networks.
    _, rigl = flops.training(run.layout, costs, full, samples, 0, 0)
    return rigl
