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
    with_coding = takes(part.encode, 2)
    if part.draws:
        require(with_coding, option, "encode to take (values, coding), since the Codec draws",
                "another number of arguments",
                "take both, or return Codec(..., draws=False)")
    else:
        require(takes(part.encode, 1), option, "encode to take (values)",
                "encode(values, coding)" if with_coding else "another number of arguments",
                "return Codec(..., draws=True)" if with_coding else "take the values alone")


def _check_trial(part, option):
    """A few values there and back; an exact codec must return them.

    Values that are encoded again must make the same arrays."""
    values = torch.tensor(TRIAL)
    back = part.decode(_encoded(part, values), len(values))
    require(not part.exact or torch.equal(back, values), option,
            "decode to give back the very values, since the Codec is exact",
            f"{few(back)} for {few(values)}", "return Codec(..., exact=False)")
    between = torch.linspace(-1, 1, NUM_BETWEEN)
    once, again = _encoded(part, between), _encoded(part, between)
    alike = once.keys() == again.keys() and all(map(_same, once.values(), again.values()))
    way_out = "draw from coding.gen alone"
    if not part.draws:
        way_out = "return Codec(..., draws=True), and draw from the generator of encode's coding"
    require(alike, option, "encode to make the same arrays of the same values",
            "other ones at the second time", way_out)


def _encoded(part, values):
    """The arrays of the ``values``, with the chance of one fixed message."""
    coding = []
    if part.draws:
        coding = [Coding(stream(0, Purpose.ENCODE, 0, 0), 0, -1)]
    return part.encode(values.clone(), *coding)


def _same(one, other):
    """Whether two arrays have the same bytes."""
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()
