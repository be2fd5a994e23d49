"""Where ranks run: GPUs dealt out, cores and limits as they are, the map, what is refused; and staging by a GPU."""

import os
from types import SimpleNamespace

import pytest
import torch

from fedmpi.build import footprint
from fedmpi.build.needs import fits
from fedmpi.build.setup import set_up
from fedmpi.run.devices import placed
from fedmpi.transport import place
from fedmpi.build.options import DEFAULTS
from fedmpi.core.errors import UserError
from fedmpi.compute.staging import staging
from fedmpi.store import read_run

GPU = {"name": "NVIDIA H200", "uuid": "aaaa0000-1", "total_bytes": 139 << 30, "free_bytes": 138 << 30}


def rank_at(local=0, *, host="node01", node=0, cores=(0, 1), gpus=(), gpu=None, **other):
    return {"host": host, "node": node, "local": local, "cores": list(cores), "quota": None, "memory_bytes": 8e9,
            "threads": 1, "granted": "", "looked": True, "gpus": list(gpus), "gpu": gpu} | other


@pytest.mark.parametrize("count, indices", [(0, [None] * 5), (1, [0] * 5), (2, [0, 1, 0, 1, 0]), (8, [0, 1, 2, 3, 4])])
def test_workers_are_dealt_out_over_gpus(count, indices):
    assert [place.gpu_index(local, count) for local in range(5)] == indices


@pytest.mark.parametrize("workers, count", [(1, 1), (3, 2), (4, 4), (5, 4), (32, 8), (2, 4)])
def test_the_server_takes_a_gpu_that_is_never_the_fullest(workers, count):
    load = [[place.gpu_index(local, count) for local in range(workers)].count(gpu) for gpu in range(count)]
    assert load[place.gpu_index(place.SERVER, count)] == min(load)


@pytest.mark.parametrize("visible, local, expected", [
    ("0,1", 1, "0,1"), ("GPU-a1,GPU-b2", 1, "GPU-a1,GPU-b2"), ("", 3, ""), ("MIG-a1", 5, "MIG-a1"),
    ("MIG-a1,MIG-b2,MIG-c3", 4, "MIG-b2"), ("MIG-a1,MIG-b2", place.SERVER, "MIG-b2"),
    ("MIG-GPU-a/1/0,MIG-GPU-a/2/0", 1, "MIG-GPU-a/2/0")])
def test_of_several_slices_a_rank_keeps_one(visible, local, expected):
    assert place.narrowed(visible, local) == expected


def test_gpus_are_told_without_a_context():
    props = [SimpleNamespace(name="A", uuid="GPU-11", total_memory=7), SimpleNamespace(name="B", total_memory=9)]
    cuda = SimpleNamespace(is_available=lambda: True, device_count=lambda: 2, get_device_properties=props.__getitem__)
    assert place.visible_gpus(cuda) == [{"name": "A", "uuid": "11", "total_bytes": 7, "free_bytes": None},
                                        {"name": "B", "uuid": "", "total_bytes": 9, "free_bytes": None}]
    assert place.visible_gpus(SimpleNamespace(is_available=lambda: False)) == []


def test_free_memory_of_what_is_not_cut_into_slices():
    text = "GPU-aa, 143000, Disabled\nGPU-bb, 512, Enabled\nGPU-cc, [N/A], [N/A]\nGPU-dd, 100, [N/A]\n\n"
    assert place.free_bytes(text) == {"aa": 143000 << 20, "dd": 100 << 20}
    assert place.free_bytes("") == place.free_bytes("NVIDIA-SMI has failed, because it could, not\n") == {}


def test_a_rank_sets_its_own_slice(monkeypatch):
    cuda = SimpleNamespace(is_available=lambda: True, device_count=lambda: 1,
                           get_device_properties=lambda index: SimpleNamespace(name="H200 MIG", uuid="x",
                                                                               total_memory=1))
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(place, "_nvidia_smi", lambda: "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b")
    found = place.mine(1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "MIG-b"
    assert found["gpu"] == 0 and found["gpus"][0]["free_bytes"] is None
    assert place.mine(0, gpus=False)["gpus"] == []


def files(root, **texts):
    for name, text in texts.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("line, folder, quota, memory_bytes", [
    ("0::/a/b\n", "a", {"cpu.max": "150000 100000"}, {"memory.max": "3000", "memory.current": "2500",
                                                      "memory.stat": "file 9\ninactive_file 200\n"}),
    ("4:cpu,cpuacct:/a/b\n5:memory:/a/b\n", "{}/a", {"cpu.cfs_quota_us": "150000", "cpu.cfs_period_us": "100000"},
     {"memory.limit_in_bytes": "3000", "memory.usage_in_bytes": "2500", "memory.stat": "total_inactive_file 200\n"})])
def test_limits_of_the_cgroup_and_of_those_above(tmp_path, line, folder, quota, memory_bytes):
    files(tmp_path, proc__self__cgroup=line, proc__meminfo="MemTotal: 9 kB\nMemAvailable: 5 kB\nHugePages_Total: 0\n")
    assert place.quota(tmp_path) is None and place.memory_bytes(tmp_path) == 5 * 1024
    for controller, content in (("cpu", quota), ("memory", memory_bytes)):
        base = tmp_path / "sys/fs/cgroup" / folder.format(controller)
        base.mkdir(parents=True, exist_ok=True)
        for name, text in content.items():
            (base / name).write_text(text)
    assert place.quota(tmp_path) == 1.5 and place.memory_bytes(tmp_path) == 700


def test_a_cgroup_without_limits(tmp_path):
    files(tmp_path, proc__self__cgroup="0::/\n", proc__meminfo="MemAvailable: 5 kB\n",
          sys__fs__cgroup__cpu_DOT_max="max 100000", sys__fs__cgroup__memory_DOT_max="max")
    assert place.quota(tmp_path) is None and place.memory_bytes(tmp_path) == 5 * 1024


def test_the_map_without_gpus():
    places = {rank: rank_at(rank - 1) for rank in range(33)}
    assert list(place.lines(places)) == ["node01: ranks 0-32, 2 cores shared by 33 ranks, no GPU"]
    bound = {rank: rank_at(rank - 1, cores=[rank]) for rank in range(4)}
    assert list(place.lines(bound)) == ["node01: ranks 0-3, 4 cores, 1 a rank, no GPU"]
    assert list(place.lines({0: rank_at(quota=1.5)})) == ["node01: rank 0, 2 cores (its cgroup allows 1.5), no GPU"]


def test_the_map_with_gpus_on_two_nodes():
    two = [GPU, GPU | {"uuid": "bbbb0000-2"}]
    places = {0: rank_at(place.SERVER, gpus=two, gpu=1), 1: rank_at(0, gpus=two, gpu=0), 2: rank_at(1, gpus=two, gpu=1),
              3: rank_at(0, host="node02", node=3, gpus=[GPU], gpu=0),
              4: rank_at(1, host="node02", node=3, gpus=two[1:], gpu=0)}
    assert list(place.lines(places)) == [
        "node01: ranks 0-2, 2 cores shared by 3 ranks", "  gpu 1 (NVIDIA H200, 139 GiB): ranks 0 2",
        "  gpu 0 (NVIDIA H200, 139 GiB): ranks 1",
        "node02: ranks 3-4, 2 cores shared by 2 ranks",                                # Slurm bound a GPU to each rank
        "  gpu aaaa0000 (NVIDIA H200, 139 GiB): ranks 3", "  gpu bbbb0000 (NVIDIA H200, 139 GiB): ranks 4"]
    assert place.recorded(places)[3] == {"rank": 3, "host": "node02", "cores": "0-1", "gpu": 0,
                                         "gpu_name": "NVIDIA H200", "gpu_uuid": "aaaa0000-1"}


def test_ranks_bound_to_one_core_while_others_lie_idle():
    places = {0: rank_at(cores=[0]), 1: rank_at(cores=[0]), 2: rank_at(cores=[1, 2, 3])}
    assert "ranks 0-1 are bound to 1 core (0), though the node's ranks have 4" in " ".join(place.warnings(places))
    assert list(place.warnings({rank: rank_at() for rank in range(33)})) == []         # shared by all: no mistake
    assert "4 threads on 2 core" in " ".join(place.warnings({0: rank_at(threads=4)}))
    assert "Slurm granted GPUs (0,1)" in " ".join(place.warnings({0: rank_at(granted="0,1")}))
    assert list(place.warnings({0: rank_at(granted="0,1", looked=False)})) == []


def test_gpus_that_options_leave_alone_are_not_counted():
    own, others = rank_at(place.SERVER, gpus=[GPU], gpu=0), {1: rank_at(gpus=[GPU], gpu=0)}
    used = placed(own, others, {"device": "cuda", "server_device": "cpu"})
    assert [used[rank]["gpu"] for rank in (0, 1)] == [None, 0]
    assert placed(own, {}, {"device": "cuda", "server_device": "cpu"})[0]["gpu"] == 0     # it trains there, too


@pytest.fixture(scope="module")
def small():
    """The ``Setup`` of a small run."""
    options = DEFAULTS | {"clients": 4, "device": "cuda", "server_device": "cuda"}
    return set_up(options, torch.device("cpu"))


def test_a_gpu_that_cannot_hold_its_ranks_is_refused(small):
    def places(free, ranks):
        gpu = GPU | {"free_bytes": free}
        return {rank: rank_at(rank - 1, gpus=[gpu], gpu=0) for rank in range(ranks)}

    assert list(fits(small, places(8e9, 9))) == []
    with pytest.raises(UserError, match=r"gpu 0 .* of node01 has 4.0 GB free, but 8 workers and the server on it need "
                                        r"about .* fewer ranks.*--server-device cpu") as refused:
        list(fits(small, places(4e9, 9)))
    assert "\n" not in str(refused.value)
    alone = {0: rank_at(gpus=[GPU | {"free_bytes": 0.9e9}], gpu=0)}
    with pytest.raises(UserError, match="1 worker and the server"):
        list(fits(small, alone))


def test_a_gpu_whose_free_memory_is_not_told_counts_as_empty(small):
    gpu = GPU | {"free_bytes": None, "total_bytes": 2e9}
    with pytest.raises(UserError, match="has 2.0 GB free"):
        list(fits(small, {rank: rank_at(gpus=[gpu], gpu=0) for rank in range(8)}))


def test_one_rank_tells_the_free_memory_of_all_gpus_of_its_node(small):
    gpus = [GPU | {"uuid": str(index), "free_bytes": None} for index in range(3)]
    asked = [gpu | {"free_bytes": 0.1e9 if gpu["uuid"] == "1" else 9e9} for gpu in gpus]       # another's job is on 1
    places = {rank: rank_at(rank - 1, gpus=asked if rank < 2 else gpus, gpu=place.gpu_index(rank - 1, 3))
              for rank in range(4)}
    with pytest.raises(UserError, match="gpu 1 .* has 0.1 GB free, but 1 worker on it"):
        list(fits(small, places))
    assert place.free_of(places, range(4)) == {"0": 9e9, "1": 0.1e9, "2": 9e9}


def test_a_node_with_too_little_memory_is_warned_of(small):
    assert "node01 has 0.0 GB" in next(fits(small, {0: rank_at(memory_bytes=1e4), 1: rank_at()}))


def test_the_estimate_adds_up():
    need = footprint.worker_need(1000, (50, 20), batch_size=10, samples_bytes=7, block=2, images=3)
    assert need == (footprint.CONTEXT_BYTES, 40000, 14, 1000, 16120) and need.total == footprint.CONTEXT_BYTES + 57134
    many = footprint.worker_need(1000, (50, 20), batch_size=10, samples_bytes=7, block=2, images=3, together=4)
    assert many == (footprint.CONTEXT_BYTES, 4000 * (10 + 8 * 4), 14 * 5, 4000, 16120)


def test_the_run_file_records_places(fedmpi, tmp_path):
    out = tmp_path / "run.h5"
    told = fedmpi(3, "train", "--rounds", 1, "--clients", 4, "--until", 1, "--out", out, "--server-device", "cpu")
    assert told.count("ranks 0-2, ") == 1
    fedmpi(1, "train", "--rounds", 1, "--clients", 4, "--out", tmp_path / "b.h5")
    assert [each["rank"] for each in read_run(out).sessions[0]["places"]] == [0, 1, 2]
    assert read_run(out).attrs["options"]["server_device"] == "cpu"


def test_staging_gives_the_same_bits_from_one_buffer(monkeypatch):
    P, made, empty = 1000, [], torch.empty

    def pinned(*shape, pin_memory=False, **other):
        made.extend([shape] * pin_memory)
        return empty(*shape, **other)

    monkeypatch.setattr(torch, "empty", pinned)
    plain, staged = staging(P, torch.device("cpu")), staging(P, torch.device("cpu"), pinned=True)
    gen, places = torch.Generator().manual_seed(0), set()
    for K in (700, 300, 1000):
        support = torch.randperm(P, generator=gen)[:K].sort().values.int()
        values, x = torch.randn(K, generator=gen), torch.randn(P, generator=gen)
        bases = [stage.up(values, support) for stage in (plain, staged)]
        again = staged.up(-values, support, bases[1].clone())
        assert torch.equal(again, -bases[0])
        assert torch.equal(*bases) and torch.equal(bases[0][support], values)
        for _ in range(2):
            down = [stage.down(stage.difference(x, bases[0], support)) for stage in (plain, staged)]
            assert torch.equal(*down)
            places.add(down[1].data_ptr())
    assert made == [(P,)] and len(places) == 1
