"""A user's own file: taken as what it is, or refused in one line whose advice leads to the right thing."""

import fcntl
import json
import re
import subprocess
import sys
from pathlib import Path

import contracts
import h5py
import numpy as np
import pytest
import torch
from torch import nn

from fedmpi.build import choose
from fedmpi.build.federation import federation
from fedmpi.build.parts import of_data
from fedmpi.build.population import population
from fedmpi.read import report
from fedmpi.catalog import PARTITIONS
from fedmpi.plugins.spec import make
from fedmpi.commands.runs import all_options, dataset_spec
from fedmpi.methods.datasets.dataset import (Dataset, as_they_are, checked, inputs, inputs_text,
                                             moments, whole_numbers)
from fedmpi.methods.datasets.hdf5 import hdf5
from fedmpi.core.errors import DataError, UserError
from fedmpi.build.options import DEFAULTS, OPEN
from fedmpi.store import read_run

HERE = f"{Path(__file__).parent}:{Path(__file__).parents[1]}"
PLAIN = {"noise": "none", "strategy": "fedavg", "pruner": "dense", "model": "logistic"}
FLAGS = ("--noise", "none", "--strategy", "fedavg", "--pruner", "dense", "--local-epochs", 1)


def rng(seed=0):
    return np.random.default_rng(seed)


def written(path, x, y, cut=12, **more):
    """The path of a file with these samples and labels, the first ``cut`` for training, and ``more`` data sets."""
    with h5py.File(path, "w") as file:
        file["x_train"], file["y_train"], file["x_test"], file["y_test"] = x[:cut], y[:cut], x[cut:], y[cut:]
        for name, values in more.items():
            file[name] = values
    return path


def floats(*shape):
    return rng().normal(size=shape).astype(np.float32)


# ---------------------------------------------------------------- networks that look numbers up

class Words(nn.Module):
    """Looks each number up, without asking for its type where not ``cast``."""

    def __init__(self, classes, cast):
        super().__init__()
        self.cast, self.table, self.head = cast, nn.Embedding(32, 4), nn.Linear(4, classes)

    def forward(self, x):
        return self.head(self.table(x.long() if self.cast else x).mean(1))


def words(shape, classes):
    return Words(classes, cast=True)


def strict_words(shape, classes):
    return Words(classes, cast=False)


def lazy_words(shape, classes):
    network = strict_words(shape, classes)
    network.head = nn.LazyLinear(classes)
    return network


def wave(shape, classes):
    return nn.Sequential(nn.Conv1d(shape[0], 2, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(2), nn.Flatten(),
                         nn.Linear(4, classes))


# ---------------------------------------------------------------- labels

CYCLE = np.arange(18) % 3
ANIMALS = np.array(["dog", "cat", "cow"])


@pytest.mark.parametrize("y, want, names, told", [
    (CYCLE, CYCLE, (), ""),
    (CYCLE.astype(np.uint8), CYCLE, (), ""),
    (CYCLE.astype(">i4"), CYCLE, (), ""),
    (CYCLE.astype(np.float64), CYCLE, (), ""),
    (CYCLE[:, None], CYCLE, (), ""),
    (CYCLE < 2, (CYCLE < 2).astype(int), (), ""),
    (np.eye(3)[CYCLE], CYCLE, (), "labels: one-hot rows"),
    (np.eye(3, dtype=bool)[CYCLE], CYCLE, (), "labels: one-hot rows"),
    (CYCLE + 1, CYCLE, ("1", "2", "3"), "the 3 numbers 1, 2, 3 are classes 0 to 2"),
    (np.where(CYCLE < 1, -1, 1), (CYCLE > 0).astype(int), ("-1", "1"), "the 2 numbers -1, 1 are"),
    (np.array([0, 5, 9])[CYCLE], CYCLE, ("0", "5", "9"), "the 3 numbers 0, 5, 9"),
    (ANIMALS.astype("S")[CYCLE], np.array([2, 0, 1])[CYCLE], ("cat", "cow", "dog"), "the 3 words cat, cow, dog"),
    (ANIMALS.astype("S")[CYCLE][:, None], np.array([2, 0, 1])[CYCLE], ("cat", "cow", "dog"), "the 3 words"),
    (ANIMALS.astype(h5py.string_dtype())[CYCLE], np.array([2, 0, 1])[CYCLE], ("cat", "cow", "dog"), "words"),
    (np.array([b"\xe9t\xe9", b"\xe8re", b"z"])[CYCLE], np.array([1, 0, 2])[CYCLE], ("\\xe8re", "\\xe9t\\xe9", "z"), ""),
    (np.array(["été", "ère", "z"]).astype(h5py.string_dtype())[CYCLE], np.array([2, 1, 0])[CYCLE],
     ("z", "ère", "été"), "words")])
def test_labels_are_the_classes_that_they_stand_for(tmp_path, y, want, names, told):
    dataset = hdf5(tmp_path, file=str(written(tmp_path / "a.h5", floats(18, 5), y)))
    np.testing.assert_array_equal(np.concatenate([dataset.y_train, dataset.y_test]), want)
    assert dataset.classes == want.max() + 1 and dataset.names == names
    assert told in "\n".join(dataset.remarks) and bool(told or names) == bool(dataset.remarks)


def test_a_label_that_is_only_tested_is_a_class_and_told(tmp_path):
    y = np.array([b"a", b"b"] * 6 + [b"c"] * 6)
    dataset = hdf5(tmp_path, file=str(written(tmp_path / "a.h5", floats(18, 5), y)))
    assert dataset.classes == 3 and dataset.y_test.tolist() == [2] * 6
    assert "labels: c of the test data never occurs in the training data" in dataset.remarks


def test_a_number_of_classes_keeps_labels_as_the_numbers_that_they_are(tmp_path):
    path = written(tmp_path / "a.h5", floats(18, 5), np.array([0, 5, 9])[CYCLE])
    dataset = hdf5(tmp_path, file=str(path), classes=12)
    assert dataset.classes == 12 and set(dataset.y_train) == {0, 5, 9} and dataset.remarks == ()
    with pytest.raises(DataError, match=r"y_train must lie in \[0, 4\), got 0 to 9; raise classes, or leave it out"):
        hdf5(tmp_path, file=str(path), classes=4)
    for y, kind in ((np.eye(3)[CYCLE], "one-hot rows are of 3"), (ANIMALS.astype("S")[CYCLE], "labels are 3 words")):
        path = written(tmp_path / "a.h5", floats(18, 5), y)
        with pytest.raises(DataError, match=f"{kind}.*got classes=4; leave classes out"):
            hdf5(tmp_path, file=str(path), classes=4)
        assert hdf5(tmp_path, file=str(path), classes=3).classes == 3


def test_names_of_classes_are_recorded_and_shown(fedmpi, tmp_path):
    path = written(tmp_path / "a.h5", floats(18, 5), ANIMALS.astype("S")[CYCLE])
    out = tmp_path / "run.h5"
    told = fedmpi(1, "train", "--dataset", path, *FLAGS, "--model", "logistic", "--clients", 2, "--rounds", 1,
                  "--partition", "iid", "--out", out)
    assert "labels: the 3 words cat, cow, dog are classes 0 to 2 in this order" in told
    assert "inputs: 5 float32, normalised by mean and standard deviation" in told
    assert read_run(out).attrs["inputs"]["names"] == ["cat", "cow", "dog"]
    shown = fedmpi(1, "data", "--dataset", path, "--clients", 2, "--noise", "none", "--partition", "iid")
    assert re.search(r"(cat|cow|dog): \d+ %", shown)
    found = report.kinds.PICTURES["clients"]
    assert "3 classes (cat, cow, dog)" in found.say(found.find(read_run(out)))


# ---------------------------------------------------------------- values

@pytest.mark.parametrize("dtype, stored, reached, same", [
    (np.uint8, np.uint8, torch.float32, False), (np.float16, np.float32, torch.float32, False),
    (">f4", np.float32, torch.float32, False), (np.float64, np.float32, torch.float32, False),
    (bool, np.float32, torch.float32, False), (np.int8, np.int16, torch.int64, True),
    (np.uint16, np.int16, torch.int64, True), (">i8", np.int16, torch.int64, True),
    (np.uint64, np.int16, torch.int64, True)])
def test_values_reach_the_model_by_their_dtype(tmp_path, dtype, stored, reached, same):
    x = rng().integers(0, 2 if dtype is bool else 50, (18, 6)).astype(dtype)
    dataset = hdf5(tmp_path, file=str(written(tmp_path / "a.h5", x, CYCLE)))
    assert dataset.x_train.dtype == stored and as_they_are(dataset) == same
    got = inputs(torch.from_numpy(dataset.x_train), dataset.mean, dataset.std)
    assert got.dtype == reached and got.data_ptr() != torch.from_numpy(dataset.x_train).data_ptr()
    if same:
        np.testing.assert_array_equal(got.numpy(), x[:12].astype(np.int64))
    else:
        assert abs(float(got.mean())) < 1e-5 and abs(float(got.std(correction=0)) - 1) < 1e-5


def test_large_whole_numbers_keep_every_digit(tmp_path):
    x = np.full((18, 3), 2 ** 53 + 1)
    dataset = hdf5(tmp_path, file=str(written(tmp_path / "a.h5", x, CYCLE)))
    got = inputs(torch.from_numpy(dataset.x_train), dataset.mean, dataset.std)
    assert got.dtype == torch.int64 and got.unique().tolist() == [2 ** 53 + 1]


@pytest.mark.parametrize("x, normalise, text", [
    (np.ones((18, 6), np.int64), "true", "6 float32, normalised by mean and standard deviation"),
    (floats(18, 6), "false", "6 float32, as they are"),
    (np.ones((18, 6), np.uint8), "false", "6 int64, as they are"),
    (np.ones((18, 3, 4, 5), np.uint8), "false", "3x4x5 float32, divided by 255"),
    (rng().integers(0, 9, (18, 3, 4, 5)), "auto",
     "3x4x5 float32, normalised by mean and standard deviation per channel"),
    (np.ones((18, 3, 4, 5), np.int32), "false", "3x4x5 int64, as they are"),
    (np.ones((18, 6), np.float32), "auto", "6 float32, normalised by mean and standard deviation (an nn.Embedding "
     "gets them as they are)")])
def test_normalising_is_an_option_and_told(tmp_path, x, normalise, text):
    path = written(tmp_path / "a.h5", x, CYCLE)
    assert inputs_text(hdf5(tmp_path, file=str(path), normalise=normalise)) == text
    with pytest.raises(ValueError, match="normalise must be one of auto, true, false, got 'maybe'"):
        hdf5(tmp_path, file=str(path), normalise="maybe")


def test_a_constant_channel_is_no_division_by_nothing(tmp_path):
    x = floats(18, 3, 4, 5)
    x[:, 2] = 0.1
    dataset = hdf5(tmp_path, file=str(written(tmp_path / "a.h5", x, CYCLE)))
    got = inputs(torch.from_numpy(dataset.x_test), dataset.mean, dataset.std)
    assert dataset.std[2] == 1 and torch.isfinite(got).all() and got[:, 2].abs().max() < 1e-6
    many = np.full((10_000, 1, 3, 3), 0.1, np.float32)
    assert moments(many)[1] == (1.0,)


IDS = rng(1).integers(0, 10, (60, 7)) + 10 * (np.arange(60) % 3)[:, None]


@pytest.mark.parametrize("dtype, model, normalise, as_is", [
    (np.float32, "words", "auto", True), (np.uint8, "strict_words", "auto", True),
    (np.float64, "words", "auto", True), (np.int32, "words", "auto", True),
    (np.int64, "strict_words", "auto", True), (np.float32, "logistic", "auto", False),
    (np.int64, "logistic", "true", False)])
def test_ids_reach_an_embedding_as_they_are(tmp_path, dtype, model, normalise, as_is):
    path = written(tmp_path / "a.h5", IDS.astype(dtype), np.arange(60) % 3, cut=48)
    name = model if model == "logistic" else f"test_own_data:{model}"
    run, state = contracts.assembled(dataset=f"hdf5:file={path},normalise={normalise}", model=name, validation=0.2,
                                     lr=0.5, rounds=3)
    data = contracts.dealt(DEFAULTS | contracts.SMALL | {"dataset": f"hdf5:file={path},normalise={normalise}",
                                                         "model": name})
    assert as_they_are(data.dataset) == as_is == whole_numbers(data.dataset)
    _, rows = contracts.run_rounds(run, state, 3)
    assert np.isfinite(rows[-1]["loss"]) and rows[-1]["accuracy"] > 0.6


def test_lazy_layers_behind_an_embedding_take_their_shapes_from_ids(tmp_path):
    path = written(tmp_path / "a.h5", IDS, np.arange(60) % 3, cut=48)
    run, state = contracts.assembled(dataset=f"hdf5:file={path}", model="test_own_data:lazy_words")
    assert run.layout.weights[0].shape == (3, 4)
    assert contracts.run_rounds(run, state, 1)[1]


def test_numbers_with_fractions_are_normalised_for_an_embedding_of_places_too(tmp_path):
    path = written(tmp_path / "a.h5", floats(18, 7), CYCLE)
    data = contracts.dealt(DEFAULTS | contracts.SMALL | {"dataset": f"hdf5:file={path}",
                                                         "model": "test_own_data:words"})
    assert not as_they_are(data.dataset)


def test_a_model_of_floats_refuses_ids_with_advice_that_works(fedmpi, tmp_path):
    path = written(tmp_path / "a.h5", IDS, np.arange(60) % 3, cut=48)
    args = (*FLAGS, "--model", "logistic", "--clients", 2, "--rounds", 1, "--partition", "iid")
    told = fedmpi(1, "train", "--dataset", path, *args, "--out", tmp_path / "a.run.h5", code=2)
    line = told.strip().splitlines()[-1]
    assert line.startswith("error: --model logistic takes floats") and "say normalise=true of the data set" in line
    told = fedmpi(1, "train", "--dataset", f"{path}:normalise=true", *args, "--out", tmp_path / "a.run.h5")
    assert "inputs: 7 float32, normalised by mean and standard deviation" in told


@pytest.mark.parametrize("options, why", [
    ({"features": "gaussian:sigma=1"}, "--features gaussian:sigma=1: it changes the values"),
    ({"fault": ["feature-noise:share=1"]}, "--fault feature-noise:share=1: it changes the values"),
    ({"fault": ["feature-noise:share=0.1"]}, ""), ({}, "")])
@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_noise_on_ids_is_refused(tmp_path, options, why, dtype):
    path = written(tmp_path / "a.h5", IDS.astype(dtype), np.arange(60) % 3, cut=48)
    options = {"dataset": f"hdf5:file={path}", "model": "test_own_data:words"} | options
    if not why:
        contracts.assembled(**options)
        return
    with pytest.raises(UserError, match=why):
        contracts.assembled(**options)


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_ids_train_side_by_side_as_one_by_one(tmp_path, dtype):
    path = written(tmp_path / "a.h5", IDS.astype(dtype), np.arange(60) % 3, cut=48)
    options = {"dataset": f"hdf5:file={path}", "model": "test_own_data:words", "rounds": 2}
    one, side = (contracts.run_rounds(*contracts.assembled(**options, together=G), 2)[0][-1]["x"] for G in (1, 3))
    torch.testing.assert_close(one, side, rtol=1e-4, atol=1e-5)
    options, parts, data, *_ = contracts.small(**options)
    assert min(choose.timing(options, parts, data, torch.device("cpu"))(3, 0)) > 0


def test_another_scale_of_inputs_is_another_run(fedmpi, tmp_path):
    path = written(tmp_path / "a.h5", floats(18, 5), CYCLE)
    out = tmp_path / "run.h5"
    fedmpi(1, "train", "--dataset", path, *FLAGS, "--model", "logistic", "--clients", 2, "--partition", "iid",
           "--rounds", 2, "--until", 1, "--out", out)
    told = fedmpi(1, "train", "--resume", out, "--dataset", f"{path}:normalise=false", code=2)
    assert "was trained on inputs of another mean [0.0]" in told
    fedmpi(1, "train", "--resume", out)


# ---------------------------------------------------------------- shapes

@pytest.mark.parametrize("shape, dtype, layout, want, channels", [
    ((18, 1, 9), np.float32, "auto", (1, 9), 1), ((18, 1, 9), np.uint8, "auto", (1, 9), 1),
    ((18, 9, 1), np.float32, "nlc", (1, 9), 1), ((18, 9, 1), np.float32, "as-is", (9, 1), 1),
    ((18, 4, 9), np.float32, "auto", (1, 4, 9), 1), ((18, 4, 9), np.float32, "ncl", (4, 9), 4),
    ((18, 4, 9), np.float32, "nlc", (9, 4), 9), ((18, 4, 9), np.float32, "as-is", (4, 9), 1),
    ((18, 4, 9), np.int64, "auto", (4, 9), 1), ((18, 4, 9), np.int64, "nhw", (1, 4, 9), 1),
    ((18, 1, 9), np.float32, "nhw", (1, 1, 9), 1), ((18, 5), np.float32, "as-is", (5,), 1),
    ((18, 2, 3, 4, 5), np.float32, "as-is", (2, 3, 4, 5), 1), ((18, 4, 5, 6), np.float32, "as-is", (4, 5, 6), 4)])
def test_shapes_are_what_the_layout_says(tmp_path, shape, dtype, layout, want, channels):
    x = rng().integers(0, 99, shape).astype(dtype) + (0.5 if dtype == np.float32 else 0)
    dataset = hdf5(tmp_path, file=str(written(tmp_path / "a.h5", x.astype(dtype), CYCLE)), layout=layout)
    assert dataset.x_train.shape[1:] == want and len(dataset.mean) == channels
    moved = np.moveaxis(x, -1, 1) if layout == "nlc" else x
    np.testing.assert_array_equal(dataset.x_train.reshape(12, -1), moved[:12].astype(dtype).reshape(12, -1))


@pytest.mark.parametrize("shape, layout, line", [
    ((18, 5), "nchw", "layout=nchw is for samples of 4 dimensions with their number, got (12, 5); leave it out"),
    ((18, 4, 5, 6), "nlc", "layout=nlc is for samples of 3 dimensions"),
    ((18, 2, 3, 4, 5), "auto", "say layout=as-is where the model takes them so"),
    ((18, 9, 1), "auto", "say layout=nlc for samples (1, 9), or layout=as-is for (9, 1)"),
    ((18,), "auto", "if that is meant, store x.reshape(-1, 1)")])
def test_shapes_that_may_be_anything_are_refused_with_the_way_out(tmp_path, shape, layout, line):
    path = written(tmp_path / "a.h5", floats(*shape), CYCLE)
    with pytest.raises(DataError) as error:
        hdf5(tmp_path, file=str(path), layout=layout)
    assert line in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("shape, line", [
    ((18, 1, 9), "samples: (12, 1, 9) taken as signals of one channel (1, 9)"),
    ((18, 4, 9), "samples: (12, 4, 9) taken as grey images (1, 4, 9); if they are none, layout=as-is keeps (4, 9)"),
    ((18, 4, 9, 3), "samples: (12, 4, 9, 3) taken as images with channels last, which become (3, 4, 9)")])
def test_a_guess_is_told(tmp_path, shape, line):
    told = hdf5(tmp_path, file=str(written(tmp_path / "a.h5", floats(*shape), CYCLE))).remarks
    assert told[0].startswith(line)


def test_signals_reach_a_convolution_of_one_dimension(tmp_path):
    path = written(tmp_path / "a.h5", floats(60, 1, 9), np.arange(60) % 3, cut=48)
    run, state = contracts.assembled(dataset=f"hdf5:file={path}", model="test_own_data:wave")
    assert np.isfinite(contracts.run_rounds(run, state, 1)[1][0]["loss"])


# ---------------------------------------------------------------- natural clients

OWNER = np.array([b"bo", b"al", b"al", b"cy", b"al", b"bo", b"al", b"bo", b"al", b"al", b"bo", b"al"])


def natural(tmp_path, ids=OWNER, **options):
    """``(options, Federation)`` of a file whose training samples are of the clients ``ids``."""
    path = written(tmp_path / "a.h5", floats(18, 5), CYCLE, client=ids)
    options, parts = of_data(DEFAULTS | OPEN | PLAIN | {"dataset": f"hdf5:file={path}", "validation": 0.0} | options)
    return options, federation(options, parts)


def test_clients_of_the_file_are_the_clients_of_the_run(tmp_path):
    options, data = natural(tmp_path)
    assert options["partition"] == "natural" and options["clients"] == 3
    assert data.client_names == ("al", "bo", "cy") and data.sizes.tolist() == [7, 4, 1]
    for client, name in enumerate(data.client_names):
        mine = data.indices[data.offsets[client]: data.offsets[client + 1]]
        assert sorted(mine) == np.flatnonzero(OWNER == name.encode()).tolist()
    facts = population(options, data)
    assert facts["name"][0].tolist() == [b"al", b"bo", b"cy"]


@pytest.mark.parametrize("ids", [
    np.array([7, 3, 3, 10, 3, 7, 3, 7, 3, 3, 7, 3]), np.array([7., 3, 3, 10, 3, 7, 3, 7, 3, 3, 7, 3]),
    np.array([7, 3, 3, 10, 3, 7, 3, 7, 3, 3, 7, 3], np.uint8)[:, None]])
def test_ids_may_be_numbers_in_their_order(tmp_path, ids):
    _, data = natural(tmp_path, ids)
    assert data.client_names == ("3", "7", "10") and data.sizes.tolist() == [7, 4, 1]


def test_validation_leaves_every_natural_client_its_samples(tmp_path):
    for seed in range(5):
        _, data = natural(tmp_path, validation=0.5, seed=seed)
        assert len(data.validation) == 6 and data.sizes.min() >= 1
        assert sorted([*data.validation, *data.indices]) == list(range(12))
    _, data = natural(tmp_path, partition="natural:min_size=4", validation=0.5)
    assert data.sizes.tolist() == [4, 4] and len(data.validation) == 3
    with pytest.raises(UserError, match="every client needs all of its samples; give --validation 0"):
        natural(tmp_path, np.arange(12), validation=0.5)


def test_small_natural_clients_can_be_left_out(tmp_path):
    options, data = natural(tmp_path, partition="natural:min_size=2")
    assert options["clients"] == 2 and data.client_names == ("al", "bo")
    assert OWNER.tolist().index(b"cy") not in data.indices


@pytest.mark.parametrize("options, line", [
    ({"clients": 5}, "--clients 5: the data set has 3 clients of its own, .*leave --clients out .*, or name another"),
    ({"partition": "natural:min_size=9"}, "min_size must be at most 7, what the largest of the 3 clients has, got 9"),
    ({"train_samples": 2}, "clients have fewer than 1 of the samples that are used; leave --train-samples out"),
    ({"partition": "natural", "dataset": "digits"}, "--partition natural needs a data set that says whose")])
def test_what_natural_clients_cannot_do_is_refused(tmp_path, options, line):
    with pytest.raises(UserError, match=line):
        natural(tmp_path, **options)


def test_another_partition_and_number_of_clients_can_be_named(tmp_path):
    options, data = natural(tmp_path, partition="iid", clients=4)
    assert options["clients"] == 4 and data.client_names == () and "name" not in population(options, data)
    options, data = natural(tmp_path, clients=3)
    assert options["partition"] == "natural"
    usual, _ = of_data(DEFAULTS | OPEN | {"dataset": "synthetic:samples=700"})
    assert (usual["partition"], usual["clients"]) == (DEFAULTS["partition"], DEFAULTS["clients"])


@pytest.mark.parametrize("ids, line", [
    (OWNER[:5], "client must hold one id for each of the 12 rows of x_train, got shape (5,)"),
    (np.zeros((12, 2), int), "client must hold one id for each of the 12 rows of x_train, got shape (12, 2)"),
    (np.full(12, np.nan), "client must be ids, that is, whole numbers or words"),
    (np.zeros(12, complex), "client must be numbers or words, got complex128")])
def test_ids_of_clients_that_do_not_fit_are_refused(tmp_path, ids, line):
    with pytest.raises(DataError) as error:
        natural(tmp_path, ids)
    assert line in str(error.value)


def test_natural_clients_are_in_the_run_file_and_in_plans(fedmpi, tmp_path):
    path = written(tmp_path / "a.h5", floats(18, 5), CYCLE, client=OWNER, notes=np.zeros(3))
    out = tmp_path / "run.h5"
    args = ("--dataset", path, *FLAGS, "--model", "logistic", "--validation", 0, "--rounds", 1)
    told = fedmpi(1, "train", *args, "--out", out)
    words = " ".join(told.split())
    assert "client: 3 natural clients of 1 to 7 training samples, dealt out by --partition natural" in words
    assert "not read: notes (3,) float64" in told
    run = read_run(out)
    assert (run.attrs["options"]["partition"], run.attrs["options"]["clients"]) == ("natural", 3)
    assert run.population["name"].tolist() == ["al", "bo", "cy"]
    fedmpi(1, "train", "--resume", out, "--until", 1)
    shown = fedmpi(1, "data", "--dataset", path, "--noise", "none", "--validation", 0, "--json")
    assert json.loads(shown)["clients"]["name"] == ["al", "bo", "cy"]
    plan = fedmpi(1, "train", *args, "--dry-run")
    assert re.search("inputs +5 float32, normalised", plan) and re.search("client +3 natural clients", plan)
    assert all_options({"dataset": f"hdf5:file={path}"})["clients"] == 3
    assert all_options({})["clients"] == DEFAULTS["clients"]


def test_natural_clients_with_ids_are_the_same_on_any_number_of_ranks(fedmpi, tmp_path):
    owner = np.arange(48) % 3
    path = written(tmp_path / "a.h5", IDS, np.arange(60) % 3, cut=48, client_train=owner)
    for ranks in (1, 3):
        fedmpi(ranks, "train", "--dataset", path, *FLAGS, "--model", "test_own_data:strict_words", "--rounds", 2,
               "--out", tmp_path / f"{ranks}.h5", **({} if ranks == 1 else {"PYTHONPATH": HERE}))
    fedmpi(1, "verify", tmp_path / "1.h5", tmp_path / "3.h5")


def test_the_samples_that_validation_may_take_leave_the_last_ones():
    part = make(PARTITIONS, "natural:min_size=2")
    owner = np.array([0, 1, 0, 0, 1, 0, 2])
    assert part.spare(owner).tolist() == [True, False, True, False, False, False, False]
    owner, kept = part.chosen(owner, 3)
    assert owner.tolist() == [0, 1, 0, 0, 1, 0, -1] and kept.tolist() == [0, 1]


# ---------------------------------------------------------------- files

@pytest.mark.parametrize("name", ["a.h5", "a.H5", "a.hdf5", "a.HDF5", "a.he5", "a.data", "a", "digits.h5"])
def test_a_file_is_one_whatever_it_is_called(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / name, floats(18, 5), CYCLE)
    assert dataset_spec(name) == f"hdf5:file={tmp_path / name}"
    assert dataset_spec(f"./{name}:layout=as-is,classes=4") == f"hdf5:file={tmp_path / name},layout=as-is,classes=4"


@pytest.mark.parametrize("text", ["digits", "synthetic:samples=5,size=4", "hdf5:file=x.h5", "some.module:factory",
                                  "some.module:factory:a=1", "nothing-here", "hdf5"])
def test_names_of_the_catalogue_and_factories_are_no_files(tmp_path, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").write_text("a file")
    assert dataset_spec(text) == text


@pytest.mark.parametrize("name, line", [
    ("no.h5", "no.h5: there is no such file"), ("no.npz", "no.npz: there is no such file"),
    ("text.h5", "text.h5: not an HDF5 file; data of one's own are one HDF5 file with x_train, y_train"),
    ("prose", "prose: not an HDF5 file; data of one's own"),
    ("folder", "folder: it is a folder, not a file; name one in it, such as inner.H5"),
    ("xy.h5", "xy.h5: has no data set x_train, y_train, x_test, y_test; expected x_train, y_train, x_test, y_test, a "
     "row a sample, and found y (18,) int64, train/x (18, 5) float32; rename them"),
    ("half.h5", "half.h5: has no data set x_test, y_test; expected"),
    ("twice.h5", "twice.h5: has both X_train and x_train; remove or rename one of them"),
    ("run.h5", "run.h5: it is the run file of an earlier training")])
def test_files_that_hold_no_data_set_are_told_apart(fedmpi, tmp_path, monkeypatch, name, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.h5").write_text("hello")
    (tmp_path / "prose").write_text("hello")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner.H5").write_text("")
    with h5py.File("xy.h5", "w") as file:
        file["train/x"], file["y"] = floats(18, 5), CYCLE
    with h5py.File("half.h5", "w") as file:
        file["x_train"], file["y_train"] = floats(18, 5), CYCLE
    with h5py.File(written("twice.h5", floats(18, 5), CYCLE), "a") as file:
        file["X_train"] = floats(18, 5)
    with h5py.File("run.h5", "w") as file:
        file.attrs["filetype"] = "fedmpi-run"
    told = fedmpi(1, "data", "--dataset", name, code=2)
    assert told.count("\n") == 1 and line in told


def test_capitals_in_names_make_no_difference(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["X_train"], file["Y_train"] = floats(9, 5), CYCLE[:9]
        file["X_test"], file["y_test"] = floats(9, 5), CYCLE[:9]
    assert hdf5(tmp_path, file="a.h5").x_train.shape == (9, 5)


def test_links_and_second_names_are_followed(tmp_path):
    written(tmp_path / "far.h5", floats(18, 5), CYCLE)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["deep/x"], file["y_train"] = floats(9, 5), CYCLE[:9]
        file["x_train"], file["y_test"] = h5py.SoftLink("/deep/x"), file["y_train"]
        file["x_test"] = h5py.ExternalLink("far.h5", "x_train")
        file["old"], file["gone"] = h5py.ExternalLink("no.h5", "x"), h5py.SoftLink("/no")
        file["y_test2"] = file["y_train"]
    with pytest.raises(DataError, match="x_test and y_test must be as long, got 12 and 9"):
        hdf5(tmp_path, file="a.h5")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["x_test"]
        file["x_test"] = file["deep/x"]
    assert hdf5(tmp_path, file="a.h5").x_test.shape == (9, 5)


def test_samples_without_dimensions_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            file[name] = 3.0
    with pytest.raises(DataError, match=r"x_train must not be empty, got shape \(\); add samples"):
        hdf5(tmp_path, file="a.h5")


def test_a_single_one_hot_row_is_a_label(tmp_path):
    path = written(tmp_path / "a.h5", floats(13, 5), np.eye(3)[np.arange(13) % 3])
    assert hdf5(tmp_path, file=str(path)).y_test.tolist() == [0]


def test_compressed_chunks_read_only_and_big_endian_files_are_read(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="latest") as file:
        for name, values in (("x_train", floats(12, 5)), ("x_test", floats(6, 5))):
            file.create_dataset(name, data=values.astype(">f8"), chunks=(4, 2), compression="gzip", shuffle=True)
        file["y_train"], file["y_test"] = CYCLE[:12], CYCLE[:6]
    path.chmod(0o400)
    np.testing.assert_array_equal(hdf5(tmp_path, file="a.h5").x_train, floats(12, 5))


def test_an_unknown_compression_is_named(tmp_path):
    path = written(tmp_path / "a.h5", floats(18, 5), CYCLE)
    with h5py.File(path, "a") as file:
        del file["x_test"]
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((6, 5))
        plist.set_filter(32767, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((6, 5))
        data = h5py.h5d.create(file.id, b"x_test", h5py.h5t.NATIVE_FLOAT, space, plist)
        data.write_direct_chunk((0, 0), b"squeezed", 0)
    with pytest.raises(DataError, match="/x_test is stored by HDF5 filter 32767 .*h5repack -f GZIP=4 OLD NEW"):
        hdf5(tmp_path, file="a.h5")


HOLD = """
import h5py, sys
with h5py.File(sys.argv[1], "a", libver=sys.argv[2]):
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_file_that_another_program_has_open_is_read_or_told(tmp_path, libver):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=libver) as file:
        file["x_train"], file["y_train"] = floats(9, 5), CYCLE[:9]
        file["x_test"], file["y_test"] = floats(9, 5), CYCLE[:9]
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path), libver], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "open\n"
        if libver == "earliest":
            assert hdf5(tmp_path, file="a.h5").classes == 3
        else:
            with pytest.raises(DataError, match="another program has it open for writing: close it there"):
                hdf5(tmp_path, file="a.h5")
    finally:
        holder.communicate()


def test_a_lock_on_the_file_does_not_matter(tmp_path):
    path = written(tmp_path / "a.h5", floats(18, 5), CYCLE)
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert hdf5(tmp_path, file="a.h5").classes == 3


# ---------------------------------------------------------------- one check for everybody's

def test_the_check_is_for_data_sets_of_any_maker():
    wanted = r"data set mine: expected a fedmpi.core.parts.Dataset, got tuple; return"
    with pytest.raises(DataError, match=wanted):
        checked((1, 2), "mine")
    x, y = np.zeros((6, 7), np.int64), np.arange(6) % 2
    ids = Dataset(x, y, x, y, 2, (0.0,), (1.0,))
    assert checked(ids, "mine") is ids and whole_numbers(ids)
    with pytest.raises(DataError, match="x_train must be uint8 or float32, or whole numbers as int16, int32 or int64"):
        checked(ids._replace(x_train=x.astype(np.int8)), "mine")
