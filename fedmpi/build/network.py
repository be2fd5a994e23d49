"""The model on rank 0, built once, with its layout, costs and constants."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from fedmpi.build import kinds
from fedmpi.build.federation import named
from fedmpi.core.allocator import LARGE, give_back
from fedmpi.compute.several import laid_out, networks_of
from fedmpi.core.errors import UserError
from fedmpi.core.flops import costs, outputs
from fedmpi.core.layout import Layout, bind
from fedmpi.core.tensors import fixed, mode, moving_buffers, normalises_batches
from fedmpi.methods.datasets.dataset import (inputs, inputs_text, laid, model_dtype, num_test,
                                             of_test)
from fedmpi.plugins import fit


class Network(NamedTuple):
    """A model that fits the data, and its properties."""

    # It lies on the server's device.
    model: nn.Module
    layout: Layout
    # (P,) float32: the memory of the model's tensors.
    x: torch.Tensor
    # (P,) float32 on the CPU: the initial values; None once the rounds have begun.
    first: torch.Tensor | None
    # A flops.Costs.
    costs: Any
    # A tensors.Fixed: frozen parameters, and a digest of constants.
    fixed: Any
    # Whether the model has batch norm.
    batch_norm: bool
    # (all, largest): bytes of its layers' outputs for a sample.
    output_bytes: tuple
    # Of the file of --init-from, empty without one.
    init_digest: str = ""


def network(options, data, model, device, objective, personal=None):
    """The ``Network`` of a new model; UserError if it does not fit the data or the objective.

    ``personal`` is the strategy's: it names the tensors that stay with each client.
    """
    # A forward pass may register more buffers, such as a table made at its first use. Workers do
    # not have those yet.
    buffers = {name for name, _ in model.named_buffers()}
    networks = _by_option(options, model).items()
    for option, one_network in networks:
        _check_fit(option, one_network, data, objective)
    output_bytes = outputs(model, sample(data))
    model = model.to(device)
    layout, x = bound(options, data, model)
    # A strategy may name tensors that the model does not have.
    layout = named(f"--strategy {options['strategy']}", laid_out, layout, model, personal)
    # A copy: x changes with every model that the server evaluates.
    first = x.cpu().clone()
    one = sample(data).to(device)
    return Network(
        model=model,
        layout=layout,
        x=x,
        first=first,
        costs=costs(model, layout, one),
        fixed=fixed(model, layout, buffers),
        batch_norm=normalises_batches(model),
        output_bytes=output_bytes)


def sample(data, count=1):
    """The first ``count`` test samples (count, ...) as models get them; all of them again if there
    are fewer."""
    dataset = data.dataset
    raw, _ = of_test(dataset, _first_rows(dataset, count))
    return laid(inputs(torch.from_numpy(raw), dataset.mean, dataset.std))


def targets(data, count=1):
    """The targets of ``sample``."""
    dataset = data.dataset
    _, y = of_test(dataset, _first_rows(dataset, count))
    return torch.from_numpy(y)


def _first_rows(dataset, count):
    return np.arange(count) % num_test(dataset)


def bound(options, data, model):
    """``(layout, x (P,))`` of the model; its tensors become views of ``x``."""
    first = next(model.parameters())
    device = first.device
    option = f"--model {options['model']}"
    two = sample(data, 2).to(device)
    moving = named(option, moving_buffers, model, two)
    layout, x, _ = named(option, bind, model, moving)
    # The server trains nothing in its own model: gradients would take 4 bytes a weight.
    model.zero_grad()
    if layout.P >= LARGE:
        # The memory that the tensors had before they moved into ``x``.
        give_back()
    return layout, x


def _by_option(options, model):
    """``{"--model small-cnn": module}`` of the clients' networks."""
    named = [f"{option} {spec}" for spec, option in kinds.specs(options).items()]
    networks = networks_of(model)
    return dict(zip(named, networks))


def _check_fit(option, model, data, objective):
    """UserError if a network does not fit the data."""
    _check_takes(option, model, data)
    classes = data.dataset.classes
    two = sample(data, 2)
    of_two = targets(data, 2)
    fit.check_outputs(model, two, of_two, classes, objective, option)


def _check_takes(option, model, data):
    """UserError if the samples are whole numbers, and the model takes only floats."""
    if model_dtype(data.dataset) == torch.float32:
        return
    samples = sample(data)
    why = _failure(model, samples)
    if not why:
        return
    floats = samples.float()
    takes_floats = not _failure(model, floats)
    if takes_floats:
        text = inputs_text(data.dataset)
        raise UserError(f"{option} takes floats, and the data set's samples are whole numbers, "
                        f"which reach it as {text} ({why}); say normalise=true of the data set, "
                        "or take a model that looks them up in an nn.Embedding")


def _failure(model, samples):
    """The first line of the model's error about the samples; empty if it takes them."""
    try:
        with torch.no_grad(), mode(model, training=False):
            model(samples)
    except (RuntimeError, TypeError, IndexError) as error:
        # An error may come without a text.
        text = str(error).strip() or type(error).__name__
        return text.splitlines()[0]
    return ""
