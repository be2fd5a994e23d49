"""Models evaluated on the samples that the server holds: those of coalitions, and any others."""

import numpy as np
import torch

from fedmpi.client import samples as shards
from fedmpi.compute.coalitions import coalition_models

CHUNK = 500      # samples that a model sees at once
WORST = 100.0    # nats: what a coalition's loss counts as where it is larger, or not a number


def evaluated(parts, home, samples, cohort, many, job):
    """``(meta, arrays)``: minus the loss, and the accuracy, of each coalition's model; ``many(models, x, labels)``
    gives sums of losses and of right answers."""
    bits = np.unpackbits(np.stack([np.frombuffer(bytes.fromhex(row), np.uint8) for row in job["coalitions"]]), axis=1)
    coalitions = torch.from_numpy(bits[:, :len(cohort.updates.n)].astype(bool))
    models = coalition_models(parts.strategy, cohort.state, cohort.x, cohort.updates, cohort.shares, coalitions)
    models = models.to(home.device)
    size = shards.size(samples, shards.of_server(samples, "validation"))
    loss, correct, crowded = scored(samples, many, models, "validation", 0, size)
    utility = -(loss / size).nan_to_num(WORST, WORST, WORST).clamp(max=WORST)
    values = torch.stack([utility, correct / size], dim=1)
    return {"block": job["block"], "crowded": crowded}, {"values": values.numpy()}


def scored(samples, many, models, on, start, stop):
    """``(loss (M,) float64, correct (M,) int64, crowded)``: sums over the server's samples ``start`` to ``stop`` under
    the name ``on``, of ``models (M, P)``. Where a GPU's memory is too small for all of them it is ``crowded``, and they
    take turns."""
    try:
        return *_summed(samples, many, models, on, start, stop), False
    except torch.cuda.OutOfMemoryError:
        pass
    # Out of the handler, where the attempt's tensors are gone.
    torch.cuda.empty_cache()
    one_by_one = [_summed(samples, many, model[None], on, start, stop) for model in models]
    return *map(torch.cat, zip(*one_by_one)), True


def _summed(samples, many, models, on, start, stop):
    loss = torch.zeros(len(models), dtype=torch.float64)
    correct = torch.zeros(len(models), dtype=torch.int64)
    shard = shards.of_server(samples, on)
    for first in range(start, stop, CHUNK):
        x, labels, _ = shards.raw(samples, shard, slice(first, min(first + CHUNK, stop)))
        summed, right = many(models, x, labels)
        loss += summed.cpu()
        correct += right.cpu()
    return loss, correct


def mean_loss(home, samples, client, vector):
    """The mean loss of the model ``vector (P,)`` over a client's samples. The model is left at ``vector``."""
    x, labels = shards.of_client(samples, client)
    home.x.copy_(vector)
    home.model.eval()
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(labels), CHUNK):
            rows = slice(start, start + CHUNK)
            logits = home.model(x[rows])
            total += float(torch.nn.functional.cross_entropy(logits, labels[rows], reduction="sum"))
    return total / len(labels)
