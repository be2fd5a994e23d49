"""Checkpoints in HDF5: the state after a round, one file each; refused unless sha256 and run match."""

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

# The attribute ``filetype`` of a checkpoint.
CHECKPOINT = "fedmpi-checkpoint"
# Room for the header of one data set.
HEADER_BYTES = 1024


def checkpoint_folder(path):
    """The folder holding the checkpoints of the run file ``path``."""
    return os.path.splitext(os.path.realpath(path))[0] + ".ckpt"


def save_checkpoint(folder, state, round, *, run_id, keep=2):
    """Writes ``state`` to ``folder/<round>.h5``: under another name, onto the disk, then renamed.

    Leaves may be numpy arrays, torch tensors, int, float, bool, str and None; keys str or int. A tensor comes back on
    the CPU. The newest ``keep - 1`` of the older checkpoints stay. Later ones belong to an abandoned future and go."""
    settle = write_checkpoint(folder, state, round, run_id=run_id, keep=keep)
    settle()


def write_checkpoint(folder, state, round, *, run_id, keep=2):
    """The first part of ``save_checkpoint``: after it, ``state`` may change. Returns the second part, a function
    waiting for the disk."""
    check_save(round, keep)
    entries, arrays = flattened(state)
    with refused_by(folder):
        os.makedirs(folder, exist_ok=True)
        # Killed processes leave temporary files behind.
        leftovers = [name for name in os.listdir(folder) if name.endswith(".tmp")]
        remove(folder, leftovers)
    path = os.path.join(folder, f"{round:06d}.h5")
    manifest = json.dumps(dict(run_id=run_id, round=round, entries=entries)).encode()
    named_arrays = _named_arrays(entries, arrays)
    num_bytes = len(manifest)
    for array in named_arrays.values():
        num_bytes += array.nbytes + HEADER_BYTES
    with beginning(path, num_bytes) as f:
        f.attrs.update(filetype=CHECKPOINT, schema=SCHEMA, run_id=run_id, round=round)
        f.attrs["sha256"] = _digest(manifest, arrays)
        put = _putter(f)
        put("manifest", np.frombuffer(manifest, np.uint8))
        for name, array in named_arrays.items():
            put(name, array)

    def settle():
        finish(path)
        remove(folder, _superseded(folder, round, keep))

    return settle


def _named_arrays(entries, arrays):
    """``{name of the data set: array}`` of the entries with an array."""
    named = {}
    for entry, array in zip(entries, arrays):
        if array is not None:
            named[_dataset_name(entry["path"])] = array
    return named


def _superseded(folder, round, keep):
    """The checkpoints to remove once the one after ``round`` is written.

    All later ones, and older ones beyond ``keep``.
    """
    later, up_to_now = [], []
    # The newest first.
    for number, name in checkpoints(folder):
        if number > round:
            later.append(name)
        else:
            up_to_now.append(name)
    return later + up_to_now[keep:]


def _putter(f):
    """``put(name, array)``: creates the same data set as ``f[name] = array``, in a third of the time."""
    links = h5p.create(h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    layout = h5p.create(h5p.DATASET_CREATE)
    layout.set_fill_time(h5d.FILL_TIME_NEVER)

    def put(name, array):
        array = np.asarray(array, order="C")
        path = name.encode()
        space = h5s.create_simple(array.shape)
        dtype = h5t.py_create(array.dtype, logical=True)
        data = h5d.create(f.id, path, dtype, space, layout, links)
        data.write(h5s.ALL, h5s.ALL, array)

    return put


def load_checkpoint(folder, *, run_id, warn=warnings.warn, round=None):
    """``(state, round)`` of the newest sound checkpoint of this run, or of the one after ``round``. CheckpointError
    if there is none.

    ``warn(line)`` is called for every newer checkpoint refused."""
    refusals = []
    for _, name in _candidates(folder, round):
        path = os.path.join(folder, name)
        try:
            saved_round, entries, arrays = _verified(path, run_id)
        # A damaged file makes h5py raise almost anything; every reason is reported.
        except Exception as reason:
            refusals.append(f"checkpoint {path} is refused: {one_line(reason)}")
            continue
        for line in refusals:
            warn(f"{line}; {name} is used instead")
        return unflattened(entries, arrays), saved_round
    raise CheckpointError("; ".join(refusals) or f"there is no checkpoint in {folder}")


def _candidates(folder, round):
    """[(round, file name)] of the checkpoint after ``round``; of all, the newest first, if ``round`` is None."""
    listed = checkpoints(folder)
    if round is None:
        return listed
    if round not in dict(listed):
        rounds = [str(number) for number, _ in reversed(listed)]
        present = ", ".join(rounds) or "none"
        raise CheckpointError(f"there is no checkpoint after round {round} in {folder}; there is: {present}")
    return [pair for pair in listed if pair[0] == round]


def remove_checkpoints(folder, run_id):
    """Removes the checkpoints of the run ``run_id``, and the folder if it is empty then."""
    for _, name in checkpoints(folder):
        if _run_of(os.path.join(folder, name)) == run_id:
            remove(folder, [name])
    if os.path.isdir(folder) and not os.listdir(folder):
        os.rmdir(folder)


def _run_of(path):
    """The run_id of a checkpoint; None if the file is damaged or no checkpoint."""
    try:
        with h5py.File(path, "r", locking=False) as f:
            if f.attrs.get("filetype") != CHECKPOINT:
                return None
            return f.attrs.get("run_id")
    except (OSError, RuntimeError):
        return None


def checkpoints(folder):
    """[(round, file name)], the newest first."""
    if not os.path.isdir(folder):
        return []
    listed = []
    for name in os.listdir(folder):
        match = re.fullmatch(r"(\d{6,})\.h5", name)
        if match:
            listed.append((int(match[1]), name))
    return sorted(listed, reverse=True)


def _verified(path, run_id):
    """(round, entries, arrays) of a checkpoint. CheckpointError if it was changed, or is of another run."""
    with h5py.File(path, "r", locking=False) as f:
        manifest = f["manifest"][...].tobytes()
        parts = json.loads(manifest)
        arrays = [_array_of(f, entry) for entry in parts["entries"]]
        if _digest(manifest, arrays) != f.attrs["sha256"]:
            raise CheckpointError("its content does not fit its sha256")
    if parts["run_id"] != run_id:
        raise CheckpointError(f"it is of another run ({parts['run_id']}, this one is {run_id})")
    return parts["round"], parts["entries"], arrays


def _array_of(f, entry):
    """The array of an entry; None if its value is in the manifest."""
    if "dtype" not in entry:
        return None
    return f[_dataset_name(entry["path"])][...]


def _digest(manifest, arrays):
    """sha256 of names, dtypes, shapes and plain values (all in the manifest) and of every array's bytes."""
    digest = hashlib.sha256(manifest)
    for array in arrays:
        if array is not None:
            digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()


def _dataset_name(path):
    """The data set of a state's leaf, as in ``state/strategy/v``."""
    return "/".join(["state", *map(_part_of_name, path)])


def _part_of_name(key):
    """One key of a path: an int has a ``#``; a text unfit for HDF5 is escaped."""
    if isinstance(key, int):
        return f"#{key}"
    text = quote(key, safe="", errors="surrogatepass")
    return {"": "%", ".": "%2E"}.get(text, text)
