"""A user's files with the name of a library's module, so that Python imports the wrong one."""

import importlib.machinery
import importlib.util
import os
import sys
import types


def namesake(module):
    """The path of another file in the working folder with the name of a module; "" without one."""
    top = module.partition(".")[0]
    own = [path for path in _files(top, os.getcwd()) if os.path.isfile(path)]
    if not own:
        return ""
    spec = importlib.util.find_spec(top)
    # Python imports this one.
    origin = spec.origin if spec else None
    if origin and _is_one_of(origin, own):
        return ""
    return own[0]


def _is_one_of(origin, paths):
    if not os.path.isfile(origin):
        return False
    return any(os.path.samefile(path, origin) for path in paths)


def _files(top, folder):
    module = os.path.join(folder, f"{top}.py")
    package = os.path.join(folder, top, "__init__.py")
    return [module, package]


def in_the_way(error):
    """One line about a file of the working folder, imported in place of a library's module.

    ``error``, an ImportError or AttributeError, has missed a name in it; "" for another module.
    """
    path = _path_of(error)
    if not path:
        return ""
    folder, name = os.path.split(os.path.abspath(path))
    # The file of a package: its folder has the name.
    if name == "__init__.py":
        folder, name = os.path.split(folder)
    top = name.removesuffix(".py")
    here = os.path.realpath(os.getcwd())
    if os.path.realpath(folder) != here:
        return ""
    library = _library(top, here)
    if not library:
        return ""
    return f"{path} is imported in place of {library}, which has the same name: rename your file"


def _path_of(error):
    """The path of the module without the missing name; None if the error has none."""
    if isinstance(error, ImportError):
        return error.path
    if isinstance(error, AttributeError) and isinstance(error.obj, types.ModuleType):
        return getattr(error.obj, "__file__", None)
    return None


def _library(top, here):
    """The module ``top`` outside of the folder ``here``, in words; "" without one."""
    if top in sys.stdlib_module_names:
        return f"Python's own module {top}"
    elsewhere = [folder for folder in sys.path if os.path.realpath(folder or ".") != here]
    spec = importlib.machinery.PathFinder.find_spec(top, elsewhere)
    if spec is None or not spec.origin:
        return ""
    return f"the library {spec.origin}"
