"""The parts that a strategy is usually played with, where the user names none."""

from fedmpi.catalog import CONTRIBUTIONS, STRATEGIES
from fedmpi.plugins.spec import make


def with_usual_parts(options):
    """The options with an optimiser, a pruner, a contribution and a weighting, for those who need no part itself."""
    strategy = make(STRATEGIES, options["strategy"])
    weigher = make(CONTRIBUTIONS, options["contribution"] or strategy.contribution)
    return with_named(options, strategy, weigher)


def with_named(options, strategy, weigher):
    """The options with the optimiser, pruner, contribution and weighting that the strategy is usually played with.

    ``weigher`` is the contribution that counts. One that the user names brings its own weighting.
    """
    weighting = options["weighting"]
    if not weighting and not options["contribution"]:
        weighting = strategy.weighting
    return options | {
        "optimiser": options["optimiser"] or strategy.optimiser,
        "pruner": options["pruner"] or strategy.pruner,
        "contribution": options["contribution"] or strategy.contribution,
        "weighting": weighting or weigher.weighting
    }
