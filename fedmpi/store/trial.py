"""A trial of a folder: can run files be written there, and does the file system keep its promises?"""

import fcntl
import os
import shutil
import tempfile
import time

import h5py
import numpy as np

from fedmpi.core.errors import DiskError
from fedmpi.store.disk import replace, sync


def trial(folder):
    """``{step: "" or the failure}``, and under ``sync_s`` the seconds until 1 MiB is on the disk.

    ``write``: an HDF5 file is made, opened again, and gets a row. ``rename``: a file takes another's place. ``lock``:
    flock keeps a second process out. ``hdf5_lock``: HDF5 can lock. Everything made here is removed, also the folder if
    it did not exist."""
    made = _missing(folder)
    results = {"write": "", "rename": "", "lock": "", "hdf5_lock": "", "sync_s": None}
    scratch = None
    try:
        os.makedirs(folder, exist_ok=True)
        scratch = tempfile.mkdtemp(prefix="trial-", dir=folder)
        path = os.path.join(scratch, "trial.h5")
        for step, attempt in ATTEMPTS.items():
            results[step] = _failure(attempt, path)
        results["sync_s"] = _synced(os.path.join(scratch, "synced"))
    except OSError as error:
        results["write"] = f"{error.strerror}: {error.filename}"
    finally:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
        for made_folder in made:
            if os.path.isdir(made_folder) and not os.listdir(made_folder):
                os.rmdir(made_folder)
    return results


def _failure(attempt, path):
    """The failure of one attempt, in one line; "" if it succeeds."""
    try:
        return attempt(path)
    except (OSError, RuntimeError, DiskError) as error:
        return " ".join(str(error).split()) or type(error).__name__


def _missing(folder):
    """The folders still to be made for ``folder``, the innermost first."""
    folder = os.path.abspath(folder)
    missing = []
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    return missing


def _written(path):
    with h5py.File(path, "w", locking=False) as f:
        f.create_dataset("rows", data=np.arange(4.0), maxshape=(None,), chunks=(4,))
    with h5py.File(path, "r+", locking=False) as f:
        f["rows"].resize((8,))
        f["rows"][4:] = np.arange(4.0, 8.0)
    with h5py.File(path, "r", locking=False) as f:
        rows = f["rows"][...].tolist()
    if rows != list(range(8)):
        return "what was read is not what was written"
    return ""


def _renamed(path):
    target = path + "-name"
    replace(target, b"new")
    with open(target, encoding="utf-8") as file:
        content = file.read()
    if content != "new":
        return "the old content is still there"
    return ""


def _locked(path):
    with open(path, "rb") as first, open(path, "rb") as second:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return ""
    return "a lock keeps nobody out"


def _hdf5_locked(path):
    with h5py.File(path, "r+", locking=True):
        return ""


# In this order: each needs the file of the first.
ATTEMPTS = {"write": _written, "rename": _renamed, "lock": _locked, "hdf5_lock": _hdf5_locked}


def _synced(path):
    """The seconds until 1 MiB is on the disk."""
    start = time.perf_counter()
    with open(path, "wb") as file:
        file.write(bytes(1 << 20))
    sync(path)
    return time.perf_counter() - start
