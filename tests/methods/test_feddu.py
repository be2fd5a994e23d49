"""FedDU against its formula, and where the server has nothing to add."""

import math

import contracts
import pytest
import torch

from fedmpi.core.parts import Lab, Round, Updates
from fedmpi.methods.strategies.feddu import divergence, feddu, share

SKEWED = {"partition": "classes:per_client=2", "cohort": 2, "server_data": "12:labels=0", "rounds": 3}


def played(strategy, rounds=3, **options):
    return contracts.run_rounds(*contracts.assembled(strategy=strategy, **SKEWED | options), rounds)


def test_the_share_by_hand():
    assert share(0.6, (4000, 0.3), (4000, 0.1)) * 0.999 ** 10 == pytest.approx(0.297013, abs=1e-6)
    assert share(1.0, (4000, 0.3), (4000, 0.1)) == 0
    assert share(0.6, (4000, 0.0), (4000, 0.1)) == 0
    assert share(0.6, (4000, 0.0), (4000, 0.0)) == 0
    assert share(0.6, (4000, 0.3), (4000, 0.0)) == pytest.approx(0.4)


def test_divergence_is_in_bits():
    assert divergence(torch.tensor([3, 0]), torch.tensor([0, 7])) == 1
    assert divergence(torch.tensor([2, 6]), torch.tensor([1, 3])) == 0
    p, q = (0.75, 0.25), (0.25, 0.75)
    entropy = -sum(each * math.log2(each) for each in p)
    assert divergence(torch.tensor([3, 1]), torch.tensor([1, 3])) == pytest.approx(1 - entropy)
    assert len(p) == len(q)


def merged(accuracy, loss_after=0.1, decay=1.0, t=1):
    """What ``after`` makes of zeros, where training would come to ones and the share before decay is 1 - accuracy."""
    losses = iter([(1.0, accuracy), (loss_after, accuracy)])

    def evaluate(models, on, mask):
        loss, right = next(losses)
        return torch.tensor([loss]).double(), torch.tensor([right]).double()

    labels = {"clients": torch.tensor([[5, 0], [0, 5]]), "server": torch.tensor([5, 5])}
    lab = Lab(evaluate, outputs=None, gradient=None, train=lambda trainings: [(torch.ones(4), None)], fit=None,
              sizes={"server": 10}, labels=labels, round=Round(t, 9), mask=torch.ones(4, dtype=torch.bool))
    updates = Updates(torch.zeros(1, 2), None, torch.tensor([0, 2], dtype=torch.int32), torch.ones(1).double(), 2,
                      clients=torch.tensor([0]))
    return feddu(decay=decay).after({}, torch.zeros(4), updates, lab)[1]


def test_the_model_goes_that_far_on_the_support():
    torch.testing.assert_close(merged(0.75), torch.tensor([0.25, 0, 0.25, 0]))
    torch.testing.assert_close(merged(0.5, decay=0.5, t=2), torch.tensor([0.125, 0, 0.125, 0]))


def test_work_that_triples_the_loss_is_undone():
    assert merged(0.5, loss_after=3.0).any() and not merged(0.5, loss_after=3.1).any()
    assert not merged(0.5, loss_after=math.nan).any()


def test_a_server_that_counts_for_nothing_is_fedavg_to_the_bit():
    states, rows = played("feddu:decay=0")
    other = played("feddu:decay=1")[0]
    options = {key: value for key, value in SKEWED.items() if key != "server_data"}
    run, state = contracts.assembled(strategy="feddu:decay=0", **SKEWED)
    plain = run._replace(strategy=run.strategy._replace(after=None))
    expected, _ = contracts.run_rounds(plain, state, 3)
    assert options and torch.equal(states[-1]["x"], expected[-1]["x"])
    assert not torch.equal(states[-1]["x"], other[-1]["x"])
    assert all(row["flops_server"] == 0 < row["flops_lab"] for row in rows)


def test_clients_whose_labels_are_those_of_all_leave_the_server_nothing():
    _, rows = played("feddu:decay=1", cohort=0)
    assert [row["flops_server"] for row in rows] == [0, 0, 0]


def test_the_server_helps_where_cohorts_are_one_sided():
    losses = [played(f"feddu:decay={decay}", rounds=6, server_data="24", lr=0.05)[1][-1]["loss"] for decay in (0, 1)]
    assert losses[1] < losses[0]
