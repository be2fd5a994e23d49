"""Laws of codecs."""

import numpy as np
import torch

from fedmpi import catalog
from fedmpi.core.parts import Coding
from fedmpi.laws.hold import hold
from fedmpi.plugins.spec import make


def codec(spec):
    """A round trip stays within the declared bound, keeps length and dtype, writes nothing, and
    repeats itself."""
    part = make(catalog.CODECS, spec)
    for values in value_samples():
        _check_round_trip(part, values)


def _check_round_trip(part, values):
    before = values.clone()
    arrays = encoded(part, values)
    hold(all(isinstance(array, np.ndarray) for array in arrays.values()), "encode gives no numpy arrays")
    back = part.decode(arrays, len(values))
    bound = part.bound(values)
    hold(back.dtype == torch.float32, f"decode gives {back.dtype}, not float32")
    hold(back.shape == values.shape == bound.shape, f"{len(values)} values became {len(back)}, "
         f"with {len(bound)} bounds")
    inside = (back.double() - values.double()).abs() <= bound.double()
    wrong = torch.nonzero(~inside).flatten()[:3]
    hold(not len(wrong), f"{values[wrong]} became {back[wrong]}, beyond the bound {bound[wrong]}")
    hold(torch.equal(values, before), "encode wrote to its values")
    again = encoded(part, values)
    equal = all(np.array_equal(again[name], array) for name, array in arrays.items())
    hold(equal, "the same values were encoded in two ways")
    zeros = torch.zeros(len(values))
    hold(torch.equal(part.decode(encoded(part, zeros), len(zeros)), zeros), "zeros did not stay zeros")


def encoded(part, values):
    """What the codec makes of values; one that draws gets the generator of the same client and
    round."""
    if not part.draws:
        return part.encode(values)
    return part.encode(values, Coding(np.random.default_rng(0), 1, 0))


def value_samples():
    """float32 vectors: none, one, odd, more than a block; zeros, denormals, the largest, both
    signs, mixed scales."""
    gen = torch.Generator().manual_seed(1)
    largest = torch.finfo(torch.float32).max
    for size in (0, 1, 7, 255, 256, 257, 1001):
        normal = torch.randn(size, generator=gen)
        yield from (normal, normal * 1e-3, normal * 1e4, normal.clamp(min=0))
        yield normal * 10.0 ** torch.randint(-30, 30, (size,), generator=gen)
        # Denormal values, or denormal scales.
        yield from (normal * scale for scale in (1e-36, 1e-38, 1e-41))
        yield torch.full((size,), largest) * normal.sign()
