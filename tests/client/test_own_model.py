"""A worker's part of evaluating clients on their own test parts."""

import numpy as np
import torch

from fedmpi.client.own_model import Place, measured

SAMPLES = {0: [1.0], 1: [2.0, 4.0], 2: [3.0, 5.0, 7.0], 3: [10.0]}


def samples_of(client):
    inputs = torch.tensor(SAMPLES[client])
    return inputs, torch.full((len(inputs),), client)


def place_that_notes(calls):
    """A ``Place`` whose measure notes the number of samples of each call."""
    def measure(vector, inputs, targets):
        calls.append(len(inputs))
        values = [inputs.numpy() + float(vector), targets.numpy()]
        return np.stack(values, axis=1).astype(float)

    return Place(home=None, received=None, measure=measure, server=None)


def test_a_client_counts_by_its_own_samples_and_clients_of_one_model_go_together():
    shared, own = torch.zeros(1), torch.ones(1)
    calls = []
    places = [place_that_notes(calls)] * 4
    values = measured([0, 1, 2, 3], places, samples_of, lambda row: own if row == 2 else shared)
    assert values.tolist() == [[1, 0], [3, 1], [6, 2], [10, 3]]
    assert calls == [3, 3, 1]


def test_equal_models_that_are_made_anew_for_each_client_go_one_by_one():
    calls = []
    places = [place_that_notes(calls)] * 2
    values = measured([0, 1], places, samples_of, lambda row: torch.full((1,), float(row)))
    assert values[:, 0].tolist() == [1, 4]
    assert calls == [1, 2]


def test_each_network_is_measured_in_its_own_place():
    small, large = [], []
    places = [place_that_notes(small), place_that_notes(large)]
    measured([1, 2], places, samples_of, lambda row: torch.full((1,), float(row)))
    assert (small, large) == ([2], [3])
