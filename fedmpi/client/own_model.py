"""A worker's part of evaluating clients on their own test parts."""

import numpy as np
import torch

from fedmpi.methods.datasets.dataset import laid


def measured(clients, samples_of, vector_of, measure):
    """(M, 2) float64: the mean loss and the metric of each of M clients, of its own model on its own test part.

    ``samples_of(client) -> (inputs, targets)``, at least one; ``vector_of(client) -> (P,)``. ``measure(vector, inputs,
    targets) -> (n, 2)`` float64, a row a sample. Neighbours that share a model, the same object, go through it
    together: a client with a few samples costs little more than these.
    """
    found, same = [], []
    for client in clients:
        vector = vector_of(client)
        if same and vector is not model:
            found.append(_together(same, samples_of, model, measure))
            same = []
        model = vector
        same.append(client)
    return np.concatenate([*found, _together(same, samples_of, model, measure)])


def _together(clients, samples_of, vector, measure):
    """(m, 2) float64: the means of clients that have the same model."""
    inputs, targets = zip(*map(samples_of, clients))
    sizes = np.array([len(each) for each in targets])
    values = measure(vector, laid(torch.cat(inputs)), torch.cat(targets))
    return np.add.reduceat(values, np.cumsum(sizes) - sizes, axis=0) / sizes[:, None]
