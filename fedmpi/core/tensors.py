"""The role of each tensor of a model: trained or frozen, prunable or dense, statistic or constant.

Parameters are trained by ``requires_grad`` of the module from the factory. Frozen parameters keep
their values from the factory; workers are sent them once. Statistics are buffers that training
moves. Constants are buffers that training leaves alone, such as a causal mask: every rank has them
from the factory, and they never travel. Integer buffers are not averaged either, as the mean of
counters has no meaning.
"""

import contextlib
import hashlib
import re
from typing import NamedTuple

import torch
from torch import nn

# Weights of these modules are prunable whatever their shape, even (1, n).
PRUNABLE_MODULES = (
    nn.Linear, nn.Bilinear,
    nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.RNNBase, nn.RNNCellBase,
)
# A sample reads a few rows of an embedding's table, and norms scale their input: both stay dense.
NORMS: tuple[type, ...] = (
    nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm,
)
# Not in every version of torch.
if hasattr(nn, "RMSNorm"):
    NORMS += (nn.RMSNorm,)
DENSE_MODULES = (nn.Embedding, nn.EmbeddingBag, *NORMS)
# How the names of frozen parameters begin among the arrays that a node's ranks share.
FROZEN = "frozen/"
# A parameter that a user's own module holds directly is dense if it is called a table or a scale:
# pos_embedding, class_token, relative_position_bias_table, layer_scale.
DENSE_NAMES = re.compile(
    r"(?:^|_)"
    r"(?:pos|position|positional|embed|embedding|embeddings|token|tokens|table|bias|scale)"
    r"(?:$|_)"
)


def is_prunable(name, parameter, owners):
    """Whether masks may prune ``parameter``.

    ``owners`` are the modules that hold it, under ``name``, the last part of its whole name.

    Every parameter of two or more dimensions is prunable, unless a rule says otherwise. The
    attribute ``prunable`` of the parameter comes first: a factory may set it to True or False. A
    parameter of several modules (a head tied to an embedding) is dense as soon as one of them
    wants it dense.
    """
    declared = getattr(parameter, "prunable", None)
    if declared and parameter.dim() < 2:
        raise ValueError(
            f"{name} has shape {tuple(parameter.shape)}, but only parameters of two or more "
            "dimensions can be pruned: do not set its attribute prunable"
        )
    if declared is not None:
        return bool(declared)
    if parameter.dim() < 2 or any(isinstance(owner, DENSE_MODULES) for owner in owners):
        return False
    if any(isinstance(owner, PRUNABLE_MODULES) for owner in owners):
        return True
    # (1, 1, n) and (n, 1, 1) hold one value a feature or channel, as biases and scales do.
    long_dimensions = sum(size > 1 for size in parameter.shape)
    return long_dimensions >= 2 and not DENSE_NAMES.search(name)


def normalises_batches(model):
    """Whether the model has batch norm: a batch of one sample cannot train it.

    A norm with fixed running statistics, as in fine-tuning, does not count.
    """
    batch_norm = nn.modules.batchnorm._BatchNorm
    norms = [module for module in model.modules() if isinstance(module, batch_norm)]
    if not norms:
        return False
    with mode(model, training=True):
        return any(_by_batch(norm) for norm in norms)


def _by_batch(norm):
    """Whether a batch norm, in its present mode, takes the batch's own statistics."""
    return norm.training or norm.running_mean is None


@contextlib.contextmanager
def mode(model, training):
    """The model in training mode (True) or evaluation mode (False), inside a context.

    Afterwards each module has its own mode again.
    """
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was in before:
            module.training = was


def frozen(model):
    """``[(name, parameter)]`` of the parameters that are not trained; a shared one appears once."""
    named = model.named_parameters()
    return [(name, parameter) for name, parameter in named if not parameter.requires_grad]


def constants(model, layout, buffers=None):
    """``[(name, buffer)]`` of the buffers outside the vector: constants and integer buffers.

    ``buffers`` names the candidates; None: all.
    """
    moving = {slot.name for slot in layout.buffers}
    outside = []
    for name, buffer in model.named_buffers():
        is_candidate = buffers is None or name in buffers
        if is_candidate and name not in moving:
            outside.append((name, buffer))
    return outside


def norm_statistics(model):
    """The names of the running means and variances of batch and instance norms."""
    names = set()
    for path, module in model.named_modules():
        if not isinstance(module, nn.modules.batchnorm._NormBase):
            continue
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point():
                names.add(f"{path}.{name}".removeprefix("."))
    return names


def moving_buffers(model, sample):
    """The names of floating-point buffers that training moves, other than those of norms, sorted.

    They are seen in one forward pass in training mode of ``sample``, two real inputs or more. The
    model is left as it was. ValueError if a pass puts another tensor, of other values, in the
    place of a buffer of any dtype: it could neither be followed nor set back before the next
    client.
    """
    before = {}
    for name, buffer in model.named_buffers():
        before[name] = buffer, buffer.clone()
    if not before:
        return []
    devices = [sample.device] if sample.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices), mode(model, training=True):
        model(sample)
    moved = _moved(before, dict(model.named_buffers()), norm_statistics(model))
    for buffer, value in before.values():
        buffer.copy_(value)
    return moved


def _moved(before, after, of_norms):
    """The sorted names of buffers that a pass has moved, without those ``of_norms``.

    ``before`` is {name: (buffer, its values)}, ``after`` is {name: buffer}.
    """
    moved = []
    for name, (buffer, value) in before.items():
        now = after.get(name)
        if now is not None and _same(now, value):
            continue
        if now is not buffer:
            raise ValueError(
                f"the buffer {name} becomes another tensor while the model trains; write into it "
                "instead, as in self.name.copy_(value), so that every client starts from the same "
                "value"
            )
        if buffer.is_floating_point() and name not in of_norms:
            moved.append(name)
    return sorted(moved)


def _same(a, b):
    """Whether two tensors hold the same values, NaN being the same as NaN."""
    if a.shape != b.shape:
        return False
    both_nan = a.isnan() & b.isnan()
    return bool(((a == b) | both_nan).all())


class Fixed(NamedTuple):
    """Digests of values that never change, of 16 hexadecimal characters; empty without any.

    ``constants`` is that of the buffers from the model's factory, equal on all ranks, and
    ``digest`` that of the frozen parameters and the constants.
    """

    constants: str
    digest: str


def fixed(model, layout, buffers=None):
    """The ``Fixed`` of a model that is bound to a vector of ``layout``.

    ``buffers`` are the names of its factory's buffers, if passes may have registered more.
    """
    own_constants = digest_of_constants(model, layout, buffers)
    parameters = frozen(model)
    if not parameters and not own_constants:
        return Fixed("", "")
    key = own_constants.encode()
    digest = hashlib.blake2b(digest_size=8, key=key)
    for _, parameter in parameters:
        digest.update(_bytes(parameter).data)
    return Fixed(own_constants, digest.hexdigest())


def digest_of_constants(model, layout, buffers=None):
    """``Fixed.constants`` alone, for ranks whose frozen parameters come from rank 0."""
    return _digest(constants(model, layout, buffers))


def _digest(named):
    """16 hexadecimal characters of ``[(name, buffer)]``; empty without any."""
    if not named:
        return ""
    digest = hashlib.blake2b(digest_size=8)
    for name, buffer in named:
        head = f"{name} {buffer.dtype} {tuple(buffer.shape)}"
        digest.update(head.encode())
        digest.update(_bytes(buffer).data)
    return digest.hexdigest()


def frozen_arrays(model):
    """``{FROZEN + name: numpy array}`` of the frozen parameters, for the ranks of a node to share.

    On the CPU the arrays are the parameters' own memory. A dtype that numpy lacks travels as bytes.
    """
    arrays = {}
    for name, parameter in frozen(model):
        arrays[FROZEN + name] = _bytes(parameter)
    return arrays


def set_frozen(model, arrays):
    """Put another rank's ``frozen_arrays``, among other ``arrays``, in place of the model's own.

    On the CPU the parameters lie in the arrays' memory, which must never be written to.
    """
    for name, parameter in frozen(model):
        array = arrays[FROZEN + name]
        size = parameter.numel() * parameter.element_size()
        assert len(array) == size, f"{len(array)} bytes of {name} came, this model has {size}"
        values = torch.from_numpy(array).view(parameter.dtype)
        parameter.data = values.view(parameter.shape).to(parameter.device)


def _bytes(tensor):
    """(n,) uint8: a tensor's values, in C order."""
    values = tensor.detach().cpu().contiguous()
    return values.reshape(-1).view(torch.uint8).numpy()


def tensors_in(values):
    """The tensors in a nest of lists, tuples and dicts."""
    if isinstance(values, torch.Tensor):
        return [values]
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, (list, tuple)):
        return [tensor for value in values for tensor in tensors_in(value)]
    return []
