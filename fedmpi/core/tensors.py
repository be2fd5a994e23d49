"""What each tensor of a model is: trained or frozen, prunable or dense, a statistic that training moves or a constant.

What is trained follows from ``requires_grad`` of the module that the factory made. Frozen parameters keep the values
that the factory gave them; workers are sent them once. Constants are buffers that training leaves alone, such as a
causal mask: every rank has them from the factory, and they never travel. Integer buffers are not averaged either, as
the mean of counters has no meaning.
"""

import contextlib
import hashlib
import re
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

# Weights of these modules are prunable whatever their shape, even (1, n).
PRUNABLE_MODULES = (
    nn.Linear, nn.Bilinear,
    nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.RNNBase, nn.RNNCellBase,
)
# Embeddings are tables that a sample reads a few rows of, and norms scale their input: both stay dense.
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm)
if hasattr(nn, "RMSNorm"):
    NORMS += (nn.RMSNorm,)
DENSE_MODULES = (nn.Embedding, nn.EmbeddingBag, *NORMS)
# A parameter that a module of one's own holds directly is dense where its name says that it is a table or a scale:
# pos_embedding, class_token, relative_position_bias_table, layer_scale.
DENSE_NAMES = re.compile(
    r"(?:^|_)(?:pos|position|positional|embed|embedding|embeddings|token|tokens|table|bias|scale)(?:$|_)")


def is_prunable(name, parameter, owners):
    """Whether masks may prune ``parameter``, which the modules ``owners`` hold under ``name``, the last part of it.

    Every parameter of two or more dimensions is prunable, unless a rule says otherwise. The attribute ``prunable`` of
    the parameter comes first: a factory may set it to True or False. A parameter that several modules share (a head
    tied to an embedding) is dense as soon as one of them wants it dense.
    """
    declared = getattr(parameter, "prunable", None)
    if declared and parameter.dim() < 2:
        raise ValueError(f"{name} has shape {tuple(parameter.shape)}, but only parameters of two or more dimensions "
                         "can be pruned: do not set its attribute prunable")
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
    """Whether the model has batch norm, which cannot train on a batch of one sample. A norm that keeps to its running
    statistics while the model trains, as in fine-tuning, can."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return False
    with mode(model, training=True):
        return any(norm.training or norm.running_mean is None for norm in norms)


@contextlib.contextmanager
def mode(model, training):
    """The model in training mode (True) or evaluation mode (False); each module's own mode comes back afterwards."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was in before:
            module.training = was


def frozen(model):
    """``[(name, parameter)]`` of those that are not trained; one that is shared appears once."""
    return [(name, parameter) for name, parameter in model.named_parameters() if not parameter.requires_grad]


def constants(model, layout, buffers=None):
    """``[(name, buffer)]`` of those that are not in the vector: constants and integer buffers; of those that
    ``buffers`` names, where it is given."""
    moving = {slot.name for slot in layout.buffers}
    return [(name, buffer) for name, buffer in model.named_buffers()
            if name not in moving and (buffers is None or name in buffers)]


def norm_statistics(model):
    """The names of the running means and variances of batch and instance norms."""
    norms = [(path, module) for path, module in model.named_modules()
             if isinstance(module, nn.modules.batchnorm._NormBase)]
    return {f"{path}.{name}".removeprefix(".") for path, module in norms
            for name, buffer in module.named_buffers(recurse=False) if buffer.is_floating_point()}


def moving_buffers(model, sample):
    """The names of floating-point buffers, other than those of norms, that training moves: a sorted list.

    They are seen in one forward pass in training mode of ``sample``, two real inputs or more, and the model is left as
    it was. ValueError where a pass puts another tensor, of other values, in the place of a buffer of any dtype: it
    could neither be followed nor set back before the next client.
    """
    before = {name: (buffer, buffer.clone()) for name, buffer in model.named_buffers()}
    if not before:
        return []
    devices = [sample.device] if sample.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices), mode(model, training=True):
        model(sample)
    after = dict(model.named_buffers())
    changed = [name for name, (_, value) in before.items() if name not in after or not _same(after[name], value)]
    replaced = [name for name in changed if after.get(name) is not before[name][0]]
    if replaced:
        raise ValueError(f"the buffer {replaced[0]} becomes another tensor while the model trains; write into it "
                         "instead, as in self.name.copy_(value), so that every client starts from the same value")
    known = norm_statistics(model)
    moved = sorted(name for name in changed if after[name].is_floating_point() and name not in known)
    for buffer, value in before.values():
        buffer.copy_(value)
    return moved


def _same(a, b):
    """Whether two tensors hold the same values, NaN being the same as NaN."""
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


class Fixed(NamedTuple):
    """What of a model never changes: the bytes of its frozen parameters, which workers are sent once, and a digest of
    its constants, which every rank has from the model's factory."""

    frozen: np.ndarray            # (n,) uint8
    constants: str                # 16 hexadecimal characters

    @property
    def digest(self):
        """16 hexadecimal characters that change with any frozen value or constant; empty where there is neither."""
        if not len(self.frozen) and not self.constants:
            return ""
        return hashlib.blake2b(self.frozen.data, digest_size=8, key=self.constants.encode()).hexdigest()


def fixed(model, layout, buffers=None):
    """The ``Fixed`` of a model that is bound to a vector of ``layout``; ``buffers`` are the names of those that it had
    from its factory, where passes may have registered more."""
    held = [_bytes(parameter) for _, parameter in frozen(model)]
    digest, found = hashlib.blake2b(digest_size=8), constants(model, layout, buffers)
    for name, buffer in found:
        digest.update(f"{name} {buffer.dtype} {tuple(buffer.shape)}".encode())
        digest.update(_bytes(buffer).data)
    return Fixed(np.concatenate(held) if held else np.zeros(0, np.uint8), digest.hexdigest() if found else "")


def set_frozen(model, values):
    """Write ``values``, the bytes that ``fixed`` took of another rank's model, to the frozen parameters of this one."""
    start = 0
    for _, parameter in frozen(model):
        size = parameter.numel() * parameter.element_size()
        part = torch.from_numpy(values[start: start + size].copy())
        parameter.data.copy_(part.view(parameter.dtype).view(parameter.shape))
        start += size
    assert start == len(values), f"{len(values)} bytes of frozen parameters came, this model has {start}"


def _bytes(tensor):
    """(n,) uint8: what a tensor holds, in C order."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def tensors_in(values):
    """The tensors in a nest of lists, tuples and dicts."""
    if isinstance(values, torch.Tensor):
        return [values]
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, (list, tuple)):
        return [tensor for value in values for tensor in tensors_in(value)]
    return []
