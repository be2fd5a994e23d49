"""What a factory declares: its options, its docstring, and the files that define it.

Source is read without importing it where it shows the factory: a function, or a class with an
``__init__`` of its own, under the name that was asked for, or under the name that a package's
``from .impl import factory`` takes it from. Whatever else can be called (a partial, an assigned
name, a dataclass, a decorated function, an inherited ``__init__``) is imported and asked.
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
MACHINERY = "<frozen importlib"    # where Python's own frames of an import are
EMPTY = inspect.Parameter.empty
SIMPLE = {"str": str, "int": int, "float": float, "bool": bool}
FAR = 8    # imports that are followed from file to file


class Declared(NamedTuple):
    """A factory as its source, or the object itself, declares it."""

    signature: inspect.Signature
    doc: str
    text: str    # docstring of its module
    sources: tuple    # paths of the files that define it


def declared(module, name, importing=True):
    """``Declared`` of ``module:name``; None where the module has no such name. Where ``importing``
    is False and the source does not show the factory, it has no options. UserError where there is
    no such module."""
    if find(module) is None:
        return None
    home, own_name = _home(module, name)
    found = _read(home, own_name)
    if found is not None:
        return found
    if not importing:
        return Declared(inspect.Signature(), "", "", ())
    return _imported(module, name, home)


def find(module):
    """The spec of a module; None where it cannot be found. The packages that it is in are imported
    where it does not lie in their folders."""
    top, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    for name in inner:
        top = f"{top}.{name}"
        folders = spec and spec.submodule_search_locations
        spec = importlib.machinery.PathFinder.find_spec(top, folders) if folders else None
    return spec or _found_by_importing(module)


def _found_by_importing(module):
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
    """The object ``name`` of a module, imported; ``name`` may have dots. AttributeError where there
    is none."""
    with own_code(f"the module {module!r}"):
        imported = importlib.import_module(module)
    return functools.reduce(getattr, name.split("."), imported)


@contextlib.contextmanager
def own_code(whose, passing=()):
    """The block runs code of the user's. An exception of it becomes a FedError that says ``whose``
    code it was, with the traceback from the first frame outside of fedmpi; a syntax error in a file
    becomes a UserError that names file and line. Exceptions of the classes ``passing`` stay as they
    are."""
    try:
        yield
    except (FedError, *passing):
        raise
    except SystemExit as error:
        raise UserError(
            f"{whose} has ended the program by sys.exit: put what is to run as a script below "
            "if __name__ == '__main__'") from error
    except Exception as error:
        if isinstance(error, SyntaxError) and os.path.isfile(error.filename or ""):
            raise UserError(_syntax(error)) from error
        if isinstance(error, (ImportError, AttributeError)) and (line := in_the_way(error)):
            raise UserError(line) from error
        raise FedError(f"{whose} raised {type(error).__name__}\n{own_trace(error)}") from error


def own_trace(error):
    """The traceback of ``error`` without the leading frames of fedmpi's and of Python's import
    machinery."""
    first = error.__traceback__
    while first is not None and _is_ours(first.tb_frame.f_code.co_filename):
        first = first.tb_next
    return "".join(traceback.format_exception(type(error), error, first
                                              or error.__traceback__)).rstrip()


def _is_ours(path):
    ours = path.startswith((PACKAGE + os.sep, MACHINERY))
    return ours or path in (contextlib.__file__, importlib.__file__)


def _syntax(error):
    return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"


def digest(sources):
    """sha256, in hex, of the files that define a factory, byte by byte: any change of theirs, a
    comment too. It does not cover other modules that they import, nor data that they read."""
    sha = hashlib.sha256()
    for path in sources:
        with open(path, "rb") as file:
            sha.update(file.read())
    return sha.hexdigest()


# ---------------------------------------------------------------- from source


def _home(module, name):
    """``(module, name)`` that the imports of one package take a name from in the end."""
    for _ in range(FAR):
        node = _binding(module, name)
        taken = isinstance(node, ast.ImportFrom) and _taken_from(node, name, module)
        if not taken:
            break
        module, name = taken
    return module, name


def _binding(module, name):
    """The statement of a module that binds a name; None where it has no source, or none, or
    several."""
    path = _source_of(module)
    nodes = _parsed(path)[1].get(name, ()) if path else ()
    return nodes[0] if len(nodes) == 1 else None


def _read(module, name):
    """``Declared``, from source alone; None where the source does not show it."""
    node = _binding(module, name)
    arguments = node and _arguments(node)
    if arguments is None:
        return None
    path = _source_of(module)
    tree = _parsed(path)[0]
    signature = _signature(arguments, isinstance(node, ast.ClassDef), module)
    if signature is None:
        return None
    return Declared(signature,
                    ast.get_docstring(node) or "",
                    ast.get_docstring(tree) or "", (path,))


def _source_of(module):
    """The path of a module's source, None where it has none."""
    spec = find(module)
    return spec.origin if spec is not None and spec.origin and spec.origin.endswith(".py") else None


def _parsed(path):
    """``(tree, {name: the statements of the module that bind it})``."""
    stat = os.stat(path)
    return _parsed_as_of(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=256)    # a study asks for the same parts once a run, hundreds of times
def _parsed_as_of(path, mtime_ns, size):
    with open(path, "rb") as file:
        source = file.read()
    try:
        tree = ast.parse(source, path)
    except SyntaxError as error:
        raise UserError(_syntax(error)) from error
    except ValueError as error:
        raise UserError(f"{path} cannot be read as Python: {error}") from error
    bound = {}
    for node in _statements(tree.body):
        for name in _names(node):
            bound.setdefault(name, []).append(node)
    return tree, bound


def _statements(body):
    """The statements of a module, those in ifs, loops and tries included, those in functions and
    classes not."""
    for node in body:
        yield node
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        for part in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(node, part, ()))
        for handler in getattr(node, "handlers", ()):
            yield from _statements(handler.body)


def _names(node):
    """What a statement binds."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [alias.asname or alias.name for alias in node.names]
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, (ast.AnnAssign, ast.AugAssign)):
        targets = [node.target]
    elif isinstance(node, ast.Delete):
        targets = node.targets
    else:
        return []
    return [
        each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)
    ]


def _taken_from(node, name, module):
    """``(module, name)`` that an import takes a name from, where both are of one package; else
    None."""
    path = _source_of(module)
    package = module if os.path.basename(path) == "__init__.py" else module.rpartition(".")[0]
    other = node.module or ""
    if node.level:
        try:
            other = importlib.util.resolve_name("." * node.level + other, package)
        except ImportError:
            return None
    if other.partition(".")[0] != module.partition(".")[0]:
        return None
    taken = next(alias.name for alias in node.names if (alias.asname or alias.name) == name)
    return other, taken


def _arguments(node):
    """The arguments of a function or of a class's own ``__init__``; None where something else
    decides what it takes."""
    if isinstance(node, ast.FunctionDef):
        return node.args if all(_keeps_arguments(each) for each in node.decorator_list) else None
    if not isinstance(node, ast.ClassDef) or node.decorator_list or node.keywords:
        return None
    methods = {each.name: each for each in node.body if isinstance(each, ast.FunctionDef)}
    if "__init__" not in methods or "__new__" in methods:
        return None
    return _arguments(methods["__init__"])


def _keeps_arguments(decorator):
    """Whether a decorator leaves a function's arguments as they are:
    ``fedmpi.core.effect.needs`` does."""
    return isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "needs"


def _signature(arguments, bound, module):
    """An ``inspect.Signature``; None where a default is not a literal. ``bound``: the first
    argument is ``self``."""
    kinds = inspect.Parameter
    positional = [(each, kinds.POSITIONAL_ONLY) for each in arguments.posonlyargs]
    positional += [(each, kinds.POSITIONAL_OR_KEYWORD) for each in arguments.args]
    without = len(positional) - len(arguments.defaults)
    defaults = [None] * without + arguments.defaults
    rows = [(*pair, default) for pair, default in zip(positional, defaults)][int(bound):]
    if arguments.vararg:
        rows.append((arguments.vararg, kinds.VAR_POSITIONAL, None))
    rows += [(each, kinds.KEYWORD_ONLY, default)
             for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults)]
    if arguments.kwarg:
        rows.append((arguments.kwarg, kinds.VAR_KEYWORD, None))
    try:
        return inspect.Signature([
            kinds(argument.arg,
                  kind,
                  annotation=_annotation(argument.annotation, module),
                  default=EMPTY if default is None else ast.literal_eval(default))
            for argument, kind, default in rows
        ])
    except ValueError:
        return None


def _annotation(node, module, far=FAR):
    """The type that an annotation names, of those that an option can have; empty for others."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            return _annotation(ast.parse(node.value, mode="eval").body, module, far)
        except SyntaxError:
            return EMPTY
    if isinstance(node, ast.Constant) and node.value is None:
        return type(None)
    if isinstance(node, ast.Name):
        return SIMPLE[node.id] if node.id in SIMPLE else _alias(node.id, module, far)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union(_annotation(node.left, module, far), _annotation(node.right, module, far))
    if isinstance(node, ast.Subscript):
        return _subscript(node, module, far)
    return EMPTY


def _subscript(node, module, far):
    name = getattr(node.value, "attr", getattr(node.value, "id", ""))
    if name == "Optional":
        return _union(_annotation(node.slice, module, far), type(None))
    if name != "Literal":
        return EMPTY
    try:
        return typing.Literal[ast.literal_eval(node.slice)]
    except ValueError:
        return EMPTY


def _union(left, right):
    return EMPTY if EMPTY in (left, right) else typing.Union[left, right]


def _alias(name, module, far):
    """The type that a module calls ``name``: its own assignment, or that of the module that it
    takes it from."""
    home, own_name = _home(module, name)
    node = _binding(home, own_name)
    known = far and isinstance(node, ast.Assign)
    return _annotation(node.value, home, far - 1) if known else EMPTY


# ---------------------------------------------------------------- imported


def _imported(module, name, home):
    """``Declared`` of what is imported; None where the module has no such name, which the module
    ``home`` binds."""
    try:
        factory = load(module, name)
    except AttributeError:
        return None
    if not callable(factory):
        raise UserError(
            f"{module}:{name} is of type {type(factory).__name__}, which cannot be called: name a "
            "function or a class")
    core = _core(factory)
    named = sys.modules.get(home, sys.modules[module])
    beneath = sys.modules.get(getattr(core, "__module__", None) or "", named)
    return Declared(_asked(factory, f"{module}:{name}"),
                    inspect.getdoc(core) or "",
                    inspect.getdoc(beneath) or "", _sources(named, factory, core))


def _core(factory):
    """What a partial or an instance with ``__call__`` is made of: a function or a class."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    factory = inspect.unwrap(factory)
    return factory if isinstance(factory, type) or hasattr(factory, "__name__") else type(factory)


def _asked(factory, named):
    """The signature of an object, its annotations those that an option can have."""
    try:
        signature = inspect.signature(factory, eval_str=True)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{named} does not say what it takes ({error}): write a function around it") from error
    except Exception:    # an annotation that is a text and names what is not there
        signature = inspect.signature(factory)
    return signature.replace(return_annotation=EMPTY,
                             parameters=[
                                 each.replace(annotation=_known(each.annotation))
                                 for each in signature.parameters.values()
                             ])


def _known(annotation):
    """The annotation, where it is a type that an option can have."""
    if annotation in (*SIMPLE.values(),
                      type(None)) or typing.get_origin(annotation) is typing.Literal:
        return annotation
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return EMPTY
    members = [_known(each) for each in typing.get_args(annotation)]
    return EMPTY if EMPTY in members else annotation


def _sources(module, factory, core):
    """The files that define a factory: that of the function or class beneath it and, where the
    named module has made something of its own of that, its file too."""
    files = [_file(core)]
    if factory is not core:
        files.insert(0, getattr(module, "__file__", None))
    return tuple(
        dict.fromkeys(os.path.abspath(path) for path in files if path and os.path.isfile(path)))


def _file(core):
    try:
        return inspect.getfile(core)
    except TypeError:    # built into Python
        return None
