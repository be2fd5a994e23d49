"""Whether a network fits its data: its type, its parameters, and what it makes of two samples."""

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from fedmpi.plugins.contract.require import in_words
from fedmpi.core.errors import UserError
from fedmpi.plugins.factories import own_code

TABLES = (nn.Embedding, nn.EmbeddingBag)


def looks_up(model):
    """Whether the model has an embedding, which takes ids."""
    return any(isinstance(module, TABLES) for module in model.modules())


def network(made, option, shape):
    """The network that a factory made, its lazy layers filled in by one pass of inputs of
    ``shape``, zeros. UserError where it is none that can be trained here."""
    if not isinstance(made, nn.Module):
        raise UserError(
            f"{option}: expected a torch.nn.Module from the factory, got {in_words(made)}; return the "
            "network, made for the shape and the outputs that the factory is given")
    if any(is_lazy(tensor) for tensor in [*made.parameters(), *made.buffers()]):
        _fill(made, option, shape)
    dtypes = {str(each.dtype).removeprefix("torch.") for each in made.parameters() if each.requires_grad}
    others = ", ".join(sorted(dtypes - {"float32"}))
    if others:
        raise UserError(f"{option}: expected parameters of float32, got {others}; convert the "
                        "network with .float(), and take --precision bf16 for products in bfloat16")
    return made


def _fill(made, option, shape):
    """Lazy layers get their shapes, and their initial values from torch's generator, from a pass in
    eval mode."""
    training = made.training
    zeros = torch.zeros(2, *shape)
    with own_code(f"{option} on inputs of shape {(2, *shape)}"), torch.no_grad():
        made.eval()
        if looks_up(made) and not _takes(made, zeros):
            zeros = zeros.long()
        made(zeros)
    made.train(training)
    left = [name for name, tensor in made.named_parameters() if is_lazy(tensor)]
    if left:
        raise UserError(
            f"{option}: {left[0]} is lazy and has no shape after a pass of inputs; give its layer "
            "the size of its inputs")


def _takes(made, inputs):
    """Whether a pass of the inputs comes to its end."""
    try:
        made(inputs)
    except (RuntimeError, TypeError, IndexError):
        return False
    return True


def check_outputs(model, samples, targets, classes, objective, option):
    """UserError unless what the network makes of ``samples``, two of the data's, suits their
    ``targets`` as the ``objective`` says, in training and in evaluation, and a single sample is
    told apart from none. Its buffers and torch's generators stay as they are."""
    devices = [samples.device] if samples.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        for mode, n in (("training", 2), ("evaluation", 2), ("evaluation", 1)):
            outputs = _passed(model, samples[:n], mode, option)
            objective.check(outputs, targets[:n], classes, f"{option} in {mode}")
            if mode == "training":
                _check_gradient(model, outputs, option)
        _check_sums(objective, outputs, targets[:1])


def _passed(model, given, mode, option):
    """What the model makes of inputs in a mode, its buffers copied before."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    before = model.training
    model.train(mode == "training")
    try:
        with own_code(f"{option} in {mode}, on inputs of shape {tuple(given.shape)},"):
            return functional_call(model, buffers, (given,))
    finally:
        model.train(before)


def _check_gradient(model, outputs, option):
    if any(each.requires_grad for each in model.parameters()) and not outputs.requires_grad:
        raise UserError(
            f"{option}: expected outputs that depend on the parameters, got some without a "
            "gradient; leave no_grad and detach out of forward")


def _check_sums(objective, outputs, targets):
    """Ask the objective for what a run will ask it for; one of the user's is held to its contract
    by that."""
    with torch.no_grad():
        for reduction in ("none", "mean", "sum"):
            objective.loss(outputs, targets, reduction=reduction)
        for metric in objective.metrics.values():
            metric(outputs, targets)
