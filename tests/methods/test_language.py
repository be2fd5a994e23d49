"""Language models: known answers of the task and of the networks, and a federated GPT from end to end."""

import math
import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedmpi.catalog import MODELS, TASKS
from fedmpi.core import exact_sum
from fedmpi.core.errors import UserError
from fedmpi.core.flops import costs, training
from fedmpi.core.layout import bind
from fedmpi.core.logits import Logits
from fedmpi.core.mask import budgets
from fedmpi.core.rng import Purpose, stream
from fedmpi.laws.engine import assembled, run_rounds
from fedmpi.methods.tasks import chunked
from fedmpi.plugins.spec import make
from fedmpi.store import read_run, verify

LM = make(TASKS, "lm")
RUN = {"task": "lm", "dataset": "markov:tokens=3000,test=600,context=8,vocab=5", "lr": 0.5,
       "model": "gpt:depth=1,width=16,heads=2", "optimiser": "sgd:momentum=0.0,weight_decay=0.0",
       "local_epochs": 0, "local_steps": 1, "clients": 3}


def gpt(spec="gpt:depth=2,width=32,heads=2", window=16, vocab=11, seed=0):
    torch.manual_seed(seed)
    return make(MODELS, spec, (window,), vocab)


# ---------------------------------------------------------------- the task


def test_even_logits_cost_the_log_of_the_vocabulary():
    outputs, targets = torch.zeros(2, 3, 8), torch.tensor([[0, 1, 2], [3, 4, 5]])
    assert LM.loss(outputs, targets).item() == pytest.approx(math.log(8))
    assert LM.loss(outputs, targets, reduction="none").tolist() == pytest.approx([math.log(8)] * 2)
    assert LM.metrics["token_accuracy"](outputs, targets).tolist() == pytest.approx([1 / 3, 0])
    assert (LM.headline, LM.higher) == ("nats", False) and make(TASKS, "lm:headline=token_accuracy").higher


def test_an_ignored_place_counts_in_no_mean_and_moves_nothing():
    gen = torch.Generator().manual_seed(0)
    outputs = torch.randn(2, 4, 5, generator=gen, requires_grad=True)
    targets = torch.tensor([[1, -100, 2, 3], [0, 1, 2, 4]])
    by_hand = F.cross_entropy(outputs[0, [0, 2, 3]], targets[0, [0, 2, 3]])
    assert torch.equal(LM.loss(outputs, targets, reduction="none")[0].detach(), by_hand.detach())
    [slope] = torch.autograd.grad(LM.loss(outputs, targets), outputs)
    assert not slope[0, 1].any() and slope[0, 0].any()


def test_perplexity_is_the_exponential_of_the_mean_and_bits_count_bytes():
    assert LM.derived["perplexity"](math.log(20.0), 1.0) == pytest.approx(20)
    assert LM.derived["perplexity"](1e6, 1.0) == math.inf
    # A token of 4 bytes at 2 bits is half a bit a byte.
    assert LM.derived["bits_per_byte"](2 * math.log(2), 4.0) == pytest.approx(0.5)


@pytest.mark.parametrize("held", [1, 7 * 50, 1 << 25])
def test_chunks_of_logits_make_the_same_loss_and_gradient(monkeypatch, held):
    monkeypatch.setattr(chunked, "HELD", held)
    gen = torch.Generator().manual_seed(1)
    features = torch.randn(3, 6, 4, generator=gen, requires_grad=True)
    weight = torch.randn(50, 4, generator=gen, requires_grad=True)
    targets = torch.randint(0, 50, (3, 6), generator=gen)
    targets[1, 2] = -100
    results = []
    for outputs in (Logits(features, weight), F.linear(features, weight)):
        value = LM.loss(outputs, targets)
        results.append([value, *torch.autograd.grad(value, [features, weight], retain_graph=True)])
        results[-1].append(LM.loss(outputs, targets, reduction="none"))
    for one, other in zip(*results):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_large_vocabulary_never_makes_all_logits():
    model = gpt("gpt:depth=1,width=8,heads=2", window=4, vocab=5000)
    outputs = model(torch.zeros(2, 4, dtype=torch.int64))
    assert isinstance(outputs, Logits) and outputs.shape == (2, 4, 5000)
    LM.check(outputs, torch.zeros(2, 4, dtype=torch.int64), 0, "--model gpt")
    assert not isinstance(gpt(vocab=4096)(torch.zeros(2, 4, dtype=torch.int64)), Logits)


# ---------------------------------------------------------------- the networks


@pytest.mark.parametrize("spec", ["gpt:width=32,heads=2", "gpt:mlp=swiglu,tied=true,width=32", "gpt:mlp=gelu,width=32",
                                  "gpt2:depth=2,width=32,heads=2"])
def test_no_place_sees_what_comes_after_it(spec):
    model = gpt(spec).eval()
    ids = torch.arange(16)[None] % 11
    changed = ids.clone()
    changed[0, 10:] = 3
    before, after = model(ids), model(changed)
    assert torch.allclose(before[0, :10], after[0, :10], atol=1e-6)
    assert not torch.allclose(before[0, 10:], after[0, 10:], atol=1e-3)


def test_rotary_positions_know_distances_only():
    from fedmpi.methods.models.gpt import Turn
    turn = Turn(12, 8)
    q, k = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    turned_q, turned_k = [turn(vector.expand(1, 1, 12, 8))[0, 0] for vector in (q, k)]
    products = turned_q @ turned_k.T
    for distance in (0, 3, 7):
        line = products.diagonal(distance)
        assert torch.allclose(line, line[:1].expand_as(line), atol=1e-5)


def test_the_flops_of_training_are_six_a_weight_and_the_attention():
    depth, width, window, vocab = 3, 32, 16, 11
    model = gpt(f"gpt:depth={depth},width={width},heads=2", window, vocab)
    layout, _, _ = bind(model)
    of_window = costs(model, layout, torch.zeros(1, window, dtype=torch.int64))
    _, flops = training(layout, of_window, layout.full_mask(), 1, 0, 0)
    P = 12 * depth * width ** 2 + vocab * width
    assert flops / window == 6 * P + 12 * depth * width * window


def test_the_flops_of_a_head_in_chunks_are_counted():
    model = gpt("gpt:depth=1,width=8,heads=2", 4, 5000)
    layout, _, _ = bind(model)
    dense = costs(model, layout, torch.zeros(1, 4, dtype=torch.int64)).dense
    # The head's product, and the two of attention.
    assert dense == 4 * (2 * 8 * 5000 + 4 * 8 * 4)


@pytest.mark.parametrize("width, depth", [(32, 1), (64, 3)])
def test_erk_keeps_attention_and_mlp_at_known_shares(width, depth):
    """Body sparsity .9 on equal blocks: a square matrix keeps .13333, one of four times the width .08333."""
    layout, _, _ = bind(gpt(f"gpt:depth={depth},width={width},heads=2"))
    assert all("table" not in slot.name and "head" not in slot.name for slot in layout.weights)
    for slot, kept in zip(layout.weights, budgets(layout, 0.9, "erk")):
        expected = 2 / 15 if "attention" in slot.name else 1 / 12
        assert kept / slot.size == pytest.approx(expected, abs=2 / slot.size)


def test_tables_heads_and_norms_are_dense():
    for spec in ("gpt", "gpt:tied=true", "gpt2:depth=1,width=64,heads=2", "vit:patch=2,depth=1,width=16"):
        shape = (1, 8, 8) if spec.startswith("vit") else (16,)
        layout, _, _ = bind(make(MODELS, spec, shape, 11))
        names = {slot.name for slot in layout.weights}
        assert names and all(".attention." in name or ".mlp." in name or name == "patches.weight" for name in names)


def test_gpt2_at_its_usual_size_has_its_number_of_parameters():
    with torch.device("meta"):
        model = make(MODELS, "gpt2", (1024,), 50257)
    assert sum(parameter.numel() for parameter in model.parameters()) == 124_439_808


def test_activations_computed_again_change_no_bit():
    ids = torch.arange(32).view(2, 16) % 11
    slopes = []
    for spec in ("gpt:depth=2,width=32", "gpt:depth=2,width=32,recompute=true"):
        model = gpt(spec)
        loss = LM.loss(model(ids), ids.roll(-1, 1))
        slopes.append(torch.autograd.grad(loss, list(model.parameters())))
    for one, other in zip(*slopes):
        assert torch.equal(one, other)


def test_what_adds_to_the_stream_starts_smaller_and_nothing_starts_at_zero():
    model = gpt("gpt:depth=8,width=128", vocab=65)
    for name, parameter in model.named_parameters():
        expected = 0.02 / 4 if name.endswith("out.weight") else 0.02
        assert parameter.std().item() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("spec, message", [
    ("gpt:context=12", "context must be that of the data set, 16, got 12"), ("gpt:vocab=9", "vocab must be"),
    ("gpt:heads=3", "heads must divide width=128, got 3"), ("gpt:width=10,heads=2", "must be even"),
    ("gpt2:depth=0", "depth must be >= 1"), ("gpt:dropout=1", "dropout must be in")])
def test_impossible_sizes_are_refused(spec, message):
    with pytest.raises(UserError, match=message):
        make(MODELS, spec, (16,), 11)


def test_images_have_another_transformer():
    with pytest.raises(UserError, match="needs windows of tokens"):
        make(MODELS, "gpt", (1, 8, 8), 10)
    with pytest.raises(UserError, match="patch must divide"):
        make(MODELS, "vit:patch=3", (1, 8, 8), 10)
    from fedmpi.methods.models.vit import cut
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert cut(image, 2)[0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


# ---------------------------------------------------------------- runs


def test_one_step_of_plain_descent_is_federated_sgd_bit_by_bit():
    """H = 1: the server's model moves by the clients' mean gradient, as data-parallel training would."""
    run, state = assembled(**RUN)
    x = state["x"].clone()
    states, _ = run_rounds(run, state, 1)

    setup_model = gpt(RUN["model"], 8, 5)
    layout, vector, _ = bind(setup_model)
    worker = run.transport.worker
    shares = run.sizes / run.sizes.sum()
    sums = torch.zeros(layout.P, dtype=torch.int64)
    for client in range(3):
        data = worker.data
        first, last = data["offsets"][client: client + 2]
        starts = data["indices"][first:last]
        tokens = data["x_train"][starts[0]: starts[-1] + 9].astype(np.int64)
        gen = stream(0, Purpose.TRAIN, 1, client)
        rows = gen.integers(0, len(tokens) - 8, 10)
        inputs = torch.from_numpy(np.stack([tokens[row: row + 8] for row in rows]))
        targets = torch.from_numpy(np.stack([tokens[row + 1: row + 9] for row in rows]))
        vector.copy_(x)
        LM.loss(setup_model(inputs), targets).backward()
        moved = x.clone()
        for slot, parameter in zip(layout.trained, _trained(setup_model, layout)):
            slot.of(moved).sub_(0.5 * parameter.grad)
            parameter.grad.zero_()
        update = moved - x
        exact_sum.add(sums, update, float(shares[client]), exact_sum.magnitude(update))
    expected = x + exact_sum.mean(sums, float(shares.sum()))
    support = run.layout.support(state["mask"]).long()
    assert torch.equal(states[0]["x"][support], expected[support])


def _trained(model, layout):
    named = dict(model.named_parameters())
    return [named[slot.name] for slot in layout.trained]


def test_a_federated_gpt_learns_a_chain_of_known_entropy(fedmpi, tmp_path):
    """Its loss falls to the entropy rate, and no further; AdamW, warm-up and cosine over the run's steps."""
    run = tmp_path / "run.h5"
    output = fedmpi(1, "train", "--task", "lm", "--dataset", "markov:tokens=8000,test=2000,context=16,vocab=8",
                    "--model", "gpt:depth=1,width=32,heads=2", "--strategy", "fedavg", "--pruner", "dense",
                    "--contribution", "size", "--clients", 4, "--rounds", 10, "--local-steps", 20, "--batch-size", 16,
                    "--optimiser", "adamw:weight_decay=0.1", "--lr", 0.01, "--clip-norm", 1,
                    "--schedule", "cosine:final=0.1,warmup=20,over=run", "--client-test", 0.2, "--out", run)
    rate = float(output.partition("entropy rate: ")[2].split()[0])
    opened = read_run(run)
    rounds = opened.rounds
    assert rate - 0.02 < rounds["loss"][-1] < rate + 0.1
    assert rounds["perplexity"][-1] == pytest.approx(math.exp(rounds["loss"][-1]))
    assert rounds["val_bits_per_byte"][-1] == pytest.approx(rounds["val_loss"][-1] / math.log(2))
    assert rounds["nats"][-1] == rounds["loss"][-1] and 0 < rounds["token_accuracy"][-1] < 1
    assert rate - 0.2 < rounds["own_nats"][-1] < rate + 0.2
    assert opened.attrs["objective"]["higher"] == 0 and "perplexity" in opened.attrs["objective"]["metrics"]


def test_a_sparse_federated_gpt_has_the_same_bits_on_one_and_three_ranks(fedmpi, tmp_path):
    files = []
    for ranks in (1, 3):
        files.append(tmp_path / f"{ranks}.h5")
        fedmpi(ranks, "train", "--task", "lm", "--dataset", "markov:tokens=2000,test=400,context=8",
               "--model", "gpt:depth=1,width=16,heads=2,dropout=0.1", "--strategy", "fedavg",
               "--pruner", "rigl:sparsity=0.5,every=1", "--contribution", "loo", "--clients", 5, "--cohort", 3,
               "--rounds", 3, "--local-steps", 4, "--optimiser", "adamw", "--lr", 0.01, "--client-test", 0.2,
               "--fault", "duplicate:share=0.4", "--out", files[-1])
    assert not list(verify(*files))


def test_the_page_leads_from_a_text_to_a_text(fedmpi, tmp_path, monkeypatch):
    """Smaller than on the page, in its order."""
    import shlex

    from fedmpi.commands import help as pages
    from fedmpi.commands.markdown import blocks
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book.txt").write_text("ROMEO: It was the best of times, it was the worst of times.\n" * 60)
    page = pages.page("large-models")
    [(name, options)] = re.findall(r"Save this as `(.*?)`.*?```toml\n(.*?)```", page, re.S)
    (tmp_path / name).write_text(options)
    code = [lines for kind, lines in blocks(page) if kind == "code" and lines[0].startswith("    ")]
    lines = [line for lines in code for line in lines]
    commands = [shlex.split(line) for line in lines[:5]]
    assert [words[words.index("fedmpi") + 1] for words in commands] == ["train", "train", "show", "report", "sample"]
    small = ("--model", "gpt:depth=1,width=16,heads=2", "--rounds", 10, "--local-steps", 4, "--accumulate", 1)
    outputs = []
    for words in commands:
        arguments = words[words.index("fedmpi") + 1:]
        outputs.append(fedmpi(1, *arguments, *(small if arguments[0] == "train" else ())))
    run = read_run("gpt.h5")
    assert run.rounds["sparsity"][-1] == pytest.approx(0.8, abs=0.002)
    # Zeros by all parameters: the table and the head are dense.
    zeros = run.attrs["prunable"] - run.rounds["kept"][-1]
    of_all = zeros / run.attrs["weights"]
    assert run.rounds["sparsity_all"][-1] == pytest.approx(of_all) and of_all < 0.75
    assert f"; {of_all:.4f} of all parameters" in outputs[2].replace("\n", " ")
    assert np.diff(run.rounds["nats"][[4, 9]]) < 0
    assert "ROMEO:" in outputs[-1] and len(outputs[-1]) > 306
    assert (tmp_path / "gpt.html").stat().st_size > 10000


def test_coalitions_of_a_large_vocabulary_are_judged_in_chunks():
    from fedmpi.compute.forward import ensemble
    model = gpt("gpt:depth=1,width=8,heads=2", 4, 5000)
    layout, x, _ = bind(model)
    ids = torch.arange(12).view(3, 4)
    models = torch.stack([x.clone(), 2 * x])
    losses, headlines = ensemble(model, layout, LM)(models, ids, ids)
    x.copy_(models[1])
    expected = LM.loss(model.eval()(ids), ids, reduction="none").sum()
    assert losses[1].item() == pytest.approx(expected.item()) == headlines[1].item()
    assert abs(losses[0] - losses[1]) > 1e-4


def test_attention_takes_no_matrix_of_tokens_by_tokens():
    from fedmpi.core.flops import outputs
    model = gpt("gpt:depth=1,width=16,heads=2", 256, 11)
    _, largest = outputs(model, torch.zeros(1, 256, dtype=torch.int64))
    assert largest == 256 * 64 * 4


def test_activations_that_are_computed_again_are_no_memory():
    from fedmpi.core.flops import outputs
    sample = torch.zeros(1, 64, dtype=torch.int64)
    (one, _), (four, _) = [outputs(gpt(f"gpt:depth={depth},width=16,heads=2", 64), sample) for depth in (1, 4)]
    (again, _), (first, _) = [outputs(gpt(f"gpt:depth={depth},width=16,heads=2,recompute=true", 64), sample)
                              for depth in (4, 1)]
    assert first == one and again == one + 3 * 64 * 16 * 4 < four / 3


def test_the_curvature_of_attention_is_that_of_differences():
    from fedmpi.compute.derivatives import derivatives
    model = gpt("gpt:depth=1,width=8,heads=2", 4, 5)
    layout, x, _ = bind(model)
    ids = torch.arange(12).view(3, 4) % 5
    gradient, curvature = derivatives(model, layout, x, ids, ids.roll(-1, 1), LM.loss)
    vector, v = x.clone(), torch.zeros(layout.R)
    real = layout.real[: layout.R]
    v[real] = torch.randn(int(real.sum()), generator=torch.Generator().manual_seed(0))
    ahead, behind = vector.clone(), vector.clone()
    ahead[: layout.R] += 2e-4 * v
    behind[: layout.R] -= 2e-4 * v
    by_differences = (gradient(ahead) - gradient(behind)) / 4e-4
    torch.testing.assert_close(curvature(vector, v), by_differences, rtol=0.02, atol=0.02)


def test_clients_train_smaller_transformers():
    run, state = assembled(**RUN | {"pruner": "fedmp", "local_steps": 2})
    states, rows = run_rounds(run, state, 2)
    assert np.isfinite(rows[-1]["loss"]) and not torch.equal(states[-1]["x"], state["x"])
