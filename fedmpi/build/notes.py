"""Warnings about a run: options without effect, or with another effect than the user may expect."""

from fedmpi.build import held_out
from fedmpi.build.facts import parts_with_facts
from fedmpi.core.words import plural

SHOWN = 3        # names of weights in a warning


def warnings(setup):
    """Lines for the user: first of options, then each part's own, then of the model."""
    options, parts, data, network, *_ = setup
    yield from _without_effect(options, data)
    yield from held_out.remarks(options, data)
    for said, part, facts in parts_with_facts(options, parts, data, network.layout):
        for line in part.notes(facts):
            yield f"{said}: {line}"
    faults = zip(options["fault"], data.faults)
    for spec, faulty in faults:
        if not faulty.any():
            of_all = plural(len(faulty), "client")
            yield f"--fault {spec} hits none of the {of_all}: its share rounds to 0"
    yield from unused(network)


def unused(network):
    """A line about prunable weights outside all products of a forward pass: they count 0 FLOPs."""
    slots = zip(network.layout.weights, network.costs.macs_per_weight)
    names = [slot.name for slot, macs_per_weight in slots if not macs_per_weight]
    if not names:
        return
    shown = names[:SHOWN]
    weights = ", ".join(shown)
    if len(names) > SHOWN:
        num_others = len(names) - SHOWN
        weights += f" and {num_others} more"
    yield (f"{weights} of the model are in no matrix product or convolution of a forward pass: "
           "their FLOPs count as 0; a parameter with the attribute prunable = False is left dense")


def _without_effect(options, data):
    """Lines about options that change nothing in this run."""
    injected = (("noise", data.noise, "label"), ("features", data.features, "input"))
    for option, levels, changed in injected:
        spec = options[option]
        # A share or a level may round to nothing.
        if spec != "none" and not levels.any():
            yield f"--{option} {spec} has no effect: no client has a changed {changed}"
    until = options["until"]
    rounds = options["rounds"]
    if until >= rounds:
        yield f"--until {until} has no effect: the run ends after --rounds {rounds}"
    estimated = [options["contribution"]]
    for spec in options["observe"]:
        if spec in estimated:
            yield f"--observe {spec} is estimated already: it costs as much again, for nothing new"
        # A repeated --observe would cost as much again.
        estimated.append(spec)
