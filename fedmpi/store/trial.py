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
    """``{step: "" or what was wrong}`` of ``write`` (a file of HDF5 is made, opened again, and gets a row), ``rename``
    (a file takes another's place), ``lock`` (flock keeps a second one out) and ``hdf5_lock`` (HDF5 can lock), and
    ``sync_s``, the seconds until 1 MiB is on the disk. What it makes it removes; the folder itself too, if it was not
    there."""
    made = _missing(folder)
    found = {"write": "", "rename": "", "lock": "", "hdf5_lock": "", "sync_s": None}
    here = None
    try:
        os.makedirs(folder, exist_ok=True)
        here = tempfile.mkdtemp(prefix="trial-", dir=folder)
        path = os.path.join(here, "trial.h5")
        attempts = {"write": _written, "rename": _renamed, "lock": _locked, "hdf5_lock": _hdf5_locked}
        for step, attempt in attempts.items():
            try:
                found[step] = attempt(path) or ""
            except (OSError, RuntimeError, DiskError) as error:       # here the failure is what is looked for
                found[step] = " ".join(str(error).split()) or type(error).__name__
        found["sync_s"] = _synced(os.path.join(here, "synced"))
    except OSError as error:
        found["write"] = f"{error.strerror}: {error.filename}"
    finally:
        if here:
            shutil.rmtree(here, ignore_errors=True)
        for each in made:
            if os.path.isdir(each) and not os.listdir(each):
                os.rmdir(each)
    return found


def _missing(folder):
    """The folders that would have to be made, the innermost first."""
    folder, missing = os.path.abspath(folder), []
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
        return "" if f["rows"][...].tolist() == list(range(8)) else "what was read is not what was written"


def _renamed(path):
    replace(path + "-name", b"new")
    with open(path + "-name", encoding="utf-8") as file:
        return "" if file.read() == "new" else "the old content is still there"


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


def _synced(path):
    start = time.perf_counter()
    with open(path, "wb") as file:
        file.write(bytes(1 << 20))
    sync(path)
    return time.perf_counter() - start
