"""What a name of the catalogue, or ``package.module:factory`` of the user's, stands for: its
factory as the source declares it. Nothing is imported where the source shows it, so a misspelt
option fails before torch is loaded.
"""

import inspect
import re
from typing import NamedTuple

from fedmpi.catalog import KINDS
from fedmpi.core.errors import UserError
from fedmpi.core.nearest import hint
from fedmpi.plugins import factories
from fedmpi.plugins.shadow import namesake

# What a factory is given besides its options.
CALLED_WITH = {"model": ("shape", "outputs"), "dataset": ("data_dir",)}
# Of a factory's docstring: its source; from and to clients on the wire; a command line.
FIELDS = ("Paper", "Up", "Down", "Example")


class Entry(NamedTuple):
    """A factory as its source declares it."""

    target: str
    signature: inspect.Signature
    options: dict                 # {name: inspect.Parameter} of what can be chosen
    line: str                     # first line of its docstring
    text: str                     # docstring of its module
    fields: dict                  # what its docstring says under FIELDS
    sources: tuple                # paths of the files that define it


def kind_of(table):
    """The kind of parts that a table holds; empty for a table that is none of the catalogue's."""
    return next((kind for kind, each in KINDS.items() if each is table), "")


def is_own(table, name):
    """Whether a name is that of a factory of the user's, not one of the catalogue's."""
    return name not in table


def resolve(table, name):
    """``"module:function"`` for a name of ``table`` or for any importable
    ``package.module:function``."""
    if name in table:
        return table[name]
    if ":" in name:
        return name
    meant = hint(name, table) or "."
    raise UserError(f"unknown name {name!r}{meant} Known: {', '.join(table)}, or package.module:function")


def entry(table, name, importing=True):
    """The ``Entry`` of a name; UserError where there is no such module or factory.

    What the source does not show is imported, unless ``importing`` is False: then it has no
    options.
    """
    target = resolve(table, name)
    module, _, function = target.partition(":")
    _check_module(table, name, module, function)
    found = factories.declared(module, function, importing)
    if found is None:
        where = f"module {module!r} ({factories.find(module).origin})"
        raise UserError(f"{where} defines no function or class {function!r}")
    _check_arguments(table, name, found.signature)
    options = _options(table, found.signature)
    line = found.doc.partition("\n")[0]
    fields = _fields(found.doc)
    return Entry(target, found.signature, options, line, found.text, fields, found.sources)


def _check_module(table, name, module, function):
    """UserError where there is no such module, or where it is another file than the user's."""
    spec = factories.find(module)
    own = "" if name in table else namesake(module)
    if own:
        taken = spec and spec.origin
        raise UserError(f"{name}: the module {module!r} is {taken}, not your file {own}, which has "
                        "the same name: rename your file")
    if spec is None:
        meant = f" Or an option of {module}? {module}:option=value" * (module in table)
        raise UserError(f"no module {module!r} to take {function!r} from; is it installed or on "
                        f"PYTHONPATH?{meant}")


def _options(table, signature):
    """The parameters that have a default, but for those that fedmpi gives."""
    num_given = len(CALLED_WITH.get(kind_of(table), ()))
    rest = list(signature.parameters.values())[num_given:]
    return {each.name: each for each in rest if each.default is not inspect.Parameter.empty}


def _check_arguments(table, name, signature):
    """UserError for a factory that cannot be called with what fedmpi gives it."""
    given = CALLED_WITH.get(kind_of(table), ())
    try:
        signature.bind(*given)
    except TypeError as error:
        called = f"with {' and '.join(given)}" if given else "without arguments"
        why = f"{error}; an option needs a default"
        raise UserError(f"{name} cannot be called {called}: {why}") from None


def _fields(doc):
    """``{field: text}`` of the lines ``Field: text`` of a docstring and the indented ones after
    each."""
    found = re.findall(rf"^({'|'.join(FIELDS)}): (.*(?:\n +\S.*)*)", doc, re.M)
    return {name: " ".join(text.split()).removesuffix(".") for name, text in found}
