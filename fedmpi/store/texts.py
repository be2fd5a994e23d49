"""Large integers as texts, for programs whose numbers end at 2^53: R, Matlab, JavaScript.

In a file, a column ``x`` of uint64 is followed by ``x_text``, the same number in hexadecimal. ``x_text`` is no column
of a run: writers give ``x`` alone, and a Run has ``x`` alone.
"""

import numpy as np

# Bytes of a uint64 in hexadecimal.
BYTES = 16


def with_texts(columns):
    """The columns of a file for these columns of a run."""
    all_columns = []
    for column in columns:
        all_columns.append(column)
        if column.dtype == "uint64":
            all_columns.append(_text_column(column))
    return tuple(all_columns)


def _text_column(column):
    name = f"{column.name}_text"
    description = described(column.name)
    return column._replace(name=name, dtype=f"S{BYTES}", unit="", description=description)


def described(name):
    """The meaning of the text of the column ``name``."""
    return f"{name} in hexadecimal, for programs whose numbers end at 2^53"


def text_names(dtypes):
    """The names of the texts among ``{name: dtype}``."""
    texts = set()
    for name, dtype in dtypes.items():
        if np.dtype(dtype) == np.uint64:
            texts.add(f"{name}_text")
    # A file of an older schema has none.
    return texts & set(dtypes)


def hexadecimal(numbers):
    """The uint64 ``numbers`` as texts, in the same shape."""
    texts = [f"{number:0{BYTES}x}".encode() for number in numbers.ravel().tolist()]
    return np.array(texts, f"S{BYTES}").reshape(numbers.shape)
