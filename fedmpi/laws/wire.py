"""Laws of codecs."""

import numpy as np
import torch

from fedmpi import catalog
from fedmpi.core.parts import Coding
from fedmpi.laws.hold import hold, hold_equal, twice
from fedmpi.plugins.spec import make

SIZES = (0, 1, 7, 255, 256, 257, 1001)
LARGEST = torch.finfo(torch.float32).max


def codec(spec):
    """A round trip stays within the declared bound, keeps length and dtype, and repeats itself.

    Values are only read.
    """
    part = make(catalog.CODECS, spec)
    for values in value_samples():
        _check_round_trip(part, values)
        _check_zeros(part, len(values))


def _check_round_trip(part, values):
    before = values.clone()
    arrays, again = twice(lambda: encoded(part, values))
    for name, array in arrays.items():
        is_array = isinstance(array, np.ndarray)
        hold(is_array, "encode gives no numpy arrays")
        hold_equal(again[name], array, "the same values were encoded in two ways")
    back = part.decode(arrays, len(values))
    hold_equal(values, before, "encode wrote to its values")
    dtype = back.dtype
    hold(dtype == torch.float32, f"decode gives {dtype}, not float32")
    # The bound may depend on the values: a share of the largest, for instance.
    bound = part.bound(values)
    _check_bound(values, back, bound)


def _check_bound(values, back, bound):
    """The values that came back are as many as before, each within its bound."""
    shape = values.shape
    counts = f"{len(values)} values became {len(back)}, with {len(bound)} bounds"
    hold(back.shape == shape, counts)
    hold(bound.shape == shape, counts)
    # In double precision: the difference of two floats may round to the bound.
    difference = back.double() - values.double()
    is_within = difference.abs() <= bound.double()
    # Not "beyond": a NaN is neither within nor beyond.
    is_wrong = ~is_within
    # A few of them are enough for the message.
    wrong = torch.nonzero(is_wrong).flatten()[:3]
    sent = values[wrong]
    came = back[wrong]
    limit = bound[wrong]
    hold(not len(wrong), f"{sent} became {came}, beyond the bound {limit}")


def _check_zeros(part, size):
    # A scale of 0 must not be divided by.
    zeros = torch.zeros(size)
    arrays = encoded(part, zeros)
    back = part.decode(arrays, size)
    hold_equal(back, zeros, "zeros did not stay zeros")


def encoded(part, values):
    """The codec's arrays of values; one that draws gets the generator of one client and round."""
    if not part.draws:
        return part.encode(values)
    coding = Coding(np.random.default_rng(0), 1, 0)
    return part.encode(values, coding)


def value_samples():
    """float32 vectors of all sizes and scales.

    None, one, odd, more than a block; zeros, denormals, the largest, both signs, mixed scales.
    """
    gen = torch.Generator().manual_seed(1)
    for size in SIZES:
        normal = torch.randn(size, generator=gen)
        yield normal
        yield normal * 1e-3
        yield normal * 1e4
        yield normal.clamp(min=0)
        exponents = torch.randint(-30, 30, (size,), generator=gen)
        yield normal * 10.0 ** exponents
        # Denormal values, or denormal scales.
        for scale in (1e-36, 1e-38, 1e-41):
            yield normal * scale
        yield torch.full((size,), LARGEST) * normal.sign()
