"""NAME keeps the laws of strategies, and its clients remember what its formula says."""

import pytest
import torch

from fedmpi import laws
from NAME import NAME


def test_it_keeps_the_laws_of_strategies():
    laws.check("strategy", "NAME:NAME")


def test_a_client_answers_by_how_much_its_drift_has_changed():
    task = laws.small_task()
    before = torch.zeros_like(task.base)
    before[0] = 0.5
    task = task._replace(base=task.x.clone(), kept={"drift": before})
    task.x[0] += 2.0
    answer, kept = NAME().reply(task, None)
    assert kept["drift"][0] == task.x[0] - task.base[0]
    assert torch.equal(answer["change"], kept["drift"] - before)
    assert int(torch.count_nonzero(answer["change"])) == 1


def test_the_server_keeps_the_mean_drift_of_all_clients():
    layout, x = laws.small_layout()
    strategy = NAME()
    updates = laws.random_updates(layout, layout.full_mask(), clients=2, of=strategy)
    weights = torch.tensor([0.5, 0.5], dtype=torch.float64)
    state, _ = strategy.merge(strategy.init(layout), x, updates, weights)
    assert torch.equal(state["drift"][updates.support], updates.totals["change"] / updates.N)


def test_a_negative_strength_is_refused():
    with pytest.raises(ValueError, match="strength must be >= 0, got -1"):
        NAME(strength=-1)
