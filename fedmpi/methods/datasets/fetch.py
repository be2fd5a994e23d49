"""Download a data set once, however many processes ask at the same time.

Under a file lock torchvision downloads and unpacks into a staging folder beside the final one;
each finished file is then moved into place by one rename. So a process may be killed at any
moment: the next fetch throws away its staging folder. Archives that already lie in the folder
are unpacked without a network.
"""

import os
import shutil

from filelock import FileLock

from fedmpi.core.errors import DataError
from fedmpi.methods.datasets.raw import SOURCES, one_line, opened, read


def fetch(name, data_dir):
    """The absolute folder in which data set ``name`` now lies complete; DataError in one line."""
    if name not in SOURCES:
        names = ", ".join(sorted(SOURCES))
        raise DataError(f"there is nothing to fetch for {name!r}; fetch knows {names}")
    data_dir = os.path.abspath(data_dir)
    if _complete(name, data_dir):
        return data_dir
    try:
        _fetch_locked(name, data_dir)
    # Networks, archives and disks fail in many ways; each is one line for the user.
    except Exception as error:
        archives = " ".join(SOURCES[name].archives)
        raise DataError(f"cannot fetch {name} into {data_dir} ({one_line(error)}); "
                        f"try again, or put {archives} there yourself") from error
    return data_dir


def _fetch_locked(name, data_dir):
    source = SOURCES[name]
    # Beside the data, on the same disk: a rename moves it.
    stage = os.path.join(data_dir, f".{name}.part")
    os.makedirs(data_dir, exist_ok=True)
    with FileLock(os.path.join(data_dir, f".{name}.lock")):
        # Another process may have been first.
        if _complete(name, data_dir):
            return
        shutil.rmtree(stage, ignore_errors=True)
        _link_archives(source.archives, data_dir, stage)
        for part in ("train", "test"):
            # Any split downloads all of them.
            opened(name, stage, part, split=source.splits[0], download=True)
        _publish(stage, data_dir)
        shutil.rmtree(stage)


def _complete(name, data_dir):
    try:
        for split in SOURCES[name].splits:
            read(name, data_dir, split)
    except DataError:
        return False
    return True


def _link_archives(archives, data_dir, stage):
    """Give the staging folder the archives that are already here."""
    os.makedirs(stage)
    for archive in archives:
        old = os.path.join(data_dir, archive)
        new = os.path.join(stage, archive)
        if os.path.isfile(old):
            os.makedirs(os.path.dirname(new), exist_ok=True)
            _link(old, new)


def _link(old, new):
    try:
        os.link(old, new)
    # A file system without hard links, or a file of another user.
    except OSError:
        shutil.copyfile(old, new)


def _publish(stage, data_dir):
    """Move all files of ``stage`` to the same places in ``data_dir``."""
    for folder, _, files in os.walk(stage):
        place = os.path.relpath(folder, stage)
        target = os.path.join(data_dir, place)
        os.makedirs(target, exist_ok=True)
        for file in files:
            staged = os.path.join(folder, file)
            os.replace(staged, os.path.join(target, file))
