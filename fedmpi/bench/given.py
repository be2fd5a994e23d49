"""A model of any size whose gradient is given: no forward pass, no backward pass.

Its tensors are GPT-2's, so that messages, optimisers, sums, checkpoints and masks have as much to do
as with a real one. ``--model fedmpi.bench.given:given:weights=124000000`` plays it in any run.
"""

import torch

from fedmpi.methods.models.gpt2 import Gpt2

# Tokens of context, and weights of a head of attention.
CONTEXT, HEAD = 1024, 64
# Depth, width and context of models that are smaller than a block of one head.
SMALL = 1, 16, 16
# GPT-2's share of weights outside of blocks, at 124 million.
OUTSIDE = 0.31
# Weights of a block by the square of its width: four of attention, eight of the MLP.
SQUARES = 12
# The largest value of a gradient.
LARGEST = 0.01


def given(shape, classes, weights: float = 124e6):
    """A network with GPT-2's tensors, about ``weights`` in all; its logits are 0.

    The loss does not look at the gradient, which depends on the samples' mean, tensor and row.

    Example: fedmpi train --model fedmpi.bench.given:given:weights=100000
    """
    return Given(classes, *sizes(weights))


def sizes(weights):
    """``(depth, width, context, vocab)`` of a GPT-2 of about so many weights.

    Depth grows with width, as in the smallest GPT-2; the table takes the rest.

    >>> sizes(124e6)
    (12, 768, 1024, 49842)
    """
    if not weights >= 1e4:
        raise ValueError(f"weights must be at least 10000, got {weights:g}")
    in_blocks = (1 - OUTSIDE) * weights
    # Of depth = width / HEAD blocks.
    heads = (in_blocks / (SQUARES * HEAD ** 2)) ** (1 / 3)
    depth = max(1, round(heads))
    width, context = HEAD * depth, CONTEXT
    if weights < SQUARES * HEAD ** 2 + HEAD * CONTEXT:
        depth, width, context = SMALL
    rest = weights - SQUARES * depth * width ** 2 - context * width
    vocab = max(1, round(rest / width))
    return depth, width, context, vocab


class Given(Gpt2):
    """Samples (n, ...) to logits (n, classes) of 0."""

    def __init__(self, classes, depth, width, context, vocab):
        super().__init__(
            context, vocab, depth, width, heads=1, dropout=0.0, recompute=False)
        self.classes = classes

    def forward(self, samples):
        signal = float(samples.float().mean())
        nothing = Gradient.apply(signal, *self.parameters())
        return nothing.expand(len(samples), self.classes)


class Gradient(torch.autograd.Function):
    """0, with a gradient of its own for each of the weights, whatever is done with it."""

    @staticmethod
    def forward(ctx, signal, *weights):
        """(): the number 0; ``signal`` tells batches apart."""
        ctx.signal = signal
        ctx.shapes = [weight.shape for weight in weights]
        return weights[0].new_zeros(())

    @staticmethod
    def backward(ctx, _):
        """The gradients of all weights: one value a row, told once."""
        gradients = []
        for number, shape in enumerate(ctx.shapes):
            rows = torch.arange(shape[0], dtype=torch.float32)
            of_rows = torch.cos(rows + number + ctx.signal).mul_(LARGEST)
            column = of_rows.view(-1, *[1] * (len(shape) - 1))
            gradients.append(column.expand(shape))
        return None, *gradients
