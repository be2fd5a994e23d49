"""The contract of codecs."""

import torch

from fedmpi.core.parts import Codec, Coding
from fedmpi.core.rng import Purpose, stream
from fedmpi.plugins.contract.require import check_arrays, check_tensor, check_type, few, require

# 0, both signs, small and large.
TRIAL = (0.0, 1.0, -1.5, 3e-5, -2e4)


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

    def sent(arrays, K):
        positions = part.sent(arrays, K)
        check_tensor(positions, (K,), torch.bool, option, "what sent returns")
        return positions

    # A second codec, for models on their way to clients.
    if part.down is not None:
        check_type(part.down, Codec, f"{option}: its codec down")
    checked = part._replace(encode=encode, decode=decode)
    if part.sent is not None:
        checked = checked._replace(sent=sent)
    _check_trial(checked, option)
    return checked


def _check_trial(part, option):
    """A few values there and back; an exact codec must return them."""
    values = torch.tensor(TRIAL)
    coding = []
    if part.draws:
        coding = [Coding(stream(0, Purpose.ENCODE, 0, 0), 0, -1)]
    arrays = part.encode(values.clone(), *coding)
    back = part.decode(arrays, len(values))
    require(not part.exact or torch.equal(back, values), option,
            "decode to give back the very values, since the Codec is exact",
            f"{few(back)} for {few(values)}", "return Codec(..., exact=False)")
