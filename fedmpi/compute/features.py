"""A model in two: its body, which makes features of inputs, and its head, which makes outputs of features.

The head is the linear layer that runs last, or a module that somebody names; features are what goes into it. The
model's author need not help: one sample goes through the model, and hooks tell which linear layer ran last. The cut is
sound where the head's output is the model's own, or where the model is a chain of layers, whose end then belongs to the
head. All other models are refused, such as one whose outputs follow from two layers, or one without a linear layer.
"""

import contextlib
from typing import Callable, NamedTuple

import torch
from torch import nn

from fedmpi.compute.forward import leaves, through
from fedmpi.core.tensors import mode


class Split(NamedTuple):
    """A model in two, sharing its weights: ``head(features(inputs))`` is ``model(inputs)``. Gradients flow."""

    features: Callable            # inputs (n, ...) -> (n, ...), in the mode that the model is in
    head: Callable                # what features gives -> the model's outputs
    shape: tuple                  # of one sample's features
    module: nn.Module             # at the head's start: what goes into it are the features


def split(model, sample, name=""):
    """The ``Split`` of ``model`` before its module ``name``, or before the linear layer that runs last; ``sample (1,
    ...)`` is an input. ValueError where it cannot be cut there."""
    module = _named(model, name) if name else _last_linear(model, sample)

    def features(inputs):
        with giving_features(model, module):
            return model(inputs)

    seen = _Seen()
    with mode(model, training=False), torch.no_grad():
        with seen.watching(module):
            outputs = model(sample)
        if not seen.runs:
            raise ValueError(f"the model cannot be cut before {_name_of(model, module)}, which does not run when the "
                             "model does")
        head = _head(model, module, outputs is seen.output)
        # A layer that works in place may have changed its input meanwhile.
        if head is None or not torch.equal(head(features(sample)), outputs):
            raise ValueError(f"the model cannot be cut before {_name_of(model, module)}: its outputs do not follow, as "
                             "far as can be seen, from what goes in there alone; name another module, or use a model "
                             "whose last layer is linear")
    return Split(features, head, tuple(seen.input.shape[1:]), module)


@contextlib.contextmanager
def giving_features(model, module):
    """A context in which ``model(inputs)`` gives what goes into its ``module``, for code that trains whatever a model
    puts out."""
    seen = _Seen()
    with seen.watching(module):
        handle = model.register_forward_hook(lambda model, inputs, outputs: seen.take())
        try:
            yield
        finally:
            handle.remove()


class _Seen:
    """What goes into a module, and comes out of it, when it last ran."""

    def __init__(self):
        self.input = self.output = None
        self.runs = 0

    @contextlib.contextmanager
    def watching(self, module):
        handles = [module.register_forward_pre_hook(self._enter), module.register_forward_hook(self._leave)]
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
        """The features, which are kept no longer."""
        features, self.input, self.output = self.input, None, None
        return features


def _named(model, name):
    """The module that is called ``name``."""
    modules = dict(model.named_modules())
    if name not in modules:
        names = [each for each in modules if each]
        raise ValueError(f"the model has no module {name}; it has {', '.join(names)}")
    return modules[name]


def _name_of(model, module):
    """What the model calls its module."""
    return next(name for name, each in model.named_modules() if each is module)


def _last_linear(model, sample):
    """The linear layer that runs last."""
    ran = []
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    handles = [module.register_forward_hook(lambda module, inputs, output: ran.append(module)) for module in linear]
    try:
        with mode(model, training=False), torch.no_grad():
            model(sample)
    finally:
        for handle in handles:
            handle.remove()
    if not ran:
        raise ValueError("the model has no linear layer before which it could be cut in features and a head: name a "
                         "module of it")
    return ran[-1]


def _head(model, module, is_last):
    """The function from what goes into ``module`` to the model's outputs; None where there is none. ``is_last``: what
    the module puts out is what the model does."""
    if is_last:
        return module
    layers, own = leaves(model), leaves(module)
    starts = [place for place, layer in enumerate(layers) if layer is own[0]]
    if len(layers) < 2 or len(starts) != 1:
        return None
    rest = layers[starts[0]:]
    return lambda features: through(rest, features)
