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
from fedmpi.store.disk import beginning, continuing, finish, refused_by, remove
from fedmpi.store.read import one_line
from fedmpi.store.schema import SCHEMA
from fedmpi.store.states import check_save, flattened, unflattened
from fedmpi.store.stored import names_of, restored, stored

# The attribute ``filetype`` of a checkpoint.
CHECKPOINT = "fedmpi-checkpoint"
# Room for the header of one data set.
HEADER_BYTES = 1024
# A state with more bytes is written while the run goes on.
LARGE_BYTES = 64 << 20


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
    """The first part of ``save_checkpoint``. Returns the second part, a function that waits for the disk; it may run
    in another thread.

    A state of more than LARGE_BYTES is written by the second part: until it is done the state must not change."""
    check_save(round, keep)
    entries, data_sets = _data_sets(*flattened(state))
    with refused_by(folder):
        os.makedirs(folder, exist_ok=True)
        # Killed processes leave temporary files behind.
        leftovers = [name for name in os.listdir(folder) if name.endswith(".tmp")]
        remove(folder, leftovers)
    path = os.path.join(folder, f"{round:06d}.h5")
    manifest = json.dumps(dict(run_id=run_id, round=round, entries=entries)).encode()
    num_bytes = len(manifest)
    for data_set in data_sets:
        num_bytes += data_set.num_bytes + HEADER_BYTES
    is_large = num_bytes > LARGE_BYTES
    with beginning(path, num_bytes) as f:
        f.attrs.update(filetype=CHECKPOINT, schema=SCHEMA, run_id=run_id, round=round)
        create = _creator(f)
        _put(create("manifest", np.dtype(np.uint8), (len(manifest),)), np.frombuffer(manifest, np.uint8))
        data = [create(data_set.name, data_set.dtype, data_set.shape) for data_set in data_sets]
        if is_large:
            # An empty data set has no place, and needs none.
            places = [one.get_offset() or 0 for one in data]
        else:
            f.attrs["sha256"] = _written_at_once(manifest, data_sets, data)

    def settle():
        if is_large:
            _write(path, manifest, data_sets, places)
        finish(path)
        remove(folder, _superseded(folder, round, keep))

    return settle


def _data_sets(entries, arrays):
    """``(entries, [Stored])``: the entries say how arrays are held."""
    all_entries, all_data_sets = [], []
    for entry, array in zip(entries, arrays):
        if array is not None:
            entry, data_sets = stored(_dataset_name(entry["path"]), entry, array)
            all_data_sets += data_sets
        all_entries.append(entry)
    return all_entries, all_data_sets


def _put(data, content):
    """Writes an array into a new data set."""
    data.write(h5s.ALL, h5s.ALL, content)


def _written_at_once(manifest, data_sets, data):
    """The sum of a small checkpoint, whose content is written into its new data sets ``data``."""
    digest = hashlib.sha256(manifest)
    for data_set, one in zip(data_sets, data):
        content = _whole(data_set)
        digest.update(content.reshape(-1).view(np.uint8))
        _put(one, content)
    return digest.hexdigest()


def _whole(data_set):
    """The content of a small data set as one array."""
    pieces = list(data_set.pieces())
    if len(pieces) == 1:
        return pieces[0].reshape(data_set.shape)
    content = np.empty(data_set.shape, data_set.dtype)
    np.concatenate([content.reshape(-1)[:0], *pieces], out=content.reshape(-1))
    return content


def _write(path, manifest, data_sets, places):
    """Write the content of a checkpoint and its sum, beside the run: neither holds Python up."""
    digest = hashlib.sha256(manifest)
    with continuing(path) as temporary:
        handle = os.open(temporary, os.O_WRONLY)
        try:
            for data_set, place in zip(data_sets, places):
                for piece in data_set.pieces():
                    content = np.ascontiguousarray(piece).view(np.uint8)
                    digest.update(content)
                    place += _written(handle, content, place)
        finally:
            os.close(handle)
        with h5py.File(temporary, "r+", locking=False, rdcc_nbytes=0) as f:
            f.attrs["sha256"] = digest.hexdigest()


def _written(handle, content, place):
    """The number of bytes of ``content``, all written at ``place``."""
    done = 0
    while done < len(content):
        # Linux writes 2 GiB at once.
        done += os.pwrite(handle, content[done:], place + done)
    return done


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


def _creator(f):
    """``create(name, dtype, shape)``: a new data set with its bytes, in a third of the time of h5py's own."""
    links = h5p.create(h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    layout = h5p.create(h5p.DATASET_CREATE)
    layout.set_fill_time(h5d.FILL_TIME_NEVER)
    layout.set_alloc_time(h5d.ALLOC_TIME_EARLY)

    def create(name, dtype, shape):
        space = h5s.create_simple(shape)
        stored_dtype = h5t.py_create(dtype, logical=True)
        return h5d.create(f.id, name.encode(), stored_dtype, space, layout, links)

    return create


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
        digest = hashlib.sha256(manifest)
        arrays = [_array_of(f, entry, digest) for entry in parts["entries"]]
        if digest.hexdigest() != f.attrs["sha256"]:
            raise CheckpointError("its content does not fit its sha256")
    if parts["run_id"] != run_id:
        raise CheckpointError(f"it is of another run ({parts['run_id']}, this one is {run_id})")
    return parts["round"], parts["entries"], arrays


def _array_of(f, entry, digest):
    """The array of an entry, whose bytes go into ``digest``; None if its value is in the manifest.

    The digest is sha256 of names, dtypes, shapes and plain values, all in the manifest, and of every array's bytes.
    """
    if "dtype" not in entry:
        return None
    arrays = [f[name][...] for name in names_of(_dataset_name(entry["path"]), entry)]
    for array in arrays:
        digest.update(array.reshape(-1).view(np.uint8))
    return restored(entry, arrays)


def _dataset_name(path):
    """The data set of a state's leaf, as in ``state/strategy/v``."""
    return "/".join(["state", *map(_part_of_name, path)])


def _part_of_name(key):
    """One key of a path: an int has a ``#``; a text unfit for HDF5 is escaped."""
    if isinstance(key, int):
        return f"#{key}"
    text = quote(key, safe="", errors="surrogatepass")
    return {"": "%", ".": "%2E"}.get(text, text)
