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
        hold(isinstance(array, np.ndarray), "encode gives no numpy arrays")
        hold_equal(again[name], array, "the same values were encoded in two ways")
    back = part.decode(arrays, len(values))
    hold_equal(values, before, "encode wrote to its values")
    hold(back.dtype == torch.float32, f"decode gives {back.dtype}, not float32")
    _check_bound(values, back, part.bound(values))


def _check_bound(values, back, bound):
    """The values that came back are as many as before, each within its bound."""
    counts = f"{len(values)} values became {len(back)}, with {len(bound)} bounds"
    hold(back.shape == values.shape, counts)
    hold(bound.shape == values.shape, counts)
    # In double precision: the difference of two floats may round to the bound.
    difference = back.double() - values.double()
    is_beyond = ~(difference.abs() <= bound.double())
    # A few of them are enough for the message.
    wrong = torch.nonzero(is_beyond).flatten()[:3]
    hold(not len(wrong), f"{values[wrong]} became {back[wrong]}, beyond the bound {bound[wrong]}")


def _check_zeros(part, size):
    zeros = torch.zeros(size)
    back = part.decode(encoded(part, zeros), size)
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
