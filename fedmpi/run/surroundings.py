"""The surroundings of a process: encodings, folders, variables of HDF5."""

import locale
import os
import sys

from fedmpi.core.errors import UserError
from fedmpi.core.paths import working_folder

DRIVER, CONNECTOR, LOCKING = "HDF5_DRIVER", "HDF5_VOL_CONNECTOR", "HDF5_USE_FILE_LOCKING"
# Values of these variables with which HDF5 writes one plain file, as run files must be.
PLAIN_FILES = {DRIVER: ("", "sec2", "stdio", "core", "log"), CONNECTOR: ("", "native")}
# The first variable with a value decides the locale.
LOCALES = ("LC_ALL", "LC_CTYPE", "LANG")


def check_hdf5(env=os.environ):
    """UserError unless HDF5 loads, and writes one plain file."""
    for name, plain in PLAIN_FILES.items():
        value = env.get(name, "")
        if value.partition(" ")[0] not in plain:
            raise UserError(f"{name}={value}: run files are plain files, which HDF5 must write by "
                            f"itself; unset {name}")


def around():
    """Facts for ``fedmpi doctor``, as JSON takes them."""
    hdf5 = {name: value for name, value in os.environ.items() if name.startswith("HDF5_")}
    return {
        "folder": working_folder(),
        "output": _encoding(sys.stdout),
        "names": sys.getfilesystemencoding(),
        "locale": _locale(),
        "locale_known": _locale_known(),
        "home": _home(),
        "umask": _umask(),
        "hdf5": hdf5
    }


def _encoding(stream):
    return getattr(stream, "encoding", None) or "utf-8"


def _locale():
    """``NAME=value`` of the variable that decides the locale; empty if none is set."""
    for name in LOCALES:
        value = os.environ.get(name)
        if value:
            return f"{name}={value}"
    return ""


def _locale_known():
    """Whether this machine has the locale that the environment names."""
    # Only setting a locale shows whether it exists.
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, "")
    except locale.Error:
        return False
    locale.setlocale(locale.LC_CTYPE, before)
    return True


def _home():
    """The home folder, empty if it takes no files."""
    home = os.path.expanduser("~")
    takes_files = os.path.isdir(home) and os.access(home, os.W_OK | os.X_OK)
    return home if takes_files else ""


def _umask():
    """The process's umask. os.umask would have to set one to read it, for all threads."""
    with open("/proc/self/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0
