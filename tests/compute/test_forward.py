"""Many models at once: the numbers of plain evaluation, whatever the other models hold, and nothing left behind."""

import pytest
import torch
from torch import nn

from fedmpi.core.layout import bind, check
from fedmpi.methods.tasks.classification import classification
from fedmpi.compute.forward import MODELS, ensemble, forward, largest_of_four, quick, shared_chain
from fedmpi.compute.evaluate import evaluator
from fedmpi.methods.models.cifar10net import cifar10net
from fedmpi.methods.models.cnn import cnn
from fedmpi.methods.models.lenet5 import lenet5
from fedmpi.methods.models.logistic import logistic
from fedmpi.methods.models.mlp2nn import mlp2nn
from fedmpi.methods.models.pfl_cnn import pfl_cnn
from fedmpi.methods.models.small_cnn import small_cnn
from fedmpi.server.slices import finish

NUM_SAMPLES = 53              # no multiple of what a pass takes


def normed(shape, classes):
    """Batch norm, groups, strides, pooling that pads, layers without bias: nested, and all have rules."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(shape[0], 6, 3, padding="same", bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True)),
        nn.MaxPool2d(3, 2, padding=1),
        nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, groups=2), nn.BatchNorm2d(8, affine=False), nn.Tanh(), nn.Dropout()),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, classes))


class Residual(nn.Module):
    """A module without a rule, with batch norm and dropout."""

    def __init__(self, shape, classes):
        super().__init__()
        self.enter, self.norm = nn.Conv2d(shape[0], 4, 3, padding=1), nn.BatchNorm2d(4)
        self.inner, self.leave = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4 * shape[1] * shape[2], classes)

    def forward(self, x):
        h = torch.relu(self.norm(self.enter(x)))
        h = nn.functional.dropout(h + self.inner(h), training=self.training)
        return self.leave(h.view(len(h), -1))


class Twice(nn.Sequential):
    """A Sequential that is not a chain."""

    def forward(self, x):
        return 2 * super().forward(x)


def hooked(shape, classes):
    model = logistic(shape, classes)
    model.register_forward_hook(lambda module, inputs, output: 2 * output)
    return model


def first_normed(shape, classes):
    return nn.Sequential(nn.BatchNorm2d(shape[0]), nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))


CHAINS = [lenet5, small_cnn, cifar10net, pfl_cnn, normed, logistic, mlp2nn]
OTHERS = [Residual, lambda shape, classes: Twice(*logistic(shape, classes)), hooked, first_normed]


def case(make, M, shape=(1, 14, 14), n=NUM_SAMPLES):
    """A bound model, ``M`` vectors near its own and samples."""
    torch.manual_seed(0)
    model = make(shape, 5)
    layout, x, _ = bind(model)
    X = (x + 0.1 * torch.rand(M, layout.P)) * layout.real
    return model, layout, x, X, torch.randn(n, *shape), torch.randint(0, 5, (n,))


@pytest.mark.parametrize("M", [1, 3, MODELS + 2])
@pytest.mark.parametrize("make", CHAINS + OTHERS)
def test_agrees_with_plain_evaluation(make, M):
    model, layout, x, X, inputs, labels = case(make, M)
    loss_sum, correct = ensemble(model, layout, classification())(X, inputs, labels)
    assert loss_sum.dtype == torch.float64 and correct.dtype == torch.int64
    plain = evaluator(model, x, inputs, labels, classification())
    for row, loss, right in zip(X, loss_sum.tolist(), correct.tolist(), strict=True):
        mean, metrics = finish(plain(row))
        assert loss == pytest.approx(mean * NUM_SAMPLES, rel=1e-5)
        assert right == round(metrics["accuracy"] * NUM_SAMPLES)


@pytest.mark.parametrize("make", CHAINS + OTHERS)
def test_which_models_are_chains(make):
    model, layout, *_ = case(make, 1)
    assert (shared_chain(model, layout) is not None) == (make in CHAINS)


def test_more_samples_than_a_pass_takes():
    model, layout, x, X, inputs, labels = case(lenet5, 2, n=1203)
    loss_sum, _ = ensemble(model, layout, classification())(X, inputs, labels)
    plain = evaluator(model, x, inputs, labels, classification())
    assert loss_sum.tolist() == pytest.approx([finish(plain(row))[0] * 1203 for row in X], rel=1e-5)


@pytest.mark.parametrize("make", CHAINS + OTHERS)
@pytest.mark.parametrize("filler", [0.0, 1.0, float("nan"), float("inf")])
def test_the_bits_of_a_model_do_not_depend_on_the_others(make, filler):
    model, layout, x, X, inputs, labels = case(make, MODELS)
    evaluate = ensemble(model, layout, classification())
    loss_sum, correct = evaluate(X, inputs, labels)
    for i in (0, 5, MODELS - 1):
        other = torch.full_like(X, filler)
        other[i] = X[i]
        loss_alone, correct_alone = evaluate(other, inputs, labels)
        assert loss_alone[i] == loss_sum[i] and correct_alone[i] == correct[i]


@pytest.mark.parametrize("make", CHAINS + OTHERS)
def test_the_same_bits_each_time_and_in_another_order(make):
    model, layout, x, X, inputs, labels = case(make, MODELS)
    evaluate = ensemble(model, layout, classification())
    loss_sum, _ = evaluate(X, inputs, labels)
    assert torch.equal(evaluate(X, inputs, labels)[0], loss_sum)
    assert torch.equal(evaluate(X.flip(0), inputs, labels)[0].flip(0), loss_sum)


@pytest.mark.parametrize("make", [normed, Residual])
def test_the_model_stays_as_it_was(make):
    model, layout, x, X, inputs, labels = case(make, 3)
    model.train()
    next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).eval()           # one layer frozen
    modes = [module.training for module in model.modules()]
    before, state = [tensor.clone() for tensor in (x, X, inputs)], {k: v.clone() for k, v in model.state_dict().items()}
    ensemble(model, layout, classification())(X, inputs, labels)
    assert all(map(torch.equal, before, (x, X, inputs)))
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    check(model, layout, x)


def test_the_mode_is_restored_after_an_error():
    model, layout, x, X, inputs, labels = case(Residual, 2)
    with pytest.raises(RuntimeError):
        ensemble(model, layout, classification())(X, inputs[:, :, :5], labels)
    assert model.training


@pytest.mark.parametrize("shape", [(3, 6, 28, 28), (2, 5, 9, 7), (1, 1, 2, 3), (4, 32, 24, 24)])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_the_largest_of_four_is_what_torch_pools(shape, memory):
    x = torch.randn(shape).relu().to(memory_format=memory)
    x[x > 1.5] = torch.nan
    pooled = nn.functional.max_pool2d(x, 2)
    torch.testing.assert_close(largest_of_four(x), pooled, rtol=0, atol=0, equal_nan=True)
    assert largest_of_four(x).stride() == pooled.stride()


def test_only_plain_pooling_on_a_cpu_is_replaced():
    cpu = torch.device("cpu")
    for layer in (nn.MaxPool2d(2), nn.MaxPool2d((2, 2), (2, 2), 0)):
        assert quick(layer, cpu) is largest_of_four and quick(layer, torch.device("cuda")) is layer
    for layer in (nn.MaxPool2d(3, 2), nn.MaxPool2d(2, 1), nn.MaxPool2d(2, padding=1), nn.MaxPool2d(2, dilation=2),
                  nn.MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(2, return_indices=True), nn.MaxPool2d((2, 1)),
                  nn.AvgPool2d(2), nn.ReLU()):
        assert quick(layer, cpu) is layer


@pytest.mark.parametrize("make", [cnn, lenet5, small_cnn, pfl_cnn, normed, mlp2nn, logistic, Residual])
def test_a_quick_forward_gives_the_bits_of_the_model(make):
    model, x = make((1, 28, 28), 10).eval(), torch.randn(NUM_SAMPLES, 1, 28, 28)
    with torch.no_grad():
        assert torch.equal(forward(model, x.device)(x), model(x))
        seen = []
        next(model.children()).register_forward_hook(lambda *found: seen.append(found))
        forward(model, x.device)(x)
    assert seen, "a hook of the user's is called"
