"""Large integers as texts, for programs whose numbers end at 2^53: R, Matlab, JavaScript.

In a file, a column ``x`` of uint64 is followed by ``x_text``, the same in hexadecimal. It is no column of its own:
whoever writes a row gives ``x``, and a Run has ``x``.
"""

import numpy as np

BYTES = 16                           # of a uint64 in hexadecimal


def with_texts(columns):
    """The columns of a file for these columns of a run."""
    found = []
    for column in columns:
        found.append(column)
        if column.dtype == "uint64":
            found.append(column._replace(
                name=f"{column.name}_text", dtype=f"S{BYTES}", unit="", description=described(column.name)))
    return tuple(found)


def described(name):
    """The meaning of the text of the column ``name``."""
    return f"{name} in hexadecimal, for programs whose numbers end at 2^53"


def text_names(dtypes):
    """The names of the texts among ``{name: dtype}``."""
    large = {name for name, dtype in dtypes.items() if np.dtype(dtype) == np.uint64}
    return {f"{name}_text" for name in large} & set(dtypes)


def hexadecimal(numbers):
    """The uint64 ``numbers`` as texts, in the same shape."""
    texts = [f"{number:0{BYTES}x}".encode() for number in numbers.ravel().tolist()]
    return np.array(texts, f"S{BYTES}").reshape(numbers.shape)
