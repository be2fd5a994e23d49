"""Networks without some filters: what whole ones compute, and learn, with zeros in their place."""

import statistics
import time

import numpy as np
import pytest
import torch
from torch import nn

from fedmpi.compute.sgd import descend
from fedmpi.compute.structure import check, cut
from fedmpi.compute.trace import trace
from fedmpi.core.errors import UserError
from fedmpi.core.flops import costs, forward
from fedmpi.methods.tasks.classification import classification
from fedmpi.core.layout import bind
from fedmpi.core.layout import check as check_home
from fedmpi.core.parts import Round, Task
from fedmpi.core.units import choose, flat, entries_of, l1, norm_scale, small_layout
from fedmpi.methods.models.cnn import cnn
from fedmpi.methods.models.lenet5 import lenet5
from fedmpi.methods.models.pfl_cnn import pfl_cnn
from fedmpi.methods.models.small_cnn import small_cnn
from fedmpi.methods.models.zoo import torchvision
from fedmpi.methods.optimisers.sgd import sgd

GREY, COLOUR = (1, 16, 16), (3, 16, 16)


class Block(nn.Module):
    """Two convolutions around which their input goes, and a gate over channels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.first, self.second = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.norm, self.gate, self.head = nn.BatchNorm2d(6), nn.Conv2d(6, 6, 1), nn.Linear(6, 3)

    def forward(self, x):
        h = torch.relu(self.stem(x))
        h = h + self.norm(self.second(torch.relu(self.first(h))))
        h = h * torch.sigmoid(self.gate(h.mean((2, 3), keepdim=True)))
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(h, 1), 1))


class Joined(nn.Module):
    """Channels beside each other and the image's own, then two depthwise filters a channel."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.Conv2d(1, 2, 1)
        self.deep, self.last = nn.Conv2d(7, 14, 3, groups=7), nn.Conv2d(14, 5, 1)
        self.head = nn.Linear(5 * 14 * 14, 3)

    def forward(self, x):
        h = torch.cat([self.left(x), x, self.right(x)], dim=1)
        return self.head(nn.functional.relu(self.last(self.deep(h)), inplace=True).flatten(1))


def twice():
    """A layer that is used twice."""
    layer = nn.Linear(6, 6)
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 6), nn.Tanh(), layer, nn.Tanh(), layer,
                         nn.Linear(6, 3))


def normed():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3),
        nn.InstanceNorm2d(6, affine=True, track_running_stats=True), nn.AvgPool2d(2), nn.Flatten(),
        nn.BatchNorm1d(24), nn.Sigmoid(), nn.Dropout(0.0),
        nn.Linear(24, 8), nn.GELU(), nn.Linear(8, 3))


def encoder():
    """Attention stays whole, the neurons of the perceptron behind it do not."""
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.Flatten(2), nn.Linear(256, 8), layer, nn.Flatten(), nn.Linear(8, 3))


MODELS = {
    "small_cnn": (lambda: small_cnn(GREY, 3, width=4), GREY),
    "cnn": (lambda: cnn(COLOUR, 3), COLOUR),
    "lenet5": (lambda: lenet5(GREY, 3), GREY),
    "pfl_cnn": (lambda: pfl_cnn(GREY, 3, dropout=False), GREY),
    "Block": (Block, GREY), "Joined": (Joined, GREY), "twice": (twice, GREY),
    "normed": (normed, GREY), "encoder": (encoder, GREY),
    "resnet18": (lambda: torchvision(COLOUR, 3, name="resnet18"), COLOUR),
}
every_model = pytest.mark.parametrize("make, shape", MODELS.values(), ids=MODELS)


def bound(make, shape, seed=0):
    """``(model, layout, x, g, structure, samples (4, ...))``."""
    torch.manual_seed(seed)
    model, samples = make(), torch.randn(4, *shape)
    layout, x, g = bind(model)
    # Norms whose factors and shifts differ from 1 and 0.
    x[: layout.R] += 0.01 * torch.randn(layout.R) * layout.real[: layout.R]
    return model, layout, x, g, trace(model, layout, samples[:2]), samples


def half(structure, x, rate=0.5):
    return flat(structure, choose(l1(structure, x), rate))


def close(a, b, bound=1e-6):
    """Whether two tensors differ by rounding alone, as a share of the largest entry."""
    return bool((a - b).abs().max() <= bound * max(1.0, float(b.abs().max())))


def gradient(model, g, samples):
    """The gradient of a loss in training mode, as the model's vector has it."""
    g.zero_()
    model.train()
    nn.functional.cross_entropy(model(samples), torch.arange(len(samples)) % 3).backward()
    return g.clone()


@every_model
def test_the_small_network_is_the_whole_one_with_zeros(make, shape):
    model, layout, x, g, structure, samples = bound(make, shape)
    units = half(structure, x)
    small, entries = cut(model, structure, units), entries_of(structure, units)
    small.down(x)
    check_home(small.model, small.layout, small.x)
    assert small.layout == small_layout(structure, units)
    assert len(small.support) == int(entries.sum()) < layout.num_values
    x.mul_(entries)
    # Batch norm by the statistics of four samples makes rounding larger.
    for training, far in ((False, 1e-6), (True, 1e-4)):
        with torch.no_grad():
            wanted, got = (net.train(training)(samples) for net in (model, small.model))
        assert close(got, wanted, far)
    wanted, got = gradient(model, g, samples), gradient(small.model, small.g, samples)
    whole = small.up(torch.cat([got, small.x[small.layout.R:]]), torch.zeros(layout.P))[: layout.R]
    assert close(whole, wanted * entries[: layout.R], 1e-4)
    # The statistics have moved, too.
    assert close(small.up(small.x, torch.zeros(layout.P)), x * entries, 1e-5)


@every_model
def test_operations_and_values_are_those_of_the_smaller_network(make, shape):
    model, layout, x, _, structure, samples = bound(make, shape)
    units = half(structure, x)
    small = cut(model, structure, units)
    booked = forward(layout, costs(model, layout, samples[:1]), entries_of(structure, units))
    own = costs(small.model, small.layout, samples[:1])
    assert booked == forward(small.layout, own, small.layout.full_mask())
    assert small.layout.num_values == int(entries_of(structure, units).sum())


@every_model
def test_all_units_give_the_same_bits(make, shape):
    model, layout, x, _, structure, samples = bound(make, shape)
    small = cut(model, structure, flat(structure, {}))
    small.down(x)
    assert small.layout == layout and torch.equal(small.x, x)
    assert torch.equal(small.model.eval()(samples), model.eval()(samples))


@every_model
def test_the_whole_model_stays_as_it_was(make, shape):
    model, layout, x, _, structure, samples = bound(make, shape)
    before, text, outputs = x.clone(), str(model), model.eval()(samples)
    check(model, structure, x, samples)
    small = cut(model, structure, half(structure, x))
    small.x.fill_(7)
    check_home(model, layout, x)
    assert torch.equal(x, before) and str(model) == text
    assert torch.equal(model.eval()(samples), outputs)


def test_layers_by_hand():
    structure = bound(lambda: small_cnn(GREY, 3, width=4), GREY)[4]
    assert structure.layers == {"0": 4, "2": 8}
    assert structure.whole == {"6": "they are the model's outputs"}
    flattened = next(axis for axis in structure.axes if axis.slot.name == "6.weight")
    # Of each filter 8 x 8 columns.
    assert flattened.units.tolist() == [4 + unit for unit in range(8) for _ in range(64)]


def test_what_is_added_up_is_one_unit():
    structure = bound(Block, GREY)[4]
    # The units of second and gate are those of stem.
    assert structure.layers == {"stem": 6, "first": 8}
    assert {axis.slot.name for axis in structure.axes if axis.role == "weight"} == {
        "stem.weight", "first.weight", "second.weight", "gate.weight"}
    assert bound(twice, GREY)[4].layers == {"1": 6}


def test_a_residual_networks_stages_are_cut_as_wholes():
    layers = bound(*MODELS["resnet18"])[4].layers
    assert list(layers.items())[:4] == [
        ("conv1", 64), ("layer1.0.conv1", 64), ("layer1.1.conv1", 64), ("layer2.0.conv1", 128)]
    assert "layer2.0.downsample.0" not in layers and layers["layer2.0.conv2"] == 128


def test_zero_weights_bias_and_norm_of_a_unit_cut_it_behind_relu():
    """The producer's entries alone, without the columns that read it."""
    model, layout, x, _, structure, samples = bound(*MODELS["resnet18"])
    units = half(structure, x)
    small = cut(model, structure, units)
    small.down(x)
    for axis in structure.axes:
        if axis.role != "input" and axis.slot.offset < layout.R:
            tensor = x[axis.slot.span].view(axis.slot.shape).movedim(axis.dim, 0)
            tensor[(axis.units >= 0) & ~units[axis.units.clamp(min=0)]] = 0
    with torch.no_grad():
        assert close(small.model.eval()(samples), model.eval()(samples))


def test_what_is_cut_keeps_the_servers_values():
    """R2SP with one client: the small model in its place, all else as it was."""
    model, layout, x, _, structure, _ = bound(lambda: small_cnn(GREY, 3, width=4), GREY)
    units = half(structure, x)
    small, entries = cut(model, structure, units), entries_of(structure, units)
    small.down(x)
    small.x[small.places] += 1
    after = small.up(small.x, x.clone())
    assert torch.equal(after[entries], x[entries] + 1) and torch.equal(after[~entries], x[~entries])


def trained(model, layout, x, g, entries, shape):
    """``x`` after two epochs of SGD on its entries ``(P,) bool`` alone."""
    gen = torch.Generator().manual_seed(5)
    inputs = torch.randn(12, *shape, generator=gen)
    labels = torch.randint(0, 3, (12,), generator=gen)
    task = Task(model, layout, x, g, x.clone(), entries[: layout.Q], entries[: layout.R].float(),
                inputs, labels, 2, 5, 0.05, np.random.default_rng(1), Round(1, 1),
                optimiser=sgd(momentum=0.9, weight_decay=0.01), objective=classification())
    return descend(task).loss, x


@pytest.mark.parametrize("name", ["small_cnn", "Block", "normed"])
def test_training_the_small_network_is_training_the_whole_one_on_its_entries(name):
    make, shape = MODELS[name]
    model, layout, x, g, structure, _ = bound(make, shape)
    units = half(structure, x)
    small, entries = cut(model, structure, units), entries_of(structure, units)
    small.down(x)
    x.mul_(entries)
    wanted = trained(model, layout, x, g, entries, shape)
    got = trained(small.model, small.layout, small.x, small.g, small.layout.real, shape)
    assert got[0] == pytest.approx(wanted[0], rel=1e-5)
    assert close(small.up(got[1], torch.zeros(layout.P)), wanted[1] * entries, 1e-5)


def test_scores_of_a_networks_units():
    _, _, x, _, structure, _ = bound(Block, GREY)
    model = bound(Block, GREY)[0]
    layers = (model.stem, model.second, model.gate)
    made = sum(layer.weight.detach().abs().sum((1, 2, 3)) for layer in layers)
    assert torch.allclose(l1(structure, x)["stem"], made.double())
    with pytest.raises(UserError, match="no batch norm scales the units of first:"):
        norm_scale(structure, x)
    _, _, x, _, structure, _ = bound(*MODELS["resnet18"])
    assert set(norm_scale(structure, x)) == set(structure.layers)


def frozen():
    model = small_cnn(GREY, 3, width=4)
    model[2].weight.requires_grad_(False)
    return model


class Mixed(nn.Module):
    """One convolution, and ``mix`` between it and the rest."""

    def __init__(self, mix, width=4):
        super().__init__()
        self.first, self.mix, self.head = nn.Conv2d(1, 4, 3), mix, nn.Linear(width, 3)

    def forward(self, x):
        h = self.mix(torch.relu(self.first(x)))
        return self.head(nn.functional.adaptive_avg_pool2d(h, 1).flatten(1))


@pytest.mark.parametrize("mix, width, why", [
    (nn.GroupNorm(2, 4), 4, "group_norm uses them"),
    (nn.Conv2d(4, 4, 1, groups=2), 4, "a convolution in groups reads them"),
    (nn.ChannelShuffle(2), 4, "channel_shuffle uses them"),
    (nn.Softmax(1), 4, "softmax uses them"),
    (lambda h: h.chunk(2, 1)[0], 2, "chunk across channels uses them"),
    (lambda h: h[:, 1:], 3, "getitem across channels uses them"),
    (lambda h: h[:, [1, 0, 2, 3]], 4, "getitem of some uses them"),
    (lambda h: h.flip(1), 4, "flip uses them"),
    (lambda h: h + torch.ones(4, 1, 1), 4, "add of a tensor that is no activation uses them"),
    (lambda h: h.view(len(h), 2, 2, 14, 14).transpose(1, 2).reshape(h.shape), 4,
     "view across channels uses them"),
    (lambda h: h.mean(1, keepdim=True), 1, "mean over channels uses them"),
    (nn.ConvTranspose2d(4, 4, 1), 4, "conv_transpose2d uses them")])
def test_units_that_something_unknown_sees_are_never_cut(mix, width, why):
    with pytest.raises(UserError, match="no filters or neurons that can be cut .*first: " + why):
        bound(lambda: Mixed(mix, width), GREY)


@pytest.mark.parametrize("mix", [
    lambda h: 2 * h - 1, lambda h: h / h.shape[1], lambda h: h[:, :, ::2],
    lambda h: torch.maximum(h, -h), lambda h: h.permute(0, 2, 3, 1).permute(0, 3, 1, 2),
    lambda h: h.flatten(2).view(len(h), -1, 14, 14)])
def test_units_that_are_only_scaled_or_moved_can_be_cut(mix):
    assert bound(lambda: Mixed(mix), GREY)[4].layers == {"first": 4}


def test_frozen_layers_are_never_cut():
    with pytest.raises(UserError, match="0: they are read by a weight that is frozen or computed"):
        bound(frozen, GREY)


def test_a_model_with_outputs_alone_is_refused():
    with pytest.raises(UserError, match="can be cut .1: they are the model's outputs"):
        bound(lambda: nn.Sequential(nn.Flatten(), nn.Linear(256, 3)), GREY)


class Written(nn.Module):
    """Flattens to a number, as many do."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4 * 14 * 14, 3)

    def forward(self, x):
        return self.head(self.first(x).view(-1, 4 * 14 * 14))


def test_a_model_that_fixes_a_width_is_refused():
    model, _, x, _, structure, samples = bound(Written, GREY)
    with pytest.raises(UserError, match="flatten by x.flatten"):
        check(model, structure, x, samples)


def test_half_of_the_filters_take_half_of_the_time_at_most():
    """The bound of the bench, fedmpi bench structure, is .35."""
    torch.set_num_threads(1)
    model, _, x, _, structure, _ = bound(lambda: small_cnn((1, 28, 28), 3, width=32), (1, 28, 28))
    small = cut(model, structure, half(structure, x))
    small.down(x)
    inputs, labels = torch.randn(32, 1, 28, 28), torch.arange(32) % 3
    ratios = []
    for _ in range(8):
        took = []
        for net in (model, small.model):
            begin = time.perf_counter()
            nn.functional.cross_entropy(net.train()(inputs), labels).backward()
            took.append(time.perf_counter() - begin)
        ratios.append(took[1] / took[0])
    assert statistics.median(ratios[1:]) <= 0.5
