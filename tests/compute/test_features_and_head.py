"""A model in two: any model that ends in a linear layer, or a chain, is the head of its features, to the bit."""

import pytest
import torch
from torch import nn

from fedmpi import catalog
from fedmpi.compute.features import giving_features, split
from fedmpi.core.layout import bind
from fedmpi.plugins.spec import make

SHAPES = {"torchvision": [(name, (3, size, size)) for name, size in (
    ("resnet18", 64), ("vgg11", 32), ("mobilenet_v3_small", 64), ("densenet121", 32), ("efficientnet_b0", 32),
    ("shufflenet_v2_x0_5", 64), ("swin_t", 32), ("convnext_tiny", 32))]}


def networks():
    for name in catalog.MODELS:
        # Models of tokens have an output a position, and no vector of features.
        if name not in ("torchvision", "gpt", "gpt2"):
            yield name, (3, 32, 32) if name in ("cifar10net", "pfl-cnn") else (1, 28, 28)
    for name, shape in SHAPES["torchvision"]:
        yield f"torchvision:name={name}", shape


def made(spec, shape):
    torch.manual_seed(0)
    return make(catalog.MODELS, spec, shape, 7)


@pytest.mark.parametrize("spec, shape", list(networks()))
def test_a_model_is_the_head_of_its_features(spec, shape):
    if spec.startswith("torchvision"):
        pytest.importorskip("torchvision")
    network = made(spec, shape).eval()
    bind(network)
    x = torch.randn(3, *shape)
    found = split(network, x[:1])
    z = found.features(x)
    assert z.shape == (3, *found.shape) and len(found.shape) == 1
    with torch.no_grad():
        assert torch.equal(found.head(z), network(x))
    if spec != "logistic":
        # All before its last layer is trained, and nothing of that.
        gradients = torch.autograd.grad(z.square().sum(), list(network.parameters()), materialize_grads=True)
        assert gradients[0].any() and not gradients[-1].any()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_features_of_the_mode_that_the_model_is_in():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 2)).train()
    z = split(network, torch.ones(1, 4)).features(torch.ones(40, 4))
    assert network.training and (z == 0).any()


def test_a_chain_may_go_on_behind_its_last_linear_layer():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Sequential(nn.Linear(5, 2), nn.LogSoftmax(1)))
    x = torch.randn(3, 4)
    for name, width in (("", 5), ("3", 5), ("3.0", 5), ("2", 5), ("1", 4), ("3.1", 2)):
        found = split(network, x[:1], name)
        assert found.shape == (width,) and torch.equal(found.head(found.features(x)), network(x))


class Two(nn.Module):
    """The last linear layer to run comes first among the modules, and its output may not be the model's."""

    def __init__(self, after):
        super().__init__()
        self.last, self.first, self.idle = nn.Linear(3, 2), nn.Linear(4, 3), nn.Linear(3, 2)
        self.after = after

    def forward(self, x):
        return self.after(self.last(torch.relu(self.first(x))))


def test_the_last_layer_is_the_one_that_runs_last():
    network = Two(lambda y: y)
    x = torch.randn(5, 4)
    found = split(network, x[:1])
    assert found.module is network.last and torch.equal(found.features(x), torch.relu(network.first(x)))


@pytest.mark.parametrize("network, name, message", [
    (Two(torch.exp), "", "cannot be cut before last: its outputs do not follow"),
    (Two(torch.exp), "first", "cannot be cut before first"),
    (Two(torch.exp), "idle", "cannot be cut before idle, which does not run"),
    (Two(torch.exp), "head", "has no module head; it has last, first, idle"),
    (nn.Sequential(nn.Flatten(), nn.ReLU()), "", "has no linear layer"),
    (nn.Sequential(nn.Linear(4, 2), nn.Hardswish(inplace=True)), "1", "cannot be cut before 1: its outputs"),
])
def test_where_a_model_cannot_be_cut_it_is_said(network, name, message):
    torch.manual_seed(1)
    with pytest.raises(ValueError, match=message):
        split(network, torch.randn(1, 4), name)


def test_what_trains_a_models_outputs_trains_its_features():
    network = Two(lambda y: y)
    x = torch.randn(5, 4)
    with giving_features(network, network.last):
        assert torch.equal(network(x), torch.relu(network.first(x)))
        gradient = torch.autograd.grad(network(x).sum(), network.first.weight)[0]
    assert network(x).shape == (5, 2) and gradient.any()
