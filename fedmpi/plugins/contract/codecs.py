"""The contract of codecs."""

import torch

from fedmpi.core.parts import Codec, Coding
from fedmpi.core.rng import Purpose, stream
from fedmpi.plugins.contract.require import (check_arrays, check_tensor, check_type, few, require,
                                             takes)

# 0, both signs, small and large.
TRIAL = (0.0, 1.0, -1.5, 3e-5, -2e4)
# So many values between the steps of any grid, for which chance decides if it has a part.
NUM_BETWEEN = 199


def codec(part, option):
    """The ``Codec``, its functions checked, also by a trial."""

    def encode(values, *coding):
        version = values._version
        arrays = part.encode(values, *coding)
        check_arrays(arrays, option, "what encode returns")
        require(values._version == version, option, "encode to leave its input as it is",
                "values that it has written to", "work on values.clone()")
        return arrays

    def decode(arrays, K):
        values = part.decode(arrays, K)
        check_tensor(values, (K,), torch.float32, option, "what decode returns")
        return values

    _check_arguments(part, option)
    # A second codec, for models on their way to clients.
    if part.down is not None:
        check_type(part.down, Codec, f"{option}: its codec down")
    checked = part._replace(encode=encode, decode=decode)
    _check_trial(checked, option)
    return checked


def _check_arguments(part, option):
    """``encode`` takes a ``Coding`` if, and only if, the codec says that it draws."""
    if part.draws:
        require(takes(part.encode, 2), option,
                "encode to take (values, coding), since the Codec draws",
                "another number of arguments", "take both, or return Codec(..., draws=False)")
        return
    got, way_out = "another number of arguments", "take the values alone"
    if takes(part.encode, 2):
        got, way_out = "encode(values, coding)", "return Codec(..., draws=True)"
    require(takes(part.encode, 1), option, "encode to take (values)", got, way_out)


def _check_trial(part, option):
    """A few values there and back; an exact codec must return them.

    Values that are encoded again must make the same arrays.
    """
    values = torch.tensor(TRIAL)
    back = part.decode(_encoded(part, values), len(values))
    require(not part.exact or torch.equal(back, values), option,
            "decode to give back the very values, since the Codec is exact",
            f"{few(back)} for {few(values)}", "return Codec(..., exact=False)")
    between = torch.linspace(-1, 1, NUM_BETWEEN)
    once = _encoded(part, between)
    again = _encoded(part, between)
    way_out = "draw from coding.gen alone"
    if not part.draws:
        way_out = "return Codec(..., draws=True), and draw from the generator of encode's coding"
    require(_same(once, again), option, "encode to make the same arrays of the same values",
            "other ones at the second time", way_out)


def _encoded(part, values):
    """The arrays of the ``values``, with the chance of one fixed message."""
    coding = []
    if part.draws:
        coding = [Coding(stream(0, Purpose.ENCODE, 0, 0), 0, -1)]
    return part.encode(values.clone(), *coding)


def _same(once, again):
    """Whether two dicts hold the same arrays, to the byte."""
    if once.keys() != again.keys():
        return False
    for name, array in once.items():
        other = again[name]
        if array.dtype != other.dtype or array.tobytes() != other.tobytes():
            return False
    return True
