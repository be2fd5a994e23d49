"""Strategies in which no weight travels: each client keeps a network, and sends knowledge of it."""

from fedmpi.core.parts import Field
from fedmpi.core.tensors import mode

# Arrays of any shape, a tensor a client.
ANYTHING = Field(on="any", fold="list")
# Samples in a forward pass.
AT_ONCE = 500


def every_tensor(layout):
    """The names of all tensors in the model's vector."""
    return [slot.name for slot in layout.slots]


def check_trained(network, sample, features, option):
    """ValueError if nothing before the ``features`` of a ``sample (1, ...)`` is trained.

    ``option`` is the strategy's option that names another module.
    """
    with mode(network, training=False):
        trained = features(sample).requires_grad
    if not trained:
        raise ValueError("nothing that is trained comes before its features: use a model of more "
                         f"layers, or name another module by {option}")


def notes_of(facts, untested, sent, alike):
    """Lines for the user about options without effect.

    ``untested`` says what is missing without clients' own test parts, ``sent`` names what travels
    as float32, ``alike`` says why no client weighs more than another.
    """
    if not facts.own_tests:
        yield f"{untested}; give --client-test 0.2, say"
    if facts.coded:
        yield f"{facts.named['codec']} has no effect: {sent} travel as float32"
    if not facts.even:
        yield f"{facts.named['weighting']} has no effect: {alike}"
