"""A resumed run with another number of rounds ends like a new run of that number.

Some parts look at the number of rounds: a share of weights falls until the end, a mask stays after
the last round, the last round is always evaluated. Such a part says what it plans for each round.
The run goes on from a checkpoint until which all plans are the same for both numbers; without such
a checkpoint it cannot be extended.
"""

import ast
import tokenize

from fedmpi import catalog
from fedmpi.plugins.entry import entry
from fedmpi.plugins.spec import split
from fedmpi.core.errors import UserError
from fedmpi.core.parts import Round
from fedmpi.server.loop import evaluates

# Kinds of which a run has one part, and whose parts get the number of rounds.
ONE = ("strategy", "schedule", "pruner", "weighting")


def plans(options, parts):
    """``{option: planned}`` of all parts that look at the number of rounds.

    ``planned(now)`` is a part's plan for the round ``now``. UserError for a part that looks at the
    number of rounds, and has no ``planned``.
    """
    every = options["evaluate_every"]
    # The last round is always evaluated.
    planned = {f"--evaluate-every {every}": evaluates(every)}
    if options["client_test"]:
        between = options["client_test_every"]
        planned[f"--client-test-every {between}"] = evaluates(between)
    for option, kind, spec, part in _named_parts(options, parts):
        if part.planned is not None:
            planned[f"--{option} {spec}"] = part.planned
        elif any(map(looks_at_rounds, _sources(catalog.KINDS[kind], spec))):
            raise UserError(f"--{option} {spec} looks at the number of rounds and does not say "
                            "what it makes of it, hence the number must stay: give its part a "
                            "planned(now), see fedmpi/core/parts.py")
    return planned


def _named_parts(options, parts):
    """Yield ``(option, kind, spec, part)`` of each part that gets the number of rounds."""
    for kind in ONE:
        yield kind, kind, options[kind], getattr(parts, kind)
    weigher, *observing = parts.contributions.values()
    weigher_spec = options["contribution"]
    yield "contribution", "contribution", weigher_spec, weigher
    for spec, part in zip(options["observe"], observing):
        yield "observe", "contribution", spec, part
    for spec, part in zip(options["fault"], parts.faults):
        yield "fault", "fault", spec, part


def _sources(table, spec):
    """The source of each file that defines a part's factory."""
    name, _ = split(spec)
    for path in entry(table, name).sources:
        with tokenize.open(path) as file:
            yield file.read()


def looks_at_rounds(source):
    """Whether a module's source takes the ``rounds`` of anything, or takes a Round apart."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr == "rounds":
            return True
        if isinstance(node, ast.Assign) and _unpacks_round(node):
            return True
    return False


def _unpacks_round(node):
    """Whether an assignment is ``t, rounds = now``, or the like."""
    if not isinstance(node.targets[0], ast.Tuple):
        return False
    return ast.unparse(node.value).endswith(("now", "schedule"))


def first_apart(planned, old, new, last):
    """The first of rounds 0 to ``last`` with other plans in a run of ``old`` rounds than in one of
    ``new``, or None."""
    # Round 0 is the beginning: some parts plan for it, too.
    for t in range(last + 1):
        before, after = planned(Round(t, old)), planned(Round(t, new))
        if before != after:
            return t
    return None


def common_round(plans, old, new, saved):
    """The last round of the checkpoints ``saved`` until which runs of ``old`` and of ``new`` rounds
    are the same.

    ``plans`` come from the function ``plans``. 0 without checkpoints; UserError if all of them
    are too late.
    """
    if not saved:
        return 0
    last = max(saved)
    apart = {}
    for name, planned in plans.items():
        t = first_apart(planned, old, new, last)
        if t is not None:
            apart[name] = t
    # A checkpoint of round t holds the state after t, so t itself must be the same.
    first = min(apart.values(), default=last + 1)
    same = [t for t in saved if t < first]
    if same:
        return max(same)
    name = min(apart, key=apart.get)
    where = f"round {first}" if first else "the beginning"
    raise UserError(f"{name} depends on the number of rounds: with {new} instead of {old} it would "
                    f"have done otherwise from {where} on, and no checkpoint is older; play a run "
                    f"of {new} rounds, by --like")
