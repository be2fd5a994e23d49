"""The way out for a name that is not known: the name that was probably meant, or the part whose
option it is."""

from typing import NamedTuple

from fedmpi import catalog
from fedmpi.core.nearest import nearest
from fedmpi.plugins.entry import entry
from fedmpi.plugins.spec import split
from fedmpi.core.errors import UserError
from fedmpi.build.options import PARTS

MOST = 3                      # kinds of parts that are told


def check_keys(table, known, where):
    """UserError where a key of ``table``, options or others from the user's file, is none of
    ``known``."""
    unknown = sorted(key for key in table if key not in known)
    if unknown:
        raise UserError(f"{where}: unknown {', '.join(unknown)}; {way_out(unknown[0], known, table)}")


def way_out(key, known, given):
    """What to say of an unknown ``key`` among those ``known``: that it is an option of a part, or
    which known key is near, or all of them. ``given`` are the keys and values beside it."""
    kinds = [kind for kind in catalog.KINDS if kind in known]
    found = of_parts(key, given, kinds, "{kind} = {spec!r}")
    near = nearest(key, known)
    if near and not found:
        return f"did you mean {near}?"
    return found or f"known are {', '.join(known)}"


def of_parts(option, given, kinds, form):
    """``momentum is an option of the strategy: --strategy thesis:momentum=0.9``; empty where it is
    no option of a part of these ``kinds``. ``given`` maps options to what was chosen; ``form`` says
    how a spec is written."""
    found = [_chosen(kind, option, given) for kind in kinds]
    found = sorted([each for each in found if each], key=lambda each: each.far)[:MOST]
    value = _text(given.get(option)) or "VALUE"
    told = [f"the {each.kind}: " + form.format(kind=each.kind, spec=f"{each.spec}{option}={value}")
            for each in found]
    return f"{option} is an option of {', or of '.join(told)}" if told else ""


class _Found(NamedTuple):
    """A part that has an option, as a spec up to where the option is written; how far from what was
    chosen."""

    kind: str
    spec: str
    far: int


def _chosen(kind, option, given):
    """The part of a kind that has the option: the one that was chosen, else the usual one, else the
    first; None where none has it."""
    table = catalog.KINDS[kind]
    name, rest = split(_text(given.get(kind)))
    usual, _ = split(PARTS.get(kind) or "")
    if name and _has(table, name, option):
        return _Found(kind, f"{name}:{rest}," if rest else f"{name}:", 0)
    if usual and _has(table, usual, option):
        return _Found(kind, f"{usual}:", 1)
    first = next((each for each in table if _has(table, each, option)), None)
    return _Found(kind, f"{first}:", 2) if first else None


def _text(value):
    """What was given for an option as a command line has it, the first of a list; empty where that
    cannot be."""
    value = value[0] if isinstance(value, list) and value else value
    return str(value) if isinstance(value, (str, int, float)) else ""


def _has(table, name, option):
    """Whether a part has an option, by its source."""
    try:
        found = entry(table, name).signature.parameters.get(option)
    except UserError:
        return False
    return found is not None and found.default is not found.empty
