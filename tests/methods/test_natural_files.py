"""Natural clients in the files of LEAF, of TensorFlow Federated and of Hugging Face: small ones in the real form."""

import io
import json

import h5py
import numpy as np
import pytest

from fedmpi.catalog import DATASETS
from fedmpi.core.errors import DataError
from fedmpi.methods.datasets import stream
from fedmpi.plugins.spec import make

TEXT = {"PLAY_A": "To be, or not to be: that is the question. Whether it is nobler",
        "PLAY_B": "Friends, Romans, countrymen, lend me your ears; I come to bury him"}


def leaf(folder, part, users, **more):
    """Write LEAF's file of a part: ``users`` are {name: (x, y)}."""
    (folder / part).mkdir(parents=True, exist_ok=True)
    data = {"users": list(users), "num_samples": [len(x) for x, _ in users.values()],
            "user_data": {name: {"x": x, "y": y} for name, (x, y) in users.items()}} | more
    (folder / part / f"all_data_0_niid_0_keep_0_{part}_8.json").write_text(json.dumps(data))


def windows(text, length=8):
    """LEAF's samples of a text: ``length`` characters, and the next one."""
    count = len(text) - length
    return [text[i: i + length] for i in range(count)], [text[i + length] for i in range(count)]


def pictures(count, first):
    return [[(first + i) / 10] * 784 for i in range(count)], [(first + i) % 62 for i in range(count)]


def test_leafs_femnist_has_a_client_a_writer_and_white_paper(tmp_path):
    leaf(tmp_path, "train", {"w2": pictures(3, 0), "w1": pictures(2, 5), "w0": ([], [])}, hierarchies=["a", "b", "c"])
    leaf(tmp_path, "test", {"w1": pictures(1, 60), "w2": pictures(1, 1)})
    data = make(DATASETS, f"leaf-femnist:folder={tmp_path}", "data")
    assert data.x_train.shape == (5, 1, 28, 28) and data.x_train.dtype == np.float32 and data.classes == 62
    assert data.client_names == ("w1", "w2") and data.client.tolist() == [0, 0, 1, 1, 1]
    assert data.y_train.tolist() == [5, 6, 0, 1, 2] and data.y_test.tolist() == [60, 1] and data.names[10] == "A"
    assert data.x_train[0].max() == pytest.approx(0.5)


def test_leafs_shakespeare_becomes_text_again(tmp_path):
    cut = windows(TEXT["PLAY_B"])
    apart = cut[0][:20] + cut[0][30:], cut[1][:20] + cut[1][30:]
    leaf(tmp_path, "train", {"PLAY_A": windows(TEXT["PLAY_A"]), "PLAY_B": apart})
    leaf(tmp_path, "test", {name: windows(text[:20]) for name, text in TEXT.items()})
    data = make(DATASETS, f"leaf-shakespeare:folder={tmp_path},context=8", "data")
    texts = ["".join(data.names[token] for token in data.x_train[start:stop])
             for start, stop in stream.stretches_of(data.stream.offsets)]
    assert data.client_names == ("PLAY_A", "PLAY_B") and texts[0] == TEXT["PLAY_A"]
    assert texts[1] == TEXT["PLAY_B"][:28] + TEXT["PLAY_B"][30:]
    assert len(data.x_test) == 40 and data.stream.vocab == len(set("".join(TEXT.values())))


@pytest.mark.parametrize("train, test, message", [
    ({"a": windows("0123456789ab"), "b": windows("0123456789ab")}, {"a": windows("0123456789ab")},
     "b and 0 more users are in one of train and test only"),
    ({"a": ([1, 2], ["x", "y"])}, {"a": windows("0123456789ab")}, "must be texts, got int"),
    ({"a": (["x"], [])}, {"a": windows("0123456789ab")}, "a has 1 x and 0 y"),
    ({"a": windows("0123456789ab")}, None, "there is no .*test/.*json")])
def test_faults_of_leafs_files_are_told_in_a_line(tmp_path, train, test, message):
    leaf(tmp_path, "train", train)
    if test is not None:
        leaf(tmp_path, "test", test)
    with pytest.raises(DataError, match=message):
        make(DATASETS, f"leaf-shakespeare:folder={tmp_path},context=2", "data")


def test_a_file_that_is_not_leafs_is_told(tmp_path):
    leaf(tmp_path, "train", {})
    (tmp_path / "train" / "x.json").write_text('{"users": ["a"]}')
    with pytest.raises(DataError, match="no file of LEAF's form"):
        make(DATASETS, f"leaf-femnist:folder={tmp_path}", "data")


def archive(path, clients):
    """Write TFF's archive: ``clients`` are {name: {field: array}}."""
    with h5py.File(path, "w") as file:
        for client, arrays in clients.items():
            for field, array in arrays.items():
                file[f"examples/{client}/{field}"] = array


def test_tffs_emnist_and_cifar100(tmp_path):
    def letters(count, label):
        return {"pixels": np.full((count, 28, 28), 0.5, np.float32), "label": np.full(count, label, np.int32)}

    for part, sizes in (("train", (3, 2)), ("test", (1, 1))):
        archive(tmp_path / f"fed_emnist_{part}.h5", {"f1_10": letters(sizes[0], 61), "f0_11": letters(sizes[1], 3)})
        images = {"image": np.arange(2 * 3072).reshape(2, 32, 32, 3).astype(np.uint8),
                  "label": np.array([4, 99]), "coarse_label": np.array([0, 1])}
        archive(tmp_path / f"fed_cifar100_{part}.h5", {f"{part}_0": images})
    data = make(DATASETS, "tff-emnist", str(tmp_path))
    assert data.x_train.shape == (5, 1, 28, 28) and data.x_train.dtype == np.float32 and data.classes == 62
    assert data.client_names == ("f0_11", "f1_10") and data.client.tolist() == [0, 0, 1, 1, 1]
    data = make(DATASETS, "tff-cifar100", str(tmp_path))
    assert data.x_train.shape == (2, 3, 32, 32) and data.x_train.dtype == np.uint8 and data.classes == 100
    assert data.x_train[0, :, 0, 1].tolist() == [3, 4, 5]


def test_tffs_shakespeare_is_text_by_speaker(tmp_path):
    for part in ("train", "test"):
        archive(tmp_path / f"shakespeare_{part}.h5", {
            name: {"snippets": np.array([text[:30], "é" + text[30:]], dtype=h5py.string_dtype())}
            for name, text in TEXT.items()})
    data = make(DATASETS, "tff-shakespeare:context=8", str(tmp_path))
    first = "".join(data.names[token] for token in data.x_train[: data.stream.offsets[1]])
    assert first == TEXT["PLAY_A"][:30] + "\né" + TEXT["PLAY_A"][30:] + "\n" and data.client_names == tuple(TEXT)


@pytest.mark.parametrize("clients, message", [
    (None, "there is no .*fed_emnist_train.h5; put TensorFlow Federated's archive"),
    ({"a": {"pixels": np.zeros((1, 28, 28))}}, "examples/a has no label, but pixels"),
    ({"a": {"pixels": np.zeros((0, 28, 28)), "label": np.zeros(0)}}, "no client has a sample")])
def test_faults_of_tffs_archives_are_told_in_a_line(tmp_path, clients, message):
    if clients is not None:
        archive(tmp_path / "fed_emnist_train.h5", clients)
    with pytest.raises(DataError, match=message):
        make(DATASETS, "tff-emnist", str(tmp_path))


def shard(path, columns):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'fedmpi[export]'")
    from pyarrow import parquet
    parquet.write_table(pyarrow.table(columns), path)


def png(value):
    from PIL import Image
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_parquet_shards_of_images_have_clients_by_a_column(tmp_path):
    for number in range(2):
        shard(tmp_path / f"train-0000{number}-of-00002.parquet", {
            "image": [{"bytes": png(10 * number + i), "path": None} for i in range(10)],
            "character": ["a", "b"] * 5, "writer_id": [f"w{i % 2 + number}" for i in range(10)]})
    spec = f"parquet:folder={tmp_path},y=character,client=writer_id,test=0.2"
    data = make(DATASETS, spec, "data")
    assert data.x_train.shape == (16, 1, 4, 4) and data.x_train.dtype == np.uint8 and len(data.x_test) == 4
    assert data.client_names == ("w0", "w1", "w2") and np.bincount(data.client).tolist() == [4, 8, 4]
    assert data.names == ("a", "b")
    pixels = sorted([*data.x_train[:, 0, 0, 0].tolist(), *data.x_test[:, 0, 0, 0].tolist()])
    assert pixels == list(range(20))
    assert (make(DATASETS, spec, "data").x_test == data.x_test).all()


def test_parquet_of_numbers_with_a_test_part(tmp_path):
    for part, count in (("train", 6), ("test", 3)):
        shard(tmp_path / f"{part}-00000-of-00001.parquet", {
            "values": [[float(i), 0.5] for i in range(count)], "label": [i % 3 for i in range(count)],
            "client_id": [i // 2 for i in range(count)]})
    data = make(DATASETS, f"parquet:folder={tmp_path},x=values", "data")
    assert data.x_train.shape == (6, 2) and data.x_train.dtype == np.float32 and data.x_test.shape == (3, 2)
    assert data.client_names == ("0", "1", "2") and data.y_test.tolist() == [0, 1, 2]


def test_missing_columns_and_shards_are_told(tmp_path):
    with pytest.raises(DataError, match="there is no .*train.*parquet"):
        make(DATASETS, f"parquet:folder={tmp_path}", "data")
    shard(tmp_path / "train.parquet", {"image": [[0.0]], "label": [1]})
    with pytest.raises(DataError, match="has no column client_id; expected x, y and client among image, label"):
        make(DATASETS, f"parquet:folder={tmp_path}", "data")
