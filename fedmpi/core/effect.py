"""Options without effect: refused where another choice within the same part leaves them none.

    @needs(cap="by=class", sigma="by=client")
    def dirichlet(by: str = "class", cap: bool = True, sigma: float = 0.0):

Only what somebody gives as a keyword is looked at: defaults may stand beside any choice. A number that is 0 or 1 as the
end of a sweep is no such choice. What depends on the rest of the run a part tells itself: see ``notes`` in
``fedmpi.core.parts``.
"""

import functools
import inspect


def needs(**conditions):
    """A decorator of factories: an option that is given needs its condition ``other=value`` to hold, else ValueError.
    ``other!=value`` and a tuple of conditions are possible."""

    def decorated(factory):
        signature = inspect.signature(factory)

        @functools.wraps(factory)
        def checked(*arguments, **given):
            # first, since a value that is no value at all is the greater mistake
            part = factory(*arguments, **given)
            bound = signature.bind(*arguments, **given)
            bound.apply_defaults()
            for option in filter(conditions.get, given):
                _check(option, conditions[option], bound.arguments)
            return part

        return checked

    return decorated


def _check(option, conditions, settings):
    for condition in [conditions] if isinstance(conditions, str) else conditions:
        other, _, wanted = condition.partition("=")
        unless = other.endswith("!")
        other = other.removesuffix("!")
        value = _text(settings[other])
        if (value == wanted) != unless:
            continue
        use = "" if unless else f": it is for {condition}"
        raise ValueError(f"{option} has no effect with {other}={value}{use}; leave {option} out")


def _text(value):
    """A value as the command line takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
