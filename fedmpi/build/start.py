"""The model's first values from a file (``--init-from``), in place of those of its factory."""

import hashlib

import torch

from fedmpi.build.tensor_file import plain, read
from fedmpi.core.adapters import adapters_of
from fedmpi.core.errors import UserError

# Names that a line about a misfit gives.
SHOWN = 3
# Bytes that are read at a time.
BLOCK = 1 << 20


def start(model, options, tokens=()):
    """16 hexadecimal characters, the digest of --init-from, whose values ``model`` has afterwards.

    Empty without such a file. UserError in one line if it does not fit the model, or holds a model
    of other ``tokens``, texts by number; without any, they are not compared.
    """
    path = options["init_from"]
    if not path:
        return ""
    option = f"--init-from {path}"
    if options["also_model"] or options["server_model"]:
        raise UserError(f"{option} goes with one network; leave --also-model and --server-model out")
    tensors, about = plain(*read(path))
    _check_tokens(option, about, list(tokens))
    own = _own_tensors(model)
    _check_fit(option, options["model"], own, tensors)
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
    for name, tensor in tensors.items():
        # A tensor of two names has one value.
        if not torch.equal(own[name], tensor.to(own[name].dtype)):
            raise UserError(f"{option}: {name} is tied to another tensor in --model "
                            f"{options['model']}, and differs from it in the file")
    return _digest(path)


def _own_tensors(model):
    """``{name: tensor}`` of the model's state, without adapters: a file holds the model alone."""
    state = model.state_dict()
    for adapter in adapters_of(model):
        del state[adapter.A], state[adapter.B]
    return state


def _check_fit(option, spec, own, tensors):
    """UserError unless names and shapes are the model's, and all values finite."""
    memory = {tensor.data_ptr() for name, tensor in own.items() if name in tensors}
    # A file may hold a tied tensor under one of its names alone.
    missing = [name for name in own if name not in tensors and own[name].data_ptr() not in memory]
    unexpected = [name for name in tensors if name not in own]
    misfits = []
    if missing:
        misfits.append(f"missing {_shown(missing)}")
    if unexpected:
        misfits.append(f"unexpected {_shown(unexpected)}")
    misfits += _shapes(own, tensors)
    if misfits:
        raise UserError(f"{option} does not fit --model {spec}: {'; '.join(misfits)}; give the "
                        "options of the model that was trained, or another file")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise UserError(f"{option}: {name} holds values that are not finite; take another file")


def _shapes(own, tensors):
    """A text about tensors of other shapes, in a list; empty without any."""
    texts = []
    for name in tensors.keys() & own.keys():
        got = tuple(tensors[name].shape)
        expected = tuple(own[name].shape)
        if got != expected:
            texts.append(f"{name}: got {got}, expected {expected}")
    # Sets have no order.
    texts.sort()
    return [_shown(texts)] if texts else []


def _shown(texts):
    """The first of some texts, and how many more there are."""
    text = ", ".join(texts[:SHOWN])
    more = len(texts) - SHOWN
    return f"{text} and {more} more" if more > 0 else text


def _check_tokens(option, about, now):
    """UserError if the file's model was trained on tokens that mean something else."""
    before = about.get("inputs", {}).get("names", [])
    if not now or not before or before == now:
        return
    pairs = enumerate(zip(before, now))
    differing = [f"token {i} is {a!r} there and {b!r} here" for i, (a, b) in pairs if a != b]
    why = differing[0] if differing else f"{len(before)} tokens there, {len(now)} here"
    raise UserError(f"{option} was trained on other tokens than those of the data set: {why}; take "
                    "texts of the same characters, or the same tokenizer")


def _digest(path):
    digest = hashlib.blake2b(digest_size=8)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
