"""Whose each training sample of a user's own file is: its data set ``client``, an id a row."""

import numpy as np

from fedmpi.core.errors import DataError

NAMES = ("client", "client_train")      # a file may call it either


def owned(arrays, num_samples, path):
    """``(client (N,) int64, client_names)`` from the data set ``client`` or ``client_train`` among
    ``arrays``, numbers or words; ``(None, ())`` without one. Clients stand in the order of their
    ids. DataError where it does not fit."""
    present = [name for name in NAMES if name in arrays]
    if not present:
        return None, ()
    if len(present) > 1:
        raise DataError(f"data set {path}: has both {' and '.join(present)}; remove or rename one "
                        "of them")
    name, ids = present[0], arrays[present[0]]
    if ids.size != num_samples or len(ids) != num_samples:
        raise DataError(f"data set {path}: {name} must hold one id for each of the {num_samples} "
                        f"rows of x_train, got shape {ids.shape}; store an id a row, or rename it")
    ids = ids.reshape(-1)
    if ids.dtype.kind not in "biufU":
        raise DataError(f"data set {path}: {name} must be numbers or words, got {ids.dtype}; use "
                        "numpy.unique(client, return_inverse=True)[1]")
    if ids.dtype.kind == "f" and not (np.isfinite(ids).all() and (ids == np.rint(ids)).all()):
        raise DataError(f"data set {path}: {name} must be ids, that is, whole numbers or words, "
                        f"got {ids.dtype} with fractions, NaN or infinity; give every row the id "
                        "of its client")
    ids = ids.astype(np.int64) if ids.dtype.kind in "biuf" else ids
    names, client = np.unique(ids, return_inverse=True)
    return client.reshape(-1).astype(np.int64), tuple(str(each) for each in names.tolist())


def owners_text(client, names):
    """A line for the user about natural clients."""
    sizes = np.bincount(client, minlength=len(names))
    return (f"client: {len(names)} natural clients of {sizes.min():,} to {sizes.max():,} training "
            "samples, dealt out by --partition natural")
