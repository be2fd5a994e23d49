"""Run files as other programs see them: dimensions, missing values, names; and how a run that has ended is packed."""

import errno
import gzip
import json
import os
import pathlib
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
import xarray

import fedmpi
from fedmpi.server import record
from fedmpi.core.errors import DiskError
from fedmpi.methods.tasks.classification import classification
from fedmpi.server.answers import Outcome
from fedmpi.store import Column, MemoryStore, RunFile, differences, read_run, relay, tables

OLD = pathlib.Path(__file__).parents[1] / "data" / "schema-2.h5.gz"
ROUNDS = record.round_columns(True, 2, ["size"], classification())
CLIENTS = record.client_columns(["size"])
FACTS = {
    "noise": (np.array([0.0, 0.25, 0.5]), "1", "rate of wrong labels"),
    "faulty": (np.array([False, True, False]), "1", "whether it is faulty"),
    "name": (np.array(["Zoë", "b", "c"]), "", "what it is called"),
    "labels": (np.arange(6).reshape(3, 2), "1", "samples by class", "class"),
}
PARTITION = np.array([0, 2, 3, 5]), np.array([4, 0, 1, 2, 3])
COORDINATES = {"layer": ["first.weight", "second.weight"], "class": range(2)}
ATTRS = {"status": "running", "hosts": ["node1", "nöde2"], "empty": [], "options": {"fault": ["a"], "rounds": 30}}
SEED = 2**64 - 5


def create(path, kind=RunFile, **changes):
    arguments = {"coordinates": COORDINATES, "expected": (30, 90)} | changes
    return kind.create(path, ATTRS, ROUNDS, CLIENTS, FACTS, PARTITION, **arguments)


def play(store, rounds=1):
    """Adds rounds in which client 1 came too late; each number follows from the round's."""
    for _ in range(rounds):
        t = store.rounds + 1
        row = {column.name: [t] * column.width if column.width else t for column in ROUNDS}
        rows = {column.name: np.full(3, t).astype(column.dtype) for column in CLIENTS}
        rows |= {"client": np.arange(3), "outcome": np.array([Outcome.MERGED, Outcome.LATE, Outcome.MERGED])}
        store.append(row | {"weights_digest": SEED + t % 5}, rows)


@pytest.fixture(params=["live", "packed"])
def store(request, tmp_path):
    """Four rounds of thirty, of a run that goes on, and of one that was stopped."""
    store = create(tmp_path / "run.h5")
    play(store, 4)
    if request.param == "packed":
        store.update({"status": "stopped"})
        store.pack()
    return store


# ---------------------------------------------------------------- dimensions


def test_every_axis_has_a_label_and_a_scale_of_its_length(store):
    with h5py.File(store.path) as f:
        seen = []

        def check(name, data):
            if not isinstance(data, h5py.Dataset):
                return
            seen.append(name)
            for axis, length in zip(data.dims, data.shape, strict=True):
                assert axis.label, name
                assert data.is_scale or len(axis) == 1 and axis[0].shape == (length,), name

        f.visititems(check)
        assert {"rounds/accuracy", "population/labels", "partition/indices", "ends", "committed", "layer"} <= set(seen)
        assert [axis.label for axis in f["rounds/kept_layers"].dims] == ["round", "layer"]
        assert f["rounds/accuracy"].dims[0][0] == f["rounds/round"] and f["rounds/round"].is_scale
        assert f["clients/loss"].dims[0].label == "participation"
        assert [axis.label for axis in f["population/labels"].dims] == ["client", "class"]
        assert f["layer"].asstr()[...].tolist() == COORDINATES["layer"]


@pytest.mark.parametrize("engine", ["h5netcdf", None])
def test_xarray_sees_rounds_clients_and_population(store, engine):
    def loaded(group=None):
        return xarray.load_dataset(store.path, group=group, engine=engine)

    rounds = loaded("rounds")
    assert rounds.accuracy.dims == ("round",) and rounds.kept_layers.dims == ("round", "layer")
    assert rounds["round"].values[:4].tolist() == [1, 2, 3, 4]
    assert rounds.sel(round=3).accuracy == 3.0 and rounds.sizes["layer"] == 2
    assert rounds.up_bytes.attrs["units"] == rounds.up_bytes.attrs["unit"] == "B"
    assert rounds.accuracy.attrs["long_name"] == "test accuracy after pruning and growing"
    assert rounds.up_bytes.dtype == np.int64 and rounds.round_s.dtype == np.float64       # no time spans
    clients = loaded("clients")
    assert clients.loss.dims == ("participation",) and set(clients.coords) == {"round", "client"}
    assert clients.client.values[:6].tolist() == [0, 1, 2, 0, 1, 2]
    assert clients["round"].values[:6].tolist() == [1, 1, 1, 2, 2, 2]
    population = loaded("population")
    assert population.noise.dims == ("client",) and population.client.values.tolist() == [0, 1, 2]
    assert population.labels.dims == ("client", "class") and population.name.values.tolist() == ["Zoë", "b", "c"]
    assert population.faulty.values.tolist() == [False, True, False]
    assert loaded("partition").indices.values.tolist() == [4, 0, 1, 2, 3]
    assert loaded().layer.values.tolist() == COORDINATES["layer"]
    assert list(loaded().attrs["hosts"]) == ["node1", "nöde2"]


def test_xarray_reads_the_whole_file_as_a_tree(store):
    store.add_session({"time": "2026-01-01T00:00:00+00:00", "ranks": 3})
    with xarray.open_datatree(store.path, engine="h5netcdf") as tree:
        assert tree["rounds"].kept_layers.coords["layer"].values.tolist() == COORDINATES["layer"]
        assert tree["sessions"].ranks.dims == ("time",) and tree["sessions"].ranks.values.tolist() == [3]


@pytest.mark.skipif(not shutil.which("h5dump"), reason="no h5dump (hdf5-tools) on PATH")
def test_h5dump_shows_names_labels_and_texts(store):
    def dumped(*arguments):
        done = subprocess.run(["h5dump", *arguments, store.path], capture_output=True, text=True, check=True)
        return done.stdout

    assert "merged, late, merged" in dumped("-d", "/clients/outcome")
    assert '"DIMENSION_LABELS"' in dumped("-d", "/rounds/kept_layers") and f"{SEED + 1:016x}" in dumped(
        "-d", "/rounds/weights_digest_text")
    assert '"node1", "n' in dumped("-a", "/hosts")
    assert "H5T_ENUM" in dumped("-H")


def test_a_dimension_has_one_length(tmp_path):
    wide = [Column("a", "int64", "1", "a", width=2, dim="layer"), Column("b", "int64", "1", "b", width=3, dim="layer")]
    with pytest.raises(ValueError, match="dimension layer has the lengths 2 and 3"):
        RunFile.create(tmp_path / "run.h5", {}, wide, [], {}, ([0], []))
    assert os.listdir(tmp_path) == []


# ---------------------------------------------------------------- what is missing, and what has names


def test_rows_that_are_not_written_yet_are_missing(tmp_path):
    store = create(tmp_path / "run.h5")
    play(store, 2)
    with h5py.File(store.path) as f:
        assert f["rounds/accuracy"].shape == (30,) and f["clients/loss"].shape == (90,)       # as planned
        for table, rows in (("rounds", 2), ("clients", 6)):
            for name, data in f[table].items():
                beyond = data[rows:]
                if data.dtype.kind == "f":
                    assert np.isnan(beyond).all() and np.isnan(data.fillvalue), name
                elif data.dtype.kind == "i":
                    assert (beyond == -1).all() and data.fillvalue == -1, name
                elif data.dtype.kind == "S":
                    assert (beyond == b"").all(), name
        assert (f["rounds/weights_digest"][2:] == 2**64 - 1).all() and f["ends"][2:].tolist() == [-1] * 28
        assert h5py.check_enum_dtype(f["clients/outcome"].dtype) == {
            "missing": -1, "merged": 0, "late": 1, "dropped": 2, "rejected": 3, "failed": 4, "passed": 5}
        assert f["clients/outcome"][:6].tolist() == [0, 1, 0, 0, 1, 0]
    rounds = xarray.load_dataset(store.path, group="rounds")
    assert rounds.accuracy.notnull().sum() == 2 and (rounds.merged >= 0).sum() == 2


def test_an_outcome_without_a_name_is_refused(tmp_path):
    store = create(tmp_path / "run.h5")
    rows = {column.name: np.zeros(1, column.dtype) for column in CLIENTS}
    row = {column.name: [0] * column.width if column.width else 0 for column in ROUNDS}
    for code in (-1, 6):
        with pytest.raises(ValueError, match=r"clients/outcome: must be 0 to 5 \(merged, late, "):
            store.append(row, rows | {"outcome": np.array([code])})
    assert store.rounds == 0
    with pytest.raises(ValueError, match="an enumeration must be of signed integers, got float64"):
        MemoryStore({}, [Column("a", "float64", "1", "a", names=("x",))], [], {}, ([0], []))


def test_digests_are_texts_too_and_lists_of_texts_are_arrays(store):
    run = read_run(store.path)
    assert "weights_digest_text" not in run.rounds         # it is the same column
    assert run.rounds["weights_digest"].tolist() == [SEED + t for t in range(1, 5)]
    assert {name: run.attrs[name] for name in ATTRS} == ATTRS | {"status": run.attrs["status"]}
    with h5py.File(store.path) as f:
        assert f.attrs["hosts"].tolist() == ["node1", "nöde2"]
        assert f.attrs["json_text"].tolist() == ["empty", "options"]
        assert json.loads(f.attrs["options"]) == ATTRS["options"]
        texts = f["rounds/weights_digest_text"]
        assert texts.dtype == "S16"
        assert texts[:4].tolist() == [f"{SEED + t:016x}".encode() for t in range(1, 5)]


def test_no_integer_that_r_and_matlab_cannot_hold_lacks_a_text(store):
    with h5py.File(store.path) as f:
        large = [name for table in ("rounds", "clients") for name, data in f[table].items() if data.dtype == np.uint64]
        assert large == ["weights_digest"] and "weights_digest_text" in f["rounds"]


def test_frames_have_the_texts_of_digests_in_files_of_any_schema(store, tmp_path):
    old = tmp_path / "old.h5"
    old.write_bytes(gzip.decompress(OLD.read_bytes()))
    for path in (store.path, old):
        rounds = fedmpi.open(path).rounds
        texts = [f"{digest:016x}" for digest in rounds["weights_digest"].tolist()]
        assert rounds["weights_digest_text"].tolist() == texts and len(texts) > 3
        assert "hexadecimal" in rounds.attrs["descriptions"]["weights_digest_text"]


# ---------------------------------------------------------------- packed


def same(a, b):
    """Whether two runs hold the same, and not merely what is compared between machines."""
    assert differences(a, b) == [] and a.columns == b.columns and a.sessions == b.sessions
    for table in ("rounds", "clients", "population"):
        for name, values in getattr(a, table).items():
            np.testing.assert_array_equal(values, getattr(b, table)[name], strict=True)
    assert {**a.attrs, "run_id": 0, "status": 0} == {**b.attrs, "run_id": 0, "status": 0}


@pytest.fixture
def long(tmp_path):
    """A run of 30 rounds with all columns, as it is before it ends."""
    store = create(tmp_path / "long.h5")
    play(store, 30)
    return store


def test_a_packed_run_holds_the_same_in_less_room(long):
    long.add_session({"time": "now", "ranks": 1})
    long.update({"status": "interrupted"})
    before, size = long.run(), os.path.getsize(long.path)
    long.pack()
    same(before, long.run())
    assert os.path.getsize(long.path) < size
    assert os.path.getsize(long.path) < 1_090_000 / 4      # what this run took when each had room for 1024 rounds
    with h5py.File(long.path) as f:
        for data in (*f["rounds"].values(), *f["clients"].values(), f["ends"]):
            assert data.compression == "gzip" and data.shuffle and data.maxshape[0] is None
            assert data.chunks[0] == len(data)
    content = pathlib.Path(long.path).read_bytes()
    long.pack()                                            # again: nothing to do
    assert pathlib.Path(long.path).read_bytes() == content


@pytest.mark.parametrize("status, packed", [("finished", True), ("stopped", True), ("interrupted", False),
                                            ("failed", False)])
def test_a_run_that_ends_as_it_was_meant_to_is_packed_at_once(long, status, packed):
    before = long.run()
    long.update({"status": status})
    same(before, long.run())
    with h5py.File(long.path) as f:
        assert len(f["rounds/loss"]) == 30 and f.attrs["status"] == status
        assert (f["rounds/loss"].compression == "gzip") == packed


def test_large_facts_are_packed_too(tmp_path):
    partition = np.arange(0, 60_001, 100), np.arange(60_000)
    store = RunFile.create(tmp_path / "run.h5", {}, ROUNDS, CLIENTS, FACTS, partition)
    store.update({"status": "interrupted"})
    before, size = store.run(), os.path.getsize(store.path)
    store.pack()
    same(before, store.run())
    assert size - os.path.getsize(store.path) > 400_000
    np.testing.assert_array_equal(store.run().partition[1], np.arange(60_000))


def test_a_packed_run_goes_on_and_can_be_shortened(tmp_path):
    straight, stopped = create(tmp_path / "straight.h5"), create(tmp_path / "stopped.h5")
    play(straight, 40)                                     # ten more than were expected
    play(stopped, 20)
    for rounds, more in ((15, 10), (25, 0), (20, 20)):     # a packed one is truncated, appended to, packed again
        stopped.update({"status": "finished"})
        stopped.pack()
        stopped = RunFile(stopped.path)
        stopped.truncate(rounds)
        stopped.update({"status": "running"})
        play(stopped, more)
    same(straight.run(), stopped.run())
    with h5py.File(stopped.path) as f:
        assert f["rounds/loss"].compression is None and len(f["rounds/loss"]) > 40


def test_whoever_has_the_file_open_reads_on_while_it_is_packed(long):
    with h5py.File(long.path, "r", locking=False) as f, xarray.open_dataset(
            long.path, group="rounds", engine="h5netcdf", driver_kwds={"locking": False}) as rounds:
        long.update({"status": "finished"})
        long.pack()
        assert f["rounds/accuracy"][:].tolist() == rounds.accuracy.values.tolist() == list(range(1, 31))
        assert f.attrs["status"] == "running"
    assert read_run(long.path).attrs["status"] == "finished"


def test_a_link_to_a_run_stays_a_link_when_it_is_packed(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "run.h5").symlink_to(tmp_path / "far" / "run.h5")
    store = create(tmp_path / "run.h5")
    play(store, 2)
    store.update({"status": "finished"})
    store.pack()
    assert (tmp_path / "run.h5").is_symlink() and os.listdir(tmp_path / "far") == ["run.h5"]
    assert len(read_run(tmp_path / "run.h5").ends) == 2


def test_a_disk_without_room_leaves_the_file_as_it_was(long, monkeypatch):
    long.update({"status": "interrupted"})
    before = pathlib.Path(long.path).read_bytes()

    def full(handle, start, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DiskError, match="No space left on device"):
        long.pack()
    monkeypatch.undo()
    folder = pathlib.Path(long.path).parent
    assert pathlib.Path(long.path).read_bytes() == before and os.listdir(folder) == ["long.h5"]
    long.pack()


def test_all_that_a_packed_file_takes_was_reserved_before(long, monkeypatch):
    """HDF5 does not bear a full disk: what it writes must fit into what was taken first."""
    reserved, taken = [], []
    most, finished = relay.beginning, relay.finish
    monkeypatch.setattr(relay, "beginning", lambda path, room: reserved.append(room) or most(path, room))
    monkeypatch.setattr(relay, "finish", lambda path: taken.append(os.path.getsize(path + ".tmp")) or finished(path))
    play(long, 1)                                          # room for twice as many
    long.update({"status": "interrupted"})
    long.pack()
    long.truncate(3)
    assert len(taken) == 4 and all(size <= room for size, room in zip(taken, reserved))


def test_what_others_have_added_stays(long):
    with h5py.File(long.path, "r+") as f:
        f["notes/mine"] = [1.5, 2.5]
        f["population"]["score"] = np.array([1, 2, 3])
        f["rounds/loss"].attrs["seen"] = np.array([1, 2])
        f.attrs["colour"] = np.array([0.5, 0.25])
    play(long, 1)
    long.update({"status": "finished"})
    long.pack()
    with h5py.File(long.path) as f:
        assert f["notes/mine"][:].tolist() == [1.5, 2.5] and f["population/score"][:].tolist() == [1, 2, 3]
        assert f["rounds/loss"].attrs["seen"].tolist() == [1, 2] and f.attrs["colour"].tolist() == [0.5, 0.25]


def test_a_row_is_never_written_into_a_packed_file(long):
    long.update({"status": "finished"})
    long.pack()
    long._room = 100, 100, 0                                # as if there were room
    with pytest.raises(Exception, match="is packed: a row has no place of its own"):
        play(long)


def test_a_file_of_an_older_schema_is_not_packed_and_loses_nothing(tmp_path):
    path = tmp_path / "old.h5"
    path.write_bytes(gzip.decompress(OLD.read_bytes()))
    before = read_run(path)
    store = RunFile(path)
    content = path.read_bytes()
    store.pack()
    assert path.read_bytes() == content
    store.update({"status": "interrupted"})
    store.truncate(5)
    row = {name: values[-1] for name, values in before.rounds.items()}
    rows = {name: values[-3:] for name, values in before.clients.items()}
    store.append(row, rows)                                # which makes room
    store.truncate(5)
    same(before, store.run())
    assert before.attrs["schema"] == 2 and before.clients["outcome"].dtype == np.int64


def test_outcomes_of_older_schemas_compare_as_numbers():
    runs = []
    for column in (Column("outcome", "int64", "1", "o"), Column("outcome", "int8", "1", "o", names=("merged", "late"))):
        store = MemoryStore({}, [Column("round", "int64", "1", "r")], [column], {}, ([0], []))
        store.append({"round": 1}, {"outcome": np.array([0, 1])})
        runs.append(store.run())
    assert differences(*runs) == []


def test_many_rounds_take_a_quarter_once_they_are_packed(tmp_path):
    """Numbers as a run has them: some are drawn, most repeat or count."""
    gen, store = np.random.default_rng(0), create(tmp_path / "run.h5", expected=(200, 20_000))
    for t in range(1, 201):
        row = {column.name: [t] * column.width if column.width else t for column in ROUNDS}
        rows = {column.name: np.zeros(100, column.dtype) for column in CLIENTS}
        drawn = {name: gen.random(100) for name in ("loss", "weight", "train_s")}
        store.append(row, rows | drawn | {"round": np.full(100, t), "client": np.arange(100)})
    raw = sum(column.itemsize for column in map(np.dtype, (column.dtype for column in CLIENTS))) * 20_000
    with h5py.File(store.path) as f:
        assert len(f["clients/loss"]) == 20_000            # no more room than is expected
    store.update({"status": "finished"})
    store.pack()
    assert os.path.getsize(store.path) < (raw + 1_000_000) / 4


def test_reading_needs_no_more_than_h5py():
    code = "import sys, fedmpi.store; print(*{'xarray', 'h5netcdf', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_chunks_fit_the_run(tmp_path):
    store = create(tmp_path / "run.h5", expected=(30, 90))
    assert os.path.getsize(store.path) < 350_000
    with h5py.File(store.path) as f:
        assert f["rounds/loss"].chunks == (30,) and f["clients/loss"].chunks == (90,)
    store = create(tmp_path / "large.h5", expected=(10**6, 10**8))
    with h5py.File(store.path) as f:
        assert (len(f["ends"]), len(f["clients/loss"])) == tables.EXPECTED[:2]
