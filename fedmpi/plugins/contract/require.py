"""Checks of single values: types, tensors, arrays, states, and inputs that are only read.

Each takes the part's ``option``, and raises a UserError of one line.
"""

import inspect
from typing import Callable

import numpy as np
import torch

from fedmpi.core.errors import UserError

# A checkpoint holds values of these types.
HELD = (torch.Tensor, np.ndarray, np.generic, bool, int, float, str)
# Names of numpy's kinds of dtypes.
KINDS = {"f": "numbers", "iu": "integers", "b": "bools", "fiub": "numbers"}
PARTS = "see fedmpi/core/parts.py"


def require(fits, option, expected, got, way_out):
    """UserError with these four texts unless ``fits``."""
    if not fits:
        raise UserError(f"{option}: expected {expected}, got {got}; {way_out}")


def in_words(value):
    """A value in a few words: type, shape and dtype, length."""
    if isinstance(value, torch.Tensor):
        return f"a tensor {tuple(value.shape)} {_dtype(value.dtype)}"
    if isinstance(value, np.ndarray):
        return f"an array {value.shape} {value.dtype}"
    if value is None:
        return "None"
    # A named tuple says more by its name.
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, (bool, int, float, str)):
        return repr(value)
    name = type(value).__name__
    article = "an" if name[:1].lower() in "aeiou" else "a"
    return f"{article} {name}"


def _dtype(dtype):
    return str(dtype).removeprefix("torch.")


def few(values):
    """The first few numbers of a tensor, as a text."""
    text = ", ".join(f"{value:.4g}" for value in values[:4].tolist())
    if len(values) > 4:
        text += ", ..."
    return f"[{text}]"


# ---------------------------------------------------------------- types


def check_type(made, wanted, option):
    """The factory's part must be a ``wanted``, a class of ``fedmpi.core.parts``.

    Its fields for functions must hold functions.
    """
    needed = [name for name in wanted._fields if name not in wanted._field_defaults]
    way_out = f"return {wanted.__module__}.{wanted.__name__}({', '.join(needed)})"
    require(isinstance(made, wanted), option, f"a {wanted.__name__} from the factory",
            in_words(made), way_out)
    for name, annotation in wanted.__annotations__.items():
        if annotation not in (Callable, Callable | None):
            continue
        value = getattr(made, name)
        # A function with the default None may be missing.
        may_lack = name in wanted._field_defaults and value is None
        require(may_lack or callable(value), option, f"a function as {wanted.__name__}.{name}",
                in_words(value), PARTS)


def takes(function, num):
    """Whether a function can be called with ``num`` arguments by position, as far as it tells."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        # Some of C's functions do not tell.
        return True
    try:
        signature.bind(*range(num))
    except TypeError:
        return False
    return True


def with_functions(part, functions):
    """The part with the ``functions`` by name in place of its own, if it has one of the name."""
    present = {}
    for name, function in functions.items():
        if getattr(part, name) is not None:
            present[name] = function
    return part._replace(**present)


# ---------------------------------------------------------------- values


def check_tensor(value, shape, dtype, option, what):
    """``value`` must be a tensor of a shape and dtype; ``what`` names it."""
    shape = tuple(shape)
    is_tensor = isinstance(value, torch.Tensor)
    fits = is_tensor and value.shape == shape and value.dtype == dtype
    expected = f"{what} as a tensor {shape} {_dtype(dtype)}"
    require(fits, option, expected, in_words(value), PARTS)


def check_array(value, shape, kinds, option, what):
    """``value`` itself, if it is an array of a shape, its dtype one of ``kinds``."""
    shape = tuple(shape)
    is_array = isinstance(value, np.ndarray)
    fits = is_array and value.shape == shape and value.dtype.kind in kinds
    expected = f"{what} as an array {shape} of {KINDS[kinds]}"
    require(fits, option, expected, in_words(value), "use numpy.asarray")
    return value


def check_tuple(value, num, option, what):
    """``value`` must be a tuple of ``num``."""
    fits = isinstance(value, tuple) and len(value) == num
    require(fits, option, what, in_words(value), PARTS)


def check_number(value, option, what):
    """``value`` must be a number, or a tensor of one."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return
    # bool is an int, but no number here.
    is_number = isinstance(value, (int, float, np.number))
    fits = is_number and not isinstance(value, bool)
    require(fits, option, f"{what} as a number", in_words(value), "return it")


def check_arrays(value, option, what):
    """``value`` must be a dict of numpy arrays with plain bytes to send."""
    require(isinstance(value, dict), option, f"{what} as a dict of numpy arrays", in_words(value),
            "return {'name': array}")
    for name, array in value.items():
        are_numbers = isinstance(array, np.ndarray) and array.dtype.kind in "biuf"
        fits = are_numbers and isinstance(name, str)
        got = f"{in_words(array)} under {name!r}"
        require(fits, option, f"{what} as numpy arrays of numbers", got,
                "use tensor.numpy(), or numpy.asarray")


def check_state(value, option, function, only_tensors=False):
    """A state must be a dict of values for a checkpoint."""
    words = "tensors" if only_tensors else "tensors, arrays, numbers and texts"
    require(isinstance(value, dict), option,
            f"the state that {function} returns to be a dict of {words}", in_words(value),
            "return {} where nothing is remembered")
    for key, leaf in value.items():
        require(isinstance(key, str), option,
                f"texts as the keys of the state that {function} returns", repr(key),
                "use str(key)")
        if isinstance(leaf, dict) and not only_tensors:
            check_state(leaf, option, function)
            continue
        require(_can_be_held(leaf, only_tensors), option,
                f"{words} in the state that {function} returns",
                f"{in_words(leaf)} under {key!r}",
                "checkpoints hold nothing else: make a tensor of it")


def _can_be_held(leaf, only_tensors):
    if only_tensors:
        return isinstance(leaf, torch.Tensor)
    return leaf is None or isinstance(leaf, HELD)


# ---------------------------------------------------------------- inputs


def versions(inputs):
    """The torch version of each of ``{name: tensor}``; any write to it raises the version."""
    return {name: tensor._version for name, tensor in inputs.items()}


def check_unwritten(option, function, inputs, before):
    """The ``inputs``, ``{name: tensor}``, must still have their versions from ``before``."""
    for name, tensor in inputs.items():
        require(tensor._version == before[name], option,
                f"{function} to leave its input {name} as it is",
                f"a {name} that it has written to", f"work on {name}.clone()")
