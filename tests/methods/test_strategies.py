"""Strategies: the contract over the catalogue, real rounds that learn, and the merges by hand."""

import contracts
import pytest
import torch
from torch import nn

from fedmpi.build.facts import parts_with_facts
from fedmpi.catalog import CODECS, STRATEGIES
from fedmpi.core.errors import UserError
from fedmpi.core.layout import bind
from fedmpi.core.reduce import clip_scales, mean, moved, near_norms
from fedmpi.core.parts import Task, Trained, Updates
from fedmpi.methods.strategies.fedavg import fedavg
from fedmpi.methods.strategies.scaffold import scaffold
from fedmpi.methods.strategies.thesis import thesis, thesis_text
from fedmpi.server.slices import finish

# Those whose server has a whole model of its own; flora's is trained beside a frozen one, see test_adapters.py.
WITH_MODEL = [name for name in STRATEGIES if name not in ("fedpcl", "fedgkt", "fedper", "flora")]
SPECS = [*STRATEGIES, "thesis:server_momentum=0.5", "thesis:rho=1", "feddst:mu=1", "thesis-code:double_softmax=false"]
HALF = torch.tensor([.5, .5], dtype=torch.float64)


def vector_of(size):
    """``(layout, x zeroed)`` of one linear layer of ``size`` weights."""
    layout, x, _ = bind(nn.Linear(size, 1, bias=False))
    return layout, x.zero_()


def updates(rows, held=None, support=None):
    U = torch.tensor(rows, dtype=torch.float32)
    support = torch.arange(U.shape[1]) if support is None else torch.tensor(support)
    B = None if held is None else torch.tensor(held, dtype=torch.bool)
    return Updates(U, B, support.int(), torch.ones(len(U), dtype=torch.float64), U.shape[1])


@pytest.mark.parametrize("spec", SPECS)
def test_strategies_keep_the_contract(spec):
    contracts.check_strategy(spec)


@pytest.mark.parametrize("name", WITH_MODEL)
def test_strategies_learn_with_their_usual_parts(name):
    run, state = contracts.assembled(strategy=name, pruner=None, contribution=None, rounds=12,
                                     model="small-cnn:width=12", lr=0.2, local_epochs=3)
    first = finish(run.test(state["x"]))[0]
    _, rows = contracts.run_rounds(run, state, 12)
    assert rows[-1]["accuracy"] > 0.9 and rows[-1]["loss"] < first / 5


@pytest.mark.parametrize("name", WITH_MODEL)
def test_strategies_solve_logistic_regression(name):
    run, state = contracts.assembled(strategy=name, pruner="dense", model="logistic", rounds=10, lr=0.1)
    _, rows = contracts.run_rounds(run, state, 10)
    assert rows[-1]["accuracy"] > 0.9 and rows[-1]["train_loss"] < rows[0]["train_loss"] / 1.2


@pytest.mark.parametrize("codec", CODECS)
def test_rounds_learn_through_every_codec(codec):
    run, state = contracts.assembled(codec=codec, model="logistic", rounds=6, lr=0.1)
    assert contracts.run_rounds(run, state, 6)[1][-1]["accuracy"] > 0.9


PLAIN = {"weighting": "uniform", "contribution": "uniform", "optimiser": "sgd", "rounds": 2}


def ended(options):
    run, state = contracts.assembled(**options)
    return contracts.run_rounds(run, state, 2)[0][-1]["x"]


# The clipping of thesis acts or not as the updates are.
@pytest.mark.parametrize("name", [name for name in WITH_MODEL if name not in ("fedavg", "thesis")])
@pytest.mark.parametrize("settings", [
    {}, {"optimiser": "adam", "lr": 0.01}, {"devices": "drawn", "timing": "fedbuff:buffer=2,concurrency=1"}])
def test_a_strategy_that_is_fedavg_in_this_run_says_so_or_is_refused(name, settings):
    options = PLAIN | settings | {"strategy": name}
    setup = contracts.small(**options)
    rows = parts_with_facts(setup.options, setup.parts, setup.data, setup.network.layout)
    notes = [line for said, part, facts in rows if said.startswith("--strategy") for line in part.notes(facts)]
    try:
        x = ended(options)
    except UserError as error:
        assert name in str(error)
    else:
        plain = ended(options | {"strategy": "fedavg"})
        assert notes or not torch.allclose(x, plain, rtol=0, atol=1e-6)


def test_scaffold_refuses_a_way_of_unknown_length():
    """Adam's way has none: no control would ever move."""
    with pytest.raises(UserError, match="scaffold: it divides by how far clients went"):
        contracts.assembled(strategy="scaffold", optimiser="adam")
    with pytest.raises(UserError, match="give Trained its travelled"):
        _, x, _ = bind(nn.Linear(2, 1))
        task = Task(*[None] * 4, base=x, mask=None, trainable=None, inputs=None, labels=None, epochs=1, batch_size=1,
                    lr=1.0, gen=None, now=None, message={"control": x})
        scaffold().reply(task, Trained(1.0, 1, 1))


def test_a_run_is_a_function_of_its_options():
    runs = [contracts.run_rounds(*contracts.assembled(strategy="thesis", pruner=None, contribution=None, seed=seed), 3)
            for seed in (4, 4, 5)]
    digests = [[row["weights_digest"] for row in rows] for _, rows in runs]
    assert digests[0] == digests[1] and digests[0] != digests[2]


def test_thesis_text_without_pruning_and_mixing_is_fedavg_to_the_last_bit():
    plain = contracts.assembled(strategy="fedavg", pruner="dense", contribution="size",
                                partition="lognormal:min_size=2")
    text = contracts.assembled(strategy="thesis-text", pruner="dense", partition="lognormal:min_size=2",
                               contribution="cosine", weighting="thesis:schedule=thesis,gamma=1")
    for one, other in zip(contracts.run_rounds(*plain, 5)[0], contracts.run_rounds(*text, 5)[0], strict=True):
        assert torch.equal(one["x"], other["x"])
    assert len(set(plain[0].sizes.tolist())) > 1


def test_thesis_text_at_sparsity_zero_is_fedavg_too():
    plain = contracts.assembled(strategy="fedavg", pruner="dense", contribution="size")
    text = contracts.assembled(strategy="thesis-text", pruner="residual:sparsity=0,fraction=0,distribution=thesis",
                               contribution="cosine", weighting="thesis:schedule=thesis,gamma=1")
    assert torch.equal(contracts.run_rounds(*plain, 3)[0][-1]["x"], contracts.run_rounds(*text, 3)[0][-1]["x"])


# --- means ---

def test_fedavg_by_hand():
    layout, x = vector_of(3)
    x[:3] = torch.tensor([1., 2, 3])
    _, merged = fedavg().merge({}, x, updates([[4., 0, 8], [0, 4, -8]]), torch.tensor([.75, .25], dtype=torch.float64))
    assert merged[:3].tolist() == [4, 3, 7] and x[:3].tolist() == [1, 2, 3]


def test_disjoint_masks_return_each_others_coordinates_untouched():
    given = updates([[1., 0], [0, 2]], [[1, 0], [0, 1]])
    assert mean(given, HALF, rho=0.0).tolist() == mean(given, HALF, rho=1e-9).tolist() == [1, 2]
    assert mean(given, HALF, rho=1.0).tolist() == [.5, 1]
    assert mean(given, HALF, rho=0.1).tolist() == [1, 2]              # half of the weight is more than a tenth


def test_rho_dilutes_only_what_few_hold():
    given = updates([[1., 1], [0, 1]], [[1, 1], [0, 1]])
    weights = torch.tensor([.125, .875], dtype=torch.float64)
    assert mean(given, weights, rho=0.25).tolist() == [.5, 1]         # .125 / .25


def test_what_nobody_holds_does_not_move():
    assert mean(updates([[0., 1], [0, 1]], [[0, 1], [0, 1]]), HALF).tolist() == [0, 1]


def test_full_masks_change_nothing():
    plain = updates([[1., -2, 3], [0, 4, 1]])
    torch.testing.assert_close(mean(plain._replace(B=torch.ones(2, 3, dtype=torch.bool)), HALF), mean(plain, HALF))


def test_moved_adds_on_the_support_only():
    x = torch.zeros(5)
    assert moved(x, torch.tensor([1, 4], dtype=torch.int32), torch.tensor([2., 3])).tolist() == [0, 2, 0, 0, 3]
    assert not x.any()


# --- the thesis's merge ---

def test_clip_limits_rows_to_a_multiple_of_the_median_norm():
    norms, third = near_norms(updates([[3., 4], [0, 5], [30, 40]]).U), torch.full((3,), 1 / 3, dtype=torch.float64)
    torch.testing.assert_close(clip_scales(norms, third, 2.0), torch.tensor([1, 1, .2], dtype=torch.float64))
    assert clip_scales(norms, third, 10.0) is None
    assert clip_scales(torch.zeros(2), third[:2], 2.0) is None
    pairs = torch.tensor([[.5, 0, .5], [0, .5, .5], [.3, .3, .4], [0, 0, 0]], dtype=torch.float64)      # coalitions
    torch.testing.assert_close(clip_scales(norms, pairs, 2.0)[:3], torch.tensor([[1, 1, .2]] * 3, dtype=torch.float64))
    assert clip_scales(norms, pairs, 2.0)[3].tolist() == [1, 1, 1]      # nobody, nothing to limit


@pytest.mark.parametrize("where", ["nobody", "everywhere", "behind the first block", "in the first block only"])
def test_clipped_means_are_those_of_double_precision(monkeypatch, where):
    """An outlier 1e6 times as long leaves no trace, whether or not it shows in the block that is looked at first."""
    monkeypatch.setattr("fedmpi.core.reduce.BLOCK", 6 * 64)
    U = torch.randn(6, 500, generator=torch.Generator().manual_seed(0))
    columns = {"nobody": slice(0), "everywhere": slice(None), "behind the first block": slice(100, None),
               "in the first block only": slice(20)}[where]
    U[2, columns] *= 1e6
    weights = torch.tensor([.1, .2, .1, .3, .2, .1], dtype=torch.float64)
    given = updates(U.tolist())._replace(trained=480)
    norms = U[:, :480].double().norm(dim=1)
    limit = 3 * norms.median()
    scale = torch.where(norms > limit, limit / norms, 1.0)
    expected = (weights * scale) @ U.double()
    expected[480:] = weights @ U[:, 480:].double()
    assert bool((scale < 1).any()) == (where != "nobody")
    for found in (mean(given, weights, clip=3.0), mean(given, weights[None], clip=3.0)[0],
                  mean(given._replace(B=torch.ones(6, 500, dtype=torch.bool)), weights, clip=3.0)):
        torch.testing.assert_close(found[:480].double(), expected[:480], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found[480:].double(), expected[480:], rtol=1e-5, atol=1e-6 * float(U.abs().max()))


def test_thesis_clips_before_it_merges():
    layout, x = vector_of(2)
    given, third = updates([[3., 4], [0, 5], [30, 40]]), torch.full((3,), 1 / 3, dtype=torch.float64)
    part = thesis(clip=2.0)
    torch.testing.assert_close(part.merge({}, x, given, third)[1][:2], torch.tensor([3., 17 / 3]))
    torch.testing.assert_close(thesis(clip=0.0).merge({}, x, given, third)[1][:2], torch.tensor([11., 49 / 3]))


def test_server_momentum_by_hand():
    """v <- v / 2 + mean; a coordinate that leaves the support loses its v and starts anew when it returns."""
    layout, x = vector_of(3)
    part, one = thesis(clip=0.0, server_momentum=0.5), torch.ones(1, dtype=torch.float64)
    state, seen = part.init(layout), []
    for row, support in (([[4., 8, 2]], [0, 1, 2]), ([[2., 2]], [0, 2]), ([[1., 1, 1]], [0, 1, 2])):
        state, x = part.merge(state, x, updates(row, support=support), one)
        seen.append((x[:3].tolist(), state["velocity"][:3].tolist()))
    assert seen == [([4, 8, 2], [4, 8, 2]), ([8, 8, 5], [4, 0, 3]), ([11, 9, 7.5], [3, 1, 2.5])]
    assert not state["velocity"][3:].any()


def test_server_learning_rate_scales_the_step():
    layout, x = vector_of(2)
    _, merged = thesis(clip=0.0, server_lr=0.25).merge({}, x, updates([[4., 8]]), torch.ones(1, dtype=torch.float64))
    assert merged[:2].tolist() == [1, 2]


def test_rho_of_the_thesis_reaches_its_merge():
    layout, x = vector_of(2)
    given = updates([[1., 0], [0, 2]], [[1, 0], [0, 1]])
    assert thesis(clip=0.0).merge({}, x, given, HALF)[1][:2].tolist() == [1, 2]
    assert thesis(clip=0.0, rho=1.0).merge({}, x, given, HALF)[1][:2].tolist() == [.5, 1]


def test_normalised_updates_make_a_step_of_at_most_one():
    layout, x = vector_of(2)
    given = updates([[300., 400], [0, 0]])
    _, merged = thesis_text(normalise=True).merge({}, x, given, HALF)
    torch.testing.assert_close(merged[:2], torch.tensor([.3, .4]))


# --- running statistics ---

def with_norm():
    """``(layout, x, support, updates)``: weights move by 1 in both rows, running statistics by 100 in the second."""
    layout, x = contracts.small_layout()
    support = layout.support(layout.full_mask())
    U = torch.ones(2, len(support))
    trained = int((support < layout.R).sum())
    U[:, trained:] = torch.tensor([[0.0], [100.0]])
    return layout, x, support, Updates(U, None, support, torch.ones(2, dtype=torch.float64), trained)


@pytest.mark.parametrize("part", [thesis(clip=0.0, server_momentum=0.9), thesis(clip=0.0, server_lr=3.0),
                                  thesis(clip=1.5), thesis_text(normalise=True)],
                         ids=["momentum", "server_lr", "clip", "normalise"])
def test_running_statistics_are_averaged_whatever_happens_to_the_weights(part):
    """With velocity or a learning rate above 1 a running variance overshoots, below zero in the end."""
    layout, x, support, given = with_norm()
    state, plain = part.init(layout), x
    for _ in range(2):
        state, x = part.merge(state, x, given, HALF)
        plain = moved(plain, support, mean(given, HALF))
    torch.testing.assert_close(x[layout.R:], plain[layout.R:])


def test_running_statistics_do_not_decide_who_is_clipped():
    layout, x, support, given = with_norm()
    _, merged = thesis(clip=1.5).merge({}, x, given, HALF)
    torch.testing.assert_close((merged - x)[: layout.R][layout.real[: layout.R]], torch.ones(layout.num_parameters))
