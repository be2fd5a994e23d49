"""What the doctor finds: each trouble by facts that show it, and nothing on a sound machine; measured on real ranks."""

import copy
import fcntl
import json

import pytest

from fedmpi.cluster import doctor, examine
from fedmpi.cluster.findings.finding import SEVERITIES, Finding
from fedmpi.store import trial

GPU = {"name": "NVIDIA H200", "uuid": "aa-1", "total_bytes": 150e9, "free_bytes": 149e9}
DISK = {"path": "/tmp", "type": "ext4", "free_bytes": 50e9, "total_bytes": 90e9}
RANK = {
    "host": "node01", "node": 0, "local": 0, "cores": [0, 1, 2, 3], "quota": None, "memory_bytes": 16e9, "threads": 1,
    "granted": "", "looked": True, "gpus": [], "gpu": None, "visible": None, "driver": "", "mps": False,
    "swap_bytes": 0,
    "versions": {"torch": "2.9", "fedmpi": "1"}, "launcher": "mpirun of MPICH (Hydra)", "machine_cores": 4,
    "temporary": DISK,
    "mpi": {"library": "MPICH Version: 5", "standard": "5.0", "mpi4py": "4.1", "binary": "MPI.so",
            "threads": "multiple", "cuda_aware": False},
    "torch": {"cuda": "13", "available": False, "mkl": True, "onednn": True, "vectors": "AVX512"},
    "limits": {"open_files": 1024, "core_bytes": 0, "stack_bytes": 8 << 20, "locked_bytes": -1},
    "shm": DISK | {"path": "/dev/shm", "type": "tmpfs"}}
PAIR = {"round_trip_s": 2e-4, "bare_round_trip_s": 1e-5, "clock_s": 1e-5, "clock_error_s": 1e-4,
        "rates": {4 << 20: 5e9}, "bare_rates": {4 << 20: 6e9}}
FACTS = {
    "ranks": {0: RANK | {"local": -1}, 1: RANK, 2: RANK | {"local": 1}},
    "probe": {"waiting": {1: 0.01, 2: 0.01}, "pairs": {1: PAIR, 2: PAIR},
              "broadcast": {"bytes": 4 << 20, "seconds": 0.003, "bare_seconds": 0.002}},
    "folder": DISK | {"path": "runs", "write": "", "rename": "", "lock": "", "hdf5_lock": "", "sync_s": 0.01},
    "mpirun": {"path": "/bin/mpirun", "text": "HYDRA build details", "typed": "", "typed_text": ""},
    "mislaunched": "",
    "around": {"folder": "/home/me", "output": "utf-8", "names": "utf-8", "locale": "LANG=C.UTF-8",
               "locale_known": True, "home": "/home/me", "umask": 0o022, "hdf5": {}}}
TROUBLES = {          # (path into the facts, value) -> severity, subject, part of what is said
    "other MPI": (("ranks", 2, "mpi", "library"), "Open MPI v5", "error", "MPI", "Open MPI v5 on rank 2"),
    "mpirun": (("mpirun", "text"), "mpirun (Open MPI) 4.1.4", "warning", "launcher", "is of Open MPI"),
    "mpirun in PATH": (("mpirun",), {"path": "/env/bin/mpirun", "text": "HYDRA", "typed": "/usr/bin/mpirun",
                                     "typed_text": "mpirun (Open MPI) 4.1.4"},
                       "note", "launcher", "/usr/bin/mpirun is of Open MPI and comes first in PATH"),
    "other torch": (("ranks", 2, "versions", "torch"), "2.8", "error", "versions", "2.8 on rank 2"),
    "other fedmpi": (("ranks", 1, "versions", "fedmpi"), "2", "error", "versions",
                     "fedmpi 1 on ranks 0,2; 2 on rank 1"),
    "other processor": (("ranks", 1, "torch", "vectors"), "AVX2", "warning", "torch", "AVX2"),
    "quota": (("ranks", 0, "quota"), 1.5, "warning", "cores", "allows 1.5 of 4"),
    "bound": (("ranks", 0, "cores"), [7], "ok", "ranks", "ranks 0-2"),
    "driver": (("ranks", 1, "driver"), "NVRM 580", "warning", "GPU", "rank 1: NVRM 580, but torch"),
    "granted": (("ranks", 1, "granted"), "0", "warning", "ranks", "Slurm granted GPUs"),
    "slow trips": (("probe", "pairs", 2, "round_trip_s"), 0.5, "warning", "latency", "(rank 2)"),
    "slow network": (("probe", "pairs", 1, "rates"), {4 << 20: 5e7}, "warning", "bandwidth",
                     "least 0.05 GB/s (rank 1)"),
    "worse than MPI": (("probe", "pairs"), {1: PAIR | {"bare_rates": {4 << 20: 9e10}}}, "note", "bandwidth",
                       "0.056 of MPI"),
    "spinning": (("probe", "waiting", 2), 0.99, "warning", "waiting", "99.0%"),
    "clock": (("probe", "pairs", 2, "clock_s"), -7.0, "warning", "clocks", "-7.0 s"),
    "no folder": (("folder", "write"), "Permission denied", "error", "run files", "Permission denied"),
    "no rename": (("folder", "rename"), "nope", "error", "run files", "renaming fails"),
    "no lock": (("folder", "lock"), "No locks available", "warning", "run files", "locking does not work"),
    "slow disk": (("folder", "sync_s"), 3.0, "note", "run files", "in 3 s"),
    "full disk": (("folder", "free_bytes"), 1e8, "warning", "run files", "0.1 GB free"),
    "memory": (("ranks", 1, "memory_bytes"), 1e8, "warning", "memory", "0.1 GB left"),
    "swap": (("ranks", 1, "swap_bytes"), 5e9, "note", "memory", "5.0 GB are swapped"),
    "shared TMPDIR": (("ranks", 0, "temporary", "type"), "lustre", "warning", "temporary", "lustre, between nodes"),
    "full TMPDIR": (("ranks", 0, "temporary", "free_bytes"), 1e7, "warning", "temporary", "0.0 GB free"),
    "no /dev/shm": (("ranks", 0, "shm", "free_bytes"), 0, "warning", "shared memory", "0 GB"),
    "no temporary folder": (("ranks", 0, "temporary", "path"), "", "error", "temporary", "no folder takes"),
    "left-overs": (("mislaunched",), "PMI_RANK is left over", "error", "launcher", "PMI_RANK is left over"),
    "folder gone": (("around", "folder"), "", "error", "working folder", "it was removed"),
    "ASCII": (("around", "output"), "ascii", "note", "locale", "what comes out is ascii"),
    "ASCII names": (("around", "names"), "ascii", "warning", "locale", "names of files are read as ascii"),
    "unknown locale": (("around", "locale_known"), False, "note", "locale", "does not have"),
    "no home": (("around", "home"), "", "note", "HOME", "no home folder"),
    "umask": (("around", "umask"), 0o277, "error", "umask", "0277 takes our own"),
    "locks": (("around", "hdf5"), {"HDF5_USE_FILE_LOCKING": "TRUE"}, "note", "HDF5", "HDF5 locks whatever"),
    "no word on locks": (("around", "hdf5"), {"HDF5_USE_FILE_LOCKING": "no"}, "note", "HDF5", "says nothing"),
    "plug-ins": (("around", "hdf5"), {"HDF5_PLUGIN_PATH": "/x"}, "note", "HDF5", "HDF5_PLUGIN_PATH=/x"),
    "few files": (("ranks", 2, "limits", "open_files"), 64, "warning", "limits", "open files 64"),
}


def test_ranks_bound_to_cores_of_their_own_are_compared_with_mpi_alone():
    facts = changed(("probe", "pairs"), {1: PAIR | {"bare_rates": {4 << 20: 9e10}}})

    def said(cores):
        ranks = {rank: each | {"cores": cores[rank]} for rank, each in facts["ranks"].items()}
        found = doctor.judged(facts | {"ranks": ranks})
        return [finding.severity for finding in found if "0.056 of MPI" in finding.got]

    assert said([[0], [1], [2]]) == ["note"] and said([[0, 1]] * 3) == ["ok"]
    two_nodes = facts | {"ranks": {rank: each | {"cores": [0, 1], "node": rank // 2} for rank, each in
                                   facts["ranks"].items()}}
    assert "note" in [each.severity for each in doctor.judged(two_nodes) if "0.056 of MPI" in each.got]


def own(value):
    """A copy in which no two parts are the same object."""
    return {key: own(each) for key, each in value.items()} if isinstance(value, dict) else copy.copy(value)


def changed(path, value):
    facts = own(FACTS)
    inner = facts
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return facts


def test_a_sound_machine_is_sound():
    findings = doctor.judged(FACTS)
    assert {finding.severity for finding in findings} == {"ok"} and doctor.exit_code(findings) == 0
    assert doctor.text(findings).endswith("nothing to complain of; exit code 0")


@pytest.mark.parametrize("name", TROUBLES)
def test_each_trouble_is_found_and_told_with_a_way_out(name):
    path, value, severity, subject, told = TROUBLES[name]
    findings = doctor.judged(changed(path, value))
    hits = [each for each in findings if each.subject == subject and told in each.got]
    assert [each.severity for each in hits] == [severity], doctor.text(findings)
    worst = doctor.exit_code(findings)
    assert worst == {"ok": worst, "note": 0, "warning": 1, "error": 2}[severity]
    assert all(each.expected and each.way_out for each in findings if each.severity != "ok")
    if severity != "ok":
        assert findings[0].severity != "ok"                              # problems come first
        assert f"exit code {worst}" in doctor.text(findings)


def test_the_worst_finding_makes_the_exit_code():
    codes = [doctor.exit_code([Finding(name, "", "")]) for name in SEVERITIES]
    assert codes == [0, 0, 1, 2] and doctor.exit_code([]) == 0


def test_more_ranks_than_cores_is_a_note_and_bandwidth_is_then_not_compared():
    facts = {**FACTS, "ranks": {rank: RANK | {"cores": [0]} for rank in range(3)},
             "probe": FACTS["probe"] | {"pairs": {1: PAIR | {"bare_rates": {4 << 20: 9e10}}}}}
    findings = doctor.judged(facts)
    assert [each.subject for each in findings if each.severity != "ok"] == ["cores"]


def test_ranks_that_share_a_gpu():
    shared = RANK | {"gpus": [GPU], "gpu": 0, "driver": "NVRM"}
    findings = doctor.judged({**FACTS, "ranks": {0: shared, 1: shared}})
    assert [(each.severity, "ranks 0-1" in each.got) for each in findings if each.subject == "GPU"] == [("note", True)]
    findings = doctor.judged({**FACTS, "ranks": {0: shared}, "probe": None})
    assert [each.severity for each in findings if each.subject == "GPU"] == ["ok"]


def test_one_process_without_mpi_is_warned_and_without_mpirun_told():
    alone = RANK | {"mpi": {"error": "cannot load MPI library"}, "launcher": "none"}
    no_mpirun = FACTS["mpirun"] | {"path": "", "text": ""}
    findings = doctor.judged({**FACTS, "ranks": {0: alone}, "probe": None, "mpirun": no_mpirun})
    assert [(each.severity, each.subject) for each in findings[:2]] == [("warning", "MPI"), ("note", "launcher")]


def test_the_file_system_is_that_of_the_innermost_mount():
    mounts = ("22 1 0:2 / / rw - ext4 /dev/a rw\n23 22 0:3 / /scratch rw,x shared:1 - lustre a@b:/c rw\n"
              "24 22 0:4 / /my\\040disk rw - tmpfs t rw\n")
    assert examine.file_system("/scratch/me", mounts) == "lustre" and examine.file_system("/scratchy", mounts) == "ext4"
    assert examine.file_system("/my disk/x", mounts) == "tmpfs" and examine.file_system("/", mounts) == "ext4"


def test_a_trial_leaves_nothing_behind(tmp_path):
    found = trial(tmp_path / "a" / "b")
    assert {step: found[step] for step in ("write", "rename", "lock", "hdf5_lock")} == dict.fromkeys(
        ("write", "rename", "lock", "hdf5_lock"), "") and found["sync_s"] >= 0
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    assert trial(tmp_path / "file" / "b")["write"]


def test_a_file_system_whose_locks_keep_nobody_out(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda file, how: None)
    assert trial(tmp_path)["lock"] == "a lock keeps nobody out"


def test_the_command_on_three_ranks(fedmpi, tmp_path):
    told = json.loads(next(line for line in fedmpi(3, "doctor", "--json", "--out",
                                                   tmp_path).splitlines() if line[0] == "{"))
    assert sorted(told["ranks"]) == ["0", "1", "2"] and sorted(told["probe"]["pairs"]) == ["1", "2"]
    assert set(told["probe"]["pairs"]["1"]["rates"]) == {str(4 << 20), str(64 << 20)}
    subjects = {finding["subject"] for finding in told["findings"]}
    assert {"MPI", "launcher", "ranks", "torch", "versions", "latency", "bandwidth", "broadcast", "waiting",
            "run files"} <= subjects
    assert list(tmp_path.iterdir()) == []


def test_the_command_in_one_process(fedmpi, tmp_path):
    told = fedmpi(1, "doctor", "--out", tmp_path)
    assert "exit code 0" in told and "HDF5 writes, appends, reopens, locks" in told


def test_the_mpirun_of_this_environment_is_told_and_another_one_that_path_has(tmp_path, monkeypatch):
    for folder, text in (("env", "HYDRA build details"), ("usr", "mpirun (Open MPI) 4.1.4")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mpirun").write_text(f"#!/bin/sh\necho '{text}'\n")
        (tmp_path / folder / "mpirun").chmod(0o755)
    own, other = str(tmp_path / "env/mpirun"), str(tmp_path / "usr/mpirun")
    monkeypatch.setattr("sys.executable", str(tmp_path / "env/python"))
    monkeypatch.setenv("PATH", f"{tmp_path}/usr:{tmp_path}/env")
    found = examine.mpirun()
    assert found == {"path": own, "text": "HYDRA build details",
                     "typed": other, "typed_text": "mpirun (Open MPI) 4.1.4"}
    monkeypatch.setenv("PATH", f"{tmp_path}/env:{tmp_path}/usr")
    assert examine.mpirun()["typed"] == ""


def test_what_is_wrong_is_the_exit_code_of_the_job(fedmpi, tmp_path):
    (tmp_path / "file").write_text("")
    told = fedmpi(2, "doctor", "--out", tmp_path / "file" / "runs", code=2)
    assert told.index("error    run files") < told.index("ok ") and "1 error" in told
