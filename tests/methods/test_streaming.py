"""Streaming DiLoCo: fragments, their turns and bytes, and the models that clients go on with."""

import contracts
import pytest
import torch
from torch import nn

from fedmpi import catalog
from fedmpi.client import samples as shards
from fedmpi.client.own_values import LAST_RECEIVED, OWN_VALUES
from fedmpi.core.errors import UserError
from fedmpi.core.layout import bind
from fedmpi.core.parts import Descent
from fedmpi.methods.strategies import fragments
from fedmpi.methods.strategies.diloco import diloco
from fedmpi.plugins.spec import make
from fedmpi.server import loop
from fedmpi.server.exchange import state_of_client

SMALL = {"contribution": "uniform", "pruner": "dense", "model": "2nn:hidden=12", "local_steps": 4,
         "optimiser": "adamw:beta2=0.95", "lr": 0.01, "clients": 3, "dataset": "synthetic:samples=120,size=4"}


def played(spec, rounds, **options):
    """``(run, states, rows of /clients)`` after each round."""
    run, state = contracts.assembled(**SMALL | {"rounds": rounds} | options | {"strategy": spec})
    states, rows = [], []
    for t in range(1, rounds + 1):
        state, _, row = loop.evaluated_round(run, state, t)
        states.append(state)
        rows.append(row)
    return run, states, rows


def whole_in_one(delay: int = 0):
    """Streaming of one fragment without delay or mixing, by the code for several."""
    local = Descent(resumes=True, arrives=fragments.arrival(0.0))
    return diloco()._replace(local=local, travels=fragments.schedule(1, "strided"))


# --- fragments ---


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 4)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)) for _ in range(5)])
        self.head = nn.Linear(4, 7, bias=False)


def names_of(model, count, pattern):
    layout, _, _ = bind(model)
    parts = fragments.dealt(layout, count, pattern)
    return [sorted({slot.name.rpartition(".")[0] for slot in slots}) for slots in parts]


def test_layers_are_dealt_whole():
    def blocks(*numbers):
        return [f"blocks.{number}.{part}" for number in numbers for part in (0, 1)]

    # The head is as large as a block, and goes to the fragment of two; then both are alike.
    assert names_of(Blocks(), 2, "strided") == [blocks(0, 2, 4) + ["table"], blocks(1, 3) + ["head"]]
    assert names_of(Blocks(), 2, "sequential") == [blocks(0, 1, 2) + ["table"], blocks(3, 4) + ["head"]]
    assert names_of(Blocks(), 5, "strided") == [["blocks.0.0", "blocks.0.1", "head"], ["blocks.1.0", "blocks.1.1",
                                                "table"], *(blocks(number) for number in (2, 3, 4))]


def test_every_entry_belongs_to_one_fragment_in_each_turn():
    layout, _, _ = bind(Blocks())
    travels = fragments.schedule(3, "strided")
    ups = torch.stack([travels(layout, t).up for t in (1, 2, 3)])
    assert torch.equal(ups[:, layout.real].sum(0), torch.ones(int(layout.real.sum()), dtype=torch.int64))
    for t in (1, 2, 3, 4):
        assert torch.equal(travels(layout, t + 1).down, travels(layout, t).up)
    assert torch.equal(travels(layout, 1).down, travels(layout, 3).up)


def test_a_model_without_numbers_is_cut_by_its_modules():
    layout, _, _ = bind(make(catalog.MODELS, "2nn:hidden=12", (1, 4, 4), 10))
    assert fragments.most_fragments(layout) == 3
    assert sorted(map(len, fragments.dealt(layout, 3, "strided"))) == [2, 2, 2]


# --- known answers ---


@pytest.mark.parametrize("options", [{}, {"pruner": "static:sparsity=0.5"}, {"contribution": "loo"},
                                     {"codec": "topk:share=0.1,chunk=64,feedback=0.9"}])
def test_one_fragment_is_diloco_to_the_bit(options):
    """By the code for several, too."""
    (_, plain, rows), (_, streamed, own_rows) = [
        played(spec, 3, **options) for spec in ("diloco", "test_streaming:whole_in_one")]
    assert torch.equal(plain[-1]["x"], streamed[-1]["x"])
    for row, own in zip(rows, own_rows):
        assert row["up_bytes"].tolist() == own["up_bytes"].tolist()
        assert row["down_bytes"].tolist() == own["down_bytes"].tolist()
    assert diloco(fragments=1, delay=0, mixing=0.0).travels is None


def by_hand(run, start, rounds, steps, F, delay, mixing):
    """The server's model after each round, in plain torch: SGD of rate .1 inside, Nesterov (.7, .9) outside."""
    layout, worker = run.layout, run.transport.worker
    fragment = fragments.numbers(layout, F, "strided")
    trained = layout.real.clone()
    trained[layout.R:] = False
    theta, velocity = start.clone(), torch.zeros(layout.P)
    own = [start.clone() for _ in run.sizes]
    model, x, g = worker.home.model, worker.home.x, worker.home.g
    models = []
    for t in range(1, rounds + 1):
        arriving = fragment == (t - 2) % F
        leaving = (fragment == (t - 1) % F) & trained
        moved = []
        for client, values in enumerate(own):
            x.copy_(values)
            inputs, labels = shards.of_client(worker.samples, client)
            for step in range(steps):
                if step == delay:
                    x[arriving] = (1 - mixing) * theta[arriving] + mixing * x[arriving]
                g.zero_()
                nn.functional.cross_entropy(model(inputs), labels).backward()
                x[: layout.R] -= .1 * g
                g.zero_()
            own[client] = x.clone()
            moved.append(x - theta)
        mean = torch.stack(moved).mean(0)[leaving]
        velocity[leaving] = .9 * velocity[leaving] + mean
        theta = theta.clone()
        theta[leaving] += .7 * (mean + .9 * velocity[leaving])
        models.append(theta)
    return models


@pytest.mark.parametrize("F, delay, mixing", [(1, 2, 0.0), (1, 0, 0.3), (2, 0, 0.0), (2, 3, 0.0), (3, 1, 0.25)])
def test_it_is_the_papers_rule(F, delay, mixing):
    options = [f"fragments={F}"] * (F > 1) + [f"delay={delay}"] * (delay > 0) + [f"mixing={mixing}"] * (mixing > 0)
    spec = "diloco:" + ",".join(options)
    plain = {"optimiser": "sgd:momentum=0,weight_decay=0", "lr": .1, "batch_size": 1000, "partition": "iid"}
    run, start = contracts.assembled(**SMALL | plain | {"strategy": spec})
    _, states, _ = played(spec, 7, **plain)
    expected = by_hand(run, start["x"], 7, 4, F, delay, mixing)
    for state, model in zip(states, expected):
        torch.testing.assert_close(state["x"], model, rtol=1e-4, atol=1e-5)
    assert float((states[-1]["x"] - start["x"]).abs().max()) > .05


def test_a_merge_moves_its_fragment_alone():
    run, states, _ = played("diloco:fragments=3", 5)
    number = fragments.numbers(run.layout, 3, "strided")
    for t in range(2, 6):
        before, after = states[t - 2], states[t - 1]
        for name in ("x", "velocity"):
            old, new = (state[name] if name == "x" else state["strategy"][name] for state in (before, after))
            moved = set(number[old != new].tolist())
            assert moved == {(t - 1) % 3}


# --- bytes ---


def test_a_round_takes_its_share_of_the_bytes():
    """Of layers of one size, both ways, as they were sent."""
    options = {"model": "test_streaming:even", "dataset": "synthetic:samples=120,size=16", "optimiser": "sgd"}
    _, _, plain = played("diloco", 5, **options)
    for F in (2, 4):
        _, _, rows = played(f"diloco:fragments={F}", 5, **options)
        for name in ("up_bytes", "down_bytes"):
            whole = plain[-1][name][0]
            for row in rows[1:]:
                assert row[name].tolist() == [row[name][0]] * 3
                # A message has some 300 bytes of headers.
                assert row[name][0] == pytest.approx(whole / F, abs=1000) and whole > 200_000


def even(shape, outputs):
    """Four layers of one size, of images of 16 x 16; the head is not trained."""
    layers = [nn.Linear(256, 256, bias=False) for _ in range(4)]
    head = nn.Linear(256, outputs, bias=False)
    head.requires_grad_(False)
    return nn.Sequential(nn.Flatten(), *layers, head)


@pytest.mark.parametrize("codec", ["int8", "sign", "topk:share=0.1,chunk=64,feedback=0.9",
                                   "topk:share=0.1,chunk=64,average=senders", "float16"])
def test_fragments_go_through_every_codec(codec):
    options = {"codec": codec, "pruner": "static:sparsity=0.5", "model": "test_streaming:even",
               "dataset": "synthetic:samples=120,size=16"}
    run, states, rows = played("diloco:fragments=2", 4, **options)
    _, _, whole = played("diloco", 2, **options)
    both = rows[1]["up_bytes"][0] + rows[2]["up_bytes"][0]
    # Two messages have the headers of two.
    assert both == pytest.approx(whole[1]["up_bytes"][0], rel=.01, abs=400)
    number = fragments.numbers(run.layout, 2, "strided")
    changed = states[2]["x"] != states[3]["x"]
    assert set(number[changed].tolist()) == {1}


def test_a_residual_waits_for_its_fragments_turn():
    run, states, _ = played("diloco:fragments=2", 4, codec="topk:share=0.1,chunk=64,feedback=0.9")
    support = run.layout.support(states[0]["mask"])
    number = fragments.numbers(run.layout, 2, "strided")[support]
    residuals = [state_of_client(run, state, 0, state["mask"])["_residual"] for state in states]
    assert not residuals[0][number == 1].any() and residuals[0][number == 0].any()
    assert torch.equal(residuals[0][number == 0], residuals[1][number == 0])
    assert not torch.equal(residuals[0][number == 0], residuals[2][number == 0])


# --- clients ---


def test_clients_go_on_from_their_own_values():
    run, states, rows = played("diloco:fragments=2", 3)
    support = run.layout.support(states[0]["mask"])
    number = fragments.numbers(run.layout, 2, "strided")[support]
    own = [state_of_client(run, states[-1], client, states[-1]["mask"]) for client in range(3)]
    assert not torch.equal(own[0][OWN_VALUES], own[1][OWN_VALUES])
    # All have received fragment 1 of round 2, and before that fragment 0 of round 1.
    for values in own:
        assert torch.equal(values[LAST_RECEIVED][number == 1], states[1]["x"][support.long()][number == 1])
        assert torch.equal(values[LAST_RECEIVED][number == 0], states[0]["x"][support.long()][number == 0])


def test_it_learns_and_tests_by_the_servers_model():
    _, states, _ = played("diloco:fragments=2,delay=1,momentum=0.5", 10, client_test=0.2)
    run, state = contracts.assembled(**SMALL | {"strategy": "diloco:fragments=2,momentum=0.5", "rounds": 10})
    losses = [row["loss"] for row in contracts.run_rounds(run, state, 10)[1]]
    assert losses[-1] < .8 * losses[0]


# --- strategies of one's own ---


def without_arrival():
    return diloco()._replace(travels=fragments.schedule(2, "strided"))


def as_lists():
    local = Descent(arrives=fragments.arrival(0.0))
    return diloco()._replace(local=local, travels=lambda layout, t: ([], []))


@pytest.mark.parametrize("name, message", [
    ("without_arrival", "local as a Descent with arrives"), ("as_lists", "expected a Travels from travels")])
def test_what_travels_is_checked(name, message):
    with pytest.raises(UserError, match=message):
        played(f"test_streaming:{name}", 1)


# --- what does not combine ---


@pytest.mark.parametrize("options, message", [
    ({"strategy": "diloco:fragments=0"}, "fragments must be between 1 and 255"),
    ({"strategy": "diloco:mixing=1"}, r"mixing must be in \[0, 1\)"),
    ({"strategy": "diloco:delay=-1"}, "delay must be >= 0 steps"),
    ({"strategy": "diloco:pattern=strided"}, "pattern has no effect with fragments=1"),
    ({"strategy": "diloco:fragments=9"}, "at most the 3 layers of the model, got 9"),
    ({"strategy": "diloco:delay=4"}, "delay must be below the 4 steps of a round, got 4"),
    ({"cohort": 2}, "must take part in every round; leave --cohort 2 out"),
    ({"sampler": "power-of-choice:candidates=3"}, "a part of the model; take --sampler uniform"),
    ({"pruner": "rigl"}, "whose mask --pruner rigl would move"),
    ({"timing": "fedbuff:buffer=2"}, "clients are merged in rounds|must take part in every round"),
    ({"fault": ["free-rider:share=0.4,kind=zero"]}, "a --fault bends the training"),
    ({"strategy": "diloco:delay=1", "local_steps": 0, "partition": "quantity"}, "as many steps each"),
])
def test_what_does_not_combine_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        contracts.assembled(**SMALL | {"strategy": "diloco:fragments=2"} | options)


def test_fragments_that_never_have_a_turn_are_told():
    from fedmpi.core.parts import Facts
    facts = Facts(None, {}, rounds=2)
    assert list(diloco(fragments=3).notes(facts)) == [
        "2 rounds merge as many of the 3 fragments: the others stay as they were at first"]
