"""Targets of a user's own file: values, several labels a sample, or classes 0 .. K - 1.

Classes come from numbers, words or one-hot rows: the distinct labels of training and test data
in their order. They are called by their numbers where these are 0 .. K - 1, else by names,
which a run records.
"""

from typing import NamedTuple

import numpy as np

from fedmpi.core.errors import DataError

SHOWN = 5           # names of classes that a line lists
NUMBERS = "biuf"    # numpy's kinds of numbers and truth values


class Labels(NamedTuple):
    """Targets as a ``Dataset`` has them."""

    # (N,) int64 in [0, classes), or without classes (N, ...) float32, or (N, C) uint8.
    y_train: np.ndarray
    y_test: np.ndarray
    classes: int            # 0 where targets are none
    names: tuple            # a text per class; empty where they are called by their numbers
    lines: tuple            # for the user


def labelled(y_train, y_test, classes, targets, path):
    """The ``Labels`` of two arrays that are ``targets``, "classes", "values" or "labels"."""
    if targets == "classes":
        return classified(y_train, y_test, classes, path)
    convert = _values if targets == "values" else _bits
    train = convert(y_train, "y_train", path)
    test = convert(y_test, "y_test", path)
    return Labels(train, test, 0, (), ())


def _values(y, name, path):
    """(N,) or (N, d) float32; DataError in one line for another shape or kind."""
    are_numbers = y.dtype.kind in NUMBERS and y.ndim in (1, 2) and y.size > 0
    if not are_numbers:
        raise DataError(f"data set {path}: {name} must be values (N,) or (N, d), got {y.shape} "
                        f"{y.dtype}; store numbers, a row a sample")
    magnitudes = np.abs(y.astype(np.float64))
    # NaN is not <= either.
    if not np.all(magnitudes <= np.finfo(np.float32).max):
        raise DataError(f"data set {path}: {name} must be finite in float32, got NaN, infinity or "
                        "too large a number; clean the data")
    return y.astype(np.float32)


def _bits(y, name, path):
    """(N, C) uint8 of 0 and 1; DataError in one line for another shape or kind."""
    is_table = y.dtype.kind in NUMBERS and y.ndim == 2 and y.size > 0
    if not (is_table and _is_bit(y).all()):
        raise DataError(f"data set {path}: {name} must be rows of 0 and 1, (N, labels), got "
                        f"{y.shape} {y.dtype}; store a column a label, 1 where it holds, or leave "
                        "targets=labels out")
    return y.astype(np.uint8)


def _is_bit(y):
    return (y == 0) | (y == 1)


def classified(y_train, y_test, classes, path):
    """The ``Labels`` of two arrays as a file holds them; DataError in one line for other arrays.

    ``classes`` 0 stands for the number of distinct labels; else labels are numbers in [0,
    ``classes``).
    """
    pairs = [("y_train", y_train), ("y_test", y_test)]
    widths = [_one_hot_width(y, name, path) for name, y in pairs]
    if any(widths):
        return _from_rows(pairs, widths, classes, path)
    train = _flat(y_train, "y_train", path)
    test = _flat(y_test, "y_test", path)
    kinds = [_kind(train), _kind(test)]
    if kinds[0] != kinds[1]:
        raise DataError(f"data set {path}: y_train holds {kinds[0]} and y_test {kinds[1]}; store "
                        "both alike")
    return _from_values(train, test, classes, path)


def _kind(labels):
    return "words" if labels.dtype.kind == "U" else "numbers"


def _one_hot_width(y, name, path):
    """K where ``y`` holds one-hot rows (N, K), 0 where it is no table.

    DataError for other tables.
    """
    if y.ndim != 2 or y.shape[1] < 2 or y.dtype.kind not in NUMBERS:
        return 0
    num_set = np.count_nonzero(y, axis=1)
    if _is_bit(y).all() and (num_set == 1).all():
        return y.shape[1]
    if len(y) == 1:
        raise DataError(f"data set {path}: {name} must be a label a row, (N,), or one-hot rows (N, "
                        f"classes), got {y.shape}; store y.reshape(-1)")
    raise DataError(f"data set {path}: {name} is {y.shape} {y.dtype} and not one-hot: rows "
                    "must hold a single 1 and else 0; where the largest of a row is its class, "
                    "store y.argmax(1); values are for targets=values, several labels a row "
                    "for targets=labels")


def _from_rows(pairs, widths, classes, path):
    """The ``Labels`` of one-hot rows."""
    if widths[0] != widths[1]:
        shapes = " and ".join(f"{name} {y.shape}" for name, y in pairs)
        raise DataError(f"data set {path}: one-hot rows must be as wide in both, got {shapes}; "
                        "store both alike")
    width = widths[0]
    if classes not in (0, width):
        raise DataError(f"data set {path}: its one-hot rows are of {width} classes, got "
                        f"classes={classes}; leave classes out")
    train, test = [y.argmax(1).astype(np.int64) for _, y in pairs]
    line = "labels: one-hot rows, each taken as the class where its 1 is"
    return Labels(train, test, width, (), (line,))


def _flat(y, name, path):
    """Labels (N,) as int64 or numpy's str; DataError in one line for other arrays."""
    if y.size == 0:
        raise DataError(f"data set {path}: {name} must not be empty, got shape {y.shape}; add "
                        "samples")
    is_column = y.ndim == 2 and y.shape[1] == 1
    if y.ndim != 1 and not is_column:
        raise DataError(f"data set {path}: {name} must be a label a row, (N,), or one-hot rows (N, "
                        f"classes), got {y.shape} {y.dtype}; store one label a sample")
    y = y.reshape(-1)
    if y.dtype.kind == "U":
        return y
    if y.dtype.kind not in NUMBERS:
        raise DataError(f"data set {path}: {name} must be numbers or words, got {y.dtype}; use "
                        "numpy.unique(y, return_inverse=True)[1]")
    if not are_whole(y):
        raise DataError(f"data set {path}: {name} must be classes, that is, whole numbers or "
                        f"words, got {y.dtype} with fractions, NaN or infinity; cut a range into "
                        "classes by numpy.digitize, drop what has none, or say targets=values "
                        "and take a --task for values: regression, or one of your own")
    return y.astype(np.int64)


def are_whole(numbers):
    """Whether an array holds whole numbers only, perhaps as floats."""
    if numbers.dtype.kind != "f":
        return True
    return np.isfinite(numbers).all() and (numbers == np.rint(numbers)).all()


def _from_values(y_train, y_test, classes, path):
    """The ``Labels`` of numbers or words (N,)."""
    distinct = np.unique(np.concatenate([y_train, y_test]))
    K = len(distinct)
    kind = _kind(distinct)
    if classes and kind == "numbers":
        return _numbered(y_train, y_test, classes, path)
    if classes not in (0, K):
        raise DataError(f"data set {path}: its labels are {K} words, got classes={classes}; leave "
                        "classes out")
    if K < 2:
        raise DataError(f"data set {path}: classes must be at least 2, got 1: every label is "
                        f"{distinct[0]}; a classifier needs labels of two kinds")
    # Labels 0 .. K - 1 need no names.
    names = ()
    lines = ()
    if kind == "words" or not np.array_equal(distinct, np.arange(K)):
        names = _texts(distinct)
        lines += (_names_line(names, kind),)
    # A mistake more often than not: a test set of other classes.
    unseen = np.setdiff1d(y_test, y_train)
    if len(unseen):
        lines += (f"labels: {_listed(_texts(unseen))} of the test data never occurs in the "
                  "training data",)
    train = np.searchsorted(distinct, y_train).astype(np.int64)
    test = np.searchsorted(distinct, y_test).astype(np.int64)
    return Labels(train, test, K, names, lines)


def _texts(labels):
    return tuple(str(label) for label in labels.tolist())


def _numbered(y_train, y_test, classes, path):
    """The ``Labels`` of numbers that are classes already."""
    for name, y in (("y_train", y_train), ("y_test", y_test)):
        lowest, highest = y.min(), y.max()
        if lowest < 0 or highest >= classes:
            raise DataError(f"data set {path}: {name} must lie in [0, {classes}), got {lowest} to "
                            f"{highest}; raise classes, or leave it out: then the distinct labels "
                            "are the classes")
    return Labels(y_train, y_test, classes, (), ())


def _names_line(names, kind):
    last = len(names) - 1
    return (f"labels: the {len(names)} {kind} {_listed(names)} are classes 0 to {last} in this "
            "order")


def _listed(names):
    """Some of the names as a text."""
    if len(names) <= SHOWN:
        return ", ".join(names)
    return ", ".join(names[:SHOWN - 1]) + f" ... {names[-1]}"
