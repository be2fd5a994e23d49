"""Clients whose momentum goes on through the rounds, in strategies of the user's own."""

import contracts
import pytest
import torch

from fedmpi.compute.sgd import descend
from fedmpi.core.errors import UserError
from fedmpi.core.parts import Descent, Field
from fedmpi.methods.strategies.fedavg import fedavg

OPTIONS = {"optimiser": "sgd:momentum=0.9", "rounds": 3, "clients": 2, "lr": 0.05, "model": "2nn:hidden=8"}


def resuming():
    """FedAvg whose clients' optimisers go on: one word of a Descent."""
    return fedavg()._replace(local=Descent(resumes=True))


def carrying():
    """The same by hand: a local training that hands its last state to ``reply``, and begins from a kept one."""

    def refuses(facts):
        if facts.optimiser_state != ("velocity",):
            yield f"it keeps a velocity, and {facts.named['optimiser']} has none; take --optimiser sgd:momentum=0.9"

    def local(task):
        inner = {}
        if "velocity" in task.kept:
            inner = {"velocity": task.kept["velocity"][: task.layout.R]}
        return descend(task._replace(inner=inner), Descent(resumes=True))

    def reply(task, trained):
        velocity = torch.zeros_like(task.base)
        velocity[: task.layout.R] = trained.state["velocity"]
        return {}, {"velocity": velocity}

    return fedavg()._replace(local=local, reply=reply, keeps={"velocity": Field()}, refuses=refuses)


def ended(strategy, **options):
    run, state = contracts.assembled(**OPTIONS | {"strategy": strategy} | options)
    return contracts.run_rounds(run, state, 3)[0][-1]["x"]


@pytest.mark.parametrize("pruner", ["dense", "set:every=1,sparsity=0.5"])
def test_a_strategy_may_keep_its_clients_momentum_by_a_word_or_by_hand(pruner):
    by_word = ended(f"{__name__}:resuming", pruner=pruner)
    assert torch.equal(by_word, ended(f"{__name__}:carrying", pruner=pruner))
    assert not torch.allclose(by_word, ended("fedavg", pruner=pruner), atol=1e-3)


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_an_optimiser_without_that_state_is_refused_before_the_start(optimiser):
    with pytest.raises(UserError, match=f"it keeps a velocity, and --optimiser {optimiser} has none"):
        contracts.assembled(**OPTIONS | {"strategy": f"{__name__}:carrying", "optimiser": optimiser})
