"""How ``name:option=value,option=value``, a spec, becomes a part.

The name is one of a table of ``fedmpi.catalog``, or any importable ``package.module:factory``.
Names and values are checked against the factory's source (``fedmpi.plugins.entry``) before
anything is imported.
"""

import inspect
import re
import types
import typing

from fedmpi.catalog import STRATEGIES
from fedmpi.core.errors import UserError
from fedmpi.core.nearest import hint
from fedmpi.plugins import factories
from fedmpi.plugins.entry import entry, is_own, kind_of, resolve

# What strategies once said of their clients' optimiser, and what it was by default.
OPTIMISER_BEFORE = {"momentum": "0.9", "weight_decay": "0.001"}
TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
# The types that a command line can write, and what they are called.
WANTED = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "none"}


# ---------------------------------------------------------------- the text


def split(spec):
    """``(name, options text)`` of ``name[:options]``, where name may be
    ``package.module:function``."""
    head, _, rest = spec.partition(":")
    first = rest.partition(",")[0].partition(":")[0]
    if not rest or "=" in first:
        return head, rest
    function, _, rest = rest.partition(":")
    return f"{head}:{function}", rest


def quoted(value):
    """A value as it stands in a spec, where a comma would begin the next option."""
    return value.replace("\\", "\\\\").replace(",", "\\,")


def _items(text):
    """The texts between the commas of ``text``, without those of ``quoted`` values. A backslash
    before anything else stands for itself."""
    items = [""]
    for piece in re.split(r"(\\\\|\\,|,)", text):
        if piece == ",":
            items.append("")
        elif piece in ("\\\\", "\\,"):
            items[-1] += piece[1:]
        else:
            items[-1] += piece
    return items


def parse(table, spec):
    """``(target, options)``: names and values checked against the factory's source; nothing is
    built."""
    name, text = split(spec)
    found = entry(table, name)
    options = {}
    for item in filter(None, _items(text)):
        key, equals, value = item.partition("=")
        key = key.strip()
        if not equals:
            raise UserError(f"in {spec!r}: expected option=value, got {item!r}; a comma inside a value is written \\,")
        if key not in found.options:
            meant = _moved(table, text) or hint(key, found.options) or "."
            takes = ", ".join(f"{each.name}={each.default}" for each in found.options.values()) or "no options"
            raise UserError(f"{name} has no option {key!r}{meant} It takes ({takes})")
        if key in options:
            raise UserError(f"in {spec!r}: {key} is given twice")
        options[key] = _convert(spec, found.options[key], value.strip())
    return found.target, options


def _moved(table, text):
    """The way out for options of the clients' optimiser in a strategy's options ``text``, where
    they were once; empty where there are none, or for another kind of part."""
    if table is not STRATEGIES:
        return ""
    given = dict(item.partition("=")[::2] for item in _items(text))
    if not OPTIMISER_BEFORE.keys() & given.keys():
        return ""
    values = [f"{key}={given.get(key, default)}" for key, default in OPTIMISER_BEFORE.items()]
    return f": that is the optimiser's, say --optimiser sgd:{','.join(values)}."


def settings(table, spec):
    """``{option: value}`` of all options of a part, those that ``spec`` does not name as they
    are by default."""
    named = parse(table, spec)[1]
    known = entry(table, split(spec)[0]).options
    return {key: named.get(key, each.default) for key, each in known.items()}


# ---------------------------------------------------------------- values


def wanted(parameter):
    """What an option can be, in words: its choices, or its type; empty where no text says that."""
    kinds = _types(parameter)
    words = [str(each) for each in choices(parameter)]
    words += [WANTED[each] for each in WANTED if each in kinds]
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} or {words[-1]}"


def choices(parameter):
    """The values that an option can have, where they are a fixed few; else an empty tuple."""
    literals = [each for each in _types(parameter) if typing.get_origin(each) is typing.Literal]
    return tuple(choice for each in literals for choice in typing.get_args(each))


def _types(parameter):
    """The types that an option's value can have: as declared, or that of its default."""
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty:
        return (_type_of(parameter.default),)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _type_of(default):
    """The type that a default stands for: text where it is None, its simple type where it has
    one."""
    if default is None:
        return str
    simple = [each for each in (bool, int, float, str) if isinstance(default, each)]
    return simple[0] if simple else type(default)


def _convert(spec, parameter, text):
    """The option's value in its declared type, or in that of its default."""
    kinds = _types(parameter)
    known = {str(choice): choice for choice in choices(parameter)}
    if text in known:
        return known[text]
    plain = [each for each in WANTED if each in kinds]
    # Text comes last, since it takes anything.
    for kind in sorted(plain, key=lambda each: each is str):
        try:
            return _value(kind, text)
        except (ValueError, KeyError):
            continue
    if not wanted(parameter):
        raise UserError(f"{spec}: {parameter.name} is of type {kinds[0].__name__}, which cannot be "
                        "written on a command line: name a factory of your own that sets it")
    # A message is one line, whatever is in the spec.
    shown = spec.replace("\n", "\\n")
    raise UserError(f"{shown}: {parameter.name} must be {wanted(parameter)}, got {text!r}{hint(text, known)}")


def _value(kind, text):
    """``text`` as a value of ``kind``; ValueError or KeyError where it is none."""
    if kind is type(None):
        return {"none": None}[text.lower()]
    if kind is bool:
        return TRUTHS[text.lower()]
    return kind(text)


# ---------------------------------------------------------------- the part


def load(table, name):
    """The factory itself, imported."""
    module, _, function = resolve(table, name).partition(":")
    return factories.load(module, function)


def make(table, spec, *arguments):
    """The part that ``spec`` names: its factory called with ``arguments`` and the options.

    A part of the user's is held to its kind's contract, now and whenever it is asked something.
    """
    target, options = parse(table, spec)
    factory = load({}, target)
    try:
        if is_own(table, split(spec)[0]):
            return _own(table, spec, factory, arguments, options)
        return factory(*arguments, **options)
    except ValueError as error:
        raise UserError(f"{spec}: {error}") from error


def _own(table, spec, factory, arguments, options):
    """The part that a factory of the user's makes."""
    with factories.own_code(spec, passing=(ValueError,)):
        made = factory(*arguments, **options)
    # Only here, since it imports torch.
    from fedmpi.plugins.contract import bound
    kind = kind_of(table)
    return bound(kind, made, f"--{kind} {spec}")
