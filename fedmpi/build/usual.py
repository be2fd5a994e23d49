"""A strategy's usual parts, for kinds of which the user names none."""

from fedmpi.catalog import CONTRIBUTIONS, STRATEGIES
from fedmpi.plugins.spec import make


def with_usual_parts(options):
    """The options with an optimiser, a pruner, a contribution and a weighting, by specs alone."""
    strategy = make(STRATEGIES, options["strategy"])
    weigher = make(CONTRIBUTIONS, options["contribution"] or strategy.contribution)
    return with_named(options, strategy, weigher)


def with_named(options, strategy, weigher):
    """The options with the strategy's usual optimiser, pruner, contribution and weighting.

    ``weigher`` is the run's estimator of contributions. If the user named it, its own weighting is
    the usual one.
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
