"""Options without effect, refused because of another option of the same part.

    @needs(cap="by=class", sigma="by=client")
    def dirichlet(by: str = "class", cap: bool = True, sigma: float = 0.0):

Only options given as keywords are checked: defaults may stand beside any choice. A number of 0 or
1, the end of a sweep, is no such choice. A part's effects in the rest of the run are a matter of
its ``notes``, see ``fedmpi.core.parts``.
"""

import functools
import inspect


def needs(**conditions):
    """A decorator of factories: an option needs its condition ``other=value``, or ValueError.

    ``other!=value`` and a tuple of conditions are possible.
    """

    def decorated(factory):
        signature = inspect.signature(factory)

        @functools.wraps(factory)
        def checked(*arguments, **options):
            # First: an invalid value is a greater mistake than a useless one.
            part = factory(*arguments, **options)
            bound = signature.bind(*arguments, **options)
            bound.apply_defaults()
            for option in options:
                if option in conditions:
                    _check(option, conditions[option], bound.arguments)
            return part

        return checked

    return decorated


def _check(option, conditions, settings):
    """ValueError unless all conditions of an option hold among the settings."""
    if isinstance(conditions, str):
        conditions = [conditions]
    for condition in conditions:
        other, _, value = condition.partition("=")
        unequal = other.endswith("!")
        other = other.removesuffix("!")
        actual = _text(settings[other])
        if (actual != value) == unequal:
            continue
        use = "" if unequal else f": it is for {condition}"
        raise ValueError(f"{option} has no effect with {other}={actual}{use}; leave {option} out")


def _text(value):
    """A value in the words of the command line."""
    text = str(value)
    return text.lower() if isinstance(value, bool) else text
