"""Products that skip pruned weights are those of dense layers, wherever a run multiplies by them."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedmpi.build import kernels as choice
from fedmpi.compute import kernels
from fedmpi.compute.sgd import dense_gradient, descend
from fedmpi.core.errors import UserError
from fedmpi.core.layout import bind
from fedmpi.core.parts import Probe, Round, Task
from fedmpi.methods.optimisers.adamw import adamw
from fedmpi.methods.tasks.regression import regression
from fedmpi.store import read_run
from fedmpi.store.compare import verify

LM = ("--task", "lm", "--dataset", "markov:tokens=2000,test=400,context=8", "--model",
      "gpt:depth=1,width=32,heads=2", "--strategy", "fedavg", "--contribution", "uniform", "--clients", 3,
      "--rounds", 3, "--local-steps", 2, "--optimiser", "adamw", "--lr", 0.01, "--validation", 0)


def mask_of(outputs, inputs, sparsity, side=1):
    gen = torch.Generator().manual_seed(outputs + inputs)
    kept = torch.rand(-(-outputs // side), -(-inputs // side), generator=gen) > sparsity
    return kept.repeat_interleave(side, 0).repeat_interleave(side, 1)[:outputs, :inputs].contiguous()


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("kernel, outputs, inputs, shape", [
    ("single", 24, 40, (3, 50)), ("single", 7, 13, (1,)), ("block", 24, 40, (2, 3, 50)), ("block", 8, 16, (300,))])
def test_products_and_gradients_are_the_dense_ones(kernel, outputs, inputs, shape, sparsity):
    torch.manual_seed(0)
    mask = mask_of(outputs, inputs, sparsity, 8 if kernel == "block" else 1)
    W = (torch.randn(outputs, inputs) * mask).requires_grad_()
    X = torch.randn(*shape, inputs, requires_grad=True)
    dY = torch.randn(*shape, outputs)
    Y = kernels.product_of(kernel, mask)(X, W)
    expected = F.linear(X, W)
    torch.testing.assert_close(Y, expected, atol=1e-4, rtol=1e-4)
    dX, dW = torch.autograd.grad(Y, (X, W), dY)
    dense_dX, dense_dW = torch.autograd.grad(expected, (X, W), dY)
    torch.testing.assert_close(dX, dense_dX, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(dW, dense_dW * mask, atol=1e-3, rtol=1e-4)


def test_the_first_layer_needs_no_gradient_of_its_inputs():
    mask = mask_of(8, 8, 0.5)
    W = torch.randn(8, 8).mul_(mask).requires_grad_()
    X = torch.randn(4, 8)
    [dW] = torch.autograd.grad(kernels.product_of("single", mask)(X, W).sum(), [W])
    torch.testing.assert_close(dW, X.sum(0).expand(8, 8) * mask, atol=1e-5, rtol=1e-5)


def test_infinity_and_nan_are_not_lost():
    mask = torch.ones(8, 8, dtype=torch.bool)
    W = torch.eye(8)
    W[0, 0], W[1, 1] = torch.inf, torch.nan
    Y = kernels.product_of("single", mask)(torch.ones(1, 8), W)[0]
    assert Y[0].isinf() and Y[1].isnan() and Y[2] == 1


def test_only_masks_of_whole_blocks_have_blocks():
    mask = mask_of(16, 16, 0.5, 8)
    assert kernels.product_of("block", mask) is not None
    mask[3, 3] ^= True
    assert kernels.product_of("block", mask) is None
    assert kernels.product_of("block", mask_of(12, 16, 0.5)) is None


# --- in training ---

def net_task(of_layers, probe=Probe(), side=8):
    """A task of a net with a bias and a dense last layer; its mask is made of blocks."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 8, bias=False), nn.ReLU(), nn.Linear(8, 1))
    layout, x, g = bind(model)
    mask = torch.zeros(layout.Q, dtype=torch.bool)
    for slot in layout.weights:
        slot.of(mask).copy_(mask_of(*slot.shape, 0.4, side) if slot.shape[0] > 1 else torch.ones(slot.shape))
    trainable = torch.ones(layout.R)
    trainable[: layout.Q] = mask.float()
    x[: layout.R] *= trainable
    inputs, labels = torch.randn(20, 16), torch.randn(20, 1)
    return Task(model, layout, x, g, x.clone(), mask, trainable, inputs, labels, 3, 6, 0.01, np.random.default_rng(0),
                Round(1, 1), probe=probe, optimiser=adamw(), objective=regression(), kernels=of_layers)


LAYERS = ("0.weight", "2.weight")


@pytest.mark.parametrize("kernel", kernels.NAMES)
def test_training_is_the_dense_one_but_for_rounding(kernel):
    dense, sparse = net_task({}), net_task(dict.fromkeys(LAYERS, kernel))
    first, second = descend(dense), descend(sparse)
    assert second.loss == pytest.approx(first.loss, rel=1e-5)
    torch.testing.assert_close(sparse.x, dense.x, atol=1e-5, rtol=1e-4)
    assert not sparse.x[: sparse.layout.Q][~sparse.mask].any()


@pytest.mark.parametrize("kernel", kernels.NAMES)
def test_a_mask_that_moves_within_training_is_followed(kernel):
    results = []
    for of_layers in ({}, dict.fromkeys(LAYERS, kernel)):
        task = net_task(of_layers)

        def epoch(number, task=task):
            slot = task.layout.weights[0]
            slot.of(task.mask).logical_not_()
            task.trainable[: task.layout.Q] = task.mask
            return True

        task = task._replace(probe=Probe(epoch=epoch))
        descend(task)
        results.append(task.x)
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-4)


def test_dense_gradients_stay_dense():
    seen = []
    watching = Probe(step=lambda g: seen.append(g.clone()))
    descend(net_task({}, watching))
    half = len(seen)
    descend(net_task(dict.fromkeys(LAYERS, "single"), watching))
    assert all(torch.equal(a, b) for a, b in zip(seen[:half], seen[half:], strict=True))
    gradients = [dense_gradient(net_task(of_layers), 2) for of_layers in ({}, dict.fromkeys(LAYERS, "single"))]
    assert torch.equal(*gradients)


def test_one_weight_in_two_layers_gets_both_gradients():
    torch.manual_seed(0)
    layer = nn.Linear(8, 8)
    mask = torch.ones(8, 8, dtype=torch.bool)
    layout, _, _ = bind(layer)
    X = torch.randn(5, 8)
    with kernels.multiplying({"weight": "block"}, layer, layout, mask.flatten())():
        [sparse] = torch.autograd.grad(layer(layer(X)).sum(), [layer.weight])
    [dense] = torch.autograd.grad(layer(layer(X)).sum(), [layer.weight])
    torch.testing.assert_close(sparse, dense, atol=1e-4, rtol=1e-4)


# --- the choice ---

@pytest.mark.parametrize("times, kernel", [
    ({"dense": 10, "single": 8, "block": 9}, "single"), ({"dense": 10, "single": 9.5}, "dense"),
    ({"dense": 10, "single": 12, "block": 5}, "block"), ({"dense": 10}, "dense")])
def test_a_kernel_is_taken_where_it_gains_enough(times, kernel):
    assert choice.fastest(times) == kernel


def test_a_list_of_layers_is_read_as_it_was_written():
    task = net_task({})
    of_layers = {"0.weight": "block", "2.weight": "single"}
    assert kernels.chosen(kernels.as_text(of_layers), task.layout) == of_layers
    assert kernels.as_text({}) == "dense" and kernels.chosen("dense", task.layout) == {}
    with pytest.raises(UserError, match="no prunable matrix 9.weight; it has 0.weight, 2.weight"):
        kernels.chosen("9.weight=block", task.layout)


def test_rows_of_a_layer_are_those_of_its_inputs():
    task = net_task({})
    assert kernels.rows_of(task.model, task.layout, task.inputs[:1]) == {"0.weight": 1, "2.weight": 1, "4.weight": 1}


@pytest.mark.parametrize("options, why", [
    (("--kernel", "fast"), "must be dense, auto, single or block, or a list"),
    (("--kernel", "nothing=block"), "no prunable matrix nothing"),
    (("--kernel", "block"), "no mask is made of whole blocks of 8 x 8"),
    (("--kernel", "single", "--pruner", "dense"), "--pruner dense has none; take --kernel dense"),
    (("--kernel", "single", "--precision", "bf16"), "--precision bf16 takes products of its own")])
def test_kernels_are_refused_where_they_cannot_be(fedmpi, options, why):
    told = fedmpi(1, "train", *LM, "--pruner", "static:sparsity=0.8", *options, code=2)
    assert why in told and told.strip().count("\n") == 0


def test_clients_on_several_ranks_keep_dense_products():
    options = {"device": "cpu", "precision": "float32", "together": 1, "ranks_per_client": 2}
    assert choice.unfit(options, None) == "the ranks of a client have products of their own"


def test_auto_tells_its_choice_which_stays_on_all_ranks_and_when_it_goes_on(fedmpi, tmp_path, monkeypatch):
    pruner = ("--pruner", "rigl:sparsity=0.8,every=1,block=8")
    monkeypatch.setattr(choice, "milliseconds", lambda mask, rows: {"dense": 2.0, "single": 9.0, "block": 1.0})
    told = fedmpi(1, "train", *LM, *pruner, "--kernel", "auto", "--until", 1, "--out", tmp_path / "a.h5")
    assert "--kernel auto: of 6 pruned layers 6 block; the products of a step in 6 ms, dense 12 ms" in told
    attrs = read_run(tmp_path / "a.h5").attrs
    chosen = attrs["options"]["kernel"]
    assert chosen.startswith("blocks.0.attention.query.weight=block,")
    assert attrs["kernels"][0]["rows"] == 8 * 10 and attrs["kernels"][0]["kernel"] == "block"
    # It is not timed again.
    monkeypatch.setattr(choice, "milliseconds", None)
    fedmpi(1, "train", "--resume", tmp_path / "a.h5")
    fedmpi(3, "train", *LM, *pruner, "--kernel", chosen, "--out", tmp_path / "b.h5")
    assert not list(verify(tmp_path / "a.h5", tmp_path / "b.h5"))
    refused = fedmpi(1, "train", "--resume", tmp_path / "a.h5", "--kernel", "dense", code=2)
    assert "changed --kernel dense" in refused


def test_auto_is_dense_where_nothing_can_be_skipped(fedmpi, tmp_path):
    told = fedmpi(1, "train", *LM, "--pruner", "dense", "--kernel", "auto", "--out", tmp_path / "a.h5")
    assert "no linear layer is pruned: dense" in told
    assert read_run(tmp_path / "a.h5").attrs["options"]["kernel"] == "dense"


def test_the_bench_of_steps_prints_a_line_a_mask(fedmpi):
    output = fedmpi(1, "bench", "sparse-step", "--width", 16, "--depth", 1, "--heads", 2, "--context", 8, "--batch", 2,
                    "--sparsity", 0.5, "--repeats", 1, "--steps", 1)
    assert len(output.strip().splitlines()) >= 4 and "8x8" in output
