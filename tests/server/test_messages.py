"""What strategies send, answer and record beside the model and its update, by the rules of their fields."""

import contracts
import numpy as np
import pytest
import torch

from fedmpi.core.errors import UserError
from fedmpi.core.parts import Field, Strategy
from fedmpi.core.reduce import average
from fedmpi.server import loop, record
from fedmpi.server.aggregate import Aggregated

ANSWERS = {
    "sizes": Field(on=(2,)),
    "all": Field(on="any", fold="list"),
    "counted": Field(on=(3,), fold="sum"),
    "moved": Field(fold="sum"),
    "free": Field(on=(500,), billed=False),
}
seen = []


def talkative(column: str = "answered", billed: bool = False):
    """FedAvg whose clients answer in every way that there is."""

    def reply(task, trained):
        n = len(task.labels)
        answer = {"sizes": torch.tensor([n, trained.steps]), "all": torch.arange(n), "counted": torch.ones(3) * n,
                  "moved": task.x - task.base, "free": torch.zeros(500)}
        return answer, {}

    def merge(state, x, updates, weights):
        seen.append(updates)
        return average(state, x, updates, weights)

    def numbers(state, updates):
        return {column: float(updates.totals["counted"][0])}

    answers = ANSWERS | {"free": Field(on=(500,), billed=billed)}
    return Strategy(lambda layout: {}, merge, linear=True, additive=True, answers=answers, reply=reply, steps=True,
                    columns=((column, "1", "samples of those that answered"),), record=numbers)


def played(**options):
    """``(updates that were merged last, row of the round, rows of its clients, state, RunParts)``."""
    run, state = contracts.assembled(strategy=f"{__name__}:talkative", partition="quantity", **options)
    seen.clear()
    after, row, rows = loop.evaluated_round(run, state, 1)
    return seen[-1], row, rows, after, run, state


@pytest.mark.parametrize("weighting, sums", [("size", True), ("relu", False)])
def test_each_answer_is_folded_by_the_rule_of_its_field(weighting, sums):
    updates, row, rows, after, run, state = played(weighting=weighting)
    assert run.sums_on_workers == sums
    sizes = run.sizes.long().tolist()
    assert updates.totals["counted"].tolist() == [sum(sizes)] * 3
    assert row["answered"] == sum(sizes)
    assert updates.parts["sizes"][:, 0].tolist() == sizes
    assert updates.parts["sizes"][:, 1].tolist() == updates.steps.tolist()
    assert [part.tolist() for part in updates.parts["all"]] == [list(range(n)) for n in sizes]
    if not sums:
        torch.testing.assert_close(updates.totals["moved"], updates.U.sum(dim=0), rtol=0, atol=1e-5)


def test_sums_have_the_same_bits_on_workers_and_on_the_server():
    on_workers, on_server = (played(weighting=weighting)[0].totals["moved"] for weighting in ("size", "relu"))
    assert torch.equal(on_workers, on_server)


def test_what_is_not_billed_costs_nothing():
    sent = {}
    for billed in (False, True):
        run, state = contracts.assembled(strategy=f"{__name__}:talkative:billed={str(billed).lower()}")
        sent[billed] = loop.evaluated_round(run, state, 1)[2]["up_bytes"]
    # The array, and what the header says of it.
    assert (sent[True] - sent[False] >= 4 * 500).all() and (sent[True] - sent[False] < 4 * 500 + 64).all()


def test_a_round_that_merges_nobody_has_no_number():
    run, _ = contracts.assembled(strategy=f"{__name__}:talkative")
    assert np.isnan(record.of_strategy(run.strategy, Aggregated({}, torch.zeros(1), torch.zeros(0)))["answered"])


def test_a_column_may_not_take_the_name_of_another():
    run, _ = contracts.assembled(strategy=f"{__name__}:talkative:column=sparsity")
    with pytest.raises(UserError, match="--strategy has a column sparsity, which is the name of another column"):
        record.columns(run)


def coded():
    return Strategy(lambda layout: {}, average, answers={"sizes": Field(on=(2,), coded=True)},
                    reply=lambda task, trained: ({}, {}))


def test_a_codec_is_for_values_of_the_model_alone():
    with pytest.raises(UserError, match="the Field 'sizes' on the support, since it is coded.*leave coded out"):
        contracts.assembled(strategy=f"{__name__}:coded")


def test_what_goes_beside_the_model_belongs_to_a_round():
    with pytest.raises(UserError, match="--strategy scaffold sends more than the model"):
        contracts.assembled(strategy="scaffold", timing="fedbuff:buffer=2,concurrency=2", devices="drawn",
                            clients=5)
