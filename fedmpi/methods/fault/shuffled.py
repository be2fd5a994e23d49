"""Shuffled text: clients whose tokens stand in a random order.

    round(rate m) places of a stretch of m tokens, at random, swap their tokens by a permutation

The frequencies of tokens stay, and nothing else of the language does. So this is the noise of a
language model's clients: their labels are wrong, being the next tokens. The recorded quality is
``1 - rate``. Own test parts, validation and test stay in order.
"""

import numpy as np

from fedmpi.core.parts import Fault
from fedmpi.methods.fault.training import drawn
from fedmpi.methods.noise.corrupt import fraction


def shuffled(share: float = 0.2, rate: float = 1.0):
    """The text of round(share * clients) random clients, a ``rate`` of its tokens permuted.

    Paper: none of its own: symmetric noise of labels, in the form that texts can have.
    Example: fedmpi train --task lm --dataset markov --model gpt:depth=1,width=16,heads=2
        --local-steps 5 --fault shuffled:share=0.5
    """
    fraction(rate=rate)

    def tokens(tokens, gen):
        count = round(rate * len(tokens))
        places = np.sort(gen.permutation(len(tokens))[:count])
        changed = tokens.copy()
        changed[places] = tokens[gen.permutation(places)]
        return changed

    return Fault(drawn(share), 1.0 - rate, tokens=tokens, refuses=_needs_text)


def _needs_text(facts):
    """``refuses``: samples that are no windows of a text."""
    if facts.touched and not facts.stream:
        yield ("it changes the order of tokens, and these samples are no windows of a text; take "
               "--dataset text or shakespeare, or another fault")
