"""Text from a trained language model: token after token, each drawn by the model's own odds.

    p = softmax(logits / temperature) over the top_k largest logits;    next token ~ p

The model sees the newest tokens, as many as its window has. At temperature 0 the likeliest token
follows. A seed makes the same text again on the same machine.
"""

from typing import Callable, NamedTuple

import numpy as np
import torch

from fedmpi.build.parts import network_of
from fedmpi.core.errors import UserError
from fedmpi.core.logits import Logits
from fedmpi.core.rng import Purpose, stream
from fedmpi.methods.datasets.vocabulary import Vocabulary, vocabulary
from fedmpi.plugins.spec import split


class Writer(NamedTuple):
    """A language model that is ready to go on with a text."""

    # (ids (T,) int64) -> logits (V,) float64 of the token that follows.
    logits: Callable
    vocabulary: Vocabulary
    window: int


def writer(model, place):
    """The ``Writer`` of a ``TrainedModel`` from ``place``; UserError if it is no language model."""
    options, inputs = model.about["options"], model.about["inputs"]
    # Early files know classification only.
    task, _ = split(options.get("task", "classification"))
    if task != "lm":
        raise UserError(f"{place} is a run of --task {task}, whose model makes no text; name a run "
                        "of --task lm")
    [window] = inputs["shape"]
    # The model's state has adapters merged.
    factory = network_of(options | {"adapters": "none"})
    network = factory(inputs["shape"], inputs["outputs"])
    network.load_state_dict(model.state)
    network.eval()

    def logits(ids):
        with torch.no_grad():
            outputs = network(ids[None])
        if isinstance(outputs, Logits):
            last = outputs.features[:, -1:]
            outputs = outputs._replace(features=last).whole()
        return outputs[0, -1].double()

    return Writer(logits, vocabulary(inputs["names"], inputs["outputs"]), window)


def generated(writer, ids, count, temperature, top_k, seed):
    """An iterator of ``count`` token numbers that follow the list ``ids``, at least one."""
    gen = stream(seed, Purpose.GENERATE)
    ids = list(ids)
    for _ in range(count):
        newest = torch.tensor(ids[-writer.window:])
        number = drawn(writer.logits(newest), temperature, top_k, gen)
        ids.append(number)
        yield number


def drawn(logits, temperature, top_k, gen):
    """A token by its ``logits (V,)`` float64; ``top_k`` 0 takes all tokens.

    Of equal logits those of smaller numbers are among the largest.
    """
    # Stable, hence the same order everywhere.
    largest, ids = logits.sort(descending=True, stable=True)
    if temperature == 0:
        return int(ids[0])
    if top_k:
        largest, ids = largest[:top_k], ids[:top_k]
    odds = torch.softmax(largest / temperature, dim=0)
    sums = odds.cumsum(dim=0).numpy()
    # The last sum may lie an ulp below 1.
    place = np.searchsorted(sums, gen.random() * sums[-1], side="right")
    return int(ids[min(int(place), len(ids) - 1)])
