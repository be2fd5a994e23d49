"""What each tensor of a model is: trained or frozen, prunable or dense, a statistic or a constant."""

import copy
import math

import contracts
import numpy as np
import pytest
import torch
from torch import nn

from fedmpi.core.errors import UserError
from fedmpi.core.layout import bind
from fedmpi.core.tensors import fixed, frozen, frozen_arrays, moving_buffers, normalises_batches, set_frozen


def names(slots):
    return [slot.name for slot in slots]


class Holding(nn.Module):
    """A linear layer and one parameter more, under any name and of any shape."""

    def __init__(self, name, shape):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_parameter(name, nn.Parameter(torch.randn(shape)))


@pytest.mark.parametrize("module, prunable", [
    (nn.Linear(3, 1), ["weight"]),
    (nn.Conv2d(4, 4, 1, groups=4), ["weight"]),
    (nn.Bilinear(2, 3, 4), ["weight"]),
    (nn.MultiheadAttention(4, 2), ["in_proj_weight", "out_proj.weight"]),
    (nn.MultiheadAttention(4, 2, kdim=3, vdim=5, add_bias_kv=True),
     ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"]),
    (nn.GRU(3, 4), ["weight_ih_l0", "weight_hh_l0"]),
    (nn.LSTM(3, 4, proj_size=2), ["weight_ih_l0", "weight_hh_l0", "weight_hr_l0"]),
    (nn.LSTMCell(3, 4), ["weight_ih", "weight_hh"]),
])
def test_weights_of_torchs_layers_are_prunable(module, prunable):
    assert names(bind(module)[0].weights) == prunable


@pytest.mark.parametrize("module", [
    nn.Embedding(9, 3), nn.EmbeddingBag(9, 3), nn.LayerNorm([3, 4]), nn.RMSNorm([3, 4])])
def test_embeddings_and_norms_are_dense(module):
    layout = bind(nn.Sequential(module, nn.Linear(3, 2)))[0]
    assert names(layout.weights) == ["1.weight"] and "0.weight" in names(layout.others)


@pytest.mark.parametrize("name, shape, prunable", [
    ("mixing", (4, 5), True), ("kernel", (2, 3, 4), True), ("pos_embedding", (1, 7, 4), False),
    ("class_token", (1, 1, 4), False), ("relative_position_bias_table", (9, 2), False),
    ("layer_scale", (4, 1, 1), False), ("gamma", (1, 4), False), ("vector", (5,), False)])
def test_a_parameter_of_ones_own_is_prunable_by_shape_and_name(name, shape, prunable):
    layout = bind(Holding(name, shape))[0]
    assert (name in names(layout.weights)) is prunable and (name in names(layout.others)) is not prunable


def test_a_head_that_is_tied_to_an_embedding_is_dense():
    model = nn.Sequential(nn.Embedding(9, 3), nn.Linear(3, 3), nn.Linear(3, 9, bias=False))
    model[2].weight = model[0].weight
    layout = bind(model)[0]
    assert names(layout.weights) == ["1.weight"] and names(layout.others) == ["0.weight", "1.bias"]


def test_a_factory_may_declare_what_is_prunable():
    model = nn.Sequential(nn.Embedding(9, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    model[0].weight.prunable, model[2].weight.prunable = True, False
    assert names(bind(model)[0].weights) == ["0.weight", "1.weight"]
    model = nn.Linear(3, 3)
    model.bias.prunable = True
    with pytest.raises(ValueError, match="two or more dimensions"):
        bind(model)


@pytest.mark.parametrize("name, least", [("vit_b_16", .99), ("swin_t", .99), ("resnet18", .99)])
def test_nearly_all_weights_of_vision_models_are_prunable(name, least):
    # Here, since it takes seconds: every worker of pytest-xdist imports every file.
    from torchvision import models
    layout = bind(models.get_model(name, weights=None))[0]
    assert layout.num_weights / layout.num_parameters > least
    assert not [slot.name for slot in layout.weights if "token" in slot.name or "position" in slot.name]


def test_sparse_gradients_are_refused():
    with pytest.raises(ValueError, match="sparse=False"):
        bind(nn.Sequential(nn.Embedding(9, 3, sparse=True), nn.Linear(3, 2)))


# --- frozen parameters ---

def freezing(shape, classes):
    """A network whose first layer is not trained."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 12), nn.ReLU(), nn.Linear(12, classes))
    model[1].requires_grad_(False)
    return model


def test_frozen_parameters_are_in_no_region_of_the_vector():
    model = freezing((4,), 3)
    layout, x, _ = bind(model)
    assert names(layout.weights + layout.others + layout.buffers) == ["3.weight", "3.bias"]
    assert layout.frozen == (("1.weight", (12, 4)), ("1.bias", (12,))) and layout.num_frozen == 60
    assert layout.num_parameters == 39 and len(x) == 48 + 16


@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("pruner", ["dense", "rigl:sparsity=0.5,every=1"])
def test_frozen_parameters_stay_as_they_are_whichever_way_clients_train(together, pruner):
    run, state = contracts.assembled(model="test_tensors:freezing", together=together, pruner=pruner)
    model = run.transport.worker.parts.model
    before = copy.deepcopy(dict(frozen(model)))
    states, _ = contracts.run_rounds(run, state, 2)
    assert not torch.equal(states[0]["x"], states[1]["x"])
    for name, parameter in frozen(model):
        assert torch.equal(parameter, before[name]) and not parameter.requires_grad


def test_clients_side_by_side_train_what_they_train_one_by_one_beside_frozen_layers():
    runs = [contracts.assembled(model="test_tensors:freezing", together=together) for together in (1, 2)]
    one, two = [contracts.run_rounds(*started, 2)[0][-1]["x"] for started in runs]
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def drifting(shape, classes):
    """A factory that draws frozen weights anew at each call."""
    model = freezing(shape, classes)
    model[1].weight.data.copy_(torch.from_numpy(np.random.default_rng().random(model[1].weight.shape)))
    return model


def test_workers_train_on_the_frozen_weights_of_the_server():
    run, _ = contracts.assembled(model="test_tensors:drifting")
    model = run.transport.worker.parts.model
    assert fixed(model, run.layout).digest == run.fixed.digest != ""


def test_frozen_values_of_any_dtype_are_taken_over_to_the_bit():
    def half(seed):
        torch.manual_seed(seed)
        base = nn.Linear(3, 5).to(torch.bfloat16).requires_grad_(False)
        return nn.ModuleList([base, nn.Linear(2, 2)])

    first, second = half(0), half(1)
    set_frozen(second, frozen_arrays(first))
    assert torch.equal(first[0].weight, second[0].weight) and torch.equal(first[0].bias, second[0].bias)


# --- statistics and constants ---

class Causal(nn.Module):
    """Linear layers and a constant that holds infinities."""

    def __init__(self, shape, classes):
        super().__init__()
        self.inner, self.outer = nn.Linear(math.prod(shape), 16), nn.Linear(16, classes)
        self.register_buffer("hide", torch.full((4, 4), -math.inf).triu(1))

    def forward(self, x):
        q = self.inner(x.flatten(1)).unflatten(1, (4, 4))
        return self.outer(((q @ q.mT + self.hide).softmax(-1) @ q).flatten(1))


class Averaging(Causal):
    """The same with a statistic of its own: a running mean of the inputs."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.mean.lerp_(x.detach().mean(), 0.1)
        return super().forward(x)


class Replacing(Averaging):
    """A statistic that is another tensor after each pass."""

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1
        return super().forward(x)


def test_constants_never_travel_and_statistics_do():
    sample = torch.randn(2, 1, 4, 4)
    model = Causal((1, 4, 4), 3)
    assert moving_buffers(model, sample) == [] and bind(model)[0].buffers == ()
    model = Averaging((1, 4, 4), 3)
    before = copy.deepcopy(model.state_dict())
    assert moving_buffers(model, sample) == ["mean"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert names(bind(model, ["mean"])[0].buffers) == ["mean"]


def test_a_statistic_that_is_replaced_is_refused():
    with pytest.raises(ValueError, match="mean becomes another tensor"):
        moving_buffers(Replacing((4,), 3), torch.randn(2, 4))


class Counting(Causal):
    """A counter that is another tensor after each pass: it would go on from client to client of a rank."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.register_buffer("passes", torch.tensor(0))

    def forward(self, x):
        self.passes = self.passes + 1
        return super().forward(x) * self.passes


class Recomputing(Causal):
    """A constant that is another tensor of the same values after each pass."""

    def forward(self, x):
        self.hide = self.hide.clone()
        return super().forward(x)


def test_a_counter_that_is_replaced_is_refused_and_a_constant_is_not():
    with pytest.raises(ValueError, match="passes becomes another tensor"):
        moving_buffers(Counting((1, 4, 4), 3), torch.randn(2, 1, 4, 4))
    assert moving_buffers(Recomputing((1, 4, 4), 3), torch.randn(2, 1, 4, 4)) == []


class Cached(Causal):
    """A constant that the first pass makes."""

    def __init__(self, shape, classes):
        super().__init__(shape, classes)
        self.register_buffer("table", None, persistent=False)

    def forward(self, x):
        if self.table is None:
            self.table = torch.full((), 0.5)
        return super().forward(x) * self.table


def test_a_constant_that_the_first_pass_makes_is_no_difference_between_ranks():
    run, state = contracts.assembled(model="test_tensors:Cached")
    _, rows = contracts.run_rounds(run, state, 1)
    assert rows


def test_infinite_constants_are_no_divergence_and_statistics_are_averaged():
    run, state = contracts.assembled(model="test_tensors:Averaging", noise="none")
    states, rows = contracts.run_rounds(run, state, 2)
    mean = run.layout.buffers[0].offset
    assert rows[-1][0]["merged"] == 3 if isinstance(rows[-1], tuple) else rows[-1]["merged"] == 3
    assert float(states[-1]["x"][mean]) != 0


def scattered(shape, classes):
    """A factory whose constant differs from call to call."""
    model = Causal(shape, classes)
    model.hide.copy_(torch.from_numpy(np.random.default_rng().random((4, 4))))
    return model


def test_constants_that_differ_from_rank_to_rank_are_refused():
    with pytest.raises(UserError, match="other constants in its buffers"):
        contracts.assembled(model="test_tensors:scattered")


def test_only_batch_norm_normalises_batches():
    assert normalises_batches(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    assert not normalises_batches(nn.Sequential(nn.InstanceNorm1d(2, track_running_stats=True), nn.LayerNorm(2)))
    assert not normalises_batches(Causal((4,), 3))


class Tuned(nn.Sequential):
    """Batch norm that keeps to its running statistics while the rest trains."""

    def train(self, mode=True):
        super().train(mode)
        self[1].eval()
        return self


def test_batch_norm_that_stays_in_evaluation_normalises_no_batches():
    assert not normalises_batches(Tuned(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    assert normalises_batches(Tuned(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)))


def normed(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), 8), nn.BatchNorm1d(8), nn.Linear(8, classes))


def test_batch_norm_on_batches_of_one_sample_is_refused():
    with pytest.raises(UserError, match="--batch-size 1.*batches of one"):
        contracts.assembled(model="test_tensors:normed", batch_size=1)
    contracts.assembled(model="test_tensors:Causal", batch_size=1)
