"""A worker's part of evaluating clients on their own test parts."""

import numpy as np
import torch

from fedmpi.client.own_model import measured


def test_a_client_counts_by_its_own_samples_and_clients_of_one_model_go_together():
    shared, own = torch.zeros(1), torch.ones(1)
    samples = {0: [1.0], 1: [2.0, 4.0], 2: [3.0, 5.0, 7.0], 3: [10.0]}
    calls = []

    def measure(vector, inputs, targets):
        calls.append(len(inputs))
        return np.stack([inputs.numpy() + float(vector), targets.numpy()], axis=1).astype(float)

    values = measured([0, 1, 2, 3], lambda client: (torch.tensor(samples[client]), torch.full((len(samples[client]),),
                                                                                              client)),
                      lambda client: own if client == 2 else shared, measure)
    assert values.tolist() == [[1, 0], [3, 1], [6, 2], [10, 3]] and calls == [3, 3, 1]
    each = measured([0, 1], lambda client: (torch.tensor(samples[client]), torch.zeros(len(samples[client]))),
                    lambda client: torch.full((1,), float(client)), measure)       # made anew for each of them
    assert each[:, 0].tolist() == [1, 4] and calls[3:] == [1, 2]
