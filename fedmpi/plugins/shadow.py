"""Files of the user's that have the name of a library's module, so that one is imported where the
other is meant."""

import importlib.machinery
import importlib.util
import os
import sys
import types


def namesake(module):
    """The path of a file in the working folder that has the name of a module and is not that
    module; empty where there is none."""
    top = module.partition(".")[0]
    own = [path for path in _files(top, os.getcwd()) if os.path.isfile(path)]
    if not own:
        return ""
    taken = importlib.util.find_spec(top)
    origin = (taken and taken.origin) or ""
    same = os.path.isfile(origin) and any(os.path.samefile(path, origin) for path in own)
    return "" if same else own[0]


def in_the_way(error):
    """One line where a file of the working folder has been imported in place of a library's module,
    and lacks what ``error``, an ImportError or AttributeError, has missed; else empty."""
    path = error.path if isinstance(error, ImportError) else None
    missed = error.obj if isinstance(error, AttributeError) else None
    if isinstance(missed, types.ModuleType):
        path = getattr(missed, "__file__", None)
    if not path:
        return ""
    folder, name = os.path.split(os.path.abspath(path))
    if name == "__init__.py":
        folder, name = os.path.split(folder)
    top, here = name.removesuffix(".py"), os.path.realpath(os.getcwd())
    if os.path.realpath(folder) != here:
        return ""
    library = _library(top, here)
    line = f"{path} is imported in place of {library}, which has the same name: rename your file"
    return line if library else ""


def _library(top, here):
    """What the module ``top`` would be without the folder ``here``, in words; empty where there is
    none."""
    if top in sys.stdlib_module_names:
        return f"Python's own module {top}"
    elsewhere = [folder for folder in sys.path if os.path.realpath(folder or ".") != here]
    spec = importlib.machinery.PathFinder.find_spec(top, elsewhere)
    return f"the library {spec.origin}" if spec is not None and spec.origin else ""


def _files(top, folder):
    return [os.path.join(folder, f"{top}.py"), os.path.join(folder, top, "__init__.py")]
