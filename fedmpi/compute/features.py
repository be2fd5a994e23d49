"""A model in two: its body makes features of inputs, its head makes outputs of features.

The head is the linear layer that runs last, or a module named by the user; features are its
input. The model's author need not help: one sample goes through the model, and hooks note the last
linear layer. The cut is sound in two cases: if the head's output is the model's own, or if the
model is a chain of layers, with an end that then belongs to the head. All other models are refused,
such as a model with outputs from two layers, or without a linear layer.
"""

import contextlib
from typing import Callable, NamedTuple

import torch
from torch import nn

from fedmpi.compute.forward import leaves, through
from fedmpi.core.tensors import mode


class Split(NamedTuple):
    """A model in two parts with its weights: ``head(features(inputs))`` is ``model(inputs)``.

    Gradients flow through both.
    """

    features: Callable            # inputs (n, ...) -> (n, ...), in the model's present mode
    head: Callable                # features -> the model's outputs
    shape: tuple                  # of one sample's features
    module: nn.Module             # at the head's start: its inputs are the features


def split(model, sample, name=""):
    """The ``Split`` of ``model`` before its module ``name``, or before the last linear layer.

    ``sample (1, ...)`` is an input. ValueError if the model cannot be cut there.
    """
    if name:
        module = _named(model, name)
    else:
        module = _last_linear(model, sample)

    def features(inputs):
        with giving_features(model, module):
            return model(inputs)

    seen = _Seen()
    with mode(model, training=False), torch.no_grad():
        with seen.watching(module):
            outputs = model(sample)
        if not seen.runs:
            raise ValueError(
                f"the model cannot be cut before {_name_of(model, module)}, which does not run "
                "when the model does"
            )
        head = _head(model, module, outputs is seen.output)
        # A layer that works in place may have changed its input meanwhile.
        if head is None or not torch.equal(head(features(sample)), outputs):
            raise ValueError(
                f"the model cannot be cut before {_name_of(model, module)}: its outputs do not "
                "follow, as far as can be seen, from what goes in there alone; name another "
                "module, or use a model whose last layer is linear"
            )
    shape = tuple(seen.input.shape[1:])
    return Split(features, head, shape, module)


@contextlib.contextmanager
def giving_features(model, module):
    """A context in which ``model(inputs)`` returns the input of its ``module``.

    Code that trains on a model's outputs then trains on features.
    """
    seen = _Seen()

    def replace(model, inputs, outputs):
        return seen.take()

    with seen.watching(module):
        # A hook's result takes the place of the model's outputs.
        handle = model.register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()


class _Seen:
    """The input and output of a module's last run."""

    def __init__(self):
        self.input = self.output = None
        self.runs = 0

    @contextlib.contextmanager
    def watching(self, module):
        handles = [
            module.register_forward_pre_hook(self._enter),
            module.register_forward_hook(self._leave),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module, inputs):
        self.input = inputs[0]
        self.runs += 1

    def _leave(self, module, inputs, output):
        self.output = output

    def take(self):
        """The features; they are not kept any longer."""
        features = self.input
        self.input = self.output = None
        return features


def _named(model, name):
    """The module that is called ``name``."""
    modules = dict(model.named_modules())
    if name not in modules:
        names = [module_name for module_name in modules if module_name]
        raise ValueError(f"the model has no module {name}; it has {', '.join(names)}")
    return modules[name]


def _name_of(model, module):
    """The model's name for its module."""
    return next(name for name, other in model.named_modules() if other is module)


def _last_linear(model, sample):
    """The linear layer that runs last."""
    ran = []

    def note(module, inputs, output):
        ran.append(module)

    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    handles = [module.register_forward_hook(note) for module in linear]
    try:
        with mode(model, training=False), torch.no_grad():
            model(sample)
    finally:
        for handle in handles:
            handle.remove()
    if not ran:
        raise ValueError(
            "the model has no linear layer before which it could be cut in features and a head: "
            "name a module of it"
        )
    return ran[-1]


def _head(model, module, is_last):
    """The function from the input of ``module`` to the model's outputs; None without one.

    ``is_last``: the module's output is the model's.
    """
    if is_last:
        return module
    layers = leaves(model)
    first = leaves(module)[0]
    starts = [place for place, layer in enumerate(layers) if layer is first]
    if len(layers) < 2 or len(starts) != 1:
        return None
    rest = layers[starts[0]:]
    return lambda features: through(rest, features)
