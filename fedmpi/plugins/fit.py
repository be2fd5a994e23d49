"""The fit of a network and its data: its type, its parameters, its outputs for two samples."""

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from fedmpi.core.errors import UserError
from fedmpi.plugins.contract.require import in_words
from fedmpi.plugins.factories import own_code

TABLES = (nn.Embedding, nn.EmbeddingBag)


def looks_up(model):
    """Whether the model has an embedding, which takes ids."""
    return any(isinstance(module, TABLES) for module in model.modules())


# ---------------------------------------------------------------- the network


def network(made, option, shape):
    """A factory's network, its lazy layers filled in by a pass of zeros of ``shape``.

    UserError if it cannot be trained here.
    """
    if not isinstance(made, nn.Module):
        raise UserError(
            f"{option}: expected a torch.nn.Module from the factory, got {in_words(made)}; return "
            "the network, made for the shape and the outputs that the factory is given")
    # Lazy norms have lazy buffers as well.
    tensors = [*made.parameters(), *made.buffers()]
    if any(map(is_lazy, tensors)):
        _fill(made, option, shape)
    other_dtypes = _trained_dtypes(made) - {"float32"}
    others = ", ".join(sorted(other_dtypes))
    if others:
        raise UserError(f"{option}: expected parameters of float32, got {others}; convert the "
                        "network with .float(), and take --precision bf16 for products in bfloat16")
    return made


def _trained_dtypes(model):
    """Names of the dtypes of a model's trained parameters."""
    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.requires_grad}
    return {str(dtype).removeprefix("torch.") for dtype in dtypes}


def _fill(made, option, shape):
    """Give lazy layers their shapes, by a pass in eval mode.

    Their initial values come from torch's generator.
    """
    was_training = made.training
    zeros = torch.zeros(2, *shape)
    with own_code(f"{option} on inputs of shape {(2, *shape)}"), torch.no_grad():
        # Running statistics must not see these zeros.
        made.eval()
        # An embedding refuses floats; a model with one may still want them.
        if looks_up(made) and not _takes(made, zeros):
            zeros = zeros.long()
        made(zeros)
    made.train(was_training)
    for name, parameter in made.named_parameters():
        if is_lazy(parameter):
            raise UserError(
                f"{option}: {name} is lazy and has no shape after a pass of inputs; give its "
                "layer the size of its inputs")


def _takes(made, inputs):
    """Whether a pass of the inputs comes to its end."""
    try:
        made(inputs)
    except (RuntimeError, TypeError, IndexError):
        return False
    return True


# ---------------------------------------------------------------- its outputs


def check_outputs(model, samples, targets, classes, objective, option):
    """UserError unless the network's outputs for two ``samples`` suit their ``targets``.

    The ``objective`` decides, in training and in evaluation, for two samples and for one, since
    a network may squeeze a single row away. Buffers and torch's generators stay as they are.
    """
    devices = [samples.device] if samples.device.type == "cuda" else []
    # Dropout draws numbers, which the run must not miss.
    with torch.random.fork_rng(devices=devices):
        for mode, n in (("training", 2), ("evaluation", 2), ("evaluation", 1)):
            some_samples = samples[:n]
            outputs = _outputs(model, some_samples, mode, option)
            some_targets = targets[:n]
            objective.check(outputs, some_targets, classes, f"{option} in {mode}")
            if mode == "training":
                _check_gradient(model, outputs, option)
        one_target = targets[:1]
        _ask_all(objective, outputs, one_target)


def _outputs(model, inputs, mode, option):
    """The model's outputs in a mode; it works on copies of its buffers."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    was_training = model.training
    model.train(mode == "training")
    try:
        shape = tuple(inputs.shape)
        with own_code(f"{option} in {mode}, on inputs of shape {shape},"):
            return functional_call(model, buffers, (inputs,))
    finally:
        model.train(was_training)


def _check_gradient(model, outputs, option):
    is_trained = any(parameter.requires_grad for parameter in model.parameters())
    if is_trained and not outputs.requires_grad:
        raise UserError(
            f"{option}: expected outputs that depend on the parameters, got some without a "
            "gradient; leave no_grad and detach out of forward")


def _ask_all(objective, outputs, targets):
    """Ask the objective all questions of a run: so its contract is checked now."""
    with torch.no_grad():
        for reduction in ("none", "mean", "sum"):
            objective.loss(outputs, targets, reduction=reduction)
        metrics = objective.metrics.values()
        for metric in metrics:
            metric(outputs, targets)
