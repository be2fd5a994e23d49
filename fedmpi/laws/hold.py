"""How a law that is broken is told."""

import torch


def hold(held, broken):
    """AssertionError with the text ``broken`` unless the law is held."""
    if not held:
        raise AssertionError(broken)


def near(found, wanted, broken, rtol=1e-5, atol=1e-6):
    """AssertionError unless two tensors agree but for rounding."""
    torch.testing.assert_close(found, wanted, rtol=rtol, atol=atol,
                               msg=lambda details: f"{broken}: {details}")


def same(one, other):
    """Whether two states, dicts of tensors and numbers, agree in every bit."""
    if one.keys() != other.keys():
        return False
    return all(torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key])) for key in one)
