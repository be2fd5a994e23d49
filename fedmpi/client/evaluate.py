"""Coalitions of a cohort, evaluated on the server's validation samples."""

import numpy as np
import torch

from fedmpi.client import samples as shards
from fedmpi.compute.coalitions import coalition_models

CHUNK = 500      # validation samples that a coalition's model sees at once
WORST = 100.0    # nats: what a coalition's loss counts as where it is larger, or not a number


def evaluated(parts, home, samples, cohort, many, job):
    """``(meta, arrays)``: minus the loss, and the accuracy, of each coalition's model; ``many(models, x, labels)``
    gives sums of losses and of right answers."""
    bits = np.unpackbits(np.stack([np.frombuffer(bytes.fromhex(row), np.uint8) for row in job["coalitions"]]), axis=1)
    coalitions = torch.from_numpy(bits[:, :len(cohort.updates.n)].astype(bool))
    models = coalition_models(parts.strategy, cohort.state, cohort.x, cohort.updates, cohort.shares, coalitions)
    models = models.to(home.device)
    try:
        loss, correct = validated(samples, many, models)
        crowded = False
    except torch.cuda.OutOfMemoryError:
        crowded = True
    # Out here the attempt's tensors are gone.
    if crowded:
        torch.cuda.empty_cache()
        loss, correct = map(torch.cat, zip(*(validated(samples, many, model[None]) for model in models)))
    size = shards.size(samples, samples.N)
    utility = -(loss / size).nan_to_num(WORST, WORST, WORST).clamp(max=WORST)
    values = torch.stack([utility, correct / size], dim=1)
    return {"block": job["block"], "crowded": crowded}, {"values": values.numpy()}


def validated(samples, many, models):
    """``(loss (M,) float64, correct (M,) int64)``, sums over the server's validation samples, of ``models (M, P)``."""
    loss = torch.zeros(len(models), dtype=torch.float64)
    correct = torch.zeros(len(models), dtype=torch.int64)
    for start in range(0, shards.size(samples, samples.N), CHUNK):
        x, labels, _ = shards.raw(samples, samples.N, slice(start, start + CHUNK))
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
