"""Runs for other programs: what is written is what was recorded."""

import gzip
import json
import os
import pathlib
import sys

import numpy as np
import pandas as pd
import pytest

import fedmpi as package
from fedmpi.read import export

SMALL = ("--clients", 4, "--rounds", 4, "--local-epochs", 1, "--train-samples", 300, "--keep", 4, "--save-every", 1)
DATA = pathlib.Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def path(fedmpi, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "run.h5"
    fedmpi(1, "train", *SMALL, "--model", "2nn:hidden=12", "--strategy", "thesis", "--pruner", "rigl:every=2",
           "--lr", 0.3, "--observe", "size", "--out", out)
    return out


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
