"""Counted operations: uses a weight from a real forward pass, and the two conventions by hand."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fedmpi.core.layout import bind
from fedmpi.core.flops import Costs, costs, forward, outputs, training
from fedmpi.core.mask import budgets
from fedmpi.methods.models.cifar10net import cifar10net


def found(model, shape):
    layout, _, _ = bind(model)
    return layout, costs(model, layout, torch.zeros(1, *shape))


@pytest.mark.parametrize("model, shape, expected", [
    (nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), (3, 2, 2), (1,)),
    (nn.Conv2d(2, 5, 3), (2, 8, 6), (6 * 4,)),
    (nn.Conv2d(2, 5, 3, padding=1), (2, 8, 6), (8 * 6,)),
    (nn.Conv2d(2, 5, 3, stride=2), (2, 8, 6), (3 * 2,)),
    (nn.Conv2d(2, 4, 3, groups=2), (2, 8, 6), (6 * 4,)),
    (nn.Conv2d(2, 5, 3, dilation=2), (2, 8, 6), (4 * 2,)),
    (nn.Conv1d(2, 5, 3), (2, 9), (7,)),
    (nn.ConvTranspose2d(2, 5, 3, stride=2), (2, 4, 4), (16,)),
    (nn.Linear(6, 4), (5, 6), (5,)),                                       # applied at 5 positions
    (nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, 4)), (1, 8, 8),
     (36, 4, 1))])
def test_uses_by_hand(model, shape, expected):
    assert found(model, shape)[1] == Costs(expected)


def test_a_weight_used_twice_counts_twice():
    shared = nn.Linear(4, 4)
    assert found(nn.Sequential(shared, nn.ReLU(), shared), (4,))[1].macs_per_weight == (2,)


def test_counting_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(8, 3))
    layout, x, _ = bind(model)
    before = x.clone()
    for mode in (True, False):
        model.train(mode)
        costs(model, layout, torch.zeros(1, 1, 4, 4))
        assert all(m.training is mode for m in model.modules()) and torch.equal(x, before)
    assert not any(m._forward_hooks for m in model.modules())


def test_both_conventions_by_hand():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.Flatten(), nn.Linear(8, 4, bias=False))
    layout, use = found(model, (1, 4, 4))
    mask = layout.full_mask()
    mask[[0, 1, 2, 32, 33]] = False                     # 3 of 18 conv weights at 4 positions, 2 of 32 linear ones
    full, sparse = 2 * (18 * 4 + 32), 2 * (15 * 4 + 30)
    assert (full, sparse) == (208, 180)
    assert training(layout, use, mask, 10, 0, 0) == (10 * (2 * 180 + 208), 10 * 3 * 180)
    assert training(layout, use, mask, 10, 4, 0) == (14 * (2 * 180 + 208), 10 * 3 * 180 + 4 * (2 * 180 + 208))
    assert training(layout, use, mask, 10, 0, 10) == (10 * (2 * 180 + 208), 10 * (2 * 180 + 208))


@pytest.mark.parametrize("kept", [1, 2, 5, 10])
def test_a_sample_costs_1_plus_2d_and_3d_dense_passes(kept):
    layout, use = found(nn.Linear(10, 10), (10,))
    mask = layout.full_mask()
    mask[kept * 10:] = False
    f, d = 200, kept / 10
    assert training(layout, use, mask, 7, 0, 0) == pytest.approx((7 * (1 + 2 * d) * f, 7 * 3 * d * f))


def test_both_conventions_agree_on_a_dense_model():
    layout, use = found(nn.Sequential(nn.Flatten(), nn.Linear(9, 4)), (1, 3, 3))
    prunefl, rigl = training(layout, use, layout.full_mask(), 5, 2, 3)
    assert prunefl == rigl == 7 * 3 * 72


def test_cifar10net_by_hand_on_its_real_shapes():
    layout, use = found(cifar10net((3, 32, 32), 10), (3, 32, 32))
    assert use.macs_per_weight == (28 * 28, 22 * 22, 1, 1, 1)           # 32 - 4; pooled to 26, 26 - 4; pooled to 20
    forward = 2 * (450 * 784 + 2400 * 484 + 768_000 + 10_080 + 840)
    assert forward == 4_626_640 - 40_000
    seen = 10 * 5000                                    # 10 epochs of a tenth of the training set
    assert training(layout, use, layout.full_mask(), seen, 0, 0) == (3 * forward * seen, 3 * forward * seen)


@pytest.mark.parametrize("sparsity, per_round, in_200", [(0, .754, 150.8), (.8, .352, 70.4), (.9, .302, 60.3)])
def test_cifar10net_at_the_shapes_of_the_thesis_program(sparsity, per_round, in_200):
    """Its figures ignore that pooling shrinks the second convolution's input (28, not 26, hence 24 x 24 outputs)."""
    layout, _, _ = bind(cifar10net((3, 32, 32), 10))
    mask = torch.zeros(layout.Q, dtype=torch.bool)
    for slot, kept in zip(layout.weights, budgets(layout, sparsity, "uniform")):
        mask[slot.offset: slot.offset + kept] = True
    tera = training(layout, Costs((784, 576, 1, 1, 1)), mask, 50_000, 0, 0)[0] / 1e12
    assert (round(tera, 3), round(200 * tera, 1)) == (per_round, in_200)


# --- against torch's own counter ---

class Recurrent(nn.Module):
    """Token ids through an embedding and a recurrent layer."""

    def __init__(self, kind):
        super().__init__()
        self.table, self.layer, self.head = nn.Embedding(20, 8), kind(8, 12, 2, batch_first=True), nn.Linear(12, 3)

    def forward(self, tokens):
        return self.head(self.layer(self.table(tokens))[0].mean(1))


class Transformer(nn.Module):
    """A small GPT whose head is tied to its embedding."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        self.table, self.blocks = nn.Embedding(20, 16), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.pos_embedding, self.head = nn.Parameter(torch.randn(1, 6, 16)), nn.Linear(16, 20, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens):
        return self.head(self.blocks(self.table(tokens) + self.pos_embedding))


def vision_transformer():
    # Here, since it takes seconds: every worker of pytest-xdist imports every file.
    from torchvision.models.vision_transformer import VisionTransformer
    return VisionTransformer(32, 8, 1, 2, 24, 48)


TOKENS = torch.arange(6)[None]
IMAGE = torch.zeros(1, 3, 32, 32)


def counted(model, sample):
    """Forward FLOPs by torch's counter, which does not know the fused attention of a CPU."""
    from torch.utils.flop_counter import FlopCounterMode
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model.train()(sample)
    return counter.get_total_flops()


def lazy():
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ConvTranspose2d(4, 2, 3), nn.Flatten(), nn.LazyLinear(5))


@pytest.mark.parametrize("made, sample", [
    (Transformer, TOKENS), (lambda: Recurrent(nn.GRU), TOKENS), (lambda: Recurrent(nn.RNN), TOKENS),
    (vision_transformer, IMAGE), (lazy, IMAGE)])
def test_a_dense_pass_costs_what_torchs_counter_counts(made, sample):
    model = made()
    model.eval()(sample)                                                   # a lazy layer takes its shape
    layout, _, _ = bind(model)
    use = costs(model, layout, sample)
    assert forward(layout, use, layout.full_mask()) == counted(model, sample) > 0
    assert all(use.macs_per_weight)


def test_fused_recurrent_kernels_are_counted_too():
    model = Recurrent(nn.LSTM)
    layout, _, _ = bind(model)
    use = costs(model, layout, TOKENS)
    by_step = 4 * 12 * (8 + 12) + 4 * 12 * (12 + 12)                       # two layers, each with inputs and states
    assert forward(layout, use, layout.full_mask()) == 2 * (6 * by_step + 12 * 3)


def test_attention_counts_for_its_weights_and_for_activations_by_hand():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    layout, _, _ = bind(model)
    use = costs(model, layout, torch.randn(1, 5, 8))
    assert dict(zip([slot.name for slot in layout.weights], use.macs_per_weight)) == dict.fromkeys(
        ["self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"], 5.0)
    assert use.dense == 2 * (2 * 5 * 5 * 8) and use.frozen == 0            # scores, and values by them


def test_a_call_by_keyword_and_a_function_on_a_parameter_are_counted():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.mixing = nn.Linear(4, 3), nn.Parameter(torch.randn(3, 6))

        def forward(self, x):
            return torch.einsum("bi,io->bo", self.layer(input=x), self.mixing)

    layout, use = found(Odd(), (4,))
    assert dict(zip([slot.name for slot in layout.weights], use.macs_per_weight)) == {"layer.weight": 1, "mixing": 1}


def test_a_weight_that_is_reshaped_or_scaled_first_is_counted_for_itself():
    class Standardised(nn.Conv2d):
        def forward(self, x):
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return self._conv_forward(x, weight.contiguous(), self.bias)

    assert found(Standardised(2, 5, 3), (2, 8, 6))[1] == Costs((24,))


def test_dense_and_frozen_weights_cost_the_same_under_any_mask():
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3))
    model[0].requires_grad_(False)
    model[2].weight.prunable = False
    layout, use = found(model, (4,))
    assert use == Costs((1,), dense=2 * 15, frozen=2 * 24)
    mask = torch.zeros(layout.Q, dtype=torch.bool)
    assert forward(layout, use, mask) == 30 + 48
    assert training(layout, use, mask, 10, 4, 0) == (14 * (60 + 90 + 96), 4 * 60 + 14 * (90 + 96))


def test_outputs_are_those_of_operations_and_views_take_nothing():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8, 3))
    assert outputs(model, torch.zeros(1, 1, 4, 4)) == (4 * (8 + 3), 4 * 8)
    attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    # Its kernel holds no scores, which would be 2 x 40 x 40: the largest output is that of queries, keys and values.
    assert outputs(attention, torch.zeros(1, 40, 8))[1] == 4 * 40 * 24
