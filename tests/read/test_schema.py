"""The schema of run files, and files of every schema."""

import gzip
import os
import pathlib
import re
import shutil
import subprocess

import h5py
import pytest
import xarray
from live_runs import CLIENTS, LOSING, ROUNDS, SMALL

import fedmpi as package
from fedmpi.build.options import DEFAULTS
from fedmpi.core.errors import UserError
from fedmpi.store import RunFile, read_run
from fedmpi.store.schema import ATTRIBUTES, SCHEMA

OLD = sorted(pathlib.Path(__file__).parents[1].joinpath("data").glob("schema-*.h5.gz"))


@pytest.fixture(scope="module")
def path(fedmpi, tmp_path_factory):
    """A run that was stopped after two rounds and resumed; some clients never answer."""
    out = tmp_path_factory.mktemp("reading") / "run.h5"
    fedmpi(1, "train", *SMALL, *LOSING, "--until", 2, "--out", out)
    fedmpi(1, "train", "--resume", out)
    return out


@pytest.fixture(params=OLD, ids=lambda path: path.name)
def old(request, tmp_path):
    """An example of each schema, of before and after columns changed; the checkpoint too where there is one."""
    run = tmp_path / request.param.name.removesuffix(".gz")
    run.write_bytes(gzip.decompress(request.param.read_bytes()))
    return run


def test_the_schema_says_all_that_a_run_file_holds(path, fedmpi):
    with h5py.File(path) as f:
        assert set(f.attrs) == set(ATTRIBUTES) and all(ATTRIBUTES.values())
    text = fedmpi(1, "schema")
    for name in [column.name for column in (*ROUNDS, *CLIENTS)] + list(read_run(path).population):
        assert name.replace("size", "NAME") in text, name
    assert f"Schema {SCHEMA}." in text and f"schema {SCHEMA}, 5 rounds" in fedmpi(1, "schema", path)


def test_plain_hdf5_reads_it(path):
    with h5py.File(path) as f:
        t = f["committed"][0]
        assert f["rounds/accuracy"][:t].tolist() == package.open(path).rounds["accuracy"].tolist()
        assert f["rounds/up_bytes"].attrs["unit"] == "B"
    if shutil.which("h5dump"):
        done = subprocess.run(["h5dump", "-d", "/committed", str(path)], capture_output=True, text=True, check=True)
        assert "5, 15" in done.stdout


def test_a_run_that_has_ended_is_packed_and_has_dimensions(path):
    """It was stopped, packed, resumed, and packed again when it was finished."""
    run = package.open(path)
    with h5py.File(path) as f:
        assert f["rounds/accuracy"].compression == "gzip" and f["rounds/accuracy"].shape == (5,)
        assert f["layer"].asstr()[...].tolist() == [name for name, *_ in run.attrs["layers"]]
        assert f.attrs["hosts"].tolist() == run.attrs["hosts"] and f.attrs["status"] == "finished"
    assert os.path.getsize(path) < 300_000
    rounds, clients, population = (xarray.load_dataset(path, group=group)
                                   for group in ("rounds", "clients", "population"))
    assert rounds.sizes == {"round": 5, "layer": len(run.attrs["layers"])}
    assert rounds["round"].values.tolist() == [1, 2, 3, 4, 5]
    codes = {"merged": 0, "dropped": 2}
    assert clients.outcome.values.tolist() == [codes[name] for name in run.clients["outcome"]]
    assert population.labels.dims == ("client", "class") and population.sizes["class"] == 10
    texts = [f"{digest:016x}" for digest in run.rounds["weights_digest"]]
    assert run.rounds["weights_digest_text"].tolist() == texts


def test_old_files_still_open(old, fedmpi, tmp_path):
    run = package.open(old)
    assert "encode_s" in run.rounds and "publish_s" not in run.rounds       # as schema 1 called it at first
    assert len(run.population) == 5 and {"started", "finished"} <= set(run.events["event"])
    assert run.rounds["accuracy"].between(0, 1).all() and (run.num_rounds, len(run.clients)) == (5, 15)
    assert run.attrs["schema"] == int(old.name.split("-")[1].split(".")[0])
    for arguments in (("show",), ("show", "--json"), ("show", "--profile"), ("show", "--picture", tmp_path / "a.png"),
                      ("schema",), ("watch",), ("report", "-o", tmp_path / "a.html"),
                      ("plot", "-o", tmp_path / "a.pdf")):
        assert fedmpi(1, arguments[0], old, *arguments[1:])
    assert "agree" in fedmpi(1, "verify", old, old)
    for kind in ("csv", "parquet", "tensorboard"):
        fedmpi(1, "export", old, "--to", tmp_path / kind, "--format", kind)
    assert fedmpi(1, "merge", old)


def test_a_run_of_other_columns_is_not_resumed_and_loses_nothing(fedmpi, tmp_path):
    path = tmp_path / "old.h5"
    path.write_bytes(gzip.decompress(OLD[1].read_bytes()))
    options = read_run(path).attrs["options"]
    later = {key: DEFAULTS[key] for key in DEFAULTS.keys() - options.keys() - {"silence", "task_limit"}}
    later["optimiser"] = "sgd"
    RunFile(path).update({"status": "interrupted", "options": options | later})
    before = path.read_bytes()
    told = fedmpi(1, "train", "--resume", path, code=2)
    assert "differs in the columns lr, mask_changed_layers, recorded, sparsity_all of /rounds" in told
    assert "Traceback" not in told
    assert path.read_bytes() == before


def test_old_files_differ_from_each_other(tmp_path):
    columns = []
    for packed in OLD:
        (tmp_path / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
        columns.append(set(read_run(tmp_path / packed.stem).columns))
    assert len(columns) == 3 and all(a < b for a, b in zip(columns, columns[1:]))


def test_a_newer_schema_is_refused_in_one_line(path, fedmpi, tmp_path):
    newer = tmp_path / "newer.h5"
    shutil.copy(path, newer)
    with h5py.File(newer, "r+") as f:
        f.attrs["schema"] = SCHEMA + 1
    line = f"written by a newer fedmpi (schema {SCHEMA + 1}, this one reads {SCHEMA})"
    with pytest.raises(UserError, match=re.escape(line)):
        package.open(newer)
    for arguments in (("show", newer), ("watch", newer), ("export", newer, "--to", tmp_path / "out"), ("model", newer)):
        told = fedmpi(1, *arguments, code=2)
        assert line in told and told.count("\n") == 1
