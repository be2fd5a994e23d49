"""Old names in parts from outside the catalogue: one line says the new name."""

import functools
from typing import Callable, TypeVar

Fields = TypeVar("Fields")


def renamed(**names: str) -> Callable[[type[Fields]], type[Fields]]:
    """A decorator of a NamedTuple some of whose fields had other ``names``, ``{old: new}``.

    With an old name, a call of the tuple raises ValueError and an attribute AttributeError.
    """
    def of(cls):
        new = cls.__new__

        @functools.wraps(new)
        def made(cls, *values, **fields):
            for old in names.keys() & fields.keys():
                raise ValueError(_line(cls, old, names[old]))
            return new(cls, *values, **fields)

        # Python calls this for missing attributes alone.
        def missing(self, name):
            if name in names:
                raise AttributeError(_line(cls, name, names[name]))
            raise AttributeError(f"{cls.__name__!r} object has no attribute {name!r}")

        cls.__new__ = made
        cls.__getattr__ = missing
        return cls

    return of


def _line(cls, old, new):
    return f"the field {old!r} of {cls.__name__} is called {new!r} now"
