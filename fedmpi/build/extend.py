"""A run of another number of rounds than it was first asked for: as if that number had been asked
for at once.

Some parts look at how many rounds there will be: a share of weights that falls until the end, a
mask that stays after the last round, an evaluation that only the last round has. A run goes on from
a checkpoint before which all of them would have done the same in the longer run. Where there is
none, the run cannot be extended."""

import ast
import tokenize

from fedmpi import catalog
from fedmpi.plugins.entry import entry
from fedmpi.plugins.spec import split
from fedmpi.core.errors import UserError
from fedmpi.core.parts import Round
from fedmpi.server.loop import evaluates

# Kinds of parts that are given a schedule, of which a run has one.
ONE = ("strategy", "schedule", "pruner", "weighting")


def plans(options, parts):
    """``{option: planned}`` of all that looks at the number of rounds, ``planned(schedule)`` being
    what it makes of it. UserError for a part that looks at it and does not say."""
    found = {f"--evaluate-every {options['evaluate_every']}": evaluates(options["evaluate_every"])}
    if options["client_test"]:
        between = options["client_test_every"]
        found[f"--client-test-every {between}"] = evaluates(between)
    for option, kind, spec, part in _named_parts(options, parts):
        if part.planned is not None:
            found[f"--{option} {spec}"] = part.planned
        elif any(map(looks_at_rounds, _sources(catalog.KINDS[kind], spec))):
            raise UserError(f"--{option} {spec} looks at schedule.rounds and does not say what it makes of it, hence "
                            "the number of rounds must stay: give its part a "
                            "planned(schedule), see fedmpi/core/parts.py")
    return found


def _named_parts(options, parts):
    """``(option, kind, spec, part)`` of each part that is given a schedule."""
    for kind in ONE:
        yield kind, kind, options[kind], getattr(parts, kind)
    estimators = zip([options["contribution"], *options["observe"]], parts.contributions.values())
    for number, (spec, part) in enumerate(estimators):
        yield "observe" if number else "contribution", "contribution", spec, part
    for spec, part in zip(options["fault"], parts.faults):
        yield "fault", "fault", spec, part


def _sources(table, spec):
    """The source of each file that defines a part's factory."""
    name, _ = split(spec)
    for path in entry(table, name).sources:
        with tokenize.open(path) as file:
            yield file.read()


def looks_at_rounds(source):
    """Whether a module's source takes the ``rounds`` of anything, or takes a schedule apart."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr == "rounds":
            return True
        unpacks = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple)
        if unpacks and ast.unparse(node.value).endswith("schedule"):
            return True
    return False


def first_apart(planned, old, new, last):
    """The first of rounds 0 to ``last`` in which ``planned`` differs between runs of ``old`` and of
    ``new`` rounds; None where there is none."""
    for t in range(last + 1):
        if planned(Round(t, old)) != planned(Round(t, new)):
            return t
    return None


def common_round(found, old, new, saved):
    """The last round of the checkpoints ``saved`` up to which a run of ``old`` rounds is one of
    ``new`` rounds, by the ``plans`` found; 0 where nothing is saved. UserError where all of them
    come too late."""
    if not saved:
        return 0
    apart = {name: first_apart(planned, old, new, max(saved)) for name, planned in found.items()}
    apart = {name: t for name, t in apart.items() if t is not None}
    first = min(apart.values(), default=max(saved) + 1)
    before = [t for t in saved if t < first]
    if before:
        return max(before)
    name = min(apart, key=apart.get)
    where = f"round {apart[name]}" if apart[name] else "the beginning"
    raise UserError(f"{name} depends on the number of rounds: with {new} instead of {old} it would have done otherwise "
                    f"from {where} on, and no checkpoint is older; play a run of {new} rounds, by --like")
