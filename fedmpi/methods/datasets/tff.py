"""TensorFlow Federated's HDF5 archives: natural clients of EMNIST, CIFAR-100 and Shakespeare.

An archive has a data set ``examples/CLIENT/FIELD`` a client and field, its samples along the first
axis; one archive trains and one tests:

    fed_emnist_{train,test}.h5      pixels float32 (n, 28, 28), white paper 1;  label int32 (n,)
    fed_cifar100_{train,test}.h5    image uint8 (n, 32, 32, 3);  label int64 (n,)
    shakespeare_{train,test}.h5     snippets (n,) UTF-8 texts

Clients of both archives are the same, but for CIFAR-100, whose test clients are others. Nothing is
downloaded.
"""

import os

import numpy as np

from fedmpi.core.errors import DataError
from fedmpi.methods.datasets.dataset import Dataset, checked, moments
from fedmpi.methods.datasets.text import characters, of_clients

GROUP = "examples"


def tff_emnist(data_dir, folder: str = "."):
    """EMNIST by writer: grey images (1, 28, 28); 3,400 clients.

    ``folder`` of fed_emnist_train.h5 and fed_emnist_test.h5 is relative to ``data_dir``. Paper is 1
    and ink 0, as in the archives; MNIST is the other way round. There are 62 classes, or 10 in the
    archives of digits alone.

    Paper: Caldas et al. 2018, "LEAF: A Benchmark for Federated Settings", arXiv 1812.01097.
    """
    def images(arrays):
        return np.asarray(arrays["pixels"], np.float32)[:, None]

    return _labelled(data_dir, folder, "fed_emnist", ("pixels", "label"), images)


def tff_cifar100(data_dir, folder: str = "."):
    """CIFAR-100 by 500 clients of 100 images, dealt out by Pachinko allocation.

    ``folder`` of fed_cifar100_train.h5 and fed_cifar100_test.h5 is relative to ``data_dir``.

    Paper: Reddi et al. 2021, "Adaptive Federated Optimization", arXiv 2003.00295.
    """
    def images(arrays):
        return np.ascontiguousarray(np.moveaxis(arrays["image"], 3, 1))

    return _labelled(data_dir, folder, "fed_cifar100", ("image", "label"), images)


def tff_shakespeare(data_dir, folder: str = ".", context: int = 80):
    """Shakespeare by speaker: characters, for --task lm; 715 clients.

    ``folder`` of shakespeare_train.h5 and shakespeare_test.h5 is relative to ``data_dir``. A
    speaker's snippets are joined by line breaks.

    Paper: McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from
        Decentralized Data", arXiv 1602.05629.
    """
    train, test = _archives(data_dir, folder, "shakespeare", ("snippets",))
    names = sorted(train)
    texts = [_text(train[name]) for name in names]
    test_texts = [_text(test[name]) for name in sorted(test)]
    coder = characters("".join([*texts, *test_texts]))
    return of_clients(coder, names, texts, test_texts, context, whose="tff-shakespeare")


def _labelled(data_dir, folder, archive, fields, images_of):
    """The ``Dataset`` of an archive of images with classes."""
    train, test = _archives(data_dir, folder, archive, fields)
    names = sorted(train)
    images = [images_of(train[name]) for name in names]
    x_train = np.concatenate(images)
    x_test = np.concatenate([images_of(test[name]) for name in sorted(test)])
    y_train, y_test = _labels(train), _labels(test)
    largest = max(y_train.max(), y_test.max())
    mean, std = moments(x_train)
    sizes = [len(of_client) for of_client in images]
    dataset = Dataset(
        x_train, y_train, x_test, y_test, int(largest) + 1, mean, std,
        client=np.repeat(np.arange(len(names)), sizes),
        client_names=tuple(names),
        remarks=(f"clients: {len(names)} with {len(x_train):,} training samples",))
    return checked(dataset, archive)


def _archives(data_dir, folder, archive, fields):
    """``(train, test)``: ``{client: {field: array}}`` of each, without clients of no sample."""
    from fedmpi.store import read_clients
    both = []
    for part in ("train", "test"):
        path = os.path.join(data_dir, folder, f"{archive}_{part}.h5")
        if not os.path.isfile(path):
            raise DataError(f"there is no {path}; put TensorFlow Federated's archive "
                            f"{archive}.tar.bz2 there, unpacked")
        clients = read_clients(path, GROUP, fields)
        filled = {name: arrays for name, arrays in clients.items() if len(arrays[fields[0]])}
        if not filled:
            raise DataError(f"{path}: no client has a sample")
        both.append(filled)
    return both


def _labels(clients):
    """(N,) int64, by client."""
    labels = [clients[name]["label"].reshape(-1) for name in sorted(clients)]
    return np.concatenate(labels).astype(np.int64)


def _text(arrays):
    """A speaker's snippets as one text."""
    return "".join(snippet + "\n" for snippet in arrays["snippets"].tolist())
