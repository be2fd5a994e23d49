"""The table of batches: each client's own order, shares that sum to 1, and the longest training first."""

import numpy as np
import torch

from fedmpi.compute.batch_plan import planned
from fedmpi.compute.sgd import deal
from fedmpi.core.layout import bind
from fedmpi.core.parts import Round, Task
from fedmpi.methods.models.logistic import logistic


def tasks(*sizes):
    model = logistic((1, 2, 2), 3)
    layout, x, g = bind(model)
    made = []
    for number, n in enumerate(sizes):
        inputs, labels = torch.zeros(n, 1, 2, 2), torch.zeros(n, dtype=torch.int64)
        made.append(Task(model, layout, x, g, x.clone(), layout.full_mask(), torch.ones(layout.R), inputs, labels,
                         1, 2, 0.1, np.random.default_rng(number), Round(1, 1)))
    return made


def test_rows_are_each_clients_own_batches_and_the_longest_training_comes_first():
    plan = planned(tasks(2, 5), shuffle=True)
    assert plan.order == [1, 0] and plan.drawn is None
    assert plan.counts.tolist() == [[2, 2], [2, 0], [1, 0]]
    assert plan.steps == [(2, 2, True), (1, 2, True), (1, 1, True)]
    own, first = [deal(task, True)[0].tolist() for task in tasks(2, 5)]
    # Samples are numbered over all clients in the plan's order.
    assert plan.index[0, :, 0].tolist() == first[:2] and plan.index[1, :, 0].tolist() == first[2:4]
    assert plan.index[0, :, 1].tolist() == [5 + row for row in own]


def test_a_smaller_batch_is_filled_up_with_its_first_sample_at_weight_0():
    plan = planned(tasks(3), shuffle=False)
    assert plan.index[:, :, 0].tolist() == [[0, 1], [2, 2]]
    assert plan.shares[:, :, 0].tolist() == [[0.5, 0.5], [1.0, 0.0]]
