"""Runs and models for other programs: what is written is what was recorded."""

import gzip
import json
import math
import os
import pathlib
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import fedmpi as package
from fedmpi.methods.tasks.classification import classification
from fedmpi.build.options import DEFAULTS
from fedmpi.build.federation import federation
from fedmpi.read import export, trained
from fedmpi.build.parts import network_of, of_data
from fedmpi.build.server import evaluators
from fedmpi.core.errors import UserError
from fedmpi.core.layout import bind
from fedmpi.server.loop import finish
from fedmpi.store import read_run

SMALL = ("--clients", 4, "--rounds", 4, "--local-epochs", 1, "--train-samples", 300, "--keep", 4, "--save-every", 1)
DATA = pathlib.Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def path(fedmpi, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "run.h5"
    fedmpi(1, "train", *SMALL, "--model", "2nn:hidden=12", "--strategy", "thesis", "--pruner", "rigl:every=2",
           "--lr", 0.3, "--observe", "size", "--out", out)
    return out


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_come_back(fedmpi, path, tmp_path, kind):
    told = fedmpi(1, "export", path, "--to", tmp_path, "--format", kind)
    run = package.open(path)
    # Nobody in this run has a test part of their own.
    for table in (name for name in export.TABLES if name != "own"):
        file = tmp_path / "run" / f"{table}.{kind}"
        got = pd.read_csv(file) if kind == "csv" else pd.read_parquet(file)
        frame = getattr(run, table)
        assert f"{file}: {len(frame)} rows" in told and len(got) == len(frame)
        for name in frame.select_dtypes("number"):
            np.testing.assert_array_equal(got[name].to_numpy(float), frame[name].to_numpy(float, na_value=np.nan))
        if kind == "parquet":
            assert {key: got.attrs[key] | frame.attrs[key] for key in frame.attrs} == got.attrs
    columns = pd.read_csv(tmp_path / "run" / "columns.csv")
    assert columns.set_index(["table", "column"]).loc[("rounds", "up_bytes"), "unit"] == "B"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["attrs"]["options"] == run.attrs["options"]


def test_several_runs_in_one_table_and_the_extension_says_which_kind(fedmpi, path, tmp_path):
    other = tmp_path / "run.h5"                            # of the same name: folders tell them apart
    other.write_bytes(gzip.decompress((DATA / "schema-1-first.h5.gz").read_bytes()))
    for file in ("table.csv", "table.parquet"):
        fedmpi(1, "export", path, other, "--to", tmp_path / file, "--table", "clients")
    table = pd.read_parquet(tmp_path / "table.parquet")
    assert table.columns[0] == "run" and table["run"].nunique() == 2 and len(table) == 4 * 4 + 15
    assert set(table.attrs["units"]) == set(table) - {"run"}
    assert len(pd.read_csv(tmp_path / "table.csv")) == len(table)


def test_runs_whose_names_differ_in_the_extension_only_stay_apart(fedmpi, path, tmp_path):
    other = path.with_suffix(".hdf5")
    other.write_bytes(path.read_bytes())
    again = f"{path.parent}/./{path.name}"
    fedmpi(1, "export", path, other, again, "--to", tmp_path / "a.csv")
    assert pd.read_csv(tmp_path / "a.csv")["run"].tolist() == ["run.h5"] * 4 + ["run.hdf5"] * 4
    other.unlink()


def test_clients_keep_their_numbers_in_a_table_of_several_runs(fedmpi, path, tmp_path):
    (tmp_path / "other.h5").write_bytes(path.read_bytes())
    fedmpi(1, "export", path, tmp_path / "other.h5", "--to", tmp_path / "a.parquet", "--table", "population")
    table = pd.read_parquet(tmp_path / "a.parquet")
    assert list(table.columns[:2]) == ["run", "client"] and table["client"].tolist() == [0, 1, 2, 3] * 2
    assert table.attrs["units"]["client"] == "1"
    fedmpi(1, "export", path, "--to", tmp_path)
    columns = pd.read_csv(tmp_path / "run" / "columns.csv").set_index(["table", "column"])
    assert columns.loc[("population", "client"), "description"] == "client, from 0"


def test_places_that_take_no_file_are_one_line(fedmpi, path, tmp_path, monkeypatch):
    for kind in ("csv", "parquet"):
        told = fedmpi(1, "export", path, "--to", tmp_path / "no" / f"a.{kind}", code=2)
        assert f"there is no folder {tmp_path / 'no'}" in told and told.count("\n") == 1
        (tmp_path / f"full.{kind}").symlink_to("/dev/full")
        told = fedmpi(1, "export", path, "--to", tmp_path / f"full.{kind}", "--overwrite", code=1)
        assert "No space left on device" in told and told.count("\n") == 1
    told = fedmpi(1, "report", path, "-o", "/dev/full", code=1)
    assert "cannot write what comes out: No space left on device" in told and told.count("\n") == 1
    told = fedmpi(1, "export-model", path, "--out", "/proc/a.safetensors", code=1)
    assert "cannot write /proc/a.safetensors" in told and told.count("\n") == 1
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)        # root may write everywhere
    for command, option, name in (("export", "--to", "a.csv"), ("export-model", "--out", "a.safetensors")):
        assert "is not writable" in fedmpi(1, command, path, option, tmp_path / name, code=2)


def test_nothing_is_overwritten_unasked(fedmpi, path, tmp_path):
    folder = ("--to", tmp_path / "out")
    for place in (("--to", tmp_path / "a.csv"), folder, (*folder, "--format", "tensorboard")):
        fedmpi(1, "export", path, *place)
        assert "--overwrite" in fedmpi(1, "export", path, *place, code=2)
        fedmpi(1, "export", path, *place, "--overwrite")
    left = sorted(each.name for each in (tmp_path / "out" / "run").iterdir())
    assert len([name for name in left if name.startswith("events.out")]) == 1 and "rounds.csv" in left


def test_options_that_contradict_are_refused(fedmpi, path, tmp_path):
    assert "ends in .csv" in fedmpi(1, "export", path, "--to", tmp_path / "a.csv", "--format", "parquet", code=2)
    assert "--table goes with a file" in fedmpi(1, "export", path, "--to", tmp_path, "--table", "rounds", code=2)


@pytest.mark.parametrize("library, kind", [("pyarrow", "parquet"), ("torch.utils.tensorboard", "tensorboard")])
def test_a_missing_library_is_named(fedmpi, path, tmp_path, monkeypatch, library, kind):
    for name in [each for each in sys.modules if each.startswith(library)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    assert "pip install 'fedmpi[export]'" in fedmpi(1, "export", path, "--to", tmp_path, "--format", kind, code=2)


def test_tensorboard_reads_what_was_recorded(fedmpi, path, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    other = tmp_path / "old.h5"
    other.write_bytes(gzip.decompress((DATA / "schema-1-first.h5.gz").read_bytes()))
    assert "4 rounds" in fedmpi(1, "export", path, other, "--to", tmp_path / "logs", "--format", "tensorboard")
    run, read = package.open(path), EventAccumulator(str(tmp_path / "logs" / "run")).Reload()
    accuracy = read.Scalars("accuracy/accuracy")
    assert [event.step for event in accuracy] == [1, 2, 3, 4]
    np.testing.assert_allclose([event.value for event in accuracy], run.rounds["accuracy"], rtol=1e-6)
    np.testing.assert_allclose([event.wall_time for event in accuracy], run.rounds["recorded"])
    assert {"bytes/up_bytes", "seconds/round_s", "flops/flops_rigl", "clients/merged"} <= set(read.Tags()["scalars"])
    assert f"layers_churn/{run.attrs['layers'][0][0]}" in read.Tags()["scalars"]
    assert {"clients/contribution", "clients/score_size"} <= set(read.Tags()["histograms"])
    assert read.Histograms("clients/weight")[0].histogram_value.num == 4
    old = EventAccumulator(str(tmp_path / "logs" / "old")).Reload().Scalars("loss/loss")
    assert len(old) == 5 and old[0].wall_time < old[-1].wall_time < old[0].wall_time + 3600


# ---------------------------------------------------------------- the model


def accuracy_of(state, options):
    """Test ``(loss, accuracy)`` of a state dict, its network made anew."""
    options, parts = of_data(DEFAULTS | options)
    data = federation(options, parts)
    torch.manual_seed(1)
    network = network_of(options | {"seed": 99})(data.shape, data.outputs)
    network.load_state_dict(state)
    layout, x, _ = bind(network)
    test, _, _ = evaluators(data, network, layout, x, torch.device("cpu"), classification())
    loss, metrics = finish(test(x.clone()))
    return loss, metrics["accuracy"]


@pytest.mark.parametrize("sparse", [False, True])
def test_the_exported_model_has_the_accuracy_that_was_recorded(fedmpi, path, tmp_path, sparse):
    run = read_run(path)
    for round in (2, None):
        out = tmp_path / f"{round}.safetensors"
        arguments = ["--sparse"] * sparse + ([] if round is None else ["--round", round])
        told = fedmpi(1, "export-model", path, "--out", out, *arguments)
        row = (round or 4) - 1
        assert f"after round {row + 1}, test accuracy {run.rounds['accuracy'][row]:.4f}" in told
        found = trained.load(out)
        loss, accuracy = accuracy_of(package.load_model(out), run.attrs["options"])
        assert accuracy == run.rounds["accuracy"][row] == found.about["accuracy"]
        assert loss == run.rounds["loss"][row] == found.about["loss"]
    assert found.about["options"] == run.attrs["options"] and found.about["model"] == "2nn:hidden=12"
    assert found.about["inputs"]["shape"] == [1, 8, 8] and found.about["inputs"]["classes"] == 10


@pytest.mark.parametrize("options", [
    ("--pruner", "adaptive:spread=0.1", "--model", "small-cnn"),
    ("--strategy", "fedavg", "--pruner", "dense", "--model", "logistic")], ids=["adaptive", "dense"])
def test_models_of_masks_of_their_own_and_of_none(fedmpi, tmp_path, options):
    fedmpi(1, "train", *SMALL, *options, "--rounds", 2, "--out", tmp_path / "run.h5")
    run = read_run(tmp_path / "run.h5")
    fedmpi(1, "export-model", tmp_path / "run.h5", "--out", tmp_path / "a.safetensors", "--sparse")
    state, masks = package.load_model(tmp_path / "a.safetensors", masks=True)
    assert accuracy_of(state, run.attrs["options"])[1] == run.rounds["accuracy"][-1]
    assert all(not state[name][~mask].any() for name, mask in masks.items())
    if "dense" in options:
        assert all(mask.all() for mask in masks.values())


def test_dense_and_sparse_files_say_the_same_and_need_no_fedmpi(fedmpi, path, tmp_path):
    dense, sparse = tmp_path / "dense.safetensors", tmp_path / "sparse.safetensors"
    fedmpi(1, "export-model", path, "--out", dense)
    fedmpi(1, "export-model", path, "--out", sparse, "--sparse")
    tensors = load_file(dense)
    plain = {name: each for name, each in tensors.items() if not name.endswith(".mask")}
    with safe_open(sparse, "pt") as f:
        shapes, about = json.loads(f.metadata()["shapes"]), f.metadata()
    tensors = load_file(sparse)
    for name, shape in shapes.items():                     # as the help of export-model says
        bits = np.unpackbits(tensors[name + ".mask"].numpy(), count=math.prod(shape)).astype(bool)
        weight = torch.zeros(shape)
        weight.view(-1)[torch.from_numpy(bits)] = tensors[name + ".values"]
        assert torch.equal(weight, plain[name])
    (a, masks), (b, others) = (package.load_model(each, masks=True) for each in (dense, sparse))
    assert a.keys() == b.keys() == plain.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert all(torch.equal(masks[name], others[name]) for name in masks) and masks.keys() == shapes.keys()
    assert about["form"] == "sparse" and float(about["sparsity"]) == pytest.approx(0.8, abs=0.01)
    kept = read_run(path).rounds["kept"][-1]
    assert sum(int(mask.sum()) for mask in masks.values()) == kept
    assert sparse.stat().st_size < dense.stat().st_size


def test_a_model_layer_by_layer(fedmpi, path, tmp_path):
    out = tmp_path / "a.safetensors"
    fedmpi(1, "export-model", path, "--out", out, "--sparse")
    text, rows = fedmpi(1, "model", path), json.loads(fedmpi(1, "model", path, "--json"))["layers"]
    assert text == fedmpi(1, "model", out) and "of dense" in text
    *layers, others, whole = rows
    attrs = read_run(path).attrs
    assert [row["layer"] for row in layers] == [name for name, *_ in attrs["layers"]]
    assert sum(row["weights"] for row in layers) == attrs["prunable"] and whole["weights"] == attrs["weights"]
    assert whole["flops"] == sum(2 * row["kept"] * use for row, (*_, use) in zip(layers, attrs["layers"]))
    with open(out, "rb") as file:                          # 8 bytes, the head, then tensors and nothing else
        head = 8 + int.from_bytes(file.read(8), "little")
    assert whole["sparse_bytes"] == out.stat().st_size - head
    assert others["kept"] == others["weights"]


def test_an_old_run_s_model_can_be_had(fedmpi, tmp_path):
    path = tmp_path / "old.h5"
    path.write_bytes(gzip.decompress((DATA / "schema-1-last.h5.gz").read_bytes()))
    (tmp_path / "old.ckpt").mkdir()
    (tmp_path / "old.ckpt" / "000005.h5").write_bytes(gzip.decompress((DATA / "schema-1-last.ckpt.gz").read_bytes()))
    fedmpi(1, "export-model", path, "--out", tmp_path / "a.safetensors")
    found = trained.load(tmp_path / "a.safetensors")
    assert accuracy_of(found.state, read_run(path).attrs["options"])[1] == found.about["accuracy"]


def test_what_cannot_be_exported_is_one_line(fedmpi, path, tmp_path):
    out = tmp_path / "a.safetensors"
    for arguments, line in [((path, "--out", tmp_path / "a.pt"), "must end in .safetensors"),
                            ((path, "--out", tmp_path / "no" / "a.safetensors"), "there is no folder"),
                            ((path, "--out", out, "--round", 7), "there is: 1, 2, 3, 4"),
                            ((tmp_path / "none.h5", "--out", out), "no such file")]:
        told = fedmpi(1, "export-model", *arguments, code=2)
        assert line in told and told.count("\n") == 1
    fedmpi(1, "export-model", path, "--out", out)
    assert "--overwrite" in fedmpi(1, "export-model", path, "--out", out, code=2)
    fedmpi(1, "export-model", path, "--out", out, "--overwrite")
    assert "--round goes with a run file" in fedmpi(1, "model", out, "--round", 2, code=2)
    (tmp_path / "b.safetensors").write_text("hello")
    for each in (tmp_path / "b.safetensors", tmp_path / "c.safetensors"):
        with pytest.raises(UserError, match=str(each)):
            package.load_model(each)


class Tied(torch.nn.Module):
    """Its head is its embedding."""

    def __init__(self, shape, classes):
        super().__init__()
        self.table, self.inner = torch.nn.Embedding(classes, 6), torch.nn.Linear(math.prod(shape), 6)
        self.head = torch.nn.Linear(6, classes, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x):
        return self.head(self.inner(x.flatten(1)))


def test_a_tied_tensor_is_counted_once(fedmpi, tmp_path):
    fedmpi(1, "train", "--dataset", "synthetic:samples=60,size=4", "--partition", "iid", "--model", "test_export:Tied",
           "--clients", 2, "--rounds", 1, "--pruner", "dense", "--out", tmp_path / "a.h5")
    found = trained.trained(tmp_path / "a.h5")
    assert found.about["tied"] == ["head.weight"] and "head.weight" in found.state
    run = read_run(tmp_path / "a.h5")
    assert trained.by_layer(found)[-1]["weights"] == run.attrs["weights"]


def test_tensors_that_the_server_never_had_are_told(fedmpi, tmp_path):
    run = tmp_path / "own.h5"
    fedmpi(1, "train", "--dataset", "digits", "--train-samples", 100, "--clients", 3, "--rounds", 1, "--strategy",
           "fedper", "--model", "2nn:hidden=5", "--contribution", "size", "--out", run)
    told = []
    trained.trained(run, warn=told.append)
    assert told == [f"{run}: 2 of 6 tensors stay with the clients, each of which has its own; here they are as the "
                    "model's factory made them"]
