"""The owner of each training sample of a user's own file: its data set ``client``, an id a row."""

import numpy as np

from fedmpi.core.errors import DataError
from fedmpi.methods.datasets.labels import NUMBERS, are_whole

# A file may use either.
NAMES = ("client", "client_train")


def owned(arrays, num_samples, path):
    """``(client (N,) int64, client_names)`` from the owners among ``arrays``, numbers or words.

    ``(None, ())`` without owners. Clients stand in the order of their ids. DataError where the
    owners do not fit.
    """
    present = [name for name in NAMES if name in arrays]
    if not present:
        return None, ()
    if len(present) > 1:
        raise DataError(f"data set {path}: has both {' and '.join(present)}; remove or rename one "
                        "of them")
    name = present[0]
    ids = _ids(arrays[name], name, num_samples, path)
    names, client = np.unique(ids, return_inverse=True)
    texts = tuple(str(name) for name in names.tolist())
    return client.reshape(-1).astype(np.int64), texts


def _ids(ids, name, num_samples, path):
    """(N,) int64, or numpy's str; DataError in one line for other arrays."""
    if ids.size != num_samples or len(ids) != num_samples:
        raise DataError(f"data set {path}: {name} must hold one id for each of the {num_samples} "
                        f"rows of x_train, got shape {ids.shape}; store an id a row, or rename it")
    ids = ids.reshape(-1)
    if ids.dtype.kind == "U":
        return ids
    if ids.dtype.kind not in NUMBERS:
        raise DataError(f"data set {path}: {name} must be numbers or words, got {ids.dtype}; use "
                        "numpy.unique(client, return_inverse=True)[1]")
    if not are_whole(ids):
        raise DataError(f"data set {path}: {name} must be ids, that is, whole numbers or words, "
                        f"got {ids.dtype} with fractions, NaN or infinity; give every row the id "
                        "of its client")
    return ids.astype(np.int64)


def owners_text(client, names):
    """A line for the user about natural clients."""
    sizes = np.bincount(client, minlength=len(names))
    smallest, largest = sizes.min(), sizes.max()
    return (f"client: {len(names)} natural clients of {smallest:,} to {largest:,} training "
            "samples, dealt out by --partition natural")
