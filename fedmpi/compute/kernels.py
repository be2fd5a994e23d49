"""Linear layers that multiply by kernels which skip pruned weights (``--kernel``).

``--kernel`` is ``dense``; or ``single`` or ``block`` for all pruned linear layers; or a list of
layers, ``blocks.0.mlp.up.weight=block,...``, as ``auto`` makes it at the start of a run. In steps of
training alone: evaluation and dense gradients multiply as ever.

A product is recognised by its weight, wherever the model calls ``torch.nn.functional.linear``.
"""

import contextlib
import importlib.util
from functools import partial

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from fedmpi.core.errors import UserError

DENSE, AUTO = "dense", "auto"
# Any mask; masks of whole blocks.
NAMES = ("single", "block")


def check_text(text):
    """UserError unless ``--kernel`` may be so."""
    if text in (DENSE, AUTO, *NAMES):
        return
    for entry in text.split(","):
        name, equals, kernel = entry.partition("=")
        if not (name and equals and kernel in NAMES):
            raise UserError(
                f"--kernel must be {DENSE}, {AUTO}, {' or '.join(NAMES)}, or a list of "
                f"LAYER={'|'.join(NAMES)}, got {entry}")


def chosen(text, layout):
    """``{name of a weight: kernel}`` by ``--kernel``; UserError for a layer that cannot have it."""
    linear = [slot.name for slot in layout.weights if len(slot.shape) == 2]
    if text == DENSE:
        return {}
    if text in NAMES:
        return dict.fromkeys(linear, text)
    pairs = [entry.split("=") for entry in text.split(",")]
    strange = [name for name, _ in pairs if name not in linear]
    if strange:
        raise UserError(f"--kernel: the model has no prunable matrix {', '.join(strange)}; it has "
                        f"{', '.join(linear)}")
    return dict(pairs)


def as_text(kernels):
    """``--kernel`` of ``{name of a weight: kernel}``."""
    entries = [f"{name}={kernel}" for name, kernel in kernels.items()]
    return ",".join(entries) or DENSE


def missing():
    """Half a line if the kernels cannot be had here; empty if they can."""
    if importlib.util.find_spec("numba") is None:
        return "they need numba: pip install 'fedmpi[kernels]'"
    return ""


# --- products ---


class Products(TorchFunctionMode):
    """Inside a ``with`` linear layers of some weights multiply by their kernels."""

    def __init__(self, products):
        """``products`` maps the id of a weight to ``product(X, W)``."""
        super().__init__()
        self.products = products

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is not F.linear:
            return function(*args, **kwargs)
        X, W, bias = _operands(args, kwargs)
        product = self.products.get(id(W))
        if product is None:
            return F.linear(X, W, bias)
        Y = product(X, W)
        return Y if bias is None else Y + bias


def _operands(args, kwargs):
    """``[input, weight, bias]`` of a call of ``torch.nn.functional.linear``."""
    names = ("input", "weight", "bias")
    named = dict(zip(names, args)) | kwargs
    return [named.get(name) for name in names]


def multiplying(kernels, model, layout, mask):
    """``context()``: inside it the layers of ``kernels`` skip the weights pruned by ``mask``.

    The mask ``(Q,) bool`` may move between contexts. A layer whose mask is not made of blocks
    multiplies densely if its kernel is ``block``.
    """
    if not kernels:
        return contextlib.nullcontext
    by_version = {}

    def context():
        version = mask._version
        if version not in by_version:
            by_version.clear()
            by_version[version] = Products(_products(kernels, model, layout, mask))
        return by_version[version]

    return context


def _products(kernels, model, layout, mask):
    """``{id of a weight: product(X, W)}`` of the layers of ``kernels``."""
    parameters = dict(model.named_parameters())
    products = {}
    for slot in layout.weights:
        if slot.name not in kernels:
            continue
        product = product_of(kernels[slot.name], slot.of(mask))
        if product is not None:
            products[id(parameters[slot.name])] = product
    return products


def product_of(kernel, mask):
    """``product(X, W)`` by the kernel, for ``mask (outputs, inputs) bool``; None if it has none."""
    # Numba is loaded where a kernel is used.
    from fedmpi.compute import sparse_products
    pattern = sparse_products.KERNELS[kernel](mask.numpy())
    if pattern is None:
        return None
    return partial(_product, sparse_products.Product, pattern)


def _product(product, pattern, X, W):
    return product.apply(X, W, pattern)


# --- the layers of a model ---


class Watch(TorchFunctionMode):
    """Inside a ``with`` it notes the inputs' rows of each linear product, by the id of a weight."""

    def __init__(self):
        super().__init__()
        self.rows = {}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is F.linear:
            X, W, _ = _operands(args, kwargs)
            count = X.numel() // X.shape[-1]
            self.rows[id(W)] = self.rows.get(id(W), 0) + count
        return function(*args, **kwargs)


def rows_of(model, layout, sample):
    """``{name of a weight: rows}`` that ``sample (1, ...)`` makes in products of linear layers."""
    watch = Watch()
    with torch.no_grad(), watch:
        model(sample)
    parameters = dict(model.named_parameters())
    rows = {}
    for slot in layout.weights:
        count = watch.rows.get(id(parameters[slot.name]), 0)
        if count:
            rows[slot.name] = count
    return rows
