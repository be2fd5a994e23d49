"""What each part of a run may know of the run, to refuse it or to tell what comes to nothing."""

import numpy as np
import torch

from fedmpi.build.options import KIND_OF, PARTS
from fedmpi.build.server import lengths
from fedmpi.catalog import KINDS
from fedmpi.core.parts import Facts
from fedmpi.methods.datasets.dataset import whole_numbers
from fedmpi.plugins.spec import parse

# Kinds of which a run has one, in the order in which their parts are asked.
ONE = ("strategy", "optimiser", "schedule", "pruner", "weighting", "codec", "aggregation", "sampler",
       "devices", "noise")


def asked(options, parts, data, layout):
    """``[("--option spec", part, facts)]`` of every part that has rules, with what it may know."""
    facts = of_run(options, parts, data, layout)
    rows = [(kind, options[kind], getattr(parts, kind), facts) for kind in ONE]
    rows += _contributions(options, parts, facts)
    rows += _on_clients(options, parts, data, facts)
    return [_row(*row) for row in rows]


def _row(option, spec, part, facts):
    given = _given(option, spec)
    return f"--{option} {spec}", part, facts._replace(given=given)


def of_run(options, parts, data, layout):
    """The ``Facts`` that all parts of the run share."""
    N, buffer = options["clients"], parts.aggregation.buffer
    cohort, opening = options["cohort"] or N, parts.weigher.opening
    merged = buffer or cohort
    epochs, steps, _ = lengths(options, data).max(axis=1).tolist()
    pruner = parts.pruner
    common_model = pruner.masks is None and pruner.units is None
    return Facts(
        layout,
        named=_named(options),
        rounds=options["rounds"],
        epochs=epochs,
        steps=steps,
        clients=N,
        cohort=merged,
        largest=N if opening else merged,
        drawn=1 if buffer else cohort,
        at_work=parts.aggregation.concurrency or cohort,
        fixed_cohort=options["cohort"] > 0,
        everybody=cohort == N and not buffer,
        timed=parts.devices.timed,
        asynchronous=buffer > 0,
        candidates=parts.sampler.candidates > 0,
        opening=opening,
        common_model=common_model,
        pruner_reports=pruner.probe is not None,
        server_update=parts.strategy.before is not None,
        sends=bool(parts.strategy.sends),
        needs_previous=any(fault.stale for fault in parts.faults),
        own_masks=pruner.moves or buffer > 0 or not common_model,
        judged=_judged(options, parts),
        fixed_masks=pruner.fixed,
        coded=not parts.codec.exact,
        own_tests=options["client_test"] > 0,
        even=_even(parts.weighting, data.sizes),
        shape=tuple(data.shape),
        ids=whole_numbers(data.dataset))


def _named(options):
    """``{option: "--option value"}`` of what was chosen."""
    given = [name for name in (*PARTS, "cohort") if options[name]]
    return {name: f"--{name.replace('_', '-')} {options[name]}" for name in given}


def _judged(options, parts):
    """How the estimators were named that look at updates, or ask for utilities."""
    named = [f"--contribution {options['contribution']}"]
    named += [f"--observe {spec}" for spec in options["observe"]]
    estimators = parts.contributions.values()
    return tuple(name for name, part in zip(named, estimators) if part.updates or part.validated)


def _even(weighting, sizes):
    """Whether all clients weigh the same, whatever they do."""
    if not weighting.fixed:
        return False
    weights = weighting.init(torch.from_numpy(sizes.astype(np.float64)))["weights"]
    return bool((weights == weights[0]).all())


def _given(option, spec):
    """The names of the part's options that somebody gave."""
    table = KINDS[KIND_OF.get(option, option)]
    return frozenset(parse(table, spec)[1])


def _contributions(options, parts, facts):
    """The estimators; the scores of those that observe play no part in any weight."""
    weigher, *observing = parts.contributions.values()
    scored = facts._replace(scored=not parts.weighting.fixed)
    idle = facts._replace(scored=False)
    yield "contribution", options["contribution"], weigher, scored
    for spec, part in zip(options["observe"], observing):
        yield "observe", spec, part, idle


def _on_clients(options, parts, data, facts):
    """The parts that change single clients, each with how many."""
    for spec, part in zip(options["augment"], parts.augmentations):
        yield "augment", spec, part, facts
    skewed = np.count_nonzero(data.features)
    of_features = facts._replace(touched=int(skewed))
    yield "features", options["features"], parts.features, of_features
    faults = zip(options["fault"], parts.faults, data.faults)
    for spec, part, who in faults:
        of_fault = facts._replace(touched=int(who.sum()))
        yield "fault", spec, part, of_fault
