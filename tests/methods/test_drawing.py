"""Codecs that draw by chance: the same draws on any rank, other ones for each client and round."""

import contracts
import numpy as np
import pytest
import torch

from fedmpi.catalog import CODECS
from fedmpi.core.errors import DivergedError
from fedmpi.core.parts import Codec
from fedmpi.methods.codecs.float32 import float32
from fedmpi.wire.codecs import drawing
from fedmpi.plugins.spec import make

seen = []
# Whether all values were finite, of each call.
values_seen = []


def rounded_by_chance(step: float = 0.01):
    """Values as whole multiples of a step, up or down by chance, so that the mean is kept."""

    def encode(values, coding):
        values_seen.append(bool(values.isfinite().all()))
        drawn = torch.from_numpy(coding.gen.random(len(values), np.float32))
        seen.append((coding.t, coding.client, drawn.tolist()))
        return {"multiples": (values / step + drawn).floor().to(torch.int32).numpy()}

    def decode(arrays, K):
        return torch.from_numpy(arrays["multiples"]).float() * step

    return Codec(encode, decode, lambda values: torch.full_like(values, 1.001 * step) + values.abs() * 1e-5, draws=True)


def exploding():
    """Updates come back too large; models travel as they are."""
    exact = float32()

    def decode(arrays, K):
        return exact.decode(arrays, K) * 1e9

    return exact._replace(decode=decode, bound=lambda values: values.abs() * 1e9, exact=False, down=exact)


def played():
    seen.clear()
    run, state = contracts.assembled(codec=f"{__name__}:rounded_by_chance", clients=3)
    states, _ = contracts.run_rounds(run, state, 2)
    return states[-1]["x"], [draw for draw in seen if len(draw[2]) > 1]


def test_what_is_drawn_follows_from_round_and_client():
    x, draws = played()
    again, twice = played()
    assert torch.equal(x, again) and draws == twice
    by_key = {(t, client): drawn for t, client, drawn in draws}
    assert {(1, -1), (2, -1), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)} <= by_key.keys()
    assert len({tuple(drawn) for drawn in by_key.values()}) == len(by_key)


def test_each_array_of_a_message_and_each_message_has_draws_of_its_own():
    """The same values in two arrays of one message, and in the messages of one client and round."""
    codec = make(CODECS, f"{__name__}:rounded_by_chance")
    message, other = drawing(codec, 7, 3, 0), drawing(codec, 7, 3, 0, message=1)
    values = torch.full((50,), 0.005)
    rows = [encode(values)["multiples"].tolist() for encode in (message.encode, message.encode, other.encode)]
    assert len(set(map(tuple, rows))) == 3
    again = drawing(codec, 7, 3, 0)
    assert [again.encode(values)["multiples"].tolist() for _ in range(2)] == rows[:2]


def test_a_client_that_diverged_has_its_zeros_encoded():
    """Codecs get finite values alone: the update is rejected anyway."""
    seen.clear()
    run, state = contracts.assembled(codec=f"{__name__}:rounded_by_chance", clients=3, lr=1e30)
    with pytest.raises(DivergedError, match="a smaller --lr may help; or take a --codec that loses less"):
        contracts.run_rounds(run, state, 1)
    assert {client for _, client, _ in seen} >= {0, 1, 2} and all(values_seen)


def test_an_update_that_only_its_codec_made_too_large_is_said_to_be_so():
    run, state = contracts.assembled(codec=f"{__name__}:exploding", clients=3)
    with pytest.raises(DivergedError, match="sound before it was encoded: take a --codec that loses less"):
        contracts.run_rounds(run, state, 1)
