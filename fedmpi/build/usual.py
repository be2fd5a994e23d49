"""The parts that a strategy is usually played with."""

from fedmpi import catalog


def with_usual_parts(options):
    """The options with the optimiser, pruner, contribution and weighting that the strategy is usually played with,
    where none is named; a contribution that the user names brings its own weighting."""
    strategy = catalog.make(catalog.STRATEGIES, options["strategy"])
    contribution = options["contribution"] or strategy.contribution
    usual = "" if options["contribution"] else strategy.weighting
    return options | {"optimiser": options["optimiser"] or strategy.optimiser,
                      "pruner": options["pruner"] or strategy.pruner, "contribution": contribution,
                      "weighting": options["weighting"] or usual
                      or catalog.make(catalog.CONTRIBUTIONS, contribution).weighting}
