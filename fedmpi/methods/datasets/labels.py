"""Targets of a user's own file: values, several labels a sample, or classes 0 .. K - 1 from
numbers, words, one-hot rows.

The classes are the distinct labels of training and test data in their order. They are called by
their numbers where these are 0 .. K - 1, else by names, which a run records.
"""

from typing import NamedTuple

import numpy as np

from fedmpi.core.errors import DataError

SHOWN = 5           # names of classes that a line lists


class Labels(NamedTuple):
    """Targets as a ``Dataset`` has them."""

    y_train: np.ndarray     # (N,) int64 in [0, classes), or without classes (N, ...) float32, or (N, C) uint8
    y_test: np.ndarray
    classes: int            # 0 where targets are none
    names: tuple            # a text per class; empty where they are called by their numbers
    told: tuple             # lines for the user


def labelled(y_train, y_test, classes, targets, path):
    """The ``Labels`` of two arrays that are ``targets``, "classes", "values" or "labels"."""
    if targets == "classes":
        return classified(y_train, y_test, classes, path)
    taken = _values if targets == "values" else _bits
    found = [taken(y, name, path) for name, y in (("y_train", y_train), ("y_test", y_test))]
    return Labels(*found, 0, (), ())


def _values(y, name, path):
    """(N,) or (N, d) float32; DataError in one line for what are no values."""
    numbers = y.dtype.kind in "biuf" and y.ndim in (1, 2) and y.size > 0
    if not numbers:
        raise DataError(f"data set {path}: {name} must be values (N,) or (N, d), got {y.shape} "
                        f"{y.dtype}; store numbers, a row a sample")
    if not np.all(np.abs(y.astype(np.float64)) <= np.finfo(np.float32).max):
        raise DataError(f"data set {path}: {name} must be finite in float32, got NaN, infinity or "
                        "too large a number; clean the data")
    return y.astype(np.float32)


def _bits(y, name, path):
    """(N, C) uint8 of 0 and 1; DataError in one line for what are no labels."""
    table = y.dtype.kind in "biuf" and y.ndim == 2 and y.size > 0
    if not (table and ((y == 0) | (y == 1)).all()):
        raise DataError(f"data set {path}: {name} must be rows of 0 and 1, (N, labels), got {y.shape} "
                        f"{y.dtype}; store a column a label, 1 where it holds, or leave "
                        "targets=labels out")
    return y.astype(np.uint8)


def classified(y_train, y_test, classes, path):
    """The ``Labels`` of two arrays as a file holds them; DataError in one line for what is none.

    ``classes`` 0 stands for as many as there are distinct labels; else labels are numbers in [0,
    ``classes``).
    """
    pairs = [("y_train", y_train), ("y_test", y_test)]
    rows = [_one_hot_width(y, name, path) for name, y in pairs]
    if any(rows):
        return _from_rows(pairs, rows, classes, path)
    flat = [_flat(y, name, path) for name, y in pairs]
    words = [y.dtype.kind == "U" for y in flat]
    if words[0] != words[1]:
        kinds = ["words" if each else "numbers" for each in words]
        raise DataError(f"data set {path}: y_train holds {kinds[0]} and y_test {kinds[1]}; store "
                        "both alike")
    return _from_values(*flat, classes, path)


def _one_hot_width(y, name, path):
    """K where ``y`` holds one-hot rows (N, K), 0 where it is no table; DataError for other
    tables."""
    if y.ndim != 2 or y.shape[1] < 2 or y.dtype.kind not in "biuf":
        return 0
    is_bit = (y == 0) | (y == 1)
    one_hot = is_bit.all() and (np.count_nonzero(y, axis=1) == 1).all()
    if len(y) == 1 and not one_hot:
        raise DataError(f"data set {path}: {name} must be a label a row, (N,), or one-hot rows (N, "
                        f"classes), got {y.shape}; store y.reshape(-1)")
    if not one_hot:
        raise DataError(f"data set {path}: {name} is {y.shape} {y.dtype} and not one-hot: rows "
                        "must hold a single 1 and else 0; where the largest of a row is its class, "
                        "store y.argmax(1); values are for targets=values, several labels a row "
                        "for targets=labels")
    return y.shape[1]


def _from_rows(pairs, rows, classes, path):
    """The ``Labels`` of one-hot rows."""
    if rows[0] != rows[1]:
        shapes = " and ".join(f"{name} {y.shape}" for name, y in pairs)
        raise DataError(f"data set {path}: one-hot rows must be as wide in both, got {shapes}; "
                        "store both alike")
    if classes not in (0, rows[0]):
        raise DataError(f"data set {path}: its one-hot rows are of {rows[0]} classes, got "
                        f"classes={classes}; leave classes out")
    found = [y.argmax(1).astype(np.int64) for _, y in pairs]
    told = "labels: one-hot rows, each taken as the class where its 1 is"
    return Labels(*found, rows[0], (), (told,))


def _flat(y, name, path):
    """Labels (N,) as int64 or numpy's str; DataError in one line for what cannot be labels."""
    if y.size == 0:
        raise DataError(f"data set {path}: {name} must not be empty, got shape {y.shape}; add "
                        "samples")
    if y.ndim != 1 and not (y.ndim == 2 and y.shape[1] == 1):
        raise DataError(f"data set {path}: {name} must be a label a row, (N,), or one-hot rows (N, "
                        f"classes), got {y.shape} {y.dtype}; store one label a sample")
    y = y.reshape(-1)
    if y.dtype.kind == "U":
        return y
    if y.dtype.kind not in "biuf":
        raise DataError(f"data set {path}: {name} must be numbers or words, got {y.dtype}; use "
                        "numpy.unique(y, return_inverse=True)[1]")
    if y.dtype.kind == "f" and not (np.isfinite(y).all() and (y == np.rint(y)).all()):
        raise DataError(f"data set {path}: {name} must be classes, that is, whole numbers or "
                        f"words, got {y.dtype} with fractions, NaN or infinity; cut a range into "
                        "classes by numpy.digitize, drop what has none, or say targets=values "
                        "and --task regression")
    return y.astype(np.int64)


def _from_values(y_train, y_test, classes, path):
    """The ``Labels`` of numbers or words (N,)."""
    distinct = np.unique(np.concatenate([y_train, y_test]))
    words = distinct.dtype.kind == "U"
    if classes and words and classes != len(distinct):
        raise DataError(f"data set {path}: its labels are {len(distinct)} words, got "
                        f"classes={classes}; leave classes out")
    if classes and not words:
        return _numbered(y_train, y_test, classes, path)
    if len(distinct) < 2:
        raise DataError(f"data set {path}: classes must be at least 2, got 1: every label is "
                        f"{distinct[0]}; a classifier needs labels of two kinds")
    plain = not words and np.array_equal(distinct, np.arange(len(distinct)))
    names = () if plain else tuple(str(label) for label in distinct.tolist())
    told = () if plain else (_names_text(names, words),)
    unseen = np.setdiff1d(y_test, y_train)
    if len(unseen):
        told += (f"labels: {_listed([str(label) for label in unseen.tolist()])} of the test data "
                 "never occurs in the training data",)
    return Labels(np.searchsorted(distinct, y_train).astype(np.int64),
                  np.searchsorted(distinct, y_test).astype(np.int64), len(distinct), names, told)


def _numbered(y_train, y_test, classes, path):
    """The ``Labels`` of numbers that are classes already."""
    for name, y in (("y_train", y_train), ("y_test", y_test)):
        if y.min() < 0 or y.max() >= classes:
            raise DataError(f"data set {path}: {name} must lie in [0, {classes}), got {y.min()} to "
                            f"{y.max()}; raise classes, or leave it out: then the distinct labels "
                            "are the classes")
    return Labels(y_train, y_test, classes, (), ())


def _names_text(names, words):
    kind = "words" if words else "numbers"
    last = len(names) - 1
    return (f"labels: the {len(names)} {kind} {_listed(names)} are classes 0 to {last} in this "
            "order")


def _listed(names):
    """Some of the names as a text."""
    if len(names) <= SHOWN:
        return ", ".join(names)
    return ", ".join(names[:SHOWN - 1]) + f" ... {names[-1]}"
