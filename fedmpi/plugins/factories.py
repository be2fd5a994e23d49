"""The declaration of a factory: its options, its docstring, its files.

Source is read without importing it if it shows the factory: a function, or a class with an
``__init__`` of its own, under its name, or behind a package's ``from .impl import factory``. Any
other callable (a partial, an assigned name, a dataclass, a decorated function, an inherited
``__init__``) is imported and asked.
"""

import ast
import contextlib
import functools
import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import sys
import traceback
import types
import typing
from typing import NamedTuple

from fedmpi.core.errors import FedError, UserError
from fedmpi.plugins.shadow import in_the_way

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# The file of Python's own frames of an import.
MACHINERY = "<frozen importlib"
EMPTY = inspect.Parameter.empty
SIMPLE = {"str": str, "int": int, "float": float, "bool": bool}
# Imports from file to file, at most.
FAR = 8
DEFINITION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class Declared(NamedTuple):
    """A factory as its source, or the object itself, declares it."""

    signature: inspect.Signature
    doc: str
    text: str           # docstring of its module
    sources: tuple      # paths of the files that define it


def declared(module, name, importing=True):
    """``Declared`` of ``module:name``; None without such a module or name.

    If ``importing`` is False, a factory hidden from the source has no options. UserError for an
    object that is no callable.
    """
    if find(module) is None:
        return None
    # A package's __init__ often only imports the factory.
    home, own_name = _home(module, name)
    from_source = _read(home, own_name)
    if from_source is not None:
        return from_source
    if not importing:
        return Declared(inspect.Signature(), "", "", ())
    return _imported(module, name, home)


def find(module):
    """The spec of a module, or None.

    Its packages are imported only if it does not lie in their folders.
    """
    top, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    path = top
    for name in inner:
        path = f"{path}.{name}"
        folders = spec and spec.submodule_search_locations
        spec = None
        if folders:
            spec = importlib.machinery.PathFinder.find_spec(path, folders)
    return spec or _spec_by_importing(module)


def _spec_by_importing(module):
    """The spec of a module, its package imported; or None."""
    package = module.rpartition(".")[0]
    if package:
        if find(package) is None:
            return None
        with own_code(f"the package {package!r}"):
            importlib.import_module(package)
    try:
        return importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError):
        return None


def load(module, name):
    """The object ``name``, perhaps with dots, of a module, imported.

    AttributeError without such an object.
    """
    with own_code(f"the module {module!r}"):
        imported = importlib.import_module(module)
    return functools.reduce(getattr, name.split("."), imported)


# ---------------------------------------------------------------- errors of the user's code


@contextlib.contextmanager
def own_code(whose, passing=()):
    """The block runs code of the user's: an exception of it becomes a FedError.

    The error names ``whose`` code it was, with the traceback from the first frame outside of
    fedmpi. A syntax error in a file becomes a UserError with file and line. Exceptions of the
    classes ``passing`` stay as they are.
    """
    try:
        yield
    except (FedError, *passing):
        raise
    except SystemExit as error:
        raise UserError(
            f"{whose} has ended the program by sys.exit: put what is to run as a script below "
            "if __name__ == '__main__'") from error
    except Exception as error:
        line = _line_about(error)
        if line:
            raise UserError(line) from error
        raise FedError(f"{whose} raised {type(error).__name__}\n{own_trace(error)}") from error


def _line_about(error):
    """One line about an error without need of a traceback; empty for others."""
    if isinstance(error, SyntaxError) and os.path.isfile(error.filename or ""):
        return _syntax(error)
    if isinstance(error, (ImportError, AttributeError)):
        return in_the_way(error)
    return ""


def own_trace(error):
    """The traceback of ``error`` without the leading frames of fedmpi and Python's imports."""
    first = error.__traceback__
    # The user's part begins behind them.
    while first is not None and _is_ours(first.tb_frame.f_code.co_filename):
        first = first.tb_next
    # All frames where none is the user's.
    shown = first or error.__traceback__
    lines = traceback.format_exception(type(error), error, shown)
    return "".join(lines).rstrip()


def _is_ours(path):
    if path in (contextlib.__file__, importlib.__file__):
        return True
    return path.startswith((PACKAGE + os.sep, MACHINERY))


def _syntax(error):
    return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"


def digest(sources):
    """sha256, in hex, of the files of a factory, byte by byte.

    A change of a comment counts too; imported modules and data files do not.
    """
    sha = hashlib.sha256()
    for path in sources:
        with open(path, "rb") as file:
            sha.update(file.read())
    return sha.hexdigest()


# ---------------------------------------------------------------- from source


def _home(module, name):
    """``(module, name)`` of the definition, at the end of the imports within one package."""
    for _ in range(FAR):
        node = _binding(module, name)
        if not isinstance(node, ast.ImportFrom):
            break
        source = _source_of_import(node, name, module)
        if source is None:
            break
        module, name = source
    return module, name


def _binding(module, name):
    """The only statement of a module to bind a name.

    None without source, or if no statement binds it, or if several do.
    """
    path = _source_of(module)
    if not path:
        return None
    _, nodes_of = _parsed(path)
    nodes = nodes_of.get(name, ())
    if len(nodes) == 1:
        return nodes[0]
    return None


def _read(module, name):
    """``Declared``, from source alone; None if the source does not show it."""
    node = _binding(module, name)
    arguments = node and _arguments(node)
    if arguments is None:
        return None
    is_class = isinstance(node, ast.ClassDef)
    signature = _signature(arguments, is_class, module)
    if signature is None:
        return None
    path = _source_of(module)
    tree, _ = _parsed(path)
    doc = ast.get_docstring(node) or ""
    text = ast.get_docstring(tree) or ""
    return Declared(signature, doc, text, (path,))


def _source_of(module):
    """The path of a module's source, or None."""
    spec = find(module)
    if spec is None or not spec.origin:
        return None
    if not spec.origin.endswith(".py"):
        return None
    return spec.origin


def _parsed(path):
    """``(tree, {name: the module's statements to bind it})``."""
    # A file that was edited is read again.
    stat = os.stat(path)
    return _parsed_as_of(path, stat.st_mtime_ns, stat.st_size)


# A study asks for the same parts once a run, hundreds of times.
@functools.lru_cache(maxsize=256)
def _parsed_as_of(path, mtime_ns, size):
    with open(path, "rb") as file:
        source = file.read()
    try:
        tree = ast.parse(source, path)
    except SyntaxError as error:
        raise UserError(_syntax(error)) from error
    except ValueError as error:
        raise UserError(f"{path} cannot be read as Python: {error}") from error
    nodes_of = {}
    for node in _statements(tree.body):
        for name in _bound_names(node):
            nodes_of.setdefault(name, []).append(node)
    return tree, nodes_of


def _statements(body):
    """The statements of a module, also in ifs, loops and tries, not in functions and classes."""
    for node in body:
        yield node
        if isinstance(node, DEFINITION):
            continue
        for part in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(node, part, ()))
        for handler in getattr(node, "handlers", ()):
            yield from _statements(handler.body)


def _bound_names(node):
    """The names bound by a statement."""
    if isinstance(node, DEFINITION):
        return [node.name]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [_name_here(alias) for alias in node.names]
    targets = []
    if isinstance(node, (ast.Assign, ast.Delete)):
        targets = node.targets
    elif isinstance(node, (ast.AnnAssign, ast.AugAssign)):
        targets = [node.target]
    names = []
    for target in targets:
        for part in ast.walk(target):
            if isinstance(part, ast.Name):
                names.append(part.id)
    return names


def _name_here(alias):
    return alias.asname or alias.name


def _source_of_import(node, name, module):
    """``(module, name)`` at the source of an import; None outside of the same package."""
    other = node.module or ""
    if node.level:
        relative = "." * node.level + other
        try:
            other = importlib.util.resolve_name(relative, _package_of(module))
        except ImportError:
            return None
    if other.partition(".")[0] != module.partition(".")[0]:
        return None
    for alias in node.names:
        if _name_here(alias) == name:
            return other, alias.name
    raise AssertionError(f"{module} does not import {name}")


def _package_of(module):
    """The package of a module's relative imports: itself, if it is one."""
    file = os.path.basename(_source_of(module))
    if file == "__init__.py":
        return module
    return module.rpartition(".")[0]


def _arguments(node):
    """The arguments of a function or of a class's own ``__init__``.

    None if something else decides, a decorator or a base class for instance.
    """
    if isinstance(node, ast.FunctionDef):
        if all(map(_keeps_arguments, node.decorator_list)):
            return node.args
        return None
    if not isinstance(node, ast.ClassDef) or node.decorator_list or node.keywords:
        return None
    methods = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
    # An inherited __init__ is in another class, perhaps in another file.
    if "__init__" not in methods or "__new__" in methods:
        return None
    return _arguments(methods["__init__"])


def _keeps_arguments(decorator):
    """Whether a decorator keeps a function's arguments: ``fedmpi.core.effect.needs`` does."""
    return isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "needs"


def _signature(arguments, is_method, module):
    """An ``inspect.Signature``; None unless all defaults are literals.

    The first argument of a method, ``self``, is left out.
    """
    try:
        parameters = [
            inspect.Parameter(
                argument.arg,
                kind,
                annotation=_annotation(argument.annotation, module),
                default=_literal(default),
            )
            for argument, kind, default in _rows(arguments, is_method)
        ]
        return inspect.Signature(parameters)
    except ValueError:
        return None


def _rows(arguments, is_method):
    """``(argument, kind, default)`` of each argument, in order; the default a node or None."""
    kinds = inspect.Parameter
    positional = [(argument, kinds.POSITIONAL_ONLY) for argument in arguments.posonlyargs]
    positional += [(argument, kinds.POSITIONAL_OR_KEYWORD) for argument in arguments.args]
    num_without = len(positional) - len(arguments.defaults)
    defaults = [None] * num_without + arguments.defaults
    rows = [(*pair, default) for pair, default in zip(positional, defaults)]
    if is_method:
        rows = rows[1:]
    if arguments.vararg:
        rows.append((arguments.vararg, kinds.VAR_POSITIONAL, None))
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults):
        rows.append((argument, kinds.KEYWORD_ONLY, default))
    if arguments.kwarg:
        rows.append((arguments.kwarg, kinds.VAR_KEYWORD, None))
    return rows


def _literal(node):
    """The value of a default's node; ValueError unless it is a literal."""
    if node is None:
        return EMPTY
    return ast.literal_eval(node)


# ---------------------------------------------------------------- annotations


def _annotation(node, module, far=FAR):
    """The type of an annotation, if an option can be of it; else empty."""
    if isinstance(node, ast.Constant):
        return _constant(node.value, module, far)
    if isinstance(node, ast.Name):
        if node.id in SIMPLE:
            return SIMPLE[node.id]
        return _alias(node.id, module, far)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        left = _annotation(node.left, module, far)
        right = _annotation(node.right, module, far)
        return _union(left, right)
    if isinstance(node, ast.Subscript):
        return _subscript(node, module, far)
    return EMPTY


def _constant(value, module, far):
    """The type of an annotation by a text or None."""
    if value is None:
        return type(None)
    if not isinstance(value, str):
        return EMPTY
    try:
        node = ast.parse(value, mode="eval").body
    except SyntaxError:
        return EMPTY
    return _annotation(node, module, far)


def _subscript(node, module, far):
    """The type of ``Optional[...]`` or ``Literal[...]``."""
    # typing.Literal is an attribute, Literal a name.
    name = getattr(node.value, "attr", getattr(node.value, "id", ""))
    if name == "Optional":
        inner = _annotation(node.slice, module, far)
        return _union(inner, type(None))
    if name != "Literal":
        return EMPTY
    try:
        return typing.Literal[ast.literal_eval(node.slice)]
    except ValueError:
        return EMPTY


def _union(left, right):
    if EMPTY in (left, right):
        return EMPTY
    return typing.Union[left, right]


def _alias(name, module, far):
    """The type called ``name`` in a module, by an assignment of its own or an imported one."""
    home, own_name = _home(module, name)
    node = _binding(home, own_name)
    if far and isinstance(node, ast.Assign):
        return _annotation(node.value, home, far - 1)
    return EMPTY


# ---------------------------------------------------------------- imported


def _imported(module, name, home):
    """``Declared`` of an imported object, bound in the module ``home``.

    None if the module has no such name.
    """
    try:
        factory = load(module, name)
    except AttributeError:
        return None
    if not callable(factory):
        raise UserError(
            f"{module}:{name} is of type {type(factory).__name__}, which cannot be called: name a "
            "function or a class")
    core = _core(factory)
    binding_module = sys.modules.get(home, sys.modules[module])
    core_name = getattr(core, "__module__", None) or ""
    core_module = sys.modules.get(core_name, binding_module)
    return Declared(
        signature=_asked(factory, f"{module}:{name}"),
        doc=inspect.getdoc(core) or "",
        text=inspect.getdoc(core_module) or "",
        sources=_sources(binding_module, factory, core),
    )


def _core(factory):
    """The function or class of a partial, or of an instance with ``__call__``."""
    # A partial of a partial, too.
    while isinstance(factory, functools.partial):
        factory = factory.func
    factory = inspect.unwrap(factory)
    if isinstance(factory, type) or hasattr(factory, "__name__"):
        return factory
    return type(factory)


def _asked(factory, named):
    """The signature of an object, its annotations reduced to the types of options."""
    try:
        signature = inspect.signature(factory, eval_str=True)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{named} does not say what it takes ({error}): write a function around it") from error
    # An annotation as a text may use a name that does not exist.
    except Exception:
        signature = inspect.signature(factory)
    parameters = []
    for parameter in signature.parameters.values():
        annotation = _option_type(parameter.annotation)
        parameters.append(parameter.replace(annotation=annotation))
    return signature.replace(return_annotation=EMPTY, parameters=parameters)


def _option_type(annotation):
    """The annotation, if an option can be of this type; else empty."""
    if annotation in (*SIMPLE.values(), type(None)):
        return annotation
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return annotation
    if origin not in (typing.Union, types.UnionType):
        return EMPTY
    members = [_option_type(member) for member in typing.get_args(annotation)]
    if EMPTY in members:
        return EMPTY
    return annotation


def _sources(module, factory, core):
    """The files of a factory: of the function or class beneath it, and of ``module``.

    The module names the factory, and counts only if it has made something of its own of it.
    """
    files = [_file(core)]
    if factory is not core:
        files.insert(0, getattr(module, "__file__", None))
    paths = [os.path.abspath(path) for path in files if path and os.path.isfile(path)]
    # Each once, in this order.
    return tuple(dict.fromkeys(paths))


def _file(core):
    try:
        return inspect.getfile(core)
    # Built into Python.
    except TypeError:
        return None
