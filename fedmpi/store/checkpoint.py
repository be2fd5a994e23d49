"""Checkpoints in HDF5: the state after a round, one file each, refused unless its sha256 and its run are right."""

import hashlib
import json
import os
import re
import warnings
from urllib.parse import quote

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

from fedmpi.core.errors import CheckpointError
from fedmpi.store.disk import beginning, finish, refused_by, remove
from fedmpi.store.read import one_line
from fedmpi.store.schema import SCHEMA
from fedmpi.store.states import check_save, flattened, unflattened

CHECKPOINT = "fedmpi-checkpoint"                           # the filetype that such a file says it is


def checkpoint_folder(path):
    """Where the checkpoints of the run file ``path`` lie."""
    return os.path.splitext(os.path.realpath(path))[0] + ".ckpt"


def save_checkpoint(folder, state, round, *, run_id, keep=2):
    """Writes ``state`` to ``folder/<round>.h5``: under another name, onto the disk, then renamed.

    Leaves may be numpy arrays, torch tensors, int, float, bool, str and None; keys str or int. A tensor comes back on
    the CPU. Of the older ones the newest ``keep - 1`` stay; later ones belong to a future that was given up, and go."""
    write_checkpoint(folder, state, round, run_id=run_id, keep=keep)()


def write_checkpoint(folder, state, round, *, run_id, keep=2):
    """The first part of ``save_checkpoint``, after which ``state`` may change; it returns the second, a function that
    waits for the disk."""
    check_save(round, keep)
    entries, arrays = flattened(state)
    with refused_by(folder):
        os.makedirs(folder, exist_ok=True)
        remove(folder, [n for n in os.listdir(folder) if n.endswith(".tmp")])  # left by a process that was killed
    path = os.path.join(folder, f"{round:06d}.h5")
    manifest = json.dumps(dict(run_id=run_id, round=round, entries=entries)).encode()
    with beginning(path, len(manifest) + sum(_room(array) for array in arrays if array is not None)) as f:
        f.attrs.update(filetype=CHECKPOINT, schema=SCHEMA, run_id=run_id, round=round)
        f.attrs["sha256"] = _digest(manifest, arrays)
        put = _putter(f)
        put("manifest", np.frombuffer(manifest, np.uint8))
        for entry, array in zip(entries, arrays):
            if array is not None:
                put(_dataset_name(entry["path"]), array)

    def settle():
        finish(path)
        found = checkpoints(folder)
        remove(folder, [n for r, n in found if r > round] + [n for r, n in found if r <= round][keep:])

    return settle


def _room(array):
    return array.nbytes + 1024                             # and its header


def _putter(f):
    """``put(name, array)``, a data set as ``f[name] = array`` makes it, at a third of the time."""
    links, layout = h5p.create(h5p.LINK_CREATE), h5p.create(h5p.DATASET_CREATE)
    links.set_create_intermediate_group(True)
    layout.set_fill_time(h5d.FILL_TIME_NEVER)

    def put(name, array):
        array = np.asarray(array, order="C")
        space = h5s.create_simple(array.shape)
        h5d.create(f.id, name.encode(), h5t.py_create(array.dtype, logical=True), space, layout, links).write(
            h5s.ALL, h5s.ALL, array)

    return put


def load_checkpoint(folder, *, run_id, warn=warnings.warn, round=None):
    """``(state, round)`` of the newest checkpoint that is sound and of this run, or of the one after ``round``;
    CheckpointError if there is none.

    ``warn(line)`` is called for every newer one that had to be refused."""
    refused, there = [], checkpoints(folder)
    if round is not None and round not in dict(there):
        listed = ", ".join(str(each) for each, _ in reversed(there)) or "none"
        raise CheckpointError(f"there is no checkpoint after round {round} in {folder}; there is: {listed}")
    for _, name in [each for each in there if round in (None, each[0])]:
        path = os.path.join(folder, name)
        try:
            of, entries, arrays = _verified(path, run_id)
        except Exception as reason:  # a damaged file makes h5py raise almost anything; every reason is reported
            refused.append(f"checkpoint {path} is refused: {one_line(reason)}")
            continue
        for line in refused:
            warn(f"{line}; {name} is used instead")
        return unflattened(entries, arrays), of
    raise CheckpointError("; ".join(refused) or f"there is no checkpoint in {folder}")


def remove_checkpoints(folder, run_id):
    """Removes the checkpoints of the run ``run_id``, and the folder where nothing else is left in it."""
    for _, name in checkpoints(folder):
        if _run_of(os.path.join(folder, name)) == run_id:
            remove(folder, [name])
    if os.path.isdir(folder) and not os.listdir(folder):
        os.rmdir(folder)


def _run_of(path):
    """The id of the run that a checkpoint is of; None for a file that is none, or damaged."""
    try:
        with h5py.File(path, "r", locking=False) as f:
            return f.attrs.get("run_id") if f.attrs.get("filetype") == CHECKPOINT else None
    except (OSError, RuntimeError):
        return None


def checkpoints(folder):
    """[(round, file name)], the newest first."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    matches = [re.fullmatch(r"(\d{6,})\.h5", n) for n in names]
    return sorted(((int(m[1]), m[0]) for m in matches if m), reverse=True)


def _verified(path, run_id):
    """(round, entries, arrays) of a checkpoint whose content is what was written, and of this run."""
    with h5py.File(path, "r", locking=False) as f:
        manifest = f["manifest"][...].tobytes()
        parts = json.loads(manifest)
        arrays = [f[_dataset_name(e["path"])][...] if "dtype" in e else None for e in parts["entries"]]
        if _digest(manifest, arrays) != f.attrs["sha256"]:
            raise CheckpointError("its content does not fit its sha256")
    if parts["run_id"] != run_id:
        raise CheckpointError(f"it is of another run ({parts['run_id']}, this one is {run_id})")
    return parts["round"], parts["entries"], arrays


def _digest(manifest, arrays):
    """sha256 of names, dtypes, shapes and plain values (all in the manifest) and of every array's bytes."""
    digest = hashlib.sha256(manifest)
    for array in arrays:
        if array is not None:
            digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()


def _dataset_name(path):
    """``state/strategy/v``; a key that HDF5 could not have as a name is escaped, an int key has a ``#``."""

    def part(key):
        text = f"#{key}" if isinstance(key, int) else quote(key, safe="", errors="surrogatepass")
        return {"": "%", ".": "%2E"}.get(text, text)

    return "/".join(["state", *map(part, path)])
