"""A model as one vector: network, pruner, wire and server all work on slices of it.

The vector ``x (P,) float32`` holds three regions, each tensor padded to 64 bytes::

    [0, Q)   prunable weights (of linear, convolutional, attention and recurrent layers)
    [Q, R)   other trained parameters (biases, norms, embeddings), always dense
    [R, P)   statistics: floating-point buffers that training moves (running means),
             always dense, averaged, not trained

Padding is zero and never travels.

Frozen parameters, constants and integer buffers stay in the module, outside the vector: see
``fedmpi.core.tensors``.
"""

import hashlib
import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from fedmpi.core.adapters import adapters_of, base_buffers
from fedmpi.core.support import Support, index_of, spans_of
from fedmpi.core.tensors import frozen, is_prunable, norm_statistics

# float32 values: 64 bytes, a cache line, and a good length for tensor cores and vector units.
ALIGN = 16
# Values of a vector, by the positions that int32 holds.
MOST = (1 << 31) - 1


class Slot(NamedTuple):
    """Where one tensor lives in ``x``."""

    name: str
    shape: tuple
    offset: int
    size: int

    @property
    def span(self):
        return slice(self.offset, self.offset + self.size)

    def of(self, vector):
        """The tensor's values in ``vector (P,)`` or (R,), a view in its shape."""
        # narrow() takes a third of the time of a slice.
        return vector.narrow(0, self.offset, self.size).view(self.shape)

    def of_rows(self, X):
        """(n, *shape): the tensor's values in each row of ``X (n, P)`` or (n, R), a view."""
        return X[:, self.span].view(-1, *self.shape)


@dataclass(frozen=True)
class Layout:
    """The slots of a model's tensors in its vector, and the ends Q, R, P of its regions."""

    weights: tuple[Slot, ...]     # prunable
    others: tuple[Slot, ...]      # dense parameters
    buffers: tuple[Slot, ...]
    Q: int
    R: int
    P: int
    # (name, shape) of untrained parameters, outside the vector.
    frozen: tuple = ()
    # Names of tensors that stay with each client: in the vector, not on the wire.
    personal: tuple = ()
    # Names of tensors of the server's own network: no client has them.
    server_only: tuple = ()
    # Names of the base's tensors: among the buffers, not on the wire, changed by merges on every rank
    # alike. See ``Strategy.absorb``.
    base: tuple = ()
    # An ``Adapter`` each layer that has one.
    adapters: tuple = ()
    # The layout of single weights, if an entry of this one is a block of them (see
    # ``fedmpi.methods.pruning.pattern``).
    whole: "Layout | None" = None

    @cached_property
    def digest(self):
        """8 hexadecimal characters, others for any other name, shape or offset."""
        text = repr((self.weights, self.others, self.buffers))
        return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()

    @cached_property
    def real(self):
        """bool (P,): True for values, False for padding."""
        real = torch.zeros(self.P, dtype=torch.bool)
        for slot in self.slots:
            real[slot.span] = True
        return real

    @cached_property
    def shared(self):
        """bool (P,): True for travelling values: neither padding, nor personal, nor of the base."""
        if not (self.personal or self.base):
            return self.real
        shared = self.real.clone()
        shared[self.unsent_positions] = False
        return shared

    @cached_property
    def travels(self):
        """Whether any tensor travels: only then the server has a model of the clients'."""
        stays = {*self.personal, *self.server_only}
        return any(slot.name not in stays for slot in self.slots)

    @cached_property
    def personal_positions(self):
        """int64, sorted: the positions of the personal tensors; empty if every tensor travels."""
        return self._positions_of(self.personal)

    @cached_property
    def base_positions(self):
        """int64, sorted: the positions of the base's tensors."""
        return self._positions_of(self.base)

    @cached_property
    def unsent_positions(self):
        """int64, sorted: the positions of personal tensors, and of the base's."""
        return self._positions_of({*self.personal, *self.base})

    def _positions_of(self, names):
        positions = [torch.empty(0, dtype=torch.int64)]
        for slot in self.slots:
            if slot.name in names:
                span = slot.span
                positions.append(torch.arange(span.start, span.stop))
        return torch.cat(positions)

    @property
    def dense_positions(self):
        """int32, sorted: the travelling positions of [Q, P)."""
        return self.dense_support.positions

    @cached_property
    def dense_support(self):
        """The travelling positions of [Q, P), a ``Support``."""
        return self._whole(self.others + self.buffers)

    @property
    def num_dense(self):
        """How many positions of [Q, P) travel."""
        return len(self.dense_support)

    @cached_property
    def num_averages(self):
        """How many travelling values are not trained: the last of each support."""
        return len(self._whole(self.buffers))

    @cached_property
    def _unpruned(self):
        """The support of a model without pruned weights, a ``Support``."""
        return self._whole(self.slots)

    def _whole(self, slots):
        """The ``Support`` of whole tensors, without personal ones and those of the base."""
        unsent = {*self.personal, *self.base}
        travelling = [slot for slot in slots if slot.name not in unsent]
        return Support(torch.empty(0, dtype=torch.int32), spans_of(travelling))

    @cached_property
    def _last(self):
        """[mask, its version, its support], or nothing yet."""
        return []

    @property
    def slots(self):
        """The slots of all tensors in the vector, in its order."""
        return self.weights + self.others + self.buffers

    @property
    def trained(self):
        """The slots of all parameters, prunable or not."""
        return self.weights + self.others

    @property
    def num_weights(self):
        """How many weights are prunable."""
        return sum(slot.size for slot in self.weights)

    @property
    def num_parameters(self):
        """How many parameters are trained, prunable or not."""
        return self.num_weights + sum(slot.size for slot in self.others)

    @property
    def num_values(self):
        """How many values a dense message carries: parameters and floating-point buffers."""
        sent = [slot.size for slot in self.buffers if slot.name not in self.base]
        return self.num_parameters + sum(sent)

    @property
    def num_frozen(self):
        """How many parameters are not trained, those of the base included."""
        of_base = [slot.size for slot in self.buffers if slot.name in self.base]
        return sum(math.prod(shape) for _, shape in self.frozen) + sum(of_base)

    def with_personal(self, personal):
        """This layout, the tensors that ``personal(layout)`` names staying with each client.

        None: no tensor stays. ValueError for a name of no tensor of the model.
        """
        if personal is None:
            return self
        names = tuple(personal(self))
        own_names = {slot.name for slot in self.slots}
        strange = sorted(set(names) - own_names)
        if strange:
            raise ValueError(
                f"the model has no {', '.join(strange)} that could stay with clients; it has "
                f"{', '.join(sorted(own_names))}"
            )
        return replace(self, personal=names)

    def full_mask(self):
        """bool (Q,): every weight kept; padding is False."""
        return self.real[: self.Q].clone()

    def support(self, mask):
        """int32 (K,), sorted: the travelling positions under ``mask (Q,) bool``. Read only.

        These are the kept weights, then the dense positions, without personal tensors. They take
        4 bytes a position; ``compact`` takes fewer.
        """
        return self.compact(mask).positions

    def compact(self, mask):
        """The positions of ``support(mask)`` as a ``Support``: dense tensors as stretches."""
        # A round asks for the support of the same mask several times. A mask's version changes
        # with its values.
        last = self._last
        if last and last[0] is mask and last[1] == mask._version:
            return last[2]
        travels = mask
        if self.personal:
            travels = mask & self.shared[: self.Q]
        num_kept = int(np.count_nonzero(travels.numpy()))
        if num_kept + self.num_dense == len(self._unpruned):
            support = self._unpruned
        else:
            kept = torch.from_numpy(index_of(travels.numpy()))
            support = Support(kept, self.dense_support.spans)
        last[:] = mask, mask._version, support
        return support

    def kept(self, mask):
        """Kept weights a layer, a list of ints."""
        bits = mask.cpu().numpy()
        parts = [bits[slot.span] for slot in self.weights]
        return [int(np.count_nonzero(part)) for part in parts]


def arranged(weights, others, buffers, frozen=()):
    """The ``Layout`` of these tensors, each argument a sequence of (name, shape).

    ValueError for more than MOST values.
    """
    weights, Q = _lay(weights, 0)
    others, R = _lay(others, Q)
    buffers, P = _lay(buffers, R)
    if P > MOST:
        raise ValueError(
            f"a model has at most {MOST:,} values, as their positions are int32, got {P:,}: take a "
            "smaller one, or freeze the largest tensors"
        )
    return Layout(
        weights=weights,
        others=others,
        buffers=buffers,
        Q=Q,
        R=R,
        P=P,
        frozen=tuple(frozen))


def _lay(tensors, start):
    """``(slots, end)`` of tensors one after the other, from ``start`` on."""
    slots = []
    for name, shape in tensors:
        size = math.prod(shape)
        slot = Slot(name, tuple(shape), start, size)
        slots.append(slot)
        # Divided and rounded up.
        lines = -(-size // ALIGN)
        start += lines * ALIGN
    return tuple(slots), start


def _shapes(named):
    return [(name, tuple(tensor.shape)) for name, tensor in named]


def _sort(model, moving):
    """``(prunable, others, statistics)``: the tensors of the vector, lists of (name, tensor)."""
    owners = _owners(model)
    trained, strange = [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        trained.append((name, parameter))
        if parameter.dtype != torch.float32:
            strange.append(name)
    # All of them lie in one float32 vector.
    if strange:
        raise ValueError(
            f"parameters must be float32, got {', '.join(strange)}; "
            "convert the model with .float()"
        )

    prunable, others = [], []
    for name, parameter in trained:
        own_name = name.rpartition(".")[2]
        if is_prunable(own_name, parameter, owners[id(parameter)]):
            prunable.append((name, parameter))
        else:
            others.append((name, parameter))
    moved = norm_statistics(model) | set(moving) | set(base_buffers(model))
    statistics = []
    for name, buffer in model.named_buffers():
        if name in moved:
            statistics.append((name, buffer))
    return prunable, others, statistics


def _owners(model):
    """``{id(parameter): modules that hold it}``; ValueError for sparse gradients."""
    owners = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(module)
        is_table = isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        if is_table and module.sparse:
            raise ValueError(
                "an embedding with sparse=True gives sparse gradients: build it with sparse=False"
            )
    return owners


def bind(model, moving=()):
    """Re-home a model in one vector: ``(layout, x (P,), g (R,))``, gradients adding up in ``g``.

    ``moving`` names the result of ``moving_buffers``: statistics beside those of batch and
    instance norms. All other buffers are constants.

    Bind after moving the model to its device (``module.to`` re-allocates), and clear gradients
    with ``g.zero_()`` (``module.zero_grad()`` would drop the views).
    """
    prunable, others, statistics = _sort(model, moving)
    if not prunable:
        raise ValueError(
            "the model has nothing to prune or train: no parameter of two or more dimensions is "
            "trained and prunable"
        )
    shapes = [_shapes(named) for named in (prunable, others, statistics, frozen(model))]
    layout = arranged(*shapes)
    base = tuple(base_buffers(model))
    layout = replace(layout, base=base, adapters=adapters_of(model))
    _, first = prunable[0]
    x = torch.zeros(layout.P, device=first.device)
    g = _unwritten_zeros(layout.R, first.device)
    for slot, (_, tensor) in zip(layout.slots, prunable + others + statistics):
        view = slot.of(x)
        view.copy_(tensor.detach())
        tensor.data = view
        if slot.offset < layout.R:
            tensor.grad = slot.of(g)
    return layout, x, g


def _unwritten_zeros(n, device):
    """float32 (n,): zeros. On the host a large vector takes no memory until it is written to.

    Fused steps take gradients as autograd made them, and never write to this vector.
    """
    if device.type != "cpu":
        return torch.zeros(n, device=device)
    # Unlike torch, numpy asks the kernel for pages of zeros.
    zeros = np.zeros(n + ALIGN, np.float32)
    first = -zeros.ctypes.data // 4 % ALIGN
    return torch.from_numpy(zeros[first: first + n])


def described(layout):
    """``9,930 parameters, 99.4 % of them prunable``, and the number of frozen ones, if any."""
    share = 100 * layout.num_weights / layout.num_parameters
    text = f"{layout.num_parameters:,} parameters, {share:.3g} % of them prunable"
    if layout.num_frozen:
        text += f", {layout.num_frozen:,} more frozen"
    return text


def views(layout, vector):
    """The values of each trained parameter in ``vector (R,)``, in its shape."""
    return [slot.of(vector) for slot in layout.trained]


def check(model, layout, x):
    """Raise AssertionError if the model no longer lives in ``x`` (moved after binding)."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    for slot in layout.slots:
        # float32: 4 bytes a value.
        expected = x.data_ptr() + 4 * slot.offset
        address = tensors[slot.name].data_ptr()
        assert address == expected, f"{slot.name} left its vector"
