"""Data sets: every loader reads its real file format, refuses what is wrong in one line, and is fetched once."""

import gzip
import multiprocessing
import pickle
import re
import shutil
import struct
import tarfile
import zipfile

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from skipped import shared_data

from fedmpi.methods.datasets.cifar import cifar10, cifar100
from fedmpi.methods.datasets.dataset import Dataset, checked, digest, inputs, moments
from fedmpi.methods.datasets.digits import digits
from fedmpi.methods.datasets.fetch import fetch
from fedmpi.methods.datasets.hdf5 import hdf5
from fedmpi.methods.datasets.mnist import EMNIST_CLASSES, emnist, fashion_mnist, mnist
from fedmpi.methods.datasets.svhn import svhn
from fedmpi.methods.datasets.synthetic import synthetic
from fedmpi.core.errors import DataError


@pytest.fixture
def any_checksum(monkeypatch):
    """torchvision takes the small files written here for the published ones."""
    monkeypatch.setattr("torchvision.datasets.utils.check_md5", lambda *args, **options: True)


def rng(seed=0):
    return np.random.default_rng(seed)


def pixels(*shape):
    return rng().integers(0, 256, shape, np.uint8)


def one_line(error, *words):
    text = str(error.value)
    assert "\n" not in text and all(word in text for word in words), text
    return True


# ---------------------------------------------------------------- the type

def good(**changes):
    fields = {"x_train": pixels(6, 3, 4, 5), "y_train": np.array([0, 1, 2, 0, 1, 2]),
              "x_test": pixels(2, 3, 4, 5), "y_test": np.array([2, 0]),
              "classes": 3, "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
    return Dataset(**{**fields, **changes})


def test_check_returns_a_good_data_set():
    for dataset in (good(), good(x_train=np.zeros((6, 4), np.float32), x_test=np.zeros((2, 4), np.float32),
                                 mean=(0.0,), std=(1.0,))):
        assert checked(dataset, "toy") is dataset


@pytest.mark.parametrize("changes, words", [
    ({"x_train": [[1]]}, ["x_train and y_train must be numpy arrays", "list"]),
    ({"x_train": np.zeros((6, 3, 4, 5))}, ["x_train must be uint8 or float32", "float64"]),
    ({"x_test": pixels(2)}, ["x_test must be images (N, C, H, W), features", "(2,)"]),
    ({"y_train": np.zeros((6, 1), np.int64)}, ["y_train must be (N,) int64", "(6, 1)", "use y.reshape(-1).astype"]),
    ({"y_train": np.eye(6)}, ["y_train must be (N,) int64", "(6, 6)", "use y.argmax(1)"]),
    ({"y_train": np.full(6, "cat")}, ["y_train must be (N,) int64", "use numpy.unique(y, return_inverse=True)[1]"]),
    ({"names": ("a", "b")}, ["names must be one a class, got 2 for 3 classes"]),
    ({"client": np.zeros(5, np.int64), "client_names": ("a",)}, ["client must be (N,) int64"]),
    ({"client": np.arange(6), "client_names": ("a",)}, ["client must lie in [0, 1)", "got 0 to 5"]),
    ({"y_test": np.zeros(2, np.int32)}, ["y_test must be (N,) int64", "int32"]),
    ({"y_train": np.zeros(5, np.int64)}, ["must be as long, got 6 and 5"]),
    ({"x_test": pixels(0, 3, 4, 5), "y_test": np.zeros(0, np.int64)}, ["x_test must not be empty"]),
    ({"x_train": pixels(6, 4, 5, 3).transpose(0, 3, 1, 2)}, ["C-contiguous"]),
    ({"x_train": np.full((6, 3, 4, 5), np.nan, np.float32)}, ["x_train must be finite"]),
    ({"x_test": pixels(2, 3, 5, 4)}, ["must agree in sample shape and dtype", "(3, 5, 4)"]),
    ({"x_test": np.zeros((2, 3, 4, 5), np.float32)}, ["must agree in sample shape and dtype", "float32"]),
    ({"classes": 1}, ["classes must be at least 2, got 1"]),
    ({"classes": 2}, ["y_train must lie in [0, 2), got 0 to 2"]),
    ({"y_test": np.array([-1, 0])}, ["y_test must lie in [0, 3), got -1 to 0"]),
    ({"mean": (0.5,)}, ["mean must hold 3 finite numbers"]),
    ({"std": (0.5, float("inf"), 1.0)}, ["std must hold 3 finite numbers"]),
    ({"mean": (0.5,) * 3, "std": (0.5,) * 2}, ["std must hold 3 finite numbers"]),
    ({"std": (0.5, 0.0, 1.0)}, ["std must be > 0"])])
def test_check_refuses_in_one_line(changes, words):
    with pytest.raises(DataError) as error:
        checked(good(**changes), "toy")
    assert one_line(error, "data set toy: ", *words)


def test_digest_sees_every_array_and_only_them():
    assert digest(good()) == digest(good(mean=(0.1, 0.2, 0.3)))
    x = pixels(6, 3, 4, 5)
    x[3, 1, 2, 2] ^= 1
    others = [good(x_train=x), good(y_train=np.array([0, 1, 2, 0, 1, 1])), good(x_test=pixels(2, 3, 5, 4)),
              good(y_test=np.array([2, 1])), good(classes=4), good(x_test=good().x_train, x_train=good().x_test)]
    assert len({digest(other) for other in [good(), *others]}) == 7
    assert len(digest(good())) == 64


def test_inputs_normalise_per_channel_and_leave_their_input_alone():
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    for x in (torch.from_numpy(pixels(7, 3, 4, 5)), torch.rand(7, 3, 4, 5)):
        before = x.clone()
        unit = 255 if x.dtype == torch.uint8 else 1
        want = (x.double() / unit - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        got = inputs(x, mean, std)
        assert got.dtype == torch.float32 and torch.allclose(got.double(), want, atol=1e-6)
        assert torch.equal(x, before)
    x = torch.ones(2, 5)
    assert torch.equal(inputs(x, (0.0,), (1.0,)), x) and inputs(x, (0.0,), (1.0,)) is not x


def test_moments_make_inputs_of_mean_zero_and_variance_one():
    constant = np.full((50, 1, 4, 4), 9, np.uint8)
    images = np.concatenate([pixels(5000, 2, 4, 4), np.repeat(constant, 100, 0)], 1)
    for x in (images, images.astype(np.float32) + 1000):
        normal = inputs(torch.from_numpy(x), *moments(x)).double()
        assert torch.allclose(normal.mean((0, 2, 3)), torch.zeros(3, dtype=float), atol=1e-4)
        assert torch.allclose(normal.std((0, 2, 3))[:2], torch.ones(2, dtype=float), atol=1e-3)
        assert moments(x)[1][2] == 1.0
    mean, std = moments(np.array([[0, 2], [4, 6]], np.float32))
    assert mean == (3.0,) and std == (5 ** 0.5,)


def test_moments_of_bytes_are_those_of_their_values():
    for x in (pixels(700, 3, 9, 9), pixels(3, 1, 300, 300), pixels(900, 50)):
        mean, std = moments(x)
        axes = (0, 2, 3) if x.ndim == 4 else (0, 1)
        np.testing.assert_allclose(mean, np.atleast_1d((x / 255).mean(axes)), rtol=1e-12)
        np.testing.assert_allclose(std, np.atleast_1d((x / 255).std(axes)), rtol=1e-12)


# ---------------------------------------------------------------- without files

def test_digits_are_stratified_and_always_the_same():
    d = digits(None)
    assert d.x_train.shape[1:] == (1, 8, 8) and len(d.x_train) + len(d.x_test) == 1797
    assert d.x_train.min() == 0 and d.x_train.max() == 1
    share = np.bincount(d.y_test) / (np.bincount(d.y_test) + np.bincount(d.y_train))
    assert np.all(abs(share - 0.2) < 0.005)
    assert digest(d) == digest(digits(None))


def test_synthetic_is_learnable_and_follows_its_options():
    d = synthetic(None, classes=5, samples=400, size=12, channels=3, seed=4)
    assert d.x_train.shape == (400, 3, 12, 12) and d.x_test.shape == (100, 3, 12, 12)
    assert np.all(np.bincount(d.y_train) == 80)
    centres = np.stack([d.x_train[d.y_train == k].mean(0).ravel() for k in range(5)])
    distance = ((d.x_test.reshape(100, 1, -1) - centres) ** 2).sum(2)
    assert np.mean(distance.argmin(1) == d.y_test) > 0.95
    assert digest(d) == digest(synthetic(None, classes=5, samples=400, size=12, channels=3, seed=4))
    assert len(d.y_test) == 100 and len(synthetic(None, samples=400, test=30).y_test) == 30
    assert digest(synthetic(None)) != digest(synthetic(None, seed=1))
    with pytest.raises(ValueError, match="classes must be >= 2, got 1"):
        synthetic(None, classes=1)


# ---------------------------------------------------------------- files in torchvision's formats

def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def idx_files(num_classes, first=0):
    """{"train" or "test": (images, labels)}, small."""
    return {part: (pixels(n, 28, 28), np.arange(n) % num_classes + first) for part, n in (("train", 80), ("test", 70))}


def write_mnist(root, kind, *, gz):
    folder = root / kind / "raw"
    folder.mkdir(parents=True)
    files = idx_files(10)
    for part, stem in (("train", "train"), ("test", "t10k")):
        for array, name in zip(files[part], ("images-idx3-ubyte", "labels-idx1-ubyte")):
            content = gzip.compress(idx(array)) if gz else idx(array)
            (folder / f"{stem}-{name}{'.gz' if gz else ''}").write_bytes(content)
    return files


def write_emnist(root, split):
    folder = root / "EMNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    files = idx_files(EMNIST_CLASSES[split], int(split == "letters"))
    for part in files:
        for array, name in zip(files[part], ("images-idx3-ubyte", "labels-idx1-ubyte")):
            (folder / f"emnist-{split}-{part}-{name}").write_bytes(idx(array))
    return files


def python2_pickle(entry):
    """A pickle whose numpy dtypes carry integers for booleans, as the published CIFAR files do."""
    text = pickle.dumps(entry, protocol=2)
    old_style, count = re.subn(rb"(u1q.)\x89\x88\x87", b"\\1K\x00K\x01\x87", text, flags=re.DOTALL)
    assert count == 1
    return old_style


def write_cifar(root, kind):
    batches, key = {
        "10": ({"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}, "labels"),
        "100": ({"train": ["train"], "test": ["test"]}, "fine_labels")}[kind]
    folder = root / ("cifar-10-batches-py" if kind == "10" else "cifar-100-python")
    folder.mkdir(parents=True)
    data = {}
    for part, names in batches.items():
        x, y = pixels(4 * len(names), 3, 32, 32), np.arange(4 * len(names)) % int(kind)
        for i, name in enumerate(names):
            entry = {"data": x[4 * i:4 * i + 4].reshape(4, -1), key: y[4 * i:4 * i + 4].tolist()}
            (folder / name).write_bytes(python2_pickle(entry))
        data[part] = x, y
    meta = ("batches.meta", "label_names") if kind == "10" else ("meta", "fine_label_names")
    (folder / meta[0]).write_bytes(pickle.dumps({meta[1]: list("abc")}))
    return data


def write_svhn(root):
    data = {}
    for part, n in (("train", 20), ("test", 10)):
        x, y = pixels(n, 3, 32, 32), np.arange(n) % 10 + 1
        scipy.io.savemat(root / f"{part}_32x32.mat", {"X": x.transpose(2, 3, 1, 0), "y": y[:, None].astype(np.uint8)})
        data[part] = x, y % 10
    return data


def assert_holds(dataset, files):
    for part, x, y in (("train", dataset.x_train, dataset.y_train), ("test", dataset.x_test, dataset.y_test)):
        assert x.flags.c_contiguous and x.dtype == np.uint8 and y.dtype == np.int64
        assert np.array_equal(x.reshape(files[part][0].shape), files[part][0])
        assert np.array_equal(y, files[part][1])


@pytest.mark.parametrize("load, kind", [(mnist, "MNIST"), (fashion_mnist, "FashionMNIST")])
def test_mnist_family_reads_idx_files(tmp_path, load, kind):
    files = write_mnist(tmp_path, kind, gz=False)
    dataset = load(tmp_path)
    assert dataset.x_train.shape == (80, 1, 28, 28) and dataset.classes == 10
    assert_holds(dataset, files)
    assert dataset.mean == {"MNIST": (0.1307,), "FashionMNIST": (0.2860,)}[kind]


@pytest.mark.parametrize("split", EMNIST_CLASSES)
def test_emnist_is_upright_and_counts_from_zero(tmp_path, split):
    files = write_emnist(tmp_path, split)
    dataset = emnist(tmp_path, split=split)
    assert_holds(dataset, {part: (x.transpose(0, 2, 1), y - y.min()) for part, (x, y) in files.items()})
    assert dataset.classes == EMNIST_CLASSES[split] == dataset.y_train.max() + 1


def test_emnist_refuses_an_unknown_split(tmp_path):
    with pytest.raises(ValueError, match="split must be one of balanced, .* got 'all'"):
        emnist(tmp_path, split="all")


@pytest.mark.parametrize("load, kind", [(cifar10, "10"), (cifar100, "100")])
def test_cifar_reads_pickled_batches(tmp_path, any_checksum, load, kind):
    files = write_cifar(tmp_path, kind)
    assert_holds(load(tmp_path), files)
    assert load(tmp_path).classes == int(kind)


def test_svhn_reads_mat_files_and_calls_ten_zero(tmp_path, any_checksum):
    files = write_svhn(tmp_path)
    assert_holds(svhn(tmp_path), files)


LOADERS = {"mnist": mnist, "fashion-mnist": fashion_mnist, "emnist": emnist, "cifar10": cifar10,
           "cifar100": cifar100, "svhn": svhn}


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("folder", [".", "missing"])
def test_a_missing_data_set_names_the_folder_and_the_way_out(tmp_path, name, folder):
    with pytest.raises(DataError) as error:
        LOADERS[name](tmp_path / folder)
    where = str(tmp_path if folder == "." else tmp_path / folder)
    assert one_line(error, f"data set {name}: ", where, f"'fedmpi fetch {name} --data-dir {where}'")


def test_a_cut_off_file_is_a_data_error(tmp_path):
    write_mnist(tmp_path, "MNIST", gz=False)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError) as error:
        mnist(tmp_path)
    assert one_line(error, "nothing readable in", "fedmpi fetch mnist")


def test_a_wrong_checksum_is_a_data_error(tmp_path):
    write_cifar(tmp_path, "10")
    with pytest.raises(DataError) as error:
        cifar10(tmp_path)
    assert one_line(error, "nothing readable in", "fedmpi fetch cifar10")


# ---------------------------------------------------------------- fetch

def test_fetch_unpacks_what_lies_there(tmp_path, any_checksum):
    files = write_mnist(tmp_path, "MNIST", gz=True)
    assert fetch("mnist", tmp_path) == str(tmp_path)
    assert_holds(mnist(tmp_path), files)
    assert not (tmp_path / ".mnist.part").exists()
    assert (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").exists()


def test_fetch_of_a_complete_data_set_writes_nothing(tmp_path):
    write_mnist(tmp_path, "MNIST", gz=False)
    fetch("mnist", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["MNIST"]


def test_fetch_after_a_killed_fetch_starts_cleanly(tmp_path, any_checksum):
    files = write_mnist(tmp_path, "MNIST", gz=True)
    raw = tmp_path / "MNIST" / "raw"
    for name in ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (raw / name).write_bytes(b"\0\0\x08\x01half")
    stage = tmp_path / ".mnist.part" / "MNIST" / "raw"
    stage.mkdir(parents=True)
    (stage / "train-labels-idx1-ubyte").write_bytes(b"half")
    fetch("mnist", tmp_path)
    assert_holds(mnist(tmp_path), files)


def test_fetch_unpacks_every_split_of_emnist(tmp_path, any_checksum):
    source = tmp_path / "source"
    files = {split: write_emnist(source, split) for split in EMNIST_CLASSES}
    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    with zipfile.ZipFile(raw / "gzip.zip", "w") as archive:
        for path in (source / "EMNIST" / "raw").iterdir():
            archive.writestr(f"gzip/{path.name}.gz", gzip.compress(path.read_bytes()))
    fetch("emnist", tmp_path)
    for split in EMNIST_CLASSES:
        assert np.array_equal(emnist(tmp_path, split=split).x_test[:, 0].transpose(0, 2, 1), files[split]["test"][0])


def test_fetch_unpacks_an_archive_of_cifar(tmp_path, any_checksum):
    files = write_cifar(tmp_path / "source", "10")
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "source" / "cifar-10-batches-py", "cifar-10-batches-py")
    fetch("cifar10", tmp_path)
    assert_holds(cifar10(tmp_path), files)


def test_fetch_by_many_processes_unpacks_once_and_all_can_read(tmp_path):
    source = real_fashion_mnist(tmp_path)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.starmap(fetch, [("fashion-mnist", source)] * 4, 1) == [str(source)] * 4
    assert len(fashion_mnist(source).x_test) == 10000


def test_fetch_that_fails_is_one_line(tmp_path, monkeypatch):
    def no_network(*args, **options):
        raise OSError("no route\nto host")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", no_network)
    with pytest.raises(DataError) as error:
        fetch("mnist", tmp_path)
    assert one_line(error, f"cannot fetch mnist into {tmp_path} (", "no route to host", "put MNIST/raw/train-images")
    with pytest.raises(DataError) as error:
        fetch("digits", tmp_path)
    assert one_line(error, "nothing to fetch for 'digits'; fetch knows cifar10, ")


def test_fetch_into_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError) as error:
        fetch("svhn", tmp_path / "file")
    assert one_line(error, "cannot fetch svhn into")


def real_fashion_mnist(tmp_path):
    source = shared_data() / "fashion-mnist" / "FashionMNIST" / "raw"
    raw = tmp_path / "real" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in source.glob("*.gz"):
        shutil.copyfile(path, raw / path.name)
    return tmp_path / "real"


def test_the_real_fashion_mnist(tmp_path):
    source = real_fashion_mnist(tmp_path)
    with pytest.raises(DataError, match="fedmpi fetch fashion-mnist"):
        fashion_mnist(source)
    fetch("fashion-mnist", source)
    dataset = fashion_mnist(source)
    assert dataset.x_train.shape == (60000, 1, 28, 28) and dataset.x_test.shape == (10000, 1, 28, 28)
    assert np.all(np.bincount(dataset.y_train) == 6000)
    mean, std = moments(dataset.x_train)
    assert abs(mean[0] - dataset.mean[0]) < 1e-3 and abs(std[0] - dataset.std[0]) < 1e-3


# ---------------------------------------------------------------- the user's own file

def write_hdf5(tmp_path, x_train, x_test=None, **labels):
    x_test = x_train[:2] if x_test is None else x_test
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x_train"], file["x_test"] = x_train, x_test
        file["y_train"] = labels.get("y_train", np.arange(len(x_train), dtype=np.uint8) % 3)
        file["y_test"] = labels.get("y_test", np.arange(len(x_test), dtype=np.int32) % 3)
    return tmp_path


@pytest.mark.parametrize("shape, layout, want", [
    ((6, 7), "auto", (6, 7)),
    ((6, 4, 5), "auto", (6, 1, 4, 5)),
    ((6, 4, 5, 3), "auto", (6, 3, 4, 5)),
    ((6, 4, 5, 1), "auto", (6, 1, 4, 5)),
    ((6, 3, 4, 5), "auto", (6, 3, 4, 5)),
    ((6, 3, 4, 3), "nhwc", (6, 3, 3, 4)),
    ((6, 3, 4, 3), "nchw", (6, 3, 4, 3)),
    ((6, 4, 5, 2), "nhwc", (6, 2, 4, 5)),
    ((6, 2, 4, 5), "nchw", (6, 2, 4, 5))])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_hdf5_reads_every_layout(tmp_path, shape, layout, want, dtype):
    x = pixels(*shape).astype(dtype)
    dataset = hdf5(write_hdf5(tmp_path, x), layout=layout)
    assert dataset.x_train.shape == want and dataset.classes == 3
    assert dataset.x_train.dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    moved = len(shape) == 4 and want != shape
    assert np.array_equal(dataset.x_train, np.moveaxis(x, 3, 1) if moved else x.reshape(want))
    assert (dataset.mean, dataset.std) == moments(dataset.x_train)


def test_hdf5_takes_another_file_and_a_number_of_classes(tmp_path):
    write_hdf5(tmp_path, pixels(6, 7))
    (tmp_path / "data.h5").rename(tmp_path / "mine.h5")
    assert hdf5(tmp_path / "elsewhere", file=str(tmp_path / "mine.h5"), classes=7).classes == 7


@pytest.mark.parametrize("arrays, words", [
    ((pixels(6, 4, 5, 4),), ["(6, 4, 5, 4) may be", "neither of the sizes 4 and 4 is 1 or 3", "layout=nchw"]),
    ((pixels(6, 3, 5, 1),), ["(6, 3, 5, 1) may be", "both of the sizes 3 and 1 are 1 or 3", "layout=nhwc"]),
    ((pixels(6),), ["samples must be", "(6,)"]),
    ((pixels(6, 1, 3, 4, 5),), ["samples must be", "(6, 1, 3, 4, 5)"]),
    ((np.zeros((6, 7), complex),), ["x_train must be numbers, got complex128", "float32"]),
    ((np.array([[b"a"]] * 6),), ["x_train must be numbers", "int64"]),
    ((pixels(6, 4, 1).astype("f"),), ["layout=nlc for samples (1, 4), or layout=as-is for (4, 1)"]),
    ((np.array([[1 << 63]] * 6, np.uint64),), ["below 2^63", "store them as float32"]),
    ((np.full((6, 7), np.inf),), ["x_train must be finite"]),
    ((np.full((6, 7), 1e300),), ["x_train must be finite", "float32"]),
    ((pixels(6, 7), pixels(2, 8)), ["must agree in sample shape and dtype", "(8,)"]),
    ((pixels(6, 7), np.zeros((2, 7), np.float32)), ["must agree in sample shape and dtype", "float32"]),
    ((pixels(6, 7), pixels(0, 7)), ["x_test must not be empty"])])
def test_hdf5_refuses_samples_in_one_line(tmp_path, arrays, words):
    with pytest.raises(DataError) as error:
        hdf5(write_hdf5(tmp_path, *arrays))
    assert one_line(error, f"data set {tmp_path / 'data.h5'}: ", *words)


@pytest.mark.parametrize("labels, words", [
    ({"y_train": np.full(6, 0.5)}, ["y_train must be classes", "float64 with fractions", "numpy.digitize"]),
    ({"y_train": np.array([0, 1, 2, 0, 1, np.nan])}, ["y_train must be classes", "NaN"]),
    ({"y_train": np.zeros((1, 6), np.int64)}, ["y_train must be a label a row", "(1, 6)", "y.reshape(-1)"]),
    ({"y_train": np.zeros((6, 2, 2), np.int64)}, ["y_train must be a label a row", "(6, 2, 2)"]),
    ({"y_train": np.ones((6, 3))}, ["y_train is (6, 3) float64 and not one-hot", "store y.argmax(1)"]),
    ({"y_train": np.eye(6)[:, :3], "y_test": np.eye(2)}, ["y_train is (6, 3) float64 and not one-hot"]),
    ({"y_train": np.eye(6), "y_test": np.eye(2)}, ["must be as wide in both", "(6, 6)", "(2, 2)"]),
    ({"y_train": np.array([b"a", b"b"] * 3)}, ["y_train holds words and y_test numbers"]),
    ({"y_train": np.zeros(6, complex)}, ["y_train must be numbers or words, got complex128"]),
    ({"y_train": np.zeros(0, int)}, ["y_train must not be empty"]),
    ({"y_train": np.array(1)}, ["y_train must be a label a row", "()"]),
    ({"y_train": np.zeros(5, np.int64)}, ["must be as long, got 6 and 5"]),
    ({"y_train": np.zeros(6, int), "y_test": np.zeros(2, int)}, ["classes must be at least 2, got 1"])])
def test_hdf5_refuses_labels_in_one_line(tmp_path, labels, words):
    with pytest.raises(DataError) as error:
        hdf5(write_hdf5(tmp_path, pixels(6, 7), **labels))
    assert one_line(error, f"data set {tmp_path / 'data.h5'}: ", *words)


def test_hdf5_refuses_missing_files_missing_names_and_wrong_options(tmp_path):
    with pytest.raises(DataError) as error:
        hdf5(tmp_path)
    assert one_line(error, "data.h5")
    (tmp_path / "data.h5").write_bytes(b"no hdf5")
    with pytest.raises(DataError) as error:
        hdf5(tmp_path)
    assert one_line(error, "data.h5")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x_train"] = pixels(6, 7)
    with pytest.raises(DataError) as error:
        hdf5(tmp_path)
    assert one_line(error, "y_train")
    with pytest.raises(ValueError, match="layout must be one of auto, nchw, nhwc, .*, got 'chw'"):
        hdf5(tmp_path, layout="chw")
    with pytest.raises(ValueError, match="classes must be >= 2, or 0"):
        hdf5(tmp_path, classes=-1)
