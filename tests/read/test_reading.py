"""Reading runs: frames, the schema and its old files, following live runs."""

import contextlib
import gzip
import os
import pathlib
import pty
import re
import select
import shutil
import subprocess
import sys
import threading
import time

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray
from conftest import environment

import fedmpi as package
from fedmpi.build.options import DEFAULTS
from fedmpi.server import record
from fedmpi.commands.watch import SILENT_S, TROUBLE_S, Seen, look, notes
from fedmpi.core.errors import UserError
from fedmpi.methods.tasks.classification import classification
from fedmpi.read.report import live
from fedmpi.store import RunFile, read_run
from fedmpi.store.schema import ATTRIBUTES, SCHEMA

OLD = sorted(pathlib.Path(__file__).parents[1].joinpath("data").glob("schema-*.h5.gz"))
SMALL = ("--clients", 5, "--cohort", 3, "--rounds", 5, "--local-epochs", 1, "--train-samples", 300,
         "--model", "2nn:hidden=12", "--strategy", "thesis")
LOSING = ("--pruner", "rigl:every=2", "--devices", "tiers:slow=0.5,dropout=0.3")


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


# ---------------------------------------------------------------- frames


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


ROUNDS = record.round_columns(False, 1, ["size"], classification())
CLIENTS = record.client_columns(["size"])


def live_run(path, planned=6):
    """A run file that nobody plays, and ``play()``, which adds a round."""
    store = RunFile.create(path, {"options": {"rounds": planned, "clients": 2}, "status": "running"}, ROUNDS, CLIENTS,
                           {"noise": (np.zeros(2), "1", "noise")}, ([0], []))

    def play():
        t = store.rounds + 1
        row = {c.name: [0] * c.width if c.width else 0 for c in ROUNDS}
        rows = {c.name: np.zeros(2, c.dtype) for c in CLIENTS}
        row |= {"round": t, "accuracy": t / 10, "round_s": 2.0, "recorded": 100.0 + 4 * t, "asked": 2, "merged": 2}
        store.append(row,
                     rows | {"round": np.full(2, t), "client": np.arange(2)})

    return store, play


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


# ---------------------------------------------------------------- the schema


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
    assert "differs in the columns lr, mask_changed_layers, recorded of /rounds" in told and "Traceback" not in told
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


# ---------------------------------------------------------------- reading over a network file system


def test_rows_that_come_after_what_counts_them_are_waited_for(tmp_path):
    store, play = live_run(tmp_path / "run.h5")
    play()
    with h5py.File(store.path, "r+", locking=False) as f:
        f["committed"][...] = [2, 4]                       # of a round whose rows are not there yet
    with pytest.raises(UserError, match="not there yet"):
        read_run(store.path)

    def arrive():
        for _ in range(500):
            with contextlib.suppress(OSError):             # HDF5 does not write what this process is reading
                with h5py.File(store.path, "r+", locking=False) as f:
                    f["ends"][1] = 4
                return
            time.sleep(0.005)

    late = threading.Timer(0.2, arrive)
    late.start()
    assert len(read_run(store.path, patience_s=10.0).ends) == 2
    late.join()


def test_a_look_reads_only_what_has_changed(tmp_path, monkeypatch):
    store, play = live_run(tmp_path / "run.h5")
    play()
    seen = look(Seen(store.path), live.NEEDED, 1.0)
    assert len(seen.run.ends) == 1 and set(seen.run.clients) == set() and "wait_s" not in seen.run.rounds
    again = look(seen, live.NEEDED, 2.0)
    assert again.run is seen.run and (again.heard, again.well) == (1.0, 2.0)
    play()
    assert len(look(again, live.NEEDED, 3.0).run.ends) == 2
    os.rename(store.path, store.path + "-gone")
    gone = look(again, live.NEEDED, 4.0)
    assert gone.run is seen.run and "No such file" in gone.trouble and gone.well == 2.0


def test_silence_and_trouble_are_told(tmp_path):
    store, _ = live_run(tmp_path / "run.h5")
    seen = look(Seen("run.h5"), live.NEEDED, 0.0)._replace(run=read_run(store.path), heard=0.0, well=0.0)
    quiet = seen._replace(trouble="", well=1000.0)
    assert list(notes([quiet], SILENT_S - 1)) == [] and "train --resume run.h5" in next(notes([quiet], SILENT_S + 1))
    stuck = seen._replace(trouble="Stale file handle")
    assert list(notes([stuck], TROUBLE_S - 1)) == []
    assert "cannot be read for 11 s: Stale file handle" in next(notes([stuck], TROUBLE_S + 1))


# ---------------------------------------------------------------- watch


def test_pace_and_time_left(tmp_path):
    store, play = live_run(tmp_path / "run.h5")
    assert live.pace(read_run(store.path)) is None and live.left_s(read_run(store.path)) is None
    play()
    assert live.pace(read_run(store.path)) == 2.0                      # the round's own seconds
    for _ in range(3):
        play()
    run = read_run(store.path)
    assert live.pace(run) == 4.0 and live.left_s(run) == 8.0           # recorded every 4 s, and two rounds to go
    without = run._replace(rounds={k: v for k, v in run.rounds.items() if k != "recorded"})
    assert live.pace(without) == 2.0                                   # the rounds' own seconds
    assert live.left_s(run._replace(attrs=run.attrs | {"status": "stopped"})) is None
    until = run._replace(attrs=run.attrs | {"options": {"rounds": 6, "until": 5}})
    assert live.left_s(until) == 4.0 and live.left_s(until._replace(sessions=[{}, {}])) == 8.0


@pytest.mark.parametrize("width, height", [(200, 50), (100, 30), (60, 20), (40, 10), (20, 4)])
def test_boards_fit(path, width, height):
    run = read_run(path)
    for runs in ({"a.h5": run}, {"a.h5": run, "b.h5": run}):
        lines = live.board(runs, ["a note"], width, height).split("\n")
        assert len(lines) <= height and max(map(len, lines)) <= width


def test_boards_show_clients_and_curves(path):
    run = read_run(path)
    one, two = (live.board(runs, (), 150, 40) for runs in ({"a.h5": run}, {"a.h5": run, "b.h5": run}))
    assert "finished" in one and "5/5" in one and f"{run.rounds['merged'][-1]}/3" in one and "mean contribution" in one
    assert "test accuracy" in two and re.search("^b  b.h5", two, re.M)
    assert str(run.rounds["dropped"].sum()) in one.split("\n")[1].split()


def test_watch_prints_a_line_a_round_until_the_runs_end(command, tmp_path):
    stores = [live_run(tmp_path / f"{name}.h5") for name in "ab"]
    for _, play in stores:
        play()
    argv = command(1, "watch", "a.h5", "b.h5", "--every", 0.1)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=_here()) as watching:
        lines = [watching.stdout.readline() for _ in range(2)]
        for store, play in stores:
            store.patience_s = 0.0                         # a lock held by the reader would be an error at once
            for _ in range(3):
                play()
        lines += [watching.stdout.readline() for _ in range(6)]
        for store, _ in stores:
            store.update({"status": "finished"})
        rest = watching.stdout.read()
    assert watching.returncode == 0
    for name in "ab":
        mine = [line for line in lines if line.startswith(f"{name}.h5  round ")]
        assert [re.search(r"round (\d)/6  accuracy 0\.(\d)", line).groups() for line in mine] == [
            (str(t), str(t)) for t in range(1, 5)]
    assert "\x1b" not in "".join(lines) and rest.count("finished") == 2


def _here():
    return environment(PYTHONPATH=str(pathlib.Path(package.__file__).parents[1]), TERM="xterm", COLUMNS="90",
                       LINES="24")


def test_watch_in_a_terminal_leaves_at_q(command, tmp_path):
    store, play = live_run(tmp_path / "run.h5")
    play()
    ours, theirs = pty.openpty()
    with subprocess.Popen(command(1, "watch", store.path, "--every", 0.1), stdin=theirs, stdout=theirs, stderr=theirs,
                          env=_here()) as watching:
        os.close(theirs)
        try:
            shown = _until(ours, "q: leave")
            play()
            shown += _until(ours, "2/6")
            os.write(ours, b"q")
            shown += _until(ours, "sparsity", closed=True)
            assert watching.wait(30) == 0
        finally:
            watching.kill()                                # which waits for us to read
    os.close(ours)
    assert "1/6" in shown and "\x1b[?1049h" in shown and shown.index("\x1b[?1049l") > shown.index("2/6")
    assert "running, 2 of 6 rounds" in shown


def _until(handle, text, closed=False, seconds=60):
    """What the terminal shows until ``text`` is among it, or until nobody writes any more."""
    shown, give_up = "", time.monotonic() + seconds
    while closed or text not in shown:
        assert time.monotonic() < give_up, shown
        if select.select([handle], [], [], 1)[0]:
            try:
                shown += os.read(handle, 65536).decode("utf-8", "replace")
            except OSError:                                # the other end is closed
                break
    assert text in shown
    return shown


def test_frames_import_neither_torch_nor_mpi(path):
    code = f"import sys, fedmpi; fedmpi.open({str(path)!r}).rounds; print(*{{'torch', 'mpi4py'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_here())
    assert done.stdout.split() == []


def test_an_outcome_without_a_legend_stays_a_number():
    from fedmpi.read.dataframes import named
    assert named(np.array([0, 1]), "0 merged, 1 late").tolist() == ["merged", "late"]
    assert named(np.array([0, 7]), "0 merged, 1 late").tolist() == [0, 7]
    assert isinstance(named(np.array([], int), "0 merged"), pd.Categorical)


def test_long_names_are_cut_in_front_unless_they_would_be_the_same(monkeypatch, tmp_path):
    from fedmpi.commands.watch import shortened
    monkeypatch.chdir(tmp_path)
    assert shortened(["a.h5", "folder/with/b.h5"], 8) == {"a.h5": "a.h5", "folder/with/b.h5": "…th/b.h5"}
    twins = {"first/run.h5": "first/run.h5", "other/run.h5": "other/run.h5"}
    assert shortened(list(twins), 8) == twins
