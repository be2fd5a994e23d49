"""From ``name:option=value,option=value``, a spec, to a part.

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

# Strategies once had these options of their clients' optimiser, with these defaults.
OPTIMISER_BEFORE = {"momentum": "0.9", "weight_decay": "0.001"}
TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
# The types of options on a command line, in words.
WANTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "none",
}
BACKSLASH = "\\"
COMMA = "\\,"


# ---------------------------------------------------------------- the text


def split(spec):
    """``(name, options text)`` of ``name[:options]``; the name may hold a colon itself.

    >>> split("rigl:every=2"), split("mine.pruners:half"), split("mine.pruners:half:share=1")
    (('rigl', 'every=2'), ('mine.pruners:half', ''), ('mine.pruners:half', 'share=1'))
    """
    head, _, rest = spec.partition(":")
    # "rigl:every=2" has an option behind the colon, "mine:half:share=1" a function.
    first_item = rest.partition(",")[0].partition(":")[0]
    if not rest or "=" in first_item:
        return head, rest
    function, _, rest = rest.partition(":")
    return f"{head}:{function}", rest


def quoted(value):
    """A value as it stands in a spec: a plain comma would begin the next option.

    >>> print(quoted("Doe, J.h5"))
    Doe\\, J.h5
    """
    return value.replace(BACKSLASH, BACKSLASH * 2).replace(",", COMMA)


def _items(text):
    """The texts between the commas of ``text``, without the backslashes of ``quoted`` values.

    A backslash before anything else stands for itself.
    """
    items = [""]
    for piece in re.split(r"(\\\\|\\,|,)", text):
        if piece == ",":
            items.append("")
        elif piece in (BACKSLASH * 2, COMMA):
            items[-1] += piece[1:]
        else:
            items[-1] += piece
    return items


def parse(table, spec):
    """``(target, options)``, checked against the factory's source; nothing is built."""
    name, text = split(spec)
    factory = entry(table, name)
    options = {}
    for item in filter(None, _items(text)):
        key, equals, value = item.partition("=")
        key = key.strip()
        if not equals:
            raise UserError(f"in {spec!r}: expected option=value, got {item!r}; a comma inside a "
                            "value is written \\,")
        if key not in factory.options:
            raise UserError(_unknown_option(table, name, key, text, factory.options))
        if key in options:
            raise UserError(f"in {spec!r}: {key} is given twice")
        options[key] = _convert(spec, factory.options[key], value.strip())
    return factory.target, options


def _unknown_option(table, name, key, text, parameters):
    """The message about an unknown option of a factory."""
    meant = _moved(table, text) or hint(key, parameters) or "."
    defaults = []
    for parameter in parameters.values():
        defaults.append(f"{parameter.name}={parameter.default}")
    takes = ", ".join(defaults) or "no options"
    return f"{name} has no option {key!r}{meant} It takes ({takes})"


def _moved(table, text):
    """The way out for options of the clients' optimiser in a strategy's options ``text``.

    They stood there once; empty without such options, or for another kind of part.
    """
    if table is not STRATEGIES:
        return ""
    items = dict(item.partition("=")[::2] for item in _items(text))
    # Only these two names moved.
    if not OPTIMISER_BEFORE.keys() & items.keys():
        return ""
    values = [f"{key}={items.get(key, default)}" for key, default in OPTIMISER_BEFORE.items()]
    return f": that is the optimiser's, say --optimiser sgd:{','.join(values)}."


def settings(table, spec):
    """``{option: value}`` of all options of a part, named in ``spec`` or by default."""
    _, named = parse(table, spec)
    name, _ = split(spec)
    values = {}
    for key, parameter in entry(table, name).options.items():
        values[key] = named.get(key, parameter.default)
    return values


# ---------------------------------------------------------------- values


def wanted(parameter):
    """The values of an option in words: its choices, or its type; empty if no text is one."""
    kinds = _types(parameter)
    words = [str(choice) for choice in choices(parameter)]
    words += [WANTED[kind] for kind in WANTED if kind in kinds]
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} or {words[-1]}"


def choices(parameter):
    """The values of an option with a fixed few; else an empty tuple."""
    values = ()
    for kind in _types(parameter):
        if typing.get_origin(kind) is typing.Literal:
            values += typing.get_args(kind)
    return values


def _types(parameter):
    """The types of an option's value: as declared, or of its default."""
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty:
        return (_type_of(parameter.default),)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _type_of(default):
    """The type of a default: text for None, its simple type if it has one."""
    if default is None:
        return str
    # bool first, since it is an int.
    for kind in (bool, int, float, str):
        if isinstance(default, kind):
            return kind
    return type(default)


def _convert(spec, parameter, text):
    """The option's value in its declared type, or in its default's."""
    kinds = _types(parameter)
    # A choice may be a number as well as a text.
    choice_of = {str(choice): choice for choice in choices(parameter)}
    if text in choice_of:
        return choice_of[text]
    simple = [kind for kind in WANTED if kind in kinds]
    # Text comes last, since it takes anything.
    simple.sort(key=lambda kind: kind is str)
    for kind in simple:
        try:
            return _value(kind, text)
        except (ValueError, KeyError):
            continue
    if not wanted(parameter):
        raise UserError(f"{spec}: {parameter.name} is of type {kinds[0].__name__}, which cannot be "
                        "written on a command line: name a factory of your own that sets it")
    # A message is one line, whatever is in the spec.
    shown = spec.replace("\n", "\\n")
    raise UserError(f"{shown}: {parameter.name} must be {wanted(parameter)}, "
                    f"got {text!r}{hint(text, choice_of)}")


def _value(kind, text):
    """``text`` as a value of ``kind``; ValueError or KeyError for another text."""
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
    """The part of ``spec``: its factory called with ``arguments`` and the options.

    A part of the user's is held to its kind's contract, now and in every later call.
    """
    target, options = parse(table, spec)
    name, _ = split(spec)
    factory = load({}, target)
    try:
        if is_own(table, name):
            return _own(table, spec, factory, arguments, options)
        return factory(*arguments, **options)
    except ValueError as error:
        raise UserError(f"{spec}: {error}") from error


def _own(table, spec, factory, arguments, options):
    """The part of a user's factory."""
    with factories.own_code(spec, passing=(ValueError,)):
        made = factory(*arguments, **options)
    # Only here, since it imports torch.
    from fedmpi.plugins.contract import bound
    kind = kind_of(table)
    return bound(kind, made, f"--{kind} {spec}")
