"""A record of a run's parts: every option of each, defaults included, and the source of the user's
own parts.

``of(options)`` is the list ``parts`` of a run file. Each part has its ``kind``, its ``spec`` from
the options, and all its ``options``, defaults included. A user's own part also has ``files`` and
``source``, a digest of these files, see ``fedmpi.plugins.factories.digest``. ``changes`` compares
two such lists.
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
    """The record of the parts, for JSON; every option must be decided."""
    specs = [(kind, options[kind]) for kind in PARTS]
    for name in SEVERAL:
        specs += [(name, spec) for spec in options[name]]
    return [of_part(kind, spec) for kind, spec in specs if spec]


def of_part(kind, spec):
    """The record of one part."""
    table = catalog.KINDS[KIND_OF.get(kind, kind)]
    name, _ = split(spec)
    values = {}
    for key, value in settings(table, spec).items():
        values[key] = _plain(value)
    part = {"kind": kind, "spec": spec, "options": values}
    if is_own(table, name):
        sources = entry(table, name).sources
        part |= {
            "source": factories.digest(sources),
            "files": [os.path.basename(path) for path in sources]
        }
    return part


def _plain(value):
    """A value as JSON gives it back; other types as a text, the same in every process."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    name = getattr(value, "__qualname__", None)
    if name:
        return name
    # An address differs from process to process.
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def changes(before, after):
    """``[(part, option, old, new)]``, the changed options of parts with the same spec in both
    records.

    Values are texts, and None for an option that is missing. The option ``source`` stands for the
    digest of a user's own part.
    """
    rows = []
    for old, new in _pairs(before, after):
        part = _named(new)
        for key in {**old["options"], **new["options"]}:
            old_text, new_text = _text(old, key), _text(new, key)
            if old_text != new_text:
                rows.append((part, key, old_text, new_text))
        if old.get("source") != new.get("source"):
            rows.append((part, "source", _digest(old), _digest(new)))
    return rows


def values(parts):
    """``{(part, option): its text}`` of all options, and digests as ``source``."""
    texts = {}
    for part in parts:
        named = _named(part)
        for key, value in part["options"].items():
            texts[named, key] = str(value)
        texts[named, "source"] = _digest(part)
    return texts


def _pairs(before, after):
    """Yield pairs of parts with the same kind and spec; several of a kind in their order."""
    waiting = {}
    for part in before:
        waiting.setdefault(_named(part), []).append(part)
    for part in after:
        same = waiting.get(_named(part))
        if same:
            yield same.pop(0), part


def _named(part):
    """``pruner rigl:sparsity=0.8``"""
    return f"{part['kind']} {part['spec']}"


def _text(part, key):
    """An option's value as a text, None if the part has no such option."""
    options = part["options"]
    return str(options[key]) if key in options else None


def _digest(part):
    """The start of the digest of a user's own part."""
    if "source" not in part:
        return "of the catalogue"
    return part["source"][:SHORT]


def lines(parts):
    """``[(kind, text)]``, such as ``("pruner", "rigl: sparsity=0.8, ...")``; parts without options
    are left out."""
    rows = []
    for part in parts:
        values = [f"{key}={value}" for key, value in part["options"].items()]
        if "source" in part:
            files = " and ".join(part["files"])
            values.append(f"{files} {_digest(part)}")
        if values:
            name, _ = split(part["spec"])
            rows.append((part["kind"], f"{name}: {', '.join(values)}"))
    return rows


def change_text(change):
    """A change in words: ``pruner mine:half: share was 0.5, is 0.7``."""
    part, key, old, new = change
    if key == "source":
        key = "the digest of its source"
    was = "not there" if old is None else old
    now = "not there" if new is None else new
    return f"{part}: {key} was {was}, is {now}"
