"""Paths as people give them and read them; the folder that a process works in may be gone."""

import os
import shlex

GONE = "the working folder was removed: cd to one that exists, or give absolute paths"


def working_folder():
    """Where this process works; empty where that folder was removed, or cannot be reached."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def near(path):
    """``path`` as seen from the working folder, absolute where there is none."""
    return os.path.relpath(path) if working_folder() else os.path.abspath(path)


def typed(path):
    """``near``, as a shell takes it."""
    return shlex.quote(near(path))
