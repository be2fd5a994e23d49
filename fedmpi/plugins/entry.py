"""The factory behind a name of the catalogue, or behind ``package.module:factory`` of the user's.

Nothing is imported if the source shows the factory, so a misspelt option fails before torch is
loaded.
"""

import functools
import inspect
import re
from typing import NamedTuple

from fedmpi.catalog import KINDS
from fedmpi.core.errors import UserError
from fedmpi.core.nearest import hint
from fedmpi.plugins import factories
from fedmpi.plugins.shadow import namesake

# The arguments of a factory besides its options.
CALLED_WITH = {"model": ("shape", "outputs"), "dataset": ("data_dir",)}
# Of a factory's docstring: its source; from and to clients on the wire; a command line.
FIELDS = ("Paper", "Up", "Down", "Example")


class Entry(NamedTuple):
    """A factory as its source declares it."""

    target: str
    signature: inspect.Signature
    options: dict                 # {name: inspect.Parameter} of the user's choices
    line: str                     # first line of its docstring
    text: str                     # docstring of its module
    fields: dict                  # {field: text} of FIELDS, from its docstring
    sources: tuple                # paths of the files that define it


def kind_of(table):
    """The kind of a table's parts; empty for a table outside the catalogue."""
    for kind, known_table in KINDS.items():
        if known_table is table:
            return kind
    return ""


def is_own(table, name):
    """Whether a name stands for a factory of the user's, not for one of the catalogue's."""
    return name not in table


def resolve(table, name):
    """``"module:function"`` of a name in ``table``, or of ``package.module:function`` itself."""
    if name in table:
        return table[name]
    if ":" in name:
        return name
    meant = hint(name, table) or "."
    names = ", ".join(table)
    raise UserError(f"unknown name {name!r}{meant} Known: {names}, or package.module:function")


def entry(table, name, importing=True):
    """The ``Entry`` of a name; UserError without such a module or factory.

    A factory hidden from the source is imported, or has no options if ``importing`` is False.
    """
    target = resolve(table, name)
    kind = kind_of(table)
    if kind and not is_own(table, name):
        return _of_catalogue(kind, name, target, importing)
    return _declared(table, name, target, importing)


# A study asks for the same parts once a run, hundreds of times, and fedmpi's own files stay as they
# are.
@functools.cache
def _of_catalogue(kind, name, target, importing):
    return _declared(KINDS[kind], name, target, importing)


def _declared(table, name, target, importing):
    """The ``Entry`` of a name whose target is known."""
    module, _, function = target.partition(":")
    _check_module(table, name, module, function)
    declared = factories.declared(module, function, importing)
    if declared is None:
        origin = factories.find(module).origin
        raise UserError(f"module {module!r} ({origin}) defines no function or class {function!r}")
    _check_arguments(table, name, declared.signature)
    return Entry(
        target=target,
        signature=declared.signature,
        options=_options(table, declared.signature),
        line=declared.doc.partition("\n")[0],
        text=declared.text,
        fields=_fields(declared.doc),
        sources=declared.sources,
    )


def _check_module(table, name, module, function):
    """UserError without such a module, or if it is another file than the user's."""
    spec = factories.find(module)
    # A name of the catalogue is fedmpi's own module.
    own = ""
    if is_own(table, name):
        own = namesake(module)
    if own:
        taken = spec and spec.origin
        raise UserError(f"{name}: the module {module!r} is {taken}, not your file {own}, which has "
                        "the same name: rename your file")
    if spec is None:
        meant = ""
        # "rigl:sparsity" looks like module:factory.
        if module in table:
            meant = f" Or an option of {module}? {module}:option=value"
        raise UserError(f"no module {module!r} to take {function!r} from; is it installed or on "
                        f"PYTHONPATH?{meant}")


def _options(table, signature):
    """The parameters with a default, except fedmpi's own arguments."""
    num_filled = len(CALLED_WITH.get(kind_of(table), ()))
    parameters = list(signature.parameters.values())[num_filled:]
    options = {}
    for parameter in parameters:
        if parameter.default is not inspect.Parameter.empty:
            options[parameter.name] = parameter
    return options


def _check_arguments(table, name, signature):
    """UserError unless the factory can be called with fedmpi's arguments."""
    arguments = CALLED_WITH.get(kind_of(table), ())
    try:
        signature.bind(*arguments)
    except TypeError as error:
        called = "without arguments"
        if arguments:
            called = f"with {' and '.join(arguments)}"
        raise UserError(f"{name} cannot be called {called}: {error}; an option needs a "
                        "default") from None


def _fields(doc):
    """``{field: text}`` of a docstring's lines ``Field: text``, with the indented ones after."""
    names = "|".join(FIELDS)
    matches = re.findall(rf"^({names}): (.*(?:\n +\S.*)*)", doc, re.M)
    return {name: " ".join(text.split()).removesuffix(".") for name, text in matches}
