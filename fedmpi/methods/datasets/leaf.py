"""LEAF's json files: natural clients of FEMNIST and of Shakespeare (1812.01097).

A folder has ``train`` and ``test``, each with any number of *.json of the form

    {"users": [name], "num_samples": [count], "user_data": {name: {"x": [...], "y": [...]}}}

FEMNIST's x are 784 floats in [0, 1], white paper 1, and y classes 0..61. Shakespeare's x are 80
characters, y the next one, a place further for each sample: the text is put together again, and
its windows are those of a language model.
"""

import glob
import json
import os
from typing import NamedTuple

import numpy as np

from fedmpi.core.errors import DataError
from fedmpi.methods.datasets.dataset import Dataset, checked, moments
from fedmpi.methods.datasets.text import characters, of_clients

SIDE = 28
CLASSES = 62
NAMES = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


class User(NamedTuple):
    """A user's samples of one part, as lists."""

    x: list
    y: list


def leaf_femnist(data_dir, folder: str = "femnist"):
    """FEMNIST as LEAF's scripts write it: grey images (1, 28, 28) of 62 classes, by writer.

    ``folder`` with train and test is relative to ``data_dir`` or absolute. Paper is 1 and ink 0, as
    in LEAF; MNIST is the other way round.

    Paper: Caldas et al. 2018, "LEAF: A Benchmark for Federated Settings", arXiv 1812.01097.
    """
    path = os.path.join(data_dir, folder)
    train, test = parts(path)
    users = sorted(train)
    images = [_images(path, user, train[user].x) for user in users]
    sizes = [len(of_user) for of_user in images]
    x_train = np.concatenate(images)
    x_test = np.concatenate([_images(path, user, test[user].x) for user in sorted(test)])
    mean, std = moments(x_train)
    dataset = Dataset(
        x_train, _labels(train), x_test, _labels(test), CLASSES, mean, std, NAMES,
        client=np.repeat(np.arange(len(users)), sizes),
        client_names=tuple(users),
        remarks=(users_line(train, test, len(x_train), len(x_test)),))
    return checked(dataset, path)


def leaf_shakespeare(data_dir, folder: str = "shakespeare", context: int = 80):
    """Shakespeare as LEAF's scripts write it: characters, by speaker, for --task lm.

    ``folder`` with train and test is relative to ``data_dir`` or absolute. Samples of a speaker
    that follow each other become one text; LEAF's models predict its windows' last characters only.

    Paper: Caldas et al. 2018, "LEAF: A Benchmark for Federated Settings", arXiv 1812.01097.
    """
    path = os.path.join(data_dir, folder)
    train, test = parts(path)
    users = sorted(train)
    texts = [text_of(path, user, train[user]) for user in users]
    test_texts = [text_of(path, user, test[user]) for user in sorted(test)]
    coder = characters("".join([*texts, *test_texts]))
    return of_clients(coder, users, texts, test_texts, context, whose=path)


def parts(path):
    """``(train, test)``: ``{user: User}`` of each part, without users that have no sample.

    DataError unless both parts have the same users (split by sample) or no user in common (split by
    user).
    """
    train, test = [_part(path, name) for name in ("train", "test")]
    apart = sorted(train.keys() ^ test.keys())
    if apart and train.keys() & test.keys():
        raise DataError(f"{path}: {apart[0]} and {len(apart) - 1} more users are in one of train "
                        "and test only, others in both; keep the files of one split alone")
    return train, test


def _part(path, name):
    files = sorted(glob.glob(os.path.join(path, name, "*.json")))
    if not files:
        raise DataError(f"there is no {os.path.join(path, name)}/*.json; put the files there that "
                        "LEAF's preprocess.sh writes to data/train and data/test")
    users = {}
    for file in files:
        for user, samples in _user_data(file).items():
            if user in users:
                raise DataError(f"{file}: the user {user} is in another file, too; keep the files "
                                "of one split alone")
            users[user] = samples
    return {user: samples for user, samples in users.items() if samples.x}


def _user_data(file):
    """``{user: User}`` of one file; DataError in one line."""
    try:
        with open(file, encoding="utf-8") as opened:
            content = json.load(opened)
        data = {name: User(content["user_data"][name]["x"], content["user_data"][name]["y"])
                for name in content["users"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: no file of LEAF's form, users and user_data with x and y "
                        f"({type(error).__name__}: {error})") from error
    for name, samples in data.items():
        if len(samples.x) != len(samples.y):
            raise DataError(f"{file}: {name} has {len(samples.x)} x and {len(samples.y)} y")
    return data


def _images(path, user, x):
    """(n, 1, 28, 28) float32."""
    try:
        return np.asarray(x, np.float32).reshape(-1, 1, SIDE, SIDE)
    except ValueError as error:
        raise DataError(f"{path}: the images of {user} must be lists of 784 numbers ({error})"
                        ) from error


def _labels(part):
    """(N,) int64, by user."""
    return np.concatenate([np.asarray(part[user].y, np.int64) for user in sorted(part)])


def text_of(path, user, samples):
    """The text of a user's windows: a window that does not follow the last one begins anew."""
    pieces, expected = [], None
    for window, following in zip(samples.x, samples.y):
        if not (isinstance(window, str) and isinstance(following, str)):
            raise DataError(f"{path}: x and y of {user} must be texts, got "
                            f"{type(window).__name__} and {type(following).__name__}")
        both = window + following
        pieces.append(following if window == expected else both)
        expected = both[len(following):]
    return "".join(pieces)


def users_line(train, test, num_train, num_test):
    """A line for the user about the parts."""
    how = "the same users" if train.keys() == test.keys() else f"{len(test)} other users"
    return (f"users: {len(train)} with {num_train:,} training samples; {how} with {num_test:,} test "
            "samples")
