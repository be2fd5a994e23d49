"""Trained models for other programs: what is written is what was trained."""

import gzip
import json
import math
import pathlib

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import fedmpi as package
from fedmpi.build.federation import federation
from fedmpi.build.options import DEFAULTS
from fedmpi.build.parts import network_of, of_data
from fedmpi.build.server import evaluators
from fedmpi.core.errors import UserError
from fedmpi.core.layout import bind
from fedmpi.methods.tasks.classification import classification
from fedmpi.read import trained
from fedmpi.server.slices import finish
from fedmpi.store import read_run

SMALL = ("--clients", 4, "--rounds", 4, "--local-epochs", 1, "--train-samples", 300, "--keep", 4, "--save-every", 1)
DATA = pathlib.Path(__file__).parents[1] / "data"


class Tied(torch.nn.Module):
    """Its head is its embedding."""

    def __init__(self, shape, classes):
        super().__init__()
        self.table, self.inner = torch.nn.Embedding(classes, 6), torch.nn.Linear(math.prod(shape), 6)
        self.head = torch.nn.Linear(6, classes, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x):
        return self.head(self.inner(x.flatten(1)))


@pytest.fixture(scope="module")
def path(fedmpi, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "run.h5"
    fedmpi(1, "train", *SMALL, "--model", "2nn:hidden=12", "--strategy", "thesis", "--pruner", "rigl:every=2",
           "--lr", 0.3, "--observe", "size", "--out", out)
    return out


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


def test_a_tied_tensor_is_counted_once(fedmpi, tmp_path):
    fedmpi(1, "train", "--dataset", "synthetic:samples=60,size=4", "--partition", "iid", "--model", "test_trained:Tied",
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
