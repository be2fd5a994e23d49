"""Models evaluated on the server's samples: the models of coalitions, and others."""

import numpy as np
import torch

from fedmpi.client import samples as shards
from fedmpi.compute.coalitions import coalition_models

# Samples in one pass of a model, and tokens. Another number would give other bits.
CHUNK = 500
TOKENS = 1 << 14


def evaluated(parts, home, samples, cohort, many, job):
    """``(meta, arrays)``: the two utilities of each coalition of a ``job``.

    ``many(models, x, labels)`` gives sums of losses and headlines over samples.
    """
    C = len(cohort.updates.n)
    coalitions = _coalitions(job, C)
    models = coalition_models(
        parts.strategy,
        cohort.state,
        cohort.x,
        cohort.updates,
        cohort.shares,
        coalitions)
    models = models.to(home.device)
    shard = shards.of_server(samples, "validation")
    size = shards.size(samples, shard)
    loss, headline, crowded = scored(samples, many, models, "validation", 0, size)
    loss = loss / size
    headline = headline / size
    both = utilities(parts.objective, loss, headline)
    values = torch.stack(both, dim=1)
    meta = {"block": job["block"], "crowded": crowded}
    return meta, {"values": values.numpy()}


def _coalitions(job, C):
    """(M, C) bool: the coalitions of a job, which travel as hexadecimal digits of packed bits."""
    packed = []
    for digits in job["coalitions"]:
        row = bytes.fromhex(digits)
        row = np.frombuffer(row, np.uint8)
        packed.append(row)
    packed = np.stack(packed)
    bits = np.unpackbits(packed, axis=1)
    # The last byte may have spare bits.
    coalitions = bits[:, :C].astype(bool)
    return torch.from_numpy(coalitions)


def utilities(objective, loss, headline):
    """``(of the loss, of the headline)``, both (M,), the more the better.

    ``loss`` and ``headline``, (M,), are means over samples. Values further from good than the
    objective's ``worst`` count as that, and so does NaN.
    """
    worst = objective.worst
    loss = loss.nan_to_num(worst, worst, worst)
    loss = loss.clamp(max=worst)
    if not objective.higher:
        headline = -headline
    headline = headline.nan_to_num(-worst, worst, -worst)
    headline = headline.clamp(-worst, worst)
    return -loss, headline


def scored(samples, many, models, on, start, stop):
    """``(loss (M,) float64, headline (M,), crowded)`` of ``models (M, P)``: sums over samples.

    The samples are ``start`` to ``stop`` of the server's samples ``on``. If a GPU's memory is too
    small for all models at once, they take turns: then ``crowded`` is true.
    """
    try:
        loss, headline = _summed(samples, many, models, on, start, stop)
        return loss, headline, False
    except torch.cuda.OutOfMemoryError:
        pass
    # Outside the handler, as the attempt's tensors live on inside.
    torch.cuda.empty_cache()
    losses, headlines = [], []
    for model in models:
        loss, headline = _summed(samples, many, model[None], on, start, stop)
        losses.append(loss)
        headlines.append(headline)
    return torch.cat(losses), torch.cat(headlines), True


def _summed(samples, many, models, on, start, stop):
    """``(loss (M,) float64, headline (M,))`` of ``models (M, P)``, chunk by chunk."""
    loss = torch.zeros(len(models), dtype=torch.float64)
    headline = 0
    shard = shards.of_server(samples, on)
    size = _at_once(samples)
    for first in range(start, stop, size):
        end = min(first + size, stop)
        rows = slice(first, end)
        x, labels, _ = shards.raw(samples, shard, rows)
        losses, headlines = many(models, x, labels)
        loss += losses.cpu()
        headline = headline + headlines.cpu()
    return loss, headline


def _at_once(samples):
    """The number of samples in one pass of a model: fewer of long windows."""
    if not samples.window:
        return CHUNK
    return max(1, min(CHUNK, TOKENS // samples.window))


def mean_loss(objective, home, samples, client, vector):
    """The mean loss of the model ``vector (P,)`` over a client's samples.

    The resident model is left at ``vector``.
    """
    x, labels = shards.of_client(samples, client)
    home.x.copy_(vector)
    home.model.eval()
    total = 0.0
    with torch.no_grad():
        size = _at_once(samples)
        for start in range(0, len(labels), size):
            rows = slice(start, start + size)
            outputs = home.model(x[rows])
            loss = objective.loss(outputs, labels[rows], reduction="sum")
            total += float(loss)
    return total / len(labels)
