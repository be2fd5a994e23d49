"""What a process finds around it and did not choose: encodings, folders, variables of HDF5."""

import locale
import os
import sys

from fedmpi.core.errors import UserError
from fedmpi.core.paths import working_folder

DRIVER, CONNECTOR, LOCKING = "HDF5_DRIVER", "HDF5_VOL_CONNECTOR", "HDF5_USE_FILE_LOCKING"
PLAIN_FILES = {DRIVER: ("", "sec2", "stdio", "core", "log"), CONNECTOR: ("", "native")}    # rows are written into those
LOCALES = ("LC_ALL", "LC_CTYPE", "LANG")        # the first that is set counts


def check_hdf5(env=os.environ):
    """UserError where HDF5 would not keep a run in one plain file, or cannot be loaded at all."""
    for name, plain in PLAIN_FILES.items():
        value = env.get(name, "")
        if value.partition(" ")[0] not in plain:
            raise UserError(f"{name}={value}: run files are plain files, which HDF5 must write by itself; unset {name}")


def around():
    """Facts for ``fedmpi doctor``, as JSON takes them."""
    return {
        "folder": working_folder(), "output": _encoding(sys.stdout), "names": sys.getfilesystemencoding(),
        "locale": _locale(), "locale_known": _locale_known(), "home": _home(), "umask": _umask(),
        "hdf5": {name: value for name, value in os.environ.items() if name.startswith("HDF5_")}}


def _encoding(stream):
    return getattr(stream, "encoding", None) or "utf-8"


def _locale():
    """``NAME=value`` of the variable that decides; empty where none is set."""
    name = next((name for name in LOCALES if os.environ.get(name)), "")
    return f"{name}={os.environ[name]}" if name else ""


def _locale_known():
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, "")
    except locale.Error:
        return False
    locale.setlocale(locale.LC_CTYPE, before)
    return True


def _home():
    """The home folder, empty where there is none that takes files."""
    home = os.path.expanduser("~")
    return home if os.path.isdir(home) and os.access(home, os.W_OK | os.X_OK) else ""


def _umask():
    """Without setting it, as the only other way to ask does."""
    with open("/proc/self/status", encoding="utf-8") as file:
        found = [line.split()[1] for line in file if line.startswith("Umask:")]
    return int(found[0], 8) if found else 0
