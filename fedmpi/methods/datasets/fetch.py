"""Download a data set once, however many processes ask at the same time and wherever one of
them is killed.

Under a file lock torchvision downloads and unpacks into a staging folder beside the final one;
each finished file is then moved into place by one rename. What a killed fetch left in the
staging folder is thrown away by the next. Archives that already lie in the folder are unpacked
without a network.
"""

import os
import shutil

from filelock import FileLock

from fedmpi.methods.datasets.raw import SOURCES, one_line, opened, read
from fedmpi.core.errors import DataError


def fetch(name, data_dir):
    """The absolute folder in which data set ``name`` now lies complete; raises ``DataError`` in
    one line."""
    if name not in SOURCES:
        raise DataError(f"there is nothing to fetch for {name!r}; fetch knows {', '.join(sorted(SOURCES))}")
    data_dir = os.path.abspath(data_dir)
    if not _complete(name, data_dir):
        try:
            _fetch_locked(name, data_dir)
        # Networks, archives and disks fail in many ways; each is one line for the user.
        except Exception as error:
            raise DataError(f"cannot fetch {name} into {data_dir} ({one_line(error)}); "
                            f"try again, or put {' '.join(SOURCES[name].archives)} there yourself") from error
    return data_dir


def _fetch_locked(name, data_dir):
    stage = os.path.join(data_dir, f".{name}.part")
    os.makedirs(data_dir, exist_ok=True)
    with FileLock(os.path.join(data_dir, f".{name}.lock")):
        if _complete(name, data_dir):    # another process was first
            return
        shutil.rmtree(stage, ignore_errors=True)
        _link_archives(SOURCES[name].archives, data_dir, stage)
        for part in ("train", "test"):
            opened(name, stage, part, split=SOURCES[name].splits[0], download=True)
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
        have, want = os.path.join(data_dir, archive), os.path.join(stage, archive)
        if os.path.isfile(have):
            os.makedirs(os.path.dirname(want), exist_ok=True)
            _link(have, want)


def _link(have, want):
    try:
        os.link(have, want)
    except OSError:    # a file system without hard links, or a file of another user
        shutil.copyfile(have, want)


def _publish(stage, data_dir):
    for folder, _, files in os.walk(stage):
        target = os.path.join(data_dir, os.path.relpath(folder, stage))
        os.makedirs(target, exist_ok=True)
        for file in files:
            os.replace(os.path.join(folder, file), os.path.join(target, file))
