"""Facts about a run for its parts: by these they refuse it, or warn of options without effect."""

import inspect

import numpy as np
import torch

from fedmpi.build.options import KIND_OF, PARTS
from fedmpi.build.server import lengths
from fedmpi.catalog import KINDS
from fedmpi.core.parts import Descent, Facts
from fedmpi.methods.datasets.dataset import whole_numbers
from fedmpi.methods.tasks import classification
from fedmpi.plugins.spec import parse

# Kinds of which a run has one part; the parts are asked in this order.
ONE = ("strategy", "adapters", "optimiser", "schedule", "pruner", "weighting",
       "codec", "timing", "sampler", "devices", "noise")


def parts_with_facts(options, parts, data, layout):
    """``[("--option spec", part, facts)]`` of every part that has rules, with the facts for it."""
    facts = of_run(options, parts, data, layout)
    rows = _singles(options, parts, facts)
    rows += _contributions(options, parts, facts)
    rows += _on_clients(options, parts, data, facts)
    return [_row(*row) for row in rows]


def _row(option, spec, part, facts):
    user_options = _user_options(option, spec)
    return f"--{option} {spec}", part, facts._replace(user_options=user_options)


def _singles(options, parts, facts):
    """``[(option, spec, part, facts)]`` of the kinds of which a run has one part."""
    return [(kind, options[kind], getattr(parts, kind), facts) for kind in ONE]


def of_run(options, parts, data, layout):
    """The ``Facts`` that all parts of the run share."""
    N = options["clients"]
    cohort = options["cohort"] or N
    buffer = parts.timing.buffer
    # With a buffer, so many answers make a round.
    merged = buffer or cohort
    opening = parts.weigher.opening
    of_clients = lengths(options, data)
    epochs, steps, _ = of_clients.max(axis=1).tolist()
    fewest_steps = of_clients[1].min()
    pruner = parts.pruner
    local = parts.strategy.local
    common_model = pruner.masks is None and pruner.units is None
    even = _even(parts.weighting, data.sizes)
    ids = whole_numbers(data.dataset)
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
        at_work=parts.timing.concurrency or cohort,
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
        linear=parts.strategy.linear,
        linear_steps=parts.optimiser.travelled is not None,
        optimiser_state=tuple(parts.optimiser.init(torch.zeros(1))),
        resumes=isinstance(local, Descent) and local.resumes,
        clipped=options["clip_norm"] > 0,
        same_steps=steps == fewest_steps,
        headline=parts.task.headline,
        # A plug-in may have it with checks around.
        usual_loss=inspect.unwrap(parts.task.loss) is classification.loss,
        trained_otherwise=any(fault.local is not None for fault in parts.faults),
        needs_previous=any(fault.needs_previous_model for fault in parts.faults),
        own_masks=pruner.moves or buffer > 0 or not common_model,
        pruned_apart=pruner.moves or not common_model,
        scored=not parts.weighting.fixed,
        estimators=_estimators(options, parts),
        fixed_masks=pruner.fixed,
        coded=not parts.codec.exact,
        own_tests=options["client_test"] > 0,
        even=even,
        shape=tuple(data.shape),
        ids=ids,
        stream=data.dataset.stream is not None)


def _named(options):
    """``{option: "--option value"}`` of the run's parts and its cohort."""
    named = {}
    for name in (*PARTS, "cohort"):
        if options[name]:
            words = name.replace("_", "-")
            named[name] = f"--{words} {options[name]}"
    return named


def _estimators(options, parts):
    """``--option spec`` of each estimator that needs single updates, or utilities."""
    named = [f"--contribution {options['contribution']}"]
    named += [f"--observe {spec}" for spec in options["observe"]]
    needy = []
    for name, part in zip(named, parts.contributions.values()):
        if part.updates or part.validated:
            needy.append(name)
    return tuple(needy)


def _even(weighting, sizes):
    """Whether all clients have the same weight in every round."""
    if not weighting.fixed:
        return False
    counts = sizes.astype(np.float64)
    # Fixed weights follow from the numbers of samples alone.
    samples = torch.from_numpy(counts)
    state = weighting.init(samples)
    weights = state["weights"]
    is_equal = weights == weights[0]
    return bool(is_equal.all())


def _user_options(option, spec):
    """Names of the part's options that the user gave."""
    kind = KIND_OF.get(option, option)
    table = KINDS[kind]
    _, options = parse(table, spec)
    return frozenset(options)


def _contributions(options, parts, facts):
    """Yield ``(option, spec, part, facts)`` of the estimators. Only the first one's scores count
    for weights."""
    # The weighing estimator always comes first.
    weigher, *observing = parts.contributions.values()
    scored = facts._replace(scored=not parts.weighting.fixed)
    observed = facts._replace(scored=False)
    yield "contribution", options["contribution"], weigher, scored
    others = zip(options["observe"], observing)
    for spec, part in others:
        yield "observe", spec, part, observed


def _on_clients(options, parts, data, facts):
    """Yield ``(option, spec, part, facts)`` of parts that change clients' data or training."""
    augmentations = zip(options["augment"], parts.augmentations)
    for spec, part in augmentations:
        yield "augment", spec, part, facts
    num_skewed = np.count_nonzero(data.features)
    skewed = int(num_skewed)
    of_features = facts._replace(touched=skewed)
    yield "features", options["features"], parts.features, of_features
    faults = zip(options["fault"], parts.faults, data.faults)
    for spec, part, clients in faults:
        num_faulty = clients.sum()
        hit = int(num_faulty)
        of_fault = facts._replace(touched=hit)
        yield "fault", spec, part, of_fault
