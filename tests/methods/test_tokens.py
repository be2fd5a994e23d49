"""Streams of tokens: their windows, the parts that no token shares, and files of each form."""

import itertools

import h5py
import numpy as np
import pytest
import torch

from fedmpi.build.federation import shared_arrays
from fedmpi.build.options import DEFAULTS
from fedmpi.build.parts import made
from fedmpi.build.setup import dealt_out
from fedmpi.catalog import DATASETS
from fedmpi.client import samples as shards
from fedmpi.compute.sgd import drawn_windows, length_of
from fedmpi.core.errors import DataError, UserError
from fedmpi.laws.engine import assembled
from fedmpi.methods.datasets import markov, shakespeare, stream
from fedmpi.methods.datasets.dataset import digest, num_test, of_test
from fedmpi.methods.datasets.text import byte_pairs, characters
from fedmpi.plugins.spec import make

RUN = DEFAULTS | {"dataset": "markov:tokens=2000,test=300,context=8", "task": "lm", "noise": "none",
                  "model": "gpt:depth=1,width=8,heads=2", "strategy": "fedavg", "partition": None, "clients": None}
PLAY = """ANNA:
Good morrow, sir, how does the day with you?

BERT:
It rains, and I am wet.

ANNA:
Then come within. The fire is bright and warm, and there is bread, and there is ale.

I speak again.

CARL:
Ay.
"""


@pytest.fixture
def play(tmp_path):
    """The folder of a small play."""
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_text(PLAY)
    return str(tmp_path)


def dealt(**options):
    """The ``Federation`` of such a run."""
    return dealt_out(*made(RUN | options))[0]


def tokens_of(starts, window):
    """The tokens that windows touch, targets included."""
    return {place for start in starts.tolist() for place in range(start, start + window + 1)}


# ---------------------------------------------------------------- windows


def test_windows_in_order_have_each_token_once_as_a_target():
    tokens = np.arange(100, 123, dtype=np.uint16)
    starts = stream.starts_of([(2, 21)], 4)
    inputs, targets = stream.windows(tokens, starts, 4)
    assert inputs.dtype == targets.dtype == np.int64
    assert targets.ravel().tolist() == list(range(103, 119)) and (targets == inputs + 1).all()
    assert stream.num_windows([0, 1, 4, 5, 8, 9], 4).tolist() == [0, 0, 0, 1, 1, 2]
    views = stream.in_order(torch.arange(100, 117), 4)
    assert [view.tolist() for view in views] == [(inputs - 2).tolist(), (targets - 2).tolist()]


@pytest.mark.parametrize("options", [
    {}, {"partition": "quantity", "clients": 7}, {"client_test": 0.2, "server_data": "0.1"}, {"server_data": "20"},
    {"train_samples": 100}])
def test_no_token_is_in_two_parts(options):
    data = dealt(**{"clients": 5} | options)
    parts = [data.validation, data.server, *np.split(data.indices, data.offsets[1:-1])]
    if data.held_out is not None:
        parts += np.split(data.held_out.indices, data.held_out.offsets[1:-1])
    used = [tokens_of(part, 8) for part in parts]
    for one, other in itertools.combinations(used, 2):
        assert not one & other
    assert max(map(max, filter(None, used))) < 2000
    # Whole but for borders, each of which costs less than a window.
    wanted = options.get("train_samples", 0) * 8 or 2000
    assert sum(map(len, used)) > wanted - 9 * len(parts)


def test_clients_get_neighbouring_pieces_of_equal_size():
    data = dealt(clients=6)
    assert data.sizes.min() >= data.sizes.max() - 1
    assert (np.diff(data.indices)[: data.sizes[0] - 1] == 8).all() and (np.diff(data.indices) > 0).all()
    assert data.sizes.sum() + len(data.validation) <= 1999 // 8


def test_speakers_keep_their_own_text(play):
    data = dealt(dataset="shakespeare:context=4,test=0.2", data_dir=play, validation=0.2)
    assert data.client_names == ("ANNA", "BERT")
    dataset = data.dataset
    for client, name in enumerate(data.client_names):
        start, stop = dataset.stream.offsets[client: client + 2]
        own = data.indices[data.offsets[client]: data.offsets[client + 1]]
        assert start <= own.min() and own.max() + 4 < stop
        text = "".join(dataset.names[token] for token in dataset.x_train[start:stop])
        assert shakespeare.speeches(PLAY)[name].startswith(text)
    borders = dataset.stream.offsets[1:-1]
    touched = [tokens_of(data.validation[row: row + 1], 4) for row in range(len(data.validation))]
    assert all(not {border - 1, border} <= window for border in borders for window in touched)
    message = " ".join(dataset.remarks)
    assert "1 of 3 hold fewer than 5 tokens" in message and "characters" in message


def test_speeches_are_joined_and_blocks_without_a_name_go_on():
    spoken = shakespeare.speeches(PLAY)
    assert set(spoken) == {"ANNA", "BERT", "CARL"} and spoken["CARL"] == "Ay.\n"
    assert spoken["ANNA"].endswith("there is ale.\nI speak again.\n") and spoken["ANNA"].count("\n") == 3


# ---------------------------------------------------------------- training


def test_training_begins_windows_at_any_token_of_the_stretch_and_draws_what_it_needs():
    run, _ = assembled(**{key: value for key, value in RUN.items() if value is not None} |
                       {"partition": "iid", "clients": 3, "local_epochs": 0, "local_steps": 2, "batch_size": 50,
                        "pruner": "dense", "contribution": "size", "weighting": "size", "device": "cpu"})
    samples = run.transport.worker.samples
    tokens = shards.stretch(samples, 1)
    assert samples.data["x_train"].dtype == np.uint16 and tokens.dtype == torch.int64
    inputs, labels = shards.of_client(samples, 1)
    assert len(inputs) == shards.size(samples, 1) == (len(tokens) - 1) // 8
    in_order = stream.in_order(tokens, 8)
    assert torch.equal(inputs, in_order[0]) and torch.equal(labels, in_order[1])
    # Views of the stretch: no window is stored.
    assert in_order[0].untyped_storage().data_ptr() == tokens.untyped_storage().data_ptr()

    class Task:
        stretch, batch_size, epochs, steps = torch.arange(101), 50, 0, 2
        inputs, labels = stream.in_order(torch.arange(101), 8)
        gen = np.random.default_rng(0)
        model = torch.nn.Linear(1, 1)

    drawn = list(itertools.islice(drawn_windows(Task), 2))
    assert length_of(Task) == (2, 2, 100)
    starts = drawn[0][0][:, 0]
    assert (drawn[0][1] == drawn[0][0] + 1).all() and len(drawn) == 1
    assert starts.min() >= 0 and starts.max() <= 92 and (starts % 8 != 0).any()


def test_shuffled_clients_train_on_their_text_in_another_order_and_others_do_not():
    options = {key: value for key, value in RUN.items() if value is not None} | {
        "partition": "iid", "clients": 4, "local_epochs": 0, "local_steps": 2, "batch_size": 50, "pruner": "dense",
        "contribution": "size", "weighting": "size", "device": "cpu", "client_test": 0.1}
    run, _ = assembled(**options)
    faulty, _ = assembled(**options | {"fault": ["shuffled:share=0.5"]})
    before, after = (made.transport.worker.samples for made in (run, faulty))
    changed = []
    for client in range(4):
        whole, mixed = shards.stretch(before, client), shards.stretch(after, client)
        assert torch.equal(whole.sort().values, mixed.sort().values)
        changed.append(not torch.equal(whole, mixed))
        inputs, labels = shards.of_client(after, client)
        in_order = stream.in_order(mixed, 8)
        assert torch.equal(inputs, in_order[0]) and torch.equal(labels, in_order[1])
        assert torch.equal(shards.own_test(before, client)[0], shards.own_test(after, client)[0])
    assert changed == after.data["faults"][0].tolist() and sum(changed) == 2


def test_a_stream_is_evaluated_in_order_once():
    dataset = make(DATASETS, "markov:test=100,context=8", "data")
    x, y = of_test(dataset)
    assert len(x) == num_test(dataset) == 12
    assert x.ravel().tolist() == dataset.x_test[:96].tolist() and y.ravel().tolist() == dataset.x_test[1:97].tolist()
    assert shared_arrays(dealt(clients=2))["labels"].nbytes == 0


@pytest.mark.parametrize("options, message", [
    ({"partition": "dirichlet", "clients": 3}, "it deals by class, and these data have no classes"),
    ({"partition": "natural"}, "needs a data set that says whose"),
    ({"clients": 220}, "would hold fewer than 9 tokens, 1 x 8"),
    ({"clients": 3, "server_data": "0.1:labels=0"}, "a stream of tokens has no labels"),
    ({"clients": 3, "fault": ["duplicate:partial=0.5,share=0.4"]}, "take partial=1"),
    ({"clients": 3, "fault": ["feature-noise:share=0.5"]}, "these are tokens"),
    ({"clients": 3, "fault": ["label-flip"]}, "changes classes"),
    ({"clients": 3, "train_samples": 10 ** 6}, "has 249 windows"),
    ({"clients": 3, "validation": 0.001}, "too short for a validation part")])
def test_what_a_stream_cannot_do_is_refused_in_one_line(options, message):
    with pytest.raises(UserError, match=message):
        dealt(**options)


# ---------------------------------------------------------------- data sets


def test_characters_come_back(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("to be, or not to be: häßlich\n" * 20, encoding="utf-8")
    dataset = make(DATASETS, f"text:file={path},context=8,test=0.25", "data")
    coder = characters(path.read_text(encoding="utf-8"))
    assert dataset.names == coder.names == tuple(sorted(set(path.read_text(encoding="utf-8"))))
    text = coder.decode(dataset.x_train) + coder.decode(dataset.x_test)
    assert text == path.read_text(encoding="utf-8") and dataset.x_train.dtype == np.uint16
    assert len(dataset.x_test) == 145 and dataset.stream.token_bytes == pytest.approx((31 / 29, 31 / 29), rel=0.02)
    assert digest(dataset) != digest(make(DATASETS, f"text:file={path},context=9,test=0.25", "data"))


def test_byte_pairs_are_learnt_from_the_training_part_and_spell_any_text(tmp_path):
    pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install 'fedmpi[text]'")
    path = tmp_path / "a.txt"
    path.write_text("the cat sat on the mat\n" * 50 + "zebra zebra zébra\n" * 8, encoding="utf-8")
    spec = f"text:file={path},tokens=bpe,vocab=280,context=8,test=0.12"
    one, other = make(DATASETS, spec, "data"), make(DATASETS, spec, "data")
    assert digest(one) == digest(other) and one.stream.vocab == len(one.names) <= 280
    assert "the" in one.names and not any("zeb" in name for name in one.names)
    content = path.read_text(encoding="utf-8")
    border = round(len(content) * 0.88)
    coder = byte_pairs(content[:border], 280)
    assert coder.decode(one.x_test.tolist()) == content[border:]
    assert one.stream.token_bytes[0] > 2 > one.stream.token_bytes[1] > 0.9


@pytest.mark.parametrize("write, message", [
    (None, "cannot read the text"), (b"\xff\xfe\x00", "no UTF-8 text"), (b"a", "has 1 characters"),
    (b"short", "longest stretch has")])
def test_texts_that_cannot_be_read_are_told(tmp_path, write, message):
    path = tmp_path / "a.txt"
    if write is not None:
        path.write_bytes(write)
    with pytest.raises(DataError, match=message):
        make(DATASETS, f"text:file={path}", "data")


def test_a_play_is_asked_for_where_it_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"there is no .*input.txt; put Karpathy's tinyshakespeare there"):
        make(DATASETS, "shakespeare", str(tmp_path))


def test_ones_own_tokens_keep_their_dtype_and_their_clients(tmp_path):
    tokens = (np.arange(90) % 7).astype(np.uint16)
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        file["x_train"], file["x_test"] = tokens, tokens[:30]
        file["offsets"] = [0, 40, 45, 90]
        file["client_names"] = ["a", "b", "c"]
    dataset = make(DATASETS, "tokens:file=mine.h5,context=8,token_bytes=4", str(tmp_path))
    assert dataset.x_train.dtype == np.uint16 and dataset.stream.vocab == 7
    assert stream.owners(dataset).tolist() == [0] * 4 + [2] * 5 and dataset.client_names == ("a", "b", "c")
    data = dealt(dataset="tokens:file=mine.h5,context=8", data_dir=str(tmp_path), validation=0)
    assert data.client_names == ("a", "c") and data.sizes.tolist() == [4, 5]


def test_nanogpts_files_are_read_as_they_are(tmp_path):
    for name, count in (("train", 200), ("val", 50)):
        (np.arange(count) % 300).astype(np.uint16).tofile(tmp_path / f"{name}.bin")
    dataset = make(DATASETS, f"tokens:file={tmp_path},context=8,vocab=300", "data")
    assert (len(dataset.x_train), len(dataset.x_test), dataset.stream.vocab) == (200, 50, 300)
    (tmp_path / "val.bin").unlink()
    with pytest.raises(DataError, match="val.bin: expected raw uint16 tokens"):
        make(DATASETS, f"tokens:file={tmp_path},context=8", "data")


@pytest.mark.parametrize("arrays, message", [
    ({"x_train": np.zeros((3, 40), np.int64), "x_test": np.zeros(40, np.int64)}, "must be tokens"),
    ({"x_train": np.full(40, -1), "x_test": np.zeros(40, np.int64)}, "must lie in|must hold tokens"),
    ({"x_train": np.zeros(40), "x_test": np.zeros(40)}, "must be tokens"),
    ({"x_train": np.zeros(40, np.uint8), "x_test": np.zeros(40, np.uint8), "offsets": [0, 50]}, "must rise from 0"),
    ({"x_train": np.zeros(40, np.uint8), "x_test": np.zeros(40, np.uint8), "client_names": ["a"]}, "without offsets")])
def test_arrays_that_are_no_tokens_are_told(tmp_path, arrays, message):
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        for name, array in arrays.items():
            file[name] = array
    with pytest.raises(DataError, match=message):
        make(DATASETS, "tokens:file=mine.h5,context=8", str(tmp_path))


def test_the_entropy_rate_of_a_known_chain():
    table = np.array([[0.9, 0.1], [0.5, 0.5]])
    assert markov.stationary(table) == pytest.approx([5 / 6, 1 / 6])
    by_hand = 5 / 6 * -(0.9 * np.log(0.9) + 0.1 * np.log(0.1)) + 1 / 6 * np.log(2)
    assert markov.entropy_rate(table) == pytest.approx(by_hand)
    dataset = make(DATASETS, "markov:vocab=3,tokens=60000,context=8,concentration=3", "data")
    pairs = np.zeros((3, 3))
    np.add.at(pairs, (dataset.x_train[:-1].astype(int), dataset.x_train[1:].astype(int)), 1)
    rate = float(dataset.remarks[0].split()[2])
    assert markov.entropy_rate(pairs / pairs.sum(axis=1, keepdims=True)) == pytest.approx(rate, abs=0.01)
