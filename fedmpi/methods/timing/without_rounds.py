"""The limits of merging answers as they arrive: refusals and notes of a run without rounds."""


def refusals_of(concurrency):
    """``refuses`` of a way of merging that keeps ``concurrency`` clients at work, 0: the cohort."""

    def refuses(facts):
        yield from _of_numbers(facts, concurrency)
        yield from _of_rounds(facts)

    return refuses


def _of_numbers(facts, concurrency):
    """Reasons by the run's numbers."""
    if not facts.timed:
        yield "it merges as answers arrive, which needs a model of time: --devices drawn, say"
    # Clients at work and clients in the buffer differ, except the one that fills it.
    needed = facts.at_work + facts.cohort - 1
    if needed > facts.clients:
        yield (f"{facts.at_work} clients at work and {facts.cohort} answers a merge need --clients "
               f"{needed} at least, got {facts.clients}: nobody counts twice in a merge")
    # Both options mean the same number.
    if concurrency and facts.fixed_cohort:
        yield (f"concurrency={concurrency} says how many clients are at work, and so does "
               f"{facts.named['cohort']}; leave one of them out")


def _of_rounds(facts):
    """Reasons by other parts of the run, which expect a round."""
    if facts.candidates:
        yield f"{facts.named['sampler']} chooses from a cohort, and there is none"
    if facts.pruner_reports or not facts.common_model:
        yield (f"the clients of {facts.named['pruner']} report on rounds, which asynchronous "
               "clients do not share; take static, set, residual or dense")
    if facts.server_update:
        yield f"the server's own update, by {facts.named['strategy']}, belongs to a round"
    if facts.sends:
        yield (f"{facts.named['strategy']} sends more than the model, which would be of another "
               "round than the model of a client that started earlier")
    # Every client starts from another model.
    if facts.needs_previous:
        yield ("a stale free-rider answers by the model of the round before, and there is no "
               "common one")
    if facts.opening:
        yield f"{facts.named['contribution']} wants everybody in round 1, and there are no rounds"


def notes_of(facts):
    """``notes`` of such a way of merging."""
    # A single answer has the weight 1, and no score beside others.
    if facts.cohort == 1:
        yield (f"it merges single answers: {facts.named['weighting']} plays no part, and "
               "remembered scores, by which --sampler contribution draws, do not move")
