"""What a run's parts were: every option of each, defaults included, and the source of those that
are the user's.

``of(options)`` is what a run file records as ``parts``, a list: of each part its ``kind``, its
``spec`` as the options have it, all ``options`` as they were resolved and, where the factory is the
user's, ``source``, a digest of the files that define it (``fedmpi.plugins.factories.digest`` says what that
covers). ``changes`` compares two of them.
"""

import os
import re

from fedmpi import catalog
from fedmpi.plugins.entry import entry, is_own
from fedmpi.plugins.spec import settings, split
from fedmpi.plugins import factories
from fedmpi.build.options import KIND_OF, PARTS, SEVERAL

SHORT = 12    # characters of a digest that are shown


def of(options):
    """The parts of a run whose options are all decided, as JSON holds them."""
    named = [(kind, options[kind]) for kind in PARTS]
    named += [(name, spec) for name in SEVERAL for spec in options[name]]
    return [_part(kind, spec) for kind, spec in named if spec]


def _part(kind, spec):
    table, name = catalog.KINDS[KIND_OF.get(kind, kind)], split(spec)[0]
    values = {key: _plain(value) for key, value in settings(table, spec).items()}
    part = {"kind": kind, "spec": spec, "options": values}
    if is_own(table, name):
        sources = entry(table, name).sources
        part |= {
            "source": factories.digest(sources),
            "files": [os.path.basename(path) for path in sources]
        }
    return part


def _plain(value):
    """A value as JSON gives it back; what JSON has no word for as a text that is the same in every
    process."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    return getattr(value, "__qualname__", None) or re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def changes(before, after):
    """``[(part, option, old, new)]`` of the parts that both have by the same spec: an option that
    one of them lacks is None there, ``source`` stands for the digest of a plug-in's source. Values
    are texts."""
    found = []
    for old, new in _pairs(before, after):
        named = f"{new['kind']} {new['spec']}"
        for key in {**old["options"], **new["options"]}:
            pair = [_text(each["options"], key) for each in (old, new)]
            if pair[0] != pair[1]:
                found.append((named, key, *pair))
        if old.get("source") != new.get("source"):
            found.append((named, "source", *(_digest(each) for each in (old, new))))
    return found


def values(parts):
    """``{(part, option): its text}`` of all options, and digests as ``source``."""
    found = {}
    for part in parts:
        named = f"{part['kind']} {part['spec']}"
        found |= {(named, key): str(value) for key, value in part["options"].items()}
        found[named, "source"] = _digest(part)
    return found


def _pairs(before, after):
    """Parts of the same kind and spec; where a kind has several, in their order."""
    waiting = {}
    for part in before:
        waiting.setdefault((part["kind"], part["spec"]), []).append(part)
    for part in after:
        same = waiting.get((part["kind"], part["spec"]))
        if same:
            yield same.pop(0), part


def _text(options, key):
    return None if key not in options else str(options[key])


def _digest(part):
    return part["source"][:SHORT] if "source" in part else "of the catalogue"


def lines(parts):
    """``(kind, text)`` of each part that has options or is the user's, as ``pruner``, ``rigl:
    sparsity=0.8, ...``."""
    found = []
    for part in parts:
        values = [f"{key}={value}" for key, value in part["options"].items()]
        if "source" in part:
            values.append(f"{' and '.join(part['files'])} {part['source'][:SHORT]}")
        if values:
            found.append((part["kind"], f"{split(part['spec'])[0]}: {', '.join(values)}"))
    return found


def told(change):
    """A change in words: ``pruner mine:half: share was 0.5, is 0.7``."""
    named, key, old, new = change
    words = ["not there" if value is None else value for value in (old, new)]
    key = "the digest of its source" if key == "source" else key
    return f"{named}: {key} was {words[0]}, is {words[1]}"
