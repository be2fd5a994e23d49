"""Parquet files with a column of clients, such as the data sets of Hugging Face and Flower.

Shards of a part are all files of the folder whose name begins with it, ``train-00000-of-00002.
parquet`` for instance. Without a test part, a share of each client's rows tests. A column of images
holds encoded images, structs ``{bytes, path}`` or bytes alone; another column of samples holds
numbers or lists of numbers of one length. Labels are numbers or words.
"""

import glob
import io
import os

import numpy as np

from fedmpi.core.errors import DataError
from fedmpi.core.rng import Purpose, stream
from fedmpi.methods.datasets.dataset import Dataset, checked, moments
from fedmpi.methods.datasets.labels import labelled
from fedmpi.methods.datasets.owners import owned, owners_text


def parquet(data_dir, folder: str = "parquet", x: str = "image", y: str = "label",
            client: str = "client_id", test: float = 0.1):
    """The samples of column ``x``, with labels ``y`` and owners ``client``, of a folder's shards.

    ``folder`` is relative to ``data_dir`` or absolute. ``test`` is the share of each client's rows
    that tests, if there is no shard of a test part. It needs pyarrow: pip install 'fedmpi[export]'.

    Paper: none: your own data.
    Example: fedmpi train --dataset parquet:folder=femnist,y=character,client=writer_id --model cnn
    """
    if not 0 < test < 1:
        raise ValueError(f"test must be in (0, 1), got {test}")
    path = os.path.join(data_dir, folder)
    columns = (x, y, client)
    train = _part(path, "train", columns)
    if train is None:
        raise DataError(f"there is no {path}/train*.parquet; put the shards of the data set there")
    held = _part(path, "test", columns)
    if held is None:
        is_test = _drawn(train[client], test)
        held = {name: values[is_test] for name, values in train.items()}
        train = {name: values[~is_test] for name, values in train.items()}
    labels = labelled(train[y], held[y], 0, "classes", path)
    owner, names = owned({"client": train[client]}, len(train[client]), path)
    x_train, x_test = [_samples(path, x, part[x]) for part in (train, held)]
    mean, std = moments(x_train)
    dataset = Dataset(
        x_train, labels.y_train, x_test, labels.y_test, labels.classes, mean, std, labels.names,
        client=owner,
        client_names=names,
        remarks=(*labels.lines, owners_text(owner, names)))
    return checked(dataset, path)


def _part(path, part, columns):
    """``{column: array (n,)}`` of all shards of a part, in their order; None without any."""
    files = sorted(glob.glob(os.path.join(path, f"{part}*.parquet")))
    if not files:
        return None
    try:
        import pyarrow.parquet as reader
    except ImportError as error:
        raise ValueError("it needs the library pyarrow: pip install 'fedmpi[export]'") from error
    shards = []
    for file in files:
        names = reader.read_schema(file).names
        lacking = [column for column in columns if column not in names]
        if lacking:
            raise DataError(f"{file}: has no column {', '.join(lacking)}; expected x, y and "
                            f"client among {', '.join(names)}: name them as options")
        shards.append(reader.read_table(file, columns=list(columns)))
    return {column: _values(shards, column) for column in columns}


def _values(shards, column):
    """(n,): numbers, numpy's str, or objects."""
    values = [value for shard in shards for value in shard[column].to_pylist()]
    if values and isinstance(values[0], (dict, bytes, list)):
        objects = np.empty(len(values), object)
        objects[:] = values
        return objects
    return np.array(values)


def _drawn(clients, share):
    """(n,) bool: about ``share`` of each client's rows at random, at most all but one."""
    is_test = np.zeros(len(clients), bool)
    gen = stream(0, Purpose.DATA)
    for client in np.unique(clients):
        rows = np.flatnonzero(clients == client)
        count = min(round(share * len(rows)), len(rows) - 1)
        tested = gen.permutation(rows)[:count]
        is_test[tested] = True
    return is_test


def _samples(path, column, values):
    """(n, ...): images (C, H, W) uint8, or numbers float32."""
    if len(values) and isinstance(values[0], (dict, bytes)):
        images = [_image(path, value) for value in values]
        return _stacked(path, column, images)
    if values.dtype == object:
        rows = [np.asarray(value, np.float32) for value in values]
        return _stacked(path, column, rows)
    return values.astype(np.float32)[:, None]


def _image(path, value):
    """(C, H, W) uint8 of an encoded image."""
    from PIL import Image, UnidentifiedImageError
    encoded = value["bytes"] if isinstance(value, dict) else value
    try:
        pixels = np.asarray(Image.open(io.BytesIO(encoded)))
    except (UnidentifiedImageError, TypeError) as error:
        raise DataError(f"{path}: a sample is no encoded image ({error})") from error
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    return np.moveaxis(pixels.astype(np.uint8), 2, 0)


def _stacked(path, column, samples):
    shapes = {sample.shape for sample in samples}
    if len(shapes) != 1:
        raise DataError(f"{path}: samples of {column} must be of one shape, got "
                        f"{', '.join(map(str, sorted(shapes)[:3]))}; resize or pad them")
    return np.stack(samples)
