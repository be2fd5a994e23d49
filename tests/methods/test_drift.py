"""Strategies for clients whose optima differ, against known answers: two clients that minimise a parabola each."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fedmpi.compute.sgd import descend
from fedmpi.core.layout import bind
from fedmpi.core.parts import Round, Task, Updates
from fedmpi.methods.optimisers.sgd import sgd
from fedmpi.methods.strategies.fedavg import fedavg
from fedmpi.methods.strategies.fedavgm import fedavgm
from fedmpi.methods.strategies.feddyn import feddyn
from fedmpi.methods.strategies.fednova import fednova, normalised
from fedmpi.methods.strategies.fedopt import fedadagrad, fedadam, fedyogi
from fedmpi.methods.strategies.scaffold import scaffold

LR = 0.1


def half_square(outputs, targets, reduction="mean"):
    return 0.5 * (outputs - targets).square().mean()


class Parabolas:
    """Clients n that minimise ``a_n / 2 (x - b_n)^2`` over one weight, by ``steps[n]`` steps of gradient descent."""

    def __init__(self, strategy, a, b, steps, optimiser=None):
        self.strategy, self.a, self.b, self.steps = strategy, a, b, steps
        self.optimiser = optimiser or sgd(momentum=0.0, weight_decay=0.0)
        self.model = nn.Linear(1, 1, bias=False)
        self.layout, self.own, self.g = bind(self.model)
        self.x = torch.zeros(self.layout.P)
        self.state, self.kept = strategy.init(self.layout), [{} for _ in a]

    def train(self, n, given):
        """``(update, answers, Trained)`` of a client, which keeps what it keeps."""
        self.own.copy_(self.x)
        inputs = torch.tensor([[math.sqrt(self.a[n])]])
        task = Task(self.model, self.layout, self.own, self.g, self.x.clone(), self.layout.full_mask(),
                    torch.ones(self.layout.R), inputs, inputs * self.b[n], self.steps[n], 1, LR,
                    np.random.default_rng(0), Round(1, 1), optimiser=self.optimiser, message=given, kept=self.kept[n])
        trained = descend(task, self.strategy.local._replace(loss=half_square))
        answers, kept = self.strategy.reply(task, trained) if self.strategy.reply else ({}, {})
        self.kept[n] = {name: tensor.clone() for name, tensor in kept.items()}
        return self.own[:1] - self.x[:1], answers, trained

    def round(self):
        """Everybody trains, and all weigh the same; the model's one weight."""
        given = self.strategy.send(self.state) if self.strategy.send else {}
        updates, answers, trained = zip(*(self.train(n, given) for n in range(len(self.a))))
        C = len(self.a)
        totals = {name: sum(answer[name] for answer in answers)[:1] for name in answers[0]}
        came = Updates(torch.stack(updates), None, torch.zeros(1, dtype=torch.int32), torch.ones(C), 1, totals=totals,
                       travelled=torch.tensor([each.travelled for each in trained], dtype=torch.float64),
                       clients=torch.arange(C), N=C)
        weights = torch.full((C,), 1 / C, dtype=torch.float64)
        self.state, self.x = self.strategy.merge(self.state, self.x, came, weights)
        return float(self.x[0])

    def after(self, rounds):
        return [self.round() for _ in range(rounds)][-1]


def two(strategy, steps=(10, 10), a=(1.0, 3.0)):
    return Parabolas(strategy, a, (0.0, 1.0), steps)


def test_fedavg_stops_away_from_the_optimum():
    assert two(fedavg()).after(60) == pytest.approx(0.598711, abs=2e-6)


@pytest.mark.parametrize("rounds, expected", [(1, 0.485876), (2, 0.656985), (5, 0.745938), (60, 0.75)])
def test_scaffold_goes_where_it_is_known_to_go(rounds, expected):
    assert two(scaffold()).after(rounds) == pytest.approx(expected, abs=2e-6)


def test_scaffolds_controls_become_the_clients_gradients():
    run = two(scaffold())
    run.after(60)
    assert [float(kept["control"][0]) for kept in run.kept] == pytest.approx([0.75, -0.75], abs=1e-5)
    assert float(run.state["control"][0]) == pytest.approx(0, abs=1e-5)


def test_scaffolds_first_step_from_nothing_is_fedsgd_and_its_control_the_gradient():
    run, plain = two(scaffold(), (1, 1)), two(fedavg(), (1, 1))
    assert run.round() == plain.round()
    assert [float(kept["control"][0]) for kept in run.kept] == pytest.approx([0.0, -3.0])


def test_with_momentum_scaffold_still_reaches_the_optimum():
    run = Parabolas(scaffold(), (1.0, 3.0), (0.0, 1.0), (10, 10), sgd(momentum=0.9, weight_decay=0.0))
    assert run.after(200) == pytest.approx(0.75, abs=1e-3)


@pytest.mark.parametrize("rounds, expected", [(1, 0.944069), (2, 0.848568), (5, 0.619291), (50, 0.738700)])
def test_feddyn_goes_where_it_is_known_to_go(rounds, expected):
    assert two(feddyn(alpha=0.1)).after(rounds) == pytest.approx(expected, abs=5e-6)


def test_feddyns_drifts_are_the_gradients_at_the_optimum():
    run = two(feddyn(alpha=0.1))
    assert run.after(400) == pytest.approx(0.75, abs=1e-4)
    assert [float(kept["drift"][0]) for kept in run.kept] == pytest.approx([-7.5, 7.5], abs=1e-2)


def test_fednova_takes_out_that_one_client_steps_more():
    assert two(fedavg(), (2, 10), (1.0, 1.0)).after(80) == pytest.approx(0.77416, abs=1e-5)
    assert two(fednova(), (2, 10), (1.0, 1.0)).after(80) == pytest.approx(0.40674, abs=1e-5)


def test_fednova_of_equal_steps_is_fedavg_to_the_bit():
    assert two(fednova(), (7, 7)).after(5) == two(fedavg(), (7, 7)).after(5)


def test_fednovas_way_with_momentum():
    assert sgd(momentum=0.9, weight_decay=0.0).travelled([1.0] * 10) == pytest.approx(41.38106, abs=1e-5)


def test_fednovas_weights_need_not_sum_to_one():
    weights, way = torch.tensor([0.5, 0.5], dtype=torch.float64), torch.tensor([2.0, 10.0], dtype=torch.float64)
    assert normalised(weights, way).tolist() == pytest.approx([1.5, 0.3])


def steps_of(strategy, rounds):
    """The displacements of a server that gets an update of 1 each round."""
    model = nn.Linear(1, 1, bias=False)
    layout, _, _ = bind(model)
    state, x, found = strategy.init(layout), torch.zeros(layout.P), []
    one = Updates(torch.ones(1, 1), None, torch.zeros(1, dtype=torch.int32), torch.ones(1), 1,
                  clients=torch.arange(1), N=1)
    for _ in range(rounds):
        state, x = strategy.merge(state, x, one, torch.ones(1, dtype=torch.float64))
        found.append(float(x[0]))
    return found


@pytest.mark.parametrize("kind, expected", [("heavy", 5.61), ("nesterov", 8.049), ("ema", 0.561)])
def test_server_momentum_of_three_rounds(kind, expected):
    assert steps_of(fedavgm(kind=kind), 3)[-1] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("strategy, expected", [
    (fedadam(server_lr=1.0), (0.990099, 0.990099 + 1.337394)),
    (fedyogi(server_lr=1.0), (0.990099, 0.990099 + 1.334070))])
def test_adaptive_servers_take_the_known_steps(strategy, expected):
    assert steps_of(strategy, 2) == pytest.approx(expected, abs=2e-6)


def test_adagrad_on_the_server():
    assert steps_of(fedadagrad(server_lr=1.0, tau=1e-3), 2) == pytest.approx(
        (1 / 1.001, 1 / 1.001 + 1 / (math.sqrt(2) + 1e-3)), abs=1e-6)
