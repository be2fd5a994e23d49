"""Run files as pandas frames."""

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from live_runs import LOSING, SMALL, small_terminal, live_run

import fedmpi as package
from fedmpi.core.errors import UserError
from fedmpi.store import read_run


@pytest.fixture(scope="module")
def path(fedmpi, tmp_path_factory):
    """A run that was stopped after two rounds and resumed; some clients never answer."""
    out = tmp_path_factory.mktemp("reading") / "run.h5"
    fedmpi(1, "train", *SMALL, *LOSING, "--until", 2, "--out", out)
    fedmpi(1, "train", "--resume", out)
    return out


def test_frames_hold_what_the_file_holds(path):
    run, raw = package.open(path), read_run(path)
    for name, frame, columns in (("rounds", run.rounds, raw.rounds), ("clients", run.clients, raw.clients)):
        for column in columns.keys() & set(frame) - {"outcome"}:
            np.testing.assert_array_equal(frame[column], columns[column], err_msg=f"{name}/{column}")
    assert set(raw.rounds) - set(run.rounds) == {"kept_layers", "mask_changed_layers"}
    assert len(run.rounds) == 5 and len(run.clients) == 15 == run.num_participations
    assert run.rounds.attrs["units"]["up_bytes"] == "B"
    assert "test accuracy" in run.rounds.attrs["descriptions"]["accuracy"]
    assert run.population.index.name == "client" and "labels_9" in run.population and len(run.population) == 5
    assert run.attrs["options"]["clients"] == 5 and "finished, 5 of 5 rounds" in repr(run)
    for frame in (run.rounds, run.clients, run.layers, run.events, run.population):
        assert set(frame.attrs["units"]) == set(frame.attrs["descriptions"]) == set(frame)


def test_layers_add_up_to_rounds(path):
    run = package.open(path)
    sums = run.layers.groupby("round")[["weights", "kept", "mask_changed"]].sum()
    np.testing.assert_array_equal(sums["kept"], run.rounds["kept"])
    np.testing.assert_array_equal(sums["mask_changed"], run.rounds["mask_changed"])
    assert (sums["weights"] == run.attrs["prunable"]).all() and run.rounds["mask_changed"].sum() > 0
    first = run.layers.iloc[0]
    assert first["flops_forward"] == 2 * first["kept"] and first["sparsity"] == 1 - first["kept"] / first["weights"]
    assert first["layer"] == run.attrs["layers"][0][0]


def test_flops_of_layers_are_those_of_the_rounds_where_no_dense_gradient_is_taken(fedmpi, tmp_path):
    fedmpi(1, "train", *SMALL, "--pruner", "static", "--out", tmp_path / "run.h5")
    run = package.open(tmp_path / "run.h5")
    sums = run.layers.groupby("round")["flops_training"].sum()
    np.testing.assert_allclose(sums, run.rounds["flops_rigl"], rtol=1e-12)


def test_flops_of_layers_are_left_out_where_clients_masks_differ(fedmpi, tmp_path):
    fedmpi(1, "train", *SMALL, "--pruner", "adaptive:every=2", "--cohort", 0, "--out", tmp_path / "run.h5")
    run = package.open(tmp_path / "run.h5")
    same = run.clients.groupby("round")["sparsity"].nunique() == 1
    assert same.any() and not same.all()
    sums = run.layers.groupby("round")["flops_training"].sum(min_count=1)
    np.testing.assert_allclose(sums, np.where(same, run.rounds["flops_rigl"], np.nan), rtol=1e-12)


def test_events_tell_what_happened_in_order(path):
    run = package.open(path)
    events = run.events
    assert events["round"].is_monotonic_increasing
    assert events["event"].iloc[0] == "started" and events["event"].iloc[-1] == "finished"
    assert events.loc[events["event"] == "resumed", "round"].tolist() == [2]
    assert events["text"].iloc[0].startswith("1 rank on ")
    dropped = events[events["event"] == "dropped"]
    assert len(dropped) == run.rounds["dropped"].sum() > 0
    missed = run.clients[run.clients["outcome"] == "dropped"]
    for column in ("client", "round"):
        assert dropped[column].tolist() == missed[column].tolist()
    assert events.loc[events["event"] == "checkpoint", "round"].tolist()[-1] == 5
    assert str(events["time"].dtype).startswith("datetime64") and events["time"].iloc[0].tzinfo is not None


def test_frames_of_a_live_run_fit_together(tmp_path):
    store, play = live_run(tmp_path / "run.h5")
    young = package.open(store.path)
    assert len(young.rounds) == 0 and len(young.clients) == 0 and len(young.layers) == 0 and len(young.events) == 0
    play()
    run = package.open(store.path)
    assert len(run.rounds) == 1
    play()
    assert len(run.clients) == 2 and run.clients["round"].tolist() == [1, 1]     # though asked for later
    assert len(package.open(store.path).clients) == 4


def test_what_is_no_run_is_one_line(tmp_path):
    text = tmp_path / "run.h5"
    text.write_text("hello")
    for place in (text, tmp_path / "missing.h5", tmp_path):
        with pytest.raises(UserError, match=re.escape(str(place))) as error:
            package.open(place)
        assert "\n" not in str(error.value)


def test_frames_import_neither_torch_nor_mpi(path):
    code = f"import sys, fedmpi; fedmpi.open({str(path)!r}).rounds; print(*{{'torch', 'mpi4py'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env=small_terminal())
    assert done.stdout.split() == []


def test_an_outcome_without_a_legend_stays_a_number():
    from fedmpi.read.dataframes import named
    assert named(np.array([0, 1]), "0 merged, 1 late").tolist() == ["merged", "late"]
    assert named(np.array([0, 7]), "0 merged, 1 late").tolist() == [0, 7]
    assert isinstance(named(np.array([], int), "0 merged"), pd.Categorical)
