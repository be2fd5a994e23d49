"""Codecs that draw by chance: the same draws on any rank, other ones for each client and round."""

import contracts
import numpy as np
import torch

from fedmpi.core.parts import Codec

seen = []


def rounded_by_chance(step: float = 0.01):
    """Values as whole multiples of a step, up or down by chance, so that the mean is kept."""

    def encode(values, coding):
        drawn = torch.from_numpy(coding.gen.random(len(values), np.float32))
        seen.append((coding.t, coding.client, drawn.tolist()))
        return {"multiples": (values / step + drawn).floor().to(torch.int32).numpy()}

    def decode(arrays, K):
        return torch.from_numpy(arrays["multiples"]).float() * step

    return Codec(encode, decode, lambda values: torch.full_like(values, 1.001 * step) + values.abs() * 1e-5, draws=True)


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
