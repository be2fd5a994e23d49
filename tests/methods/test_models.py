"""Networks: the published parameter counts, logits of the right shape, gradients everywhere, seeds obeyed."""

import math

import pytest
import torch

from fedmpi.methods.models.cifar10net import cifar10net
from fedmpi.methods.models.cnn import cnn
from fedmpi.methods.models.lenet5 import lenet5
from fedmpi.methods.models.logistic import logistic
from fedmpi.methods.models.mcmahan_cnn import mcmahan_cnn
from fedmpi.methods.models.mlp2nn import mlp2nn
from fedmpi.methods.models.mnistnet import mnistnet
from fedmpi.methods.models.pfl_cnn import pfl_cnn
from fedmpi.methods.models.small_cnn import small_cnn
from fedmpi.methods.models.zoo import torchvision

GREY, COLOUR, DIGITS = (1, 28, 28), (3, 32, 32), (1, 8, 8)
DENSE = [logistic, mlp2nn]
CONVOLUTIONAL = [cnn, cifar10net, lenet5, mcmahan_cnn, mnistnet, pfl_cnn, small_cnn]


def num_parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("make, shape, count", [
    (logistic, GREY, 7_850),
    (mlp2nn, GREY, 199_210),
    (mcmahan_cnn, GREY, 1_663_370),
    (cnn, GREY, 582_026),
    (small_cnn, DIGITS, 9_930),
    (mnistnet, GREY, 261_840),
    (cifar10net, COLOUR, 782_006),
    (lambda *a: cifar10net(*a, conv_width=0.5, fc_width=0.2), COLOUR, 78_265),
    (lambda *a: cifar10net(*a, conv_width=0.5, fc_width=0.4), COLOUR, 156_500),
    (lenet5, GREY, 61_706),
    (lenet5, COLOUR, 62_006),
    (pfl_cnn, COLOUR, 1_626_442),
    (torchvision, COLOUR, 11_181_642)])
def test_parameter_counts(make, shape, count):
    assert num_parameters(make(shape, 10)) == count


def test_weights_without_biases_of_the_table_of_densities():
    for make, shape, count in ((lenet5, COLOUR, 61_770), (cifar10net, COLOUR, 781_770), (mnistnet, GREY, 261_750)):
        assert sum(p.numel() for p in make(shape, 10).parameters() if p.ndim > 1) == count


@pytest.mark.parametrize("make", DENSE + CONVOLUTIONAL)
@pytest.mark.parametrize("shape", [GREY, COLOUR, DIGITS, (3, 17, 40)])
def test_logits_and_gradients_at_every_usual_shape(make, shape):
    model = make(shape, 7)
    logits = model(torch.rand(2, *shape))
    assert logits.shape == (2, 7) and not torch.allclose(logits.sum(1), torch.ones(2))
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 6])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("make, least", [(cnn, 4), (cifar10net, 5), (lenet5, 4), (mcmahan_cnn, 4), (mnistnet, 5),
                                         (pfl_cnn, 6), (small_cnn, 2)])
def test_too_small_images_are_refused_and_every_other_size_works(make, least):
    for size in range(least, 34):
        assert make((1, size, size), 2)(torch.zeros(1, 1, size, size)).shape == (1, 2)
    with pytest.raises(ValueError, match=f"needs images of at least {least} x {least} pixels, got shape"):
        make((1, least - 1, 40), 2)
    with pytest.raises(ValueError, match="needs images .* use logistic or mlp2nn"):
        make((64,), 2)


@pytest.mark.parametrize("make", DENSE)
def test_dense_models_take_features(make):
    assert make((5,), 3)(torch.zeros(4, 5)).shape == (4, 3)


@pytest.mark.parametrize("make", DENSE + CONVOLUTIONAL)
def test_the_callers_seed_decides_the_weights(make):
    def weights():
        torch.manual_seed(3)
        return torch.nn.utils.parameters_to_vector(make(DIGITS, 10).parameters())

    assert torch.equal(weights(), weights())


def test_pfl_cnn_drops_in_training_only_and_only_if_asked():
    x = torch.rand(2, *DIGITS)
    model = pfl_cnn(DIGITS, 10)
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))
    model = pfl_cnn(DIGITS, 10, dropout=False)
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small"])
def test_torchvision_models_adapt_to_grey_images(name):
    model = torchvision(GREY, 10, name=name)
    torch.nn.functional.cross_entropy(model(torch.rand(2, 1, 64, 64)), torch.tensor([1, 2])).backward()
    assert next(model.parameters()).shape[1] == 1


def test_torchvision_with_auxiliary_outputs_gives_logits_only():
    assert torchvision((3, 96, 96), 5, name="googlenet")(torch.rand(2, 3, 96, 96)).shape == (2, 5)


def test_unknown_torchvision_name_lists_close_ones():
    with pytest.raises(ValueError, match="no classifier 'resnet19'; close are resnet18"):
        torchvision(COLOUR, 10, name="resnet19")


@pytest.mark.parametrize("make", [cifar10net, mnistnet])
@pytest.mark.parametrize("width", [0.0, -1.0, math.nan])
def test_widths_must_be_positive(make, width):
    with pytest.raises(ValueError, match="a width must be > 0"):
        make(COLOUR, 10, conv_width=width)
