"""Paths as people give them and read them; the folder that a process works in may be gone."""

import os
import shlex

GONE = "the working folder was removed: cd to one that exists, or give absolute paths"
NOWHERE = "/proc/self/fdinfo"          # a folder that is there, takes no files, and has none that anybody would name


def working_folder():
    """Where this process works; empty where that folder was removed, or cannot be reached."""
    try:
        folder = os.getcwd()
    except OSError:
        return ""
    return "" if folder == os.path.realpath(NOWHERE) else folder


def leave_what_is_gone():
    """Work elsewhere where the working folder was removed: Intel's MKL ends a process that works in none. A relative
    path then leads nowhere, as it did before."""
    if not working_folder():
        os.chdir(NOWHERE)


def perhaps_gone():
    """The end of an error's line: what may be behind it where the working folder was removed, else nothing."""
    return "" if working_folder() else f"; {GONE}"


def near(path):
    """``path`` as seen from the working folder, absolute where there is none."""
    return os.path.relpath(path) if working_folder() else os.path.abspath(path)


def typed(path):
    """``near``, as a shell takes it."""
    return shlex.quote(near(path))


def readable(name):
    """``name`` as a text that any file or library takes: a byte that is no text is written as ``\\udce9``, say."""
    return name.encode(errors="backslashreplace").decode()
