"""A disk that is full, read-only or damaged: one line, nothing that was committed is lost, and the run goes on
later."""

import os
import subprocess

import numpy as np
import pytest

from fedmpi.core.errors import DiskError
from fedmpi.store import RunFile, read_run, verify

RUN = ("--rounds", 6, "--clients", 3, "--model", "2nn", "--local-epochs", 1, "--device", "cpu", "--pruner", "dense",
       "--strategy", "fedavg", "--save-every", 1)


def mount(*arguments):
    """Whether the machine lets us."""
    return subprocess.run(["mount", *map(str, arguments)], stderr=subprocess.DEVNULL, check=False).returncode == 0


@pytest.fixture
def small(tmp_path):
    """A folder on a disk of 10 MiB of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() or not mount("-t", "tmpfs", "-o", "size=10m", "none", folder):
        pytest.skip("only root may mount a small disk, outside most containers")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(scope="module")
def whole(fedmpi, tmp_path_factory):
    """A run whose disk had room."""
    out = tmp_path_factory.mktemp("disk") / "whole.h5"
    fedmpi(1, "train", *RUN, "--out", out)
    return out


def fill(folder, leave=0):
    """Take all room but so many bytes."""
    with open(folder / "filler", "wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            pass
        file.truncate(max(file.tell() - leave, 0))


def test_a_disk_that_is_full_from_the_start(fedmpi, small):
    fill(small)
    output = fedmpi(1, "train", *RUN, "--out", small / "run.h5", code=2)
    assert output.count("error:") == 1 and "run.h5: No space left on device" in output and "Traceback" not in output
    assert os.listdir(small) == ["filler"]


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_disk_that_fills_up(fedmpi, small, whole, ranks):
    """There is room for the run file and the first checkpoints, then none; later there is again."""
    out = small / "run.h5"
    fedmpi(1, "train", *RUN, "--out", out, "--until", 2)
    before = read_run(out).rounds["weights_digest"]
    fill(small, leave=out.stat().st_size + 200_000)    # the copy at the start, later two checkpoints or three
    output = fedmpi(ranks, "train", "--resume", out, "--keep", 1000, code=1)
    assert output.count("error:") == 1 and "No space left on device" in output and "Traceback" not in output
    assert "after round" in output and "--resume" in output
    after = read_run(out).rounds["weights_digest"]
    assert len(after) >= len(before) and np.array_equal(after[: len(before)], before)
    assert not [name for name in os.listdir(small) + os.listdir(small / "run.ckpt") if name.endswith(".tmp")]
    (small / "filler").unlink()
    fedmpi(1, "train", "--resume", out)
    assert verify(whole, out) == []


def test_a_folder_that_becomes_read_only(fedmpi, small, whole):
    """Between two starts, and in the middle of a run."""
    out = small / "run.h5"
    fedmpi(1, "train", *RUN, "--out", out, "--until", 2)
    store = RunFile(out)
    assert mount("-o", "remount,ro", small)
    output = fedmpi(1, "train", "--resume", out, code=2)
    assert output.count("error:") == 1 and "is not writable" in output and "Traceback" not in output
    run = read_run(out)
    row = {name: column[0] for name, column in run.rounds.items()}
    clients = {name: column[: run.ends[0]] for name, column in run.clients.items()}
    for write in (lambda: store.save({"t": 3}, 3), lambda: store.update({"status": "running"}),
                  lambda: store.append(row, clients)):
        with pytest.raises(DiskError, match="cannot write .*: the folder is not writable"):
            write()
    assert "accuracy" in fedmpi(1, "show", out)
    assert mount("-o", "remount,rw", small)
    fedmpi(1, "train", "--resume", out)
    assert verify(whole, out) == []


@pytest.mark.parametrize("kind", ["flipped", "cut", "empty", "all flipped"])
def test_damaged_checkpoints_are_told_and_the_run_goes_on(fedmpi, tmp_path, whole, kind):
    out = tmp_path / "run.h5"
    fedmpi(1, "train", *RUN, "--out", out, "--until", 4)
    found = sorted((tmp_path / "run.ckpt").iterdir())
    assert len(found) == 2
    for path in found if kind == "all flipped" else found[-1:]:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes({"cut": content[: len(content) // 2], "empty": b""}.get(kind, content))
    output = fedmpi(1, "train", "--resume", out)
    assert "warning: " in output and found[-1].name in output and "Traceback" not in output
    assert ("starting again from round 1" if kind == "all flipped" else "000003.h5 is used instead") in output
    assert verify(whole, out) == []
