"""Language models: the next token at each place.

    nats           = mean over places of -log softmax(outputs)[target]
    token_accuracy = share of places where the largest output is the target's
    perplexity     = exp(nats), of the mean over all places of all samples
    bits_per_byte  = nats / log 2 / bytes of text for a token

Targets are (n, T) int64, outputs (n, T, V) logits, or ``fedmpi.core.logits.Logits`` for a large
vocabulary, whose cross-entropy is taken in chunks. A target of -100 does not count. A sample's
loss is the mean over its places, and the mean over samples follows: as windows are full, this is
the mean over all tokens.
"""

import math
from typing import Literal

import torch

from fedmpi.core.logits import Logits
from fedmpi.core.parts import Objective
from fedmpi.methods.tasks.chunked import IGNORED, of_places, weighted_loss
from fedmpi.methods.tasks.outputs import check_outputs, require_targets


def lm(headline: Literal["nats", "token_accuracy"] = "nats"):
    """The next token: its cross-entropy, with perplexity, bits per byte and token accuracy.

    ``headline`` is the metric by which models are compared and selected. Of nats less is better.
    Bits per byte do not depend on the tokenizer, so that they compare runs with different ones.

    Paper: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
    Example: fedmpi train --task lm --dataset markov:tokens=4000,context=16 --lr 0.01
        --model gpt:depth=1,width=16,heads=2
    """
    return Objective(
        loss,
        {"nats": nats, "token_accuracy": token_accuracy},
        headline,
        check,
        higher=headline == "token_accuracy",
        totals=totals,
        derived={"perplexity": perplexity, "bits_per_byte": bits_per_byte})


def loss(outputs, targets, reduction="mean"):
    """Cross-entropy in nats: a sample's is the mean over its places."""
    if reduction == "none":
        return nats(outputs, targets)
    total = weighted_loss(outputs, targets, _shares(targets))
    return total / len(targets) if reduction == "mean" else total


def _shares(targets):
    """(n, T) float32: each place's share in the mean of its sample, 0 where it does not count."""
    counts = targets != IGNORED
    return counts / counts.sum(dim=1, keepdim=True).clamp(min=1)


def nats(outputs, targets):
    """(n,) float32: the mean loss of each sample."""
    losses, _ = of_places(outputs, targets)
    return (losses * _shares(targets)).sum(dim=1)


def token_accuracy(outputs, targets):
    """(n,) float32: the share of right tokens of each sample."""
    _, right = of_places(outputs, targets)
    return (right * _shares(targets)).sum(dim=1)


def totals(outputs, targets):
    """``(loss () float64, {metric: sum})``, summed over the samples, on outputs' device."""
    losses, right = of_places(outputs, targets)
    shares = _shares(targets)
    of_samples = (losses * shares).sum(dim=1)
    accuracies = (right * shares).sum(dim=1)
    summed_loss = of_samples.sum(dtype=torch.float64)
    num_right = accuracies.sum(dtype=torch.float64)
    return summed_loss, {"nats": summed_loss, "token_accuracy": num_right}


def perplexity(mean_loss, token_bytes):
    """exp of the mean loss; infinity beyond a float."""
    return math.exp(mean_loss) if mean_loss < 700 else math.inf


def bits_per_byte(mean_loss, token_bytes):
    """The mean loss of a byte of text, in bits."""
    return mean_loss / math.log(2) / token_bytes


def check(outputs, targets, classes, option):
    """UserError unless targets are tokens and there are logits at each place."""
    is_whole = not targets.dtype.is_floating_point and targets.dtype != torch.uint8
    fits = is_whole and targets.ndim == 2 and not classes
    way_out = ("it is made for a data set of tokens, such as text, shakespeare or markov; take "
               "another task for these data")
    require_targets(fits, option, "lm", "tokens (n, T)", targets, way_out)
    if isinstance(outputs, Logits):
        outputs = outputs.whole()
    n, window = targets.shape
    size = outputs.shape[-1] if getattr(outputs, "ndim", 0) == 3 else 0
    # The number of tokens is the factory's second argument; targets show only the largest.
    vocab = max(size, int(targets.max()) + 1)
    way_out = ("the factory is given the number of tokens as its second argument, and each of the "
               f"{window} places of a sample needs a logit for each")
    check_outputs(outputs, (n, window, vocab), "logits", option, way_out)
