"""Your own tokens: an HDF5 file, or nanoGPT's folder of raw uint16 files.

    mine.h5     x_train (n,) and x_test (m,), whole numbers from 0; for natural clients also
                offsets (clients + 1,): client i holds x_train[offsets[i]:offsets[i + 1]];
                test_offsets, the same of x_test; client_names (clients,)
    a folder    train.bin and val.bin, as nanoGPT's prepare.py writes them: val.bin tests

Tokens keep their dtype on disk and in the memory that a node's ranks share.
"""

import os

import numpy as np

from fedmpi.core.errors import DataError
from fedmpi.methods.datasets.stream import TOKENS, dataset_of

NAMES = ("x_train", "x_test")
OPTIONAL = ("offsets", "test_offsets", "client_names")


def tokens(data_dir, file: str = "tokens.h5", context: int = 64, vocab: int = 0,
           token_bytes: float = 0.0):
    """The tokens in ``file``, an HDF5 file or a folder of train.bin and val.bin.

    It is relative to ``data_dir`` or absolute. ``context`` is the tokens of a window; ``vocab`` 0
    stands for the largest token and one; ``token_bytes`` is the mean number of bytes of text for a
    token, without which bits per byte are not known.

    Paper: none: your own data.
    Example: fedmpi train --task lm --dataset tokens:file=mine.h5,context=128 --model gpt
    """
    if not 0 <= token_bytes < np.inf:
        raise ValueError(f"token_bytes must be >= 0, got {token_bytes}")
    path = os.path.join(data_dir, file)
    read = _folder if os.path.isdir(path) else _hdf5
    arrays = read(path)
    x_train, x_test = arrays["x_train"], arrays["x_test"]
    offsets = arrays.get("offsets")
    size = vocab or int(max(x_train.max(), x_test.max())) + 1
    bytes_a_token = token_bytes or np.nan
    return dataset_of(
        x_train, x_test, context, size,
        offsets=offsets,
        test_offsets=arrays.get("test_offsets"),
        client_names=_names(path, arrays, offsets),
        token_bytes=(bytes_a_token, bytes_a_token),
        remarks=(f"tokens: {len(x_train):,} training and {len(x_test):,} test tokens, of {size:,}",),
        whose=path)


def _hdf5(path):
    """``{name: array}`` of an HDF5 file."""
    from fedmpi.store import read_arrays
    arrays, _ = read_arrays(path, NAMES, OPTIONAL)
    for name in NAMES:
        arrays[name] = _ids(path, name, arrays[name])
    if "client_names" in arrays and "offsets" not in arrays:
        raise DataError(f"{path}: client_names without offsets: where does each client's text "
                        "begin? store offsets (clients + 1,)")
    return arrays


def _ids(path, name, array):
    """The tokens (n,) in a dtype of ``TOKENS``; DataError for other arrays."""
    if array.ndim != 1 or array.dtype.kind not in "iu" or not len(array):
        raise DataError(f"{path}: {name} must be tokens (n,), whole numbers, got {array.shape} "
                        f"{array.dtype}; store one row of ids")
    if array.dtype in TOKENS:
        return array
    largest = int(array.max())
    for dtype in TOKENS:
        if int(array.min()) >= 0 and largest <= np.iinfo(dtype).max:
            return array.astype(dtype)
    raise DataError(f"{path}: {name} must lie in [0, 2^63), got {int(array.min())} to {largest}")


def _folder(path):
    """``{name: array}`` of nanoGPT's files, mapped into memory."""
    arrays = {}
    for name, file in (("x_train", "train.bin"), ("x_test", "val.bin")):
        place = os.path.join(path, file)
        try:
            arrays[name] = np.memmap(place, np.uint16, "r")
        except (OSError, ValueError) as error:
            raise DataError(f"{place}: expected raw uint16 tokens, as nanoGPT's prepare.py writes "
                            f"them ({error}); write both train.bin and val.bin") from error
    return arrays


def _names(path, arrays, offsets):
    """A text a natural client; () without offsets."""
    if offsets is None:
        return ()
    count = len(offsets) - 1
    names = arrays.get("client_names", np.arange(count))
    if np.shape(names) != (count,):
        raise DataError(f"{path}: client_names must be one for each of the {count} clients that "
                        f"offsets make, got shape {np.shape(names)}")
    return tuple(str(name) for name in names)
