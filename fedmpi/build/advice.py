"""Advice about an unknown name: a similar name, or the part with such an option."""

from typing import NamedTuple

from fedmpi import catalog
from fedmpi.core import former
from fedmpi.core.nearest import nearest
from fedmpi.plugins.entry import entry
from fedmpi.plugins.spec import split
from fedmpi.core.errors import UserError
from fedmpi.build.options import PARTS

# Advice names at most so many parts.
MOST = 3


def check_keys(table, known_keys, where):
    """UserError if a key of ``table`` is not one of the ``known_keys``. ``table`` is from the
    user's file ``where``."""
    unknown = sorted(key for key in table if key not in known_keys)
    if unknown:
        advice = way_out(unknown[0], known_keys, table)
        raise UserError(f"{where}: unknown {', '.join(unknown)}; {advice}")


def way_out(key, known_keys, options):
    """Advice about an unknown ``key``: its name of today, else the part with such an option.

    Without such a part it is a similar key of ``known_keys``, else all of them.

    ``options`` are the user's keys and values.
    """
    if former.OPTIONS.get(key) in known_keys:
        return f"{key} is called {former.OPTIONS[key]} now"
    kinds = [kind for kind in catalog.KINDS if kind in known_keys]
    of_a_part = of_parts(key, options, kinds, "{kind} = {spec!r}")
    if of_a_part:
        return of_a_part
    near = nearest(key, known_keys)
    if near:
        return f"did you mean {near}?"
    return f"known are {', '.join(known_keys)}"


def of_parts(option, options, kinds, form):
    """``momentum is an option of the strategy: --strategy thesis:momentum=0.9``

    Empty if no part of these ``kinds`` has the option. ``options`` are the user's options and
    values; ``form`` is how a spec is written, ``--{kind} {spec}`` for instance.
    """
    candidates = [_candidate(kind, option, options) for kind in kinds]
    likely = [candidate for candidate in candidates if candidate is not None]
    # The sort is stable: kinds of the same rank keep their order.
    likely.sort(key=lambda candidate: candidate.rank)
    value = _text(options.get(option)) or "VALUE"
    texts = []
    for kind, start, _ in likely[:MOST]:
        written = form.format(kind=kind, spec=f"{start}{option}={value}")
        texts.append(f"the {kind}: {written}")
    if not texts:
        return ""
    return f"{option} is an option of {', or of '.join(texts)}"


class _Candidate(NamedTuple):
    """A part that has the option."""

    kind: str
    start: str                    # its spec, up to the option
    rank: int                     # 0 for the user's part, 1 for the usual one, 2 for another


def _candidate(kind, option, options):
    """The ``_Candidate`` of a kind: the user's part, else the usual one, else the first with the
    option, else None."""
    table = catalog.KINDS[kind]
    name, rest = split(_text(options.get(kind)))
    usual, _ = split(PARTS.get(kind) or "")
    if name and _has(table, name, option):
        start = f"{name}:{rest}," if rest else f"{name}:"
        return _Candidate(kind, start, 0)
    if usual and _has(table, usual, option):
        return _Candidate(kind, f"{usual}:", 1)
    for other in table:
        if _has(table, other, option):
            return _Candidate(kind, f"{other}:", 2)
    return None


def _text(value):
    """An option's value as a command line has it, of a list the first; empty for any other type."""
    if isinstance(value, list) and value:
        value = value[0]
    if isinstance(value, (str, int, float)):
        return str(value)
    return ""


def _has(table, name, option):
    """Whether a part has an option, by its source."""
    try:
        parameters = entry(table, name).signature.parameters
    except UserError:
        return False
    if option not in parameters:
        return False
    parameter = parameters[option]
    return parameter.default is not parameter.empty
