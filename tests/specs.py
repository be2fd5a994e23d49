"""Random specs of catalogue entries, for laws that hold whatever the options."""

from hypothesis import strategies as st

from fedmpi.plugins.entry import entry
from fedmpi.plugins.spec import parse


def specs(table, name, options):
    """A strategy of ``name:option=value,...``: any of the entry's options that ``options`` has a strategy for."""
    known = entry(table, name).signature.parameters
    chosen = {key: values for key, values in options.items() if key in known}
    return st.fixed_dictionaries({}, optional=chosen).map(
        lambda given: name + ":" * bool(given) + ",".join(f"{key}={value}" for key, value in given.items()))


def options_of(table, spec):
    """All options of a spec, those not named at their defaults."""
    known = entry(table, spec.partition(":")[0]).signature.parameters.values()
    return {p.name: p.default for p in known} | parse(table, spec)[1]
