"""Checks of a law, and the texts of a broken one."""

import numpy as np
import torch


def hold(holds, broken):
    """AssertionError with the text ``broken`` unless the law is held."""
    if not holds:
        raise AssertionError(broken)


def hold_all(booleans, broken):
    """``hold`` for a tensor or array of truth values."""
    hold(bool(booleans.all()), broken)


def hold_equal(one, other, broken):
    """``hold`` for two tensors, or two arrays: they must agree in every bit."""
    if isinstance(one, torch.Tensor):
        hold(torch.equal(one, other), broken)
    else:
        hold(np.array_equal(one, other), broken)


def hold_type(tensor, shape, dtype, broken):
    """``hold`` for the shape and dtype of a tensor or array."""
    hold(tensor.shape == shape, broken)
    hold(tensor.dtype == dtype, broken)


def near(value, wanted, broken, rtol=1e-5, atol=1e-6):
    """AssertionError unless two tensors agree but for rounding."""

    def message(details):
        return f"{broken}: {details}"

    torch.testing.assert_close(value, wanted, rtol=rtol, atol=atol, msg=message)


def same(one, other):
    """Whether two states, dicts of tensors and numbers, agree in every bit."""
    if one.keys() != other.keys():
        return False
    for key in one:
        left = torch.as_tensor(one[key])
        right = torch.as_tensor(other[key])
        if not torch.equal(left, right):
            return False
    return True


def twice(answer):
    """``(answer(), answer())``: two answers for a comparison."""
    return answer(), answer()
