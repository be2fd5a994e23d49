"""Paths as people give them and read them; the folder that a process works in may be gone."""

import os
import shlex

GONE = "the working folder was removed: cd to one that exists, or give absolute paths"
# A folder that exists, takes no files, and has none that a user would name.
NOWHERE = "/proc/self/fdinfo"


def working_folder():
    """The folder that this process works in; empty if it was removed, or cannot be reached."""
    try:
        folder = os.getcwd()
    except OSError:
        return ""
    if folder == os.path.realpath(NOWHERE):
        return ""
    return folder


def leave_what_is_gone():
    """Work elsewhere if the working folder was removed.

    Intel's MKL ends a process without a working folder. A relative path leads nowhere, as before.
    """
    if not working_folder():
        os.chdir(NOWHERE)


def perhaps_gone():
    """The end of an error's line: a possible cause if the working folder is gone, else empty."""
    if working_folder():
        return ""
    return f"; {GONE}"


def near(path):
    """``path`` as seen from the working folder, absolute without one."""
    if working_folder():
        return os.path.relpath(path)
    return os.path.abspath(path)


def typed(path):
    """``near``, as a shell takes it."""
    return shlex.quote(near(path))


def readable(name):
    """``name`` as a text for any file or library: a byte of no text becomes ``\\udce9``, say."""
    return name.encode(errors="backslashreplace").decode()
