"""Coalitions of a cohort, evaluated on the server's validation samples."""

import numpy as np
import torch

from fedmpi.client import samples as shards
from fedmpi.compute.coalitions import coalition_models

CHUNK = 500      # validation samples that a coalition's model sees at once


def evaluated(parts, home, samples, cohort, many, job):
    """``(meta, arrays)``: minus the loss, and the headline, of each coalition's model: the more the better;
    ``many(models, x, labels)`` gives the sums of both."""
    bits = np.unpackbits(np.stack([np.frombuffer(bytes.fromhex(row), np.uint8) for row in job["coalitions"]]), axis=1)
    coalitions = torch.from_numpy(bits[:, :len(cohort.updates.n)].astype(bool))
    models = coalition_models(parts.strategy, cohort.state, cohort.x, cohort.updates, cohort.shares, coalitions)
    models = models.to(home.device)
    try:
        loss, headline = validated(samples, many, models)
        crowded = False
    except torch.cuda.OutOfMemoryError:
        crowded = True
    # Out here the attempt's tensors are gone.
    if crowded:
        torch.cuda.empty_cache()
        loss, headline = map(torch.cat, zip(*(validated(samples, many, model[None]) for model in models)))
    size = shards.size(samples, samples.N)
    worst = parts.objective.worst
    utility = -(loss / size).nan_to_num(worst, worst, worst).clamp(max=worst)
    headline = headline / size
    if not parts.objective.higher:
        headline = -headline
    headline = headline.nan_to_num(-worst, worst, -worst).clamp(-worst, worst)
    values = torch.stack([utility, headline], dim=1)
    return {"block": job["block"], "crowded": crowded}, {"values": values.numpy()}


def validated(samples, many, models):
    """``(loss (M,) float64, headline (M,))``, sums over the server's validation samples, of ``models (M, P)``."""
    loss = torch.zeros(len(models), dtype=torch.float64)
    headline = 0
    for start in range(0, shards.size(samples, samples.N), CHUNK):
        x, labels, _ = shards.raw(samples, samples.N, slice(start, start + CHUNK))
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
