"""The store: one suite for memory and HDF5, then what only a file has to survive."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedmpi import store as store_module
from fedmpi.core.errors import CheckpointError, DataError, DiskError, FedError, UserError
from fedmpi.store import (Column, MemoryStore, RunFile, differences, disk, read_arrays, read_run,
                          tables, verify)

ROUNDS = [
    Column("round", "int64", "1", "round"),
    Column("accuracy", "float64", "1", "share of test images that are right"),
    Column("kept", "int32", "1", "kept weights a layer", width=3),
    Column("weights_digest", "uint64", "1", "digest of the weights"),
    Column("train_s", "float64", "s", "time in training", machine=True),
]
CLIENTS = [
    Column("client", "int32", "1", "client"),
    Column("loss", "float32", "nat", "training loss"),
    Column("host", "S8", "", "host", machine=True),
]
ATTRS = dict(created="2025-01-01", weights=7, options=dict(seed=1, model="mlp"), hosts=["a", "b"], quoted="[1]")
POPULATION = {
    "noise": (np.array([0.0, 0.5, 0.25]), "1", "share of wrong labels"),
    "labels": (np.arange(6).reshape(3, 2), "1", "samples of each class"),
}
PARTITION = np.array([0, 2, 3, 5]), np.array([4, 0, 1, 2, 3], np.int32)
REPOSITORY = str(Path(store_module.__file__).parents[2])


def round_of(t, num=2):
    """One round's row and its clients' rows, every number a function of ``t``."""
    row = dict(round=t, accuracy=t / 7, kept=[t, 2, 3], weights_digest=2**64 - 1 - t, train_s=0.5)
    return row, dict(client=np.arange(num), loss=np.full(num, t / 3, np.float32), host=["node1"] * num)


def create(kind, path, **changes):
    arguments = dict(attrs=ATTRS, rounds=ROUNDS, clients=CLIENTS, population=POPULATION, partition=PARTITION) | changes
    return kind.create(path, **arguments)


def same_runs(a, b):
    assert differences(a, b) == []
    assert list(a.rounds) == list(b.rounds) and list(a.clients) == list(b.clients)
    for table in ("rounds", "clients", "population"):
        for name, values in getattr(a, table).items():
            other = getattr(b, table)[name]
            assert (values.dtype, values.shape, values.tobytes()) == (other.dtype, other.shape, other.tobytes()), name
    assert all(np.array_equal(x, y) for x, y in zip(a.partition, b.partition))
    assert a.ends.tolist() == b.ends.tolist() and a.sessions == b.sessions and a.columns == b.columns
    assert {**a.attrs, "run_id": 0} == {**b.attrs, "run_id": 0}


@pytest.fixture(params=[MemoryStore, RunFile])
def store(request, tmp_path):
    return create(request.param, tmp_path / "run.h5")


# ---------------------------------------------------------------- both stores


def test_rows_come_back_as_they_went_in(store):
    for t in range(3):
        store.append(*round_of(t, num=t))  # 0, 1 and 2 participants
    run = store.run()
    assert store.rounds == 3 and run.ends.tolist() == [0, 1, 3]
    assert run.rounds["accuracy"].tolist() == [0, 1 / 7, 2 / 7]
    assert run.rounds["kept"].tolist() == [[0, 2, 3], [1, 2, 3], [2, 2, 3]]
    assert run.rounds["weights_digest"].tolist() == [2**64 - 1, 2**64 - 2, 2**64 - 3]
    assert run.clients["client"].tolist() == [0, 0, 1] and run.clients["host"].tolist() == [b"node1"] * 3
    assert run.columns["clients/loss"] == Column("loss", "float32", "nat", "training loss")
    assert run.columns["rounds/kept"].width == 3 and run.columns["rounds/train_s"].machine
    assert run.columns["population/noise"].description == "share of wrong labels"


def test_a_new_run_is_empty(store):
    run = store.run()
    assert run.rounds["kept"].shape == (0, 3) and run.clients["loss"].shape == (0,) and run.sessions == []
    assert run.attrs["filetype"] == "fedmpi-run" and run.attrs["schema"] == 3
    assert {k: run.attrs[k] for k in ATTRS} == ATTRS


@pytest.mark.parametrize(
    "row, clients",
    [
        (dict(accuracy=None), {}),
        (dict(accuracy="0.5"), {}),
        (dict(accuracy=[0.5]), {}),
        (dict(round=0.5), {}),
        (dict(kept=[1, 2]), {}),
        (dict(kept=[1, 2, 2**31]), {}),
        (dict(weights_digest=-1), {}),
        (dict(surplus=1), {}),
        ({}, dict(surplus=[1, 1])),
        ({}, dict(client=[0, 1, 2])),
        ({}, dict(client=3)),
        ({}, dict(loss=[0.5])),
        ({}, dict(loss=[0.5, 1e300])),
        ({}, dict(host=["node1", "a very long name"])),
    ],
)
def test_values_that_do_not_fit_change_nothing(store, row, clients):
    store.append(*round_of(0))
    good_row, good_clients = round_of(1)
    with pytest.raises(ValueError):
        store.append(good_row | row, good_clients | clients)
    with pytest.raises(ValueError, match="missing \\['accuracy'\\]"):
        store.append({k: v for k, v in good_row.items() if k != "accuracy"}, good_clients)
    assert store.rounds == 1 and len(store.run().clients["client"]) == 2


def test_truncate_forgets_later_rounds_and_their_client_rows(store, tmp_path):
    for t in range(4):
        store.append(*round_of(t, num=t + 1))
    store.truncate(2)
    assert store.run().ends.tolist() == [1, 3] and len(store.run().clients["loss"]) == 3
    store.append(*round_of(2, num=3))
    straight = create(type(store), tmp_path / "straight.h5")
    for t in range(3):
        straight.append(*round_of(t, num=t + 1))
    same_runs(store.run(), straight.run())
    store.truncate(0)
    assert store.rounds == 0 and len(store.run().clients["client"]) == 0
    with pytest.raises(ValueError, match="has 0"):
        store.truncate(1)


def test_attributes_and_sessions(store):
    store.update(dict(status="running", hosts="one", quoted=[1]))
    store.add_session(dict(time="2025-01-01", ranks=3, hosts=["a"], commit=None))
    store.add_session(dict(time="2025-01-02", ranks=5, hosts=["a", "b"], commit="abc", extra=0.5))
    store.update(dict(status="finished"))
    attrs, sessions = store.run().attrs, store.run().sessions
    assert (attrs["status"], attrs["hosts"], attrs["quoted"]) == ("finished", "one", [1])
    assert sessions[0] == dict(time="2025-01-01", ranks=3, hosts=["a"], commit=None, extra=None)
    assert sessions[1] == dict(time="2025-01-02", ranks=5, hosts=["a", "b"], commit="abc", extra=0.5)


def test_file_and_memory_hold_the_same_bits(tmp_path):
    gen = np.random.default_rng(0)
    stores = [create(kind, tmp_path / "run.h5") for kind in (MemoryStore, RunFile)]
    for t in range(40):
        row, clients = round_of(t, num=int(gen.integers(0, 9)))
        row["accuracy"] = [np.nan, -0.0, np.inf, gen.normal()][t % 4]
        for s in stores:
            s.append(row, clients)
    for s in stores:
        s.truncate(33)
        s.add_session(dict(time="now", ranks=1))
        s.update(dict(status="finished", mean=float("nan") if t == 0 else 0.25))
    same_runs(*(s.run() for s in stores))


def test_bad_columns_are_refused_at_once(tmp_path):
    for column in (Column("a", "float64", "1", ""), Column("b", "O", "1", ""), Column("x/y", "int8", "1", "")):
        with pytest.raises(ValueError):
            create(MemoryStore, None, rounds=[Column("a", "int64", "1", ""), column])


# ---------------------------------------------------------------- state


STATE = dict(
    x=torch.arange(5.0),
    mask=torch.tensor([True, False, True]),
    half=torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
    strategy={"v": np.arange(6, dtype=np.int16).reshape(2, 3), "none": None, "empty": {}, "a/b": 1, ".": 2, "": 3},
    clients={7: {"residual": torch.zeros(0, 3)}, "7": {"residual": torch.tensor(3.0)}},
    t=2**70,
    lr=-0.0,
    nan=float("nan"),
    done=True,
    name="née\ud800",
    scalar=np.float32(0.1),
    flag=np.bool_(True),
    big=np.arange(3, dtype=">f8"),
    text=np.array(["ab", "c"]),
    complex=np.array(1 + 2j),
    strided=torch.arange(6).reshape(2, 3).t(),
)


def same_leaf(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert [(k, type(k)) for k in a] == [(k, type(k)) for k in b]
        for key in a:
            same_leaf(a[key], b[key])
    elif isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        flat = [t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b)]
        assert torch.equal(*flat)
    elif isinstance(a, (np.ndarray, np.generic)):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    else:
        assert repr(a) == repr(b)


def test_state_comes_back_bit_for_bit_with_its_types(store):
    store.save(STATE, 3)
    state, t = store.load()
    assert t == 3
    same_leaf(state, STATE)


TENSOR_TYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool, torch.uint8, torch.int8]
TENSOR_TYPES += [torch.int16, torch.int32, torch.int64, torch.complex64, torch.float8_e4m3fn]


@pytest.mark.parametrize("dtype", TENSOR_TYPES, ids=str)
def test_any_tensor_type_survives(dtype, tmp_path):
    bits = torch.from_numpy(np.random.default_rng(1).integers(0, 256, 48, np.uint8))
    bits = bits % 2 if dtype == torch.bool else bits  # NaN payloads included, but a bool is 0 or 1
    state = dict(a=bits.view(dtype).reshape(2, -1), b=torch.zeros((), dtype=dtype))
    store_module.save_checkpoint(tmp_path, state, 0, run_id="r")
    same_leaf(store_module.load_checkpoint(tmp_path, run_id="r")[0], state)


keys = st.text(max_size=5) | st.integers(-5, 5)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary().map(
    lambda b: np.frombuffer(b, np.uint8).copy()
)
branches = st.recursive(leaves, lambda s: st.dictionaries(keys, s, max_size=3), max_leaves=8)
states = st.dictionaries(keys, branches, max_size=4)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(states)
def test_any_nested_state_survives(tmp_path, state):
    store_module.save_checkpoint(tmp_path, state, 0, run_id="r")
    same_leaf(store_module.load_checkpoint(tmp_path, run_id="r")[0], state)


def test_a_saved_state_does_not_change_with_the_live_one(store):
    x = torch.zeros(3)
    store.save(dict(x=x), 0)
    x += 1
    loaded, _ = store.load()
    loaded["x"] += 5
    assert store.load()[0]["x"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("leaf", [[1], {1.5: 0}, np.array([None]), object(), torch.eye(2).to_sparse()])
def test_a_state_that_cannot_be_kept_is_refused(store, leaf):
    with pytest.raises(ValueError, match="state"):
        store.save(dict(a=dict(b=leaf)), 0)


def test_newest_checkpoints_are_kept_and_a_given_up_future_goes(store):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        store.load()
    for t in (1, 5, 9):
        store.save(dict(t=t), t)
    assert store.load() == (dict(t=9), 9)
    store.save(dict(t=6), 6)
    assert store.load() == (dict(t=6), 6)
    if isinstance(store, RunFile):
        assert sorted(os.listdir(store.folder)) == ["000005.h5", "000006.h5"]


# ---------------------------------------------------------------- checkpoints on disk


def damage(path, where):
    data = bytearray(Path(path).read_bytes())
    data[where] ^= 0xFF
    Path(path).write_bytes(data)


def test_damaged_checkpoints_are_refused_loudly_and_the_one_before_is_taken(tmp_path):
    store = create(RunFile, tmp_path / "run.h5")
    states = [dict(x=torch.arange(100.0) + t) for t in range(2)]
    for t, state in enumerate(states):
        store.save(state, t)
    store.settle()
    newest = Path(store.folder, "000001.h5")
    good = newest.read_bytes()
    with h5py.File(newest) as f:
        values = f["state/x"].id.get_offset()
    for where in [0, 7, 40, 100, len(good) // 2, len(good) - 1, values, values + 399]:
        damage(newest, where)
        heard = []
        state, t = store.load(warn=heard.append)
        if t == 0:  # damage to bytes without a meaning does no harm
            assert len(heard) == 1 and "000001.h5 is refused" in heard[0] and "000000.h5 is used instead" in heard[0]
            assert "\n" not in heard[0]
        same_leaf(state, states[t])
        newest.write_bytes(good)
    damage(newest, values)
    with pytest.warns(UserWarning, match="000001.h5 is refused: its content does not fit its sha256"):
        assert store.load()[1] == 0
    for size in (0, 10, 1000, len(good) - 1):
        newest.write_bytes(good[:size])
        assert store.load(warn=lambda line: None)[1] == 0
    Path(store.folder, "000000.h5").unlink()
    with pytest.raises(CheckpointError, match="000001.h5 is refused"):
        store.load()


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    store = create(RunFile, tmp_path / "run.h5")
    store.save(dict(t=1), 1)
    store.settle()
    os.unlink(tmp_path / "run.h5")
    with pytest.raises(CheckpointError, match="another run"):
        create(RunFile, tmp_path / "run.h5").load()


def test_two_runs_do_not_share_a_folder_of_checkpoints(tmp_path):
    create(RunFile, tmp_path / "run.h5")
    (tmp_path / "other.txt").write_text("no run")
    for name in ("run.hdf5", "run"):
        with pytest.raises(
                UserError, match=r"would lie in \S+/run.ckpt, as those of \S+/run.h5 do; choose another name"):
            create(RunFile, tmp_path / name)
    for name in ("other.h5", "run.2.h5"):
        create(RunFile, tmp_path / name)


def test_stale_temporaries_go(tmp_path):
    store = create(RunFile, tmp_path / "run.h5")
    os.makedirs(store.folder)
    Path(store.folder, "000007.h5.tmp").write_bytes(b"torn")
    store.save(dict(t=1), 1)
    store.settle()
    assert os.listdir(store.folder) == ["000001.h5"]


def test_a_save_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    store = create(RunFile, tmp_path / "run.h5")
    store.save(dict(t=1), 1)
    store.settle()
    monkeypatch.setattr(disk, "sync", lambda path: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(DiskError, match="disk full"):
        store_module.save_checkpoint(store.folder, dict(t=2), 2, run_id=store.run_id)
    store.save(dict(t=3), 3)
    with pytest.raises(DiskError, match="disk full"):      # heard of by whoever waits for it
        store.update(dict(status="running"))
    assert os.listdir(store.folder) == ["000001.h5"] and store.load()[1] == 1


# ---------------------------------------------------------------- the file


def row_bytes(path, rounds, client_rows):
    """True for every byte of the file that belongs to one of these rows, or to ``committed``."""
    with h5py.File(path) as f:
        mine = np.zeros(os.path.getsize(path), bool)
        for data, first, last in [
            *((d, *rounds) for d in (*f["rounds"].values(), f["ends"])),
            *((d, *client_rows) for d in f["clients"].values()),
        ]:
            assert data.id.get_num_chunks() == 1
            size = data.dtype.itemsize * (data.shape[1] if data.ndim > 1 else 1)
            start = data.id.get_chunk_info(0).byte_offset
            mine[start + first * size : start + last * size] = True
        start = f["committed"].id.get_offset()
        mine[start : start + 16] = True
    return mine


def test_an_append_changes_no_byte_but_its_rows(tmp_path):
    path = tmp_path / "run.h5"
    store = create(RunFile, path)
    store.append(*round_of(0, num=5))
    for t in range(1, 4):
        before = np.frombuffer(path.read_bytes(), np.uint8)
        store.append(*round_of(t, num=5))
        after = np.frombuffer(path.read_bytes(), np.uint8)
        assert len(before) == len(after)
        assert not ((before != after) & ~row_bytes(path, (t, t + 1), (5 * t, 5 * t + 5))).any()
    assert path.read_bytes()[8] in (0, 2)  # superblock 3 would refuse to be opened again after a kill


def test_rows_go_where_hdf5_reads_them_however_they_lie(tmp_path, monkeypatch):
    """Many chunks, rows across their borders, a file that was opened, changed or copied by others in between."""
    monkeypatch.setattr(tables, "ROOM_BYTES", 0)
    monkeypatch.setattr(tables, "CHUNK_BYTES", 64)         # 8 numbers a chunk
    stores = [create(kind, tmp_path / "run.h5") for kind in (MemoryStore, RunFile)]
    for t in range(60):
        for s in stores:
            s.append(*round_of(t, num=t % 11))
        if t % 7 == 0:
            with h5py.File(tmp_path / "run.h5", "r+") as f:
                f.attrs["note"] = "x" * 50 * t
                del f.attrs["note"]
        if t % 7 == 3:
            (tmp_path / "copy.h5").write_bytes((tmp_path / "run.h5").read_bytes())
            os.replace(tmp_path / "copy.h5", tmp_path / "run.h5")
    same_runs(*(s.run() for s in stores))
    with h5py.File(tmp_path / "run.h5") as f:
        assert f["clients/client"].id.get_num_chunks() > 16


def test_rows_beyond_the_room_make_room(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROOM_BYTES", 0)  # 16 rows
    stores = [create(kind, tmp_path / "run.h5") for kind in (MemoryStore, RunFile)]
    for t in range(40):
        for s in stores:
            s.append(*round_of(t, num=3 if t < 35 else 100))
    same_runs(*(s.run() for s in stores))
    stores[1].update(dict(status="finished"))
    stores[0].update(dict(status="finished"))
    with h5py.File(tmp_path / "run.h5") as f:  # no room is left to confuse a reader without this package
        assert f["rounds/accuracy"].shape == (40,) and f["clients/client"].shape == (605,)
        attrs = f["clients/loss"].attrs
        assert (attrs["unit"], attrs["description"], attrs["machine"]) == ("nat", "training loss", False)
    resumed = RunFile(tmp_path / "run.h5")
    for s in (stores[0], resumed):
        s.update(dict(status="running"))
        s.append(*round_of(40))
    same_runs(stores[0].run(), resumed.run())


def test_create_refuses_to_destroy_and_names_the_reason(tmp_path):
    path = tmp_path / "run.h5"
    first = create(RunFile, path)
    first.save(dict(t=1), 1)
    first.settle()
    with pytest.raises(UserError, match="exists"):
        create(RunFile, path)
    assert first.load() == (dict(t=1), 1)
    for bad, reason in [(tmp_path / "no" / "run.h5", "there is no folder"), (tmp_path, "it is a folder")]:
        with pytest.raises(UserError, match=reason) as caught:
            create(RunFile, bad)
        assert "\n" not in str(caught.value)


def test_an_unwritable_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(UserError, match="not writable"):
        create(RunFile, tmp_path / "run.h5")


def test_two_writers_are_found_out(tmp_path):
    first = create(RunFile, tmp_path / "run.h5")
    second = RunFile(tmp_path / "run.h5")
    first.append(*round_of(0))
    for change in (lambda: second.append(*round_of(0)), lambda: second.update(dict(status="failed"))):
        with pytest.raises(FedError, match="another process"):
            change()
    assert first.rounds == first.run().ends.size == 1
    os.unlink(tmp_path / "run.h5")
    create(RunFile, tmp_path / "run.h5")
    with pytest.raises(FedError, match="replaced by another process, with another run"):
        first.update(dict(status="failed"))


def test_files_that_are_no_runs_are_named_in_one_line(tmp_path):
    text, other, new = (tmp_path / n for n in ("text.h5", "other.h5", "new.h5"))
    text.write_text("hello")
    with h5py.File(other, "w") as f:
        f["x/y"] = [1, 2]
    create(RunFile, new)
    with h5py.File(new, "r+") as f:
        f.attrs["schema"] = 99
    cases = {tmp_path / "gone.h5": "no such file", tmp_path: "a folder", text: "not an HDF5 file"}
    for path, reason in {**cases, other: "not a run of fedmpi", new: "newer fedmpi"}.items():
        for reader in (read_run, RunFile):
            with pytest.raises(UserError, match=reason) as caught:
                reader(path)
            assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    for path, reason in cases.items():
        with pytest.raises(DataError, match=reason):
            read_arrays(path, ["x"])
    with pytest.raises(DataError, match="has no data set labels, x; expected labels, x/y, x, .* and found x/y"):
        read_arrays(other, ["labels", "x/y", "x"])
    assert read_arrays(other, ["x/y"])[0]["x/y"].tolist() == [1, 2]


@pytest.mark.parametrize("attribute, value", [("json_text", "{"), ("committed", "")])
def test_a_damaged_run_file_is_one_line(tmp_path, attribute, value):
    path = tmp_path / "run.h5"
    create(RunFile, path).append(*round_of(0))
    with h5py.File(path, "r+") as f:
        f.attrs[attribute] = value
        if attribute == "committed":                       # a text where two numbers should be
            del f["committed"]
            f["committed"] = value
    with pytest.raises(UserError, match="damaged") as caught:
        read_run(path)
    assert "\n" not in str(caught.value)


def test_a_cut_off_run_file_is_one_line(tmp_path):
    path = tmp_path / "run.h5"
    create(RunFile, path).append(*round_of(0))
    good = path.read_bytes()
    for size in (0, 50, 3000, len(good) // 2):
        path.write_bytes(good[:size])
        with pytest.raises(UserError) as caught:
            read_run(path)
        assert "\n" not in str(caught.value)


def test_store_needs_no_torch(tmp_path):
    create(RunFile, tmp_path / "run.h5").append(*round_of(0))
    code = "import sys; from fedmpi.store import read_run; read_run(sys.argv[1]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, tmp_path / "run.h5"], check=True, cwd=REPOSITORY)


# ---------------------------------------------------------------- verify


def two_runs(tmp_path, *, change=lambda t, row, clients: None, rounds=3, **changes):
    paths = tmp_path / "a.h5", tmp_path / "b.h5"
    a, b = create(RunFile, paths[0]), create(RunFile, paths[1], **changes)
    for t in range(3):
        a.append(*round_of(t))
    for t in range(rounds):
        row, clients = round_of(t)
        change(t, row, clients)
        b.append(row, clients)
    return paths


def test_verify_ignores_the_machine_and_options_that_change_no_number(tmp_path):
    def other_machine(t, row, clients):
        row["train_s"], clients["host"] = 99.0, ["node2", "node3"]

    assert verify(*two_runs(tmp_path, change=other_machine, attrs=ATTRS | dict(options=dict(seed=2)))) == []


def test_verify_names_the_first_difference_the_earliest_round_first(tmp_path):
    def wrong(t, row, clients):
        row["accuracy"] = row["accuracy"] if t < 2 else 0.25
        clients["loss"][1] += 1e-6 if t == 1 else 0

    lines = verify(*two_runs(tmp_path, change=wrong, attrs=ATTRS | dict(options=dict(seed=2, model="mlp"))))
    assert lines[0].startswith("clients/loss: differs first in round 1, client 1: 0.33333334")
    assert lines[1] == "rounds/accuracy: differs first in round 2: 0.2857142857142857 against 0.25"
    assert lines[2:] == ["option seed: 1 against 2"]


@pytest.mark.parametrize("a, b, differ", [(np.nan, -np.nan, 0), (0.0, -0.0, 1), (np.inf, np.inf, 0), (1.0, np.nan, 1)])
def test_verify_compares_bits_but_nan_is_nan(a, b, differ, tmp_path):
    stores = [create(MemoryStore, None) for _ in "ab"]
    for store, value in zip(stores, (a, b)):
        row, clients = round_of(0)
        store.append(row | dict(accuracy=value), clients)
    assert len(differences(*(s.run() for s in stores))) == differ


def test_verify_sees_rounds_population_partition_and_participants(tmp_path):
    def absent(t, row, clients):
        for name in clients if t == 1 else ():
            clients[name] = clients[name][:1]

    population = POPULATION | {"noise": (np.array([0.0, 0.5, 0.3]), "1", "")}
    changes = dict(population=population, partition=(PARTITION[0], PARTITION[1] + 1))
    assert verify(*two_runs(tmp_path, change=absent, rounds=2, **changes)) == [
        "population/noise: differs first at 2: 0.25 against 0.3",
        "partition/indices: differs first at 0: 4 against 5",
        "clients: round 1 has 2 against 1 participants",
        "rounds: 3 against 2",
    ]


def test_verify_sees_columns_that_only_one_run_has():
    a, b = create(MemoryStore, None), create(MemoryStore, None, rounds=ROUNDS[:1] + ROUNDS[2:])
    assert differences(a.run(), b.run()) == ["rounds/accuracy: only in the first run"]


# ---------------------------------------------------------------- other processes


WRITER = """
import os, random, signal, sys, time, json
import numpy as np
from fedmpi.store import Column, RunFile, read_run, tables

COLUMNS = [Column(f"c{i}", "float64", "1", "t") for i in range(6)] + [Column("v", "int64", "1", "t", width=3)]
CLIENTS = [Column("client", "int32", "1", "i"), Column("loss", "float64", "1", "t")]

def append(run):
    t = run.rounds
    row = {c.name: [t] * 3 if c.width else t for c in COLUMNS}
    run.append(row, dict(client=np.arange(t % 5), loss=np.full(t % 5, t)))

def check(run):
    T = len(run.ends)
    assert all((v == np.arange(T).reshape(-1, *[1] * (v.ndim - 1))).all() and len(v) == T for v in run.rounds.values())
    per_round = np.arange(T) % 5
    assert (np.diff(run.ends, prepend=0) == per_round).all()
    assert (run.clients["loss"] == np.repeat(np.arange(T), per_round)).all()
    assert (run.clients["client"] == np.concatenate([np.arange(n) for n in per_round] or [[]])).all()
    return T

def create(path):
    return RunFile.create(path, {}, COLUMNS, CLIENTS, {}, ([0], []))
"""

KILLED = WRITER + """
path, kills, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
moments = random.Random(0)
tables.ROOM_BYTES = 0  # room for 16 rows: new room is made often

def appends(run):
    append(run)
    if kind == "rewrites":
        run.update(dict(status="finished"))
        run.pack()
        run.add_session(dict(time="now"))
        run.truncate(run.rounds - run.rounds % 7)

def saves(run):
    n = run.load()[1] + 1 if os.path.isdir(run.folder) and any(f.endswith("h5") for f in os.listdir(run.folder)) else 0
    run.save(dict(x=np.full(50_000, n), n=n), n)

def one_life(work, ready):
    run = RunFile(path)
    os.write(ready, b"!")
    while True:
        work(run)

create(path)
work = saves if kind == "saves" else appends
torn = last = 0
for _ in range(kills):
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            one_life(work, write_end)
        finally:
            os._exit(1)
    os.read(read_end, 1)
    time.sleep(moments.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    os.close(read_end), os.close(write_end)
    run = RunFile(path)
    if kind == "saves":
        torn += os.path.isdir(run.folder) and any(n.endswith(".tmp") for n in os.listdir(run.folder))
        work(run)  # what was there is sound: load() warns otherwise, and a warning is an error here
        state, n = run.load()
        assert state["n"] == n and (state["x"] == n).all() and n >= last
        last = n
        continue
    before = check(read_run(path))
    assert kind == "rewrites" or before >= last
    append(run)
    assert check(read_run(path)) == before + 1
    last = before
print(json.dumps([kills, torn, last]))
"""


def in_python(code, *arguments):
    env = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": REPOSITORY}  # one thread, so that it may fork
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)], env=env, text=True, stdout=subprocess.PIPE
    )


@pytest.mark.parametrize("kind, kills", [("appends", 120), ("rewrites", 40), ("saves", 40)])
def test_sigkill_at_any_moment_leaves_the_file_sound_and_appendable(kind, kills, tmp_path):
    kills = int(os.environ.get("FEDMPI_KILLS", kills))
    process = in_python(KILLED, tmp_path / "run.h5", kills, kind)
    output, _ = process.communicate()
    assert process.returncode == 0
    survived, torn, last = json.loads(output)
    print(f"{kind}: {survived} kills survived, {torn} of them with a torn temporary, {last} at the end")
    assert survived == kills
    assert last > 0 or kind == "rewrites"        # which truncates at times, also to nothing


def test_a_reader_never_disturbs_the_writer_nor_sees_half_a_round(tmp_path):
    code = ("run = create(sys.argv[1])\n"
            "while run.rounds < 250 or run.rounds < 50_000 and not os.path.exists(sys.argv[2]): append(run)\n")
    writer = in_python(WRITER + code, tmp_path / "run.h5", tmp_path / "enough")
    names = {}
    exec(WRITER, names)
    seen = []
    while writer.poll() is None:
        if (tmp_path / "run.h5").exists():
            seen.append(names["check"](read_run(tmp_path / "run.h5")))
            with h5py.File(tmp_path / "run.h5", "r", locking=False) as f:  # somebody without this package
                f["rounds/c0"][: f["committed"][0]]
        if len(set(seen)) > 3:
            (tmp_path / "enough").touch()
    writer.communicate()
    assert writer.returncode == 0 and seen == sorted(seen)
    assert names["check"](read_run(tmp_path / "run.h5")) >= max(250, seen[-1])


HOLD = """
import h5py, sys
with h5py.File(sys.argv[1], "r", locking=True):
    print("held", flush=True)
    sys.stdin.read(1)
"""


@pytest.fixture
def holder(tmp_path):
    """Another program that holds the file with a lock until something is sent to it."""
    store = create(RunFile, tmp_path / "run.h5")
    command = [sys.executable, "-c", HOLD, store.path]
    process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == "held\n"
    yield process
    process.communicate()


def test_a_lock_that_stays_is_a_clear_error(holder, tmp_path):
    store = RunFile(tmp_path / "run.h5", patience_s=0.1)
    with pytest.raises(UserError, match="locked by another program for more than 0.1 s"):
        store.append(*round_of(0))
    holder.communicate("x")
    store.append(*round_of(0))
    assert store.run().ends.tolist() == [2]


def test_a_lock_that_goes_is_waited_for(holder, tmp_path):
    store = RunFile(tmp_path / "run.h5")
    holder.stdin.write("x")
    holder.stdin.flush()
    store.append(*round_of(0))
    assert store.rounds == 1


def test_memory_does_not_grow_with_the_rows(tmp_path):
    """200,000 rows of 14 columns, 22 MB, of which doubling the room took three copies: all in a process of its own."""
    script = f"""
import re, numpy as np
from fedmpi.store import Column, RunFile

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

columns = [Column(f"c{{n}}", "float64", "1", "a number") for n in range(14)]
rounds = [Column("round", "int64", "1", "round")]
store = RunFile.create({str(tmp_path / "run.h5")!r}, {{}}, rounds, columns, {{}}, (np.zeros(2), []))
rows = {{column.name: np.arange(5000.0) for column in columns}}
for t in range(1, 41):
    store.append({{"round": t}}, rows)
    if t == 2:
        first = peak()
store.update({{"status": "finished"}})
print(peak() - first)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    assert int(done.stdout) < 12e6


# ---------------------------------------------------------------- /own: a second table with several rows a round


OWN = [Column("round", "int64", "1", "r"), Column("client", "int64", "1", "c"), Column("accuracy", "float64", "1", "a")]


def own_rows(t, num):
    return dict(round=np.full(num, t), client=np.arange(num), accuracy=np.arange(num) / 7 + t)


def test_own_rows_come_back_also_after_room_truncation_and_packing(tmp_path):
    stores = [kind.create(tmp_path / "run.h5", ATTRS, ROUNDS, CLIENTS, {}, ([0, 1], [4], [0, 2], [5, 6]), OWN)
              for kind in (MemoryStore, RunFile)]
    for store in stores:
        for t in range(40):
            store.append(*round_of(t, num=2), own_rows(t, 3) if t % 3 == 0 else None)
        store.truncate(31)
        store.append(*round_of(31), own_rows(31, 5))
        store.update(dict(status="finished"))
        store.pack()
    runs = [store.run() for store in stores]
    for run in runs:
        assert run.own_ends[:5].tolist() == [3, 3, 3, 6, 6] and run.own_ends[-2:].tolist() == [33, 38]
        assert run.own["round"][-6:].tolist() == [30, *[31] * 5] and run.own["accuracy"][-1] == 4 / 7 + 31
        assert [part.tolist() for part in run.partition] == [[0, 1], [4], [0, 2], [5, 6]]
    assert not differences(*runs) and runs[0].columns == runs[1].columns
    again = RunFile(tmp_path / "run.h5")
    again.append(*round_of(32), own_rows(32, 1))
    assert again.run().own["round"][-1] == 32


def test_differences_of_own_rows_are_told(tmp_path):
    a, b, c = (MemoryStore({}, ROUNDS, CLIENTS, {}, ([0], []), OWN) for _ in range(3))
    for store, num in ((a, 3), (b, 3), (c, 2)):
        store.append(*round_of(0), own_rows(0, num))
        later = own_rows(1, 2)
        later["accuracy"][1] += store is b
        store.append(*round_of(1), later)
    assert any(line.startswith("own/accuracy: differs first in round") and "client 1" in line
               for line in differences(a.run(), b.run()))
    assert any("3 against 2 clients tested" in line for line in differences(a.run(), c.run()))
