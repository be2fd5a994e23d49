"""Models evaluated on the samples that the server holds: those of coalitions, and any others."""

import numpy as np
import torch

from fedmpi.client import samples as shards
from fedmpi.compute.coalitions import coalition_models

CHUNK = 500      # samples that a model sees at once


def evaluated(parts, home, samples, cohort, many, job):
    """``(meta, arrays)``: minus the loss, and the headline, of each coalition's model: the more the better;
    ``many(models, x, labels)`` gives the sums of both."""
    bits = np.unpackbits(np.stack([np.frombuffer(bytes.fromhex(row), np.uint8) for row in job["coalitions"]]), axis=1)
    coalitions = torch.from_numpy(bits[:, :len(cohort.updates.n)].astype(bool))
    models = coalition_models(parts.strategy, cohort.state, cohort.x, cohort.updates, cohort.shares, coalitions)
    models = models.to(home.device)
    size = shards.size(samples, shards.of_server(samples, "validation"))
    loss, headline, crowded = scored(samples, many, models, "validation", 0, size)
    values = torch.stack(utilities(parts.objective, loss / size, headline / size), dim=1)
    return {"block": job["block"], "crowded": crowded}, {"values": values.numpy()}


def utilities(objective, loss, headline):
    """``(of the loss, of the headline)``, both (M,), the more the better: mean losses and headlines of models, as
    far from good as the objective's ``worst`` where they are further, or no number."""
    worst = objective.worst
    of_loss = -loss.nan_to_num(worst, worst, worst).clamp(max=worst)
    if not objective.higher:
        headline = -headline
    return of_loss, headline.nan_to_num(-worst, worst, -worst).clamp(-worst, worst)


def scored(samples, many, models, on, start, stop):
    """``(loss (M,) float64, headline (M,), crowded)``: sums over the server's samples ``start`` to ``stop`` under
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
    headline = 0
    shard = shards.of_server(samples, on)
    for first in range(start, stop, CHUNK):
        x, labels, _ = shards.raw(samples, shard, slice(first, min(first + CHUNK, stop)))
        summed, found = many(models, x, labels)
        loss += summed.cpu()
        headline = headline + found.cpu()
    return loss, headline


def mean_loss(objective, home, samples, client, vector):
    """The mean loss, by the ``objective``, of the model ``vector (P,)`` over a client's samples. The model is left at
    ``vector``."""
    x, labels = shards.of_client(samples, client)
    home.x.copy_(vector)
    home.model.eval()
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(labels), CHUNK):
            rows = slice(start, start + CHUNK)
            total += float(objective.loss(home.model(x[rows]), labels[rows], reduction="sum"))
    return total / len(labels)
