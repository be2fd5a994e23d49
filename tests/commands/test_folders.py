"""A folder stands for the runs in it, and in the folders below it, in the same way everywhere."""

import os

import h5py
import pytest

from fedmpi.commands.reading import one_run, run_paths
from fedmpi.core.errors import UserError
from fedmpi.store import read_run

SMALL = ("--dataset", "synthetic:samples=200,size=8", "--model", "logistic", "--clients", 2, "--rounds", 1,
         "--local-epochs", 1)


@pytest.fixture(scope="module")
def folder(fedmpi, tmp_path_factory):
    """Two runs, one of them in a folder below; a data set, a text, a checkpoint and a hidden run beside them."""
    place = tmp_path_factory.mktemp("runs")
    (place / "below").mkdir()
    (place / ".hidden").mkdir()
    for name, seed in (("a.h5", 0), ("below/b.h5", 1), (".hidden/c.h5", 2)):
        fedmpi(1, "train", *SMALL, "--seed", seed, "--out", place / name)
    with h5py.File(place / "data.h5", "w") as f:
        f["x_train"] = [1.0]
    (place / "text.h5").write_text("no HDF5")
    (place / "below" / "again").symlink_to(place)          # leads back up
    (place / "loop.h5").symlink_to("loop.h5")
    return place


def test_a_folder_is_the_runs_in_it_and_below(folder, capsys):
    assert run_paths([folder]) == [str(folder / "a.h5"), str(folder / "below" / "b.h5")]
    output = capsys.readouterr().err
    assert f"passed over: {folder / 'data.h5'}: an HDF5 file, but not a run of fedmpi\n" in output
    assert f"passed over: {folder / 'text.h5'}: not an HDF5 file\n" in output
    assert "ckpt" not in output and "hidden" not in output
    assert run_paths([folder / "below", folder / "below" / "b.h5"]) == [str(folder / "below" / "b.h5")]


@pytest.mark.parametrize("words", [
    ("compare", "{}"), ("merge", "{}"), ("watch", "{}"), ("report", "{}", "-o", "{out}.html"),
    ("export", "{}", "--to", "{out}.csv"), ("plot", "{}", "-o", "{out}.svg"), ("verify", "{}", "{}")])
def test_every_command_takes_the_runs_of_a_folder(fedmpi, folder, tmp_path, words):
    output = fedmpi(1, *(word.format(folder, out=tmp_path / "out") for word in words))
    assert "not a run of fedmpi" in output
    written = "".join(path.read_text() for path in tmp_path.iterdir() if path.suffix in (".html", ".csv"))
    if words[0] in ("merge", "watch", "report", "export"):
        assert "a.h5" in output + written or "seed 0" in written or "\na," in written
        assert "b.h5" in output + written or "seed 1" in written or "\nb," in written


@pytest.mark.parametrize("words", [("show",), ("model",), ("schema",)])
def test_what_takes_one_run_takes_the_folder_of_one(fedmpi, folder, words):
    assert fedmpi(1, *words, folder / "below" / "b.h5") == fedmpi(1, *words, folder / "below")
    output = fedmpi(1, *words, folder, code=2)
    assert "holds 2 runs, and this takes one" in output


def test_a_folder_without_a_run_says_what_it_has(folder, tmp_path):
    with pytest.raises(UserError, match="is a folder without a run$"):
        one_run(tmp_path)
    (tmp_path / "note.h5").write_text("no HDF5")
    with pytest.raises(UserError, match=r"without a run \(.*note.h5: not an HDF5 file\)$"):
        one_run(tmp_path)


def test_many_files_that_are_none_are_counted(folder, tmp_path, capsys):
    os.link(folder / "a.h5", tmp_path / "RUN.HDF5")        # whatever the case of its name
    for number in range(5):
        (tmp_path / f"{number}.h5").write_text("no HDF5")
    assert run_paths([tmp_path]) == [str(tmp_path / "RUN.HDF5")]
    output = capsys.readouterr().err.splitlines()
    assert len(output) == 4 and output[-1] == f"passed over: 2 more files in {tmp_path} that are no runs"


def test_folders_are_verified_run_by_run(fedmpi, folder, tmp_path):
    (tmp_path / "below").mkdir()
    for name in ("a.h5", "below/b.h5"):
        os.link(folder / name, tmp_path / name)
    assert "all 2 runs agree" in fedmpi(1, "verify", folder, tmp_path)
    (tmp_path / "a.h5").unlink()
    output = fedmpi(1, "verify", folder, tmp_path, code=1)
    assert f"a.h5: only in {folder}" in output and "1 of the runs differ" in output
    os.link(folder / "a.h5", tmp_path / "below" / "a.h5")
    (tmp_path / "below" / "b.h5").unlink()
    os.link(folder / "a.h5", tmp_path / "below" / "b.h5")
    assert "below/b.h5: " in fedmpi(1, "verify", folder, tmp_path, code=1)
    assert "name two runs, or two folders" in fedmpi(1, "verify", folder, tmp_path / "below" / "b.h5", code=2)
    assert "runs agree" in fedmpi(1, "verify", folder / "below", folder / "below" / "b.h5")


def test_a_damaged_run_is_a_run(fedmpi, folder, tmp_path):
    (tmp_path / "a.h5").write_bytes((folder / "a.h5").read_bytes())
    with h5py.File(tmp_path / "a.h5", "r+") as f:
        del f["committed"]
    assert run_paths([tmp_path]) == [str(tmp_path / "a.h5")]
    assert "damaged" in fedmpi(1, "compare", tmp_path, folder / "a.h5", code=2)
    assert len(read_run(folder / "a.h5").ends) == 1
