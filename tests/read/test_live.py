"""Looking at runs that go on: late rows, boards, the command watch."""

import contextlib
import os
import pty
import re
import select
import subprocess
import threading
import time

import h5py
import pytest
from live_runs import LOSING, SMALL, small_terminal, live_run

from fedmpi.commands.watch import SILENT_S, TROUBLE_S, Seen, look, notes
from fedmpi.core.errors import UserError
from fedmpi.read.report import live
from fedmpi.store import read_run


@pytest.fixture(scope="module")
def path(fedmpi, tmp_path_factory):
    """A run that was stopped after two rounds and resumed; some clients never answer."""
    out = tmp_path_factory.mktemp("reading") / "run.h5"
    fedmpi(1, "train", *SMALL, *LOSING, "--until", 2, "--out", out)
    fedmpi(1, "train", "--resume", out)
    return out


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
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=small_terminal()) as watching:
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


def test_watch_in_a_terminal_leaves_at_q(command, tmp_path):
    store, play = live_run(tmp_path / "run.h5")
    play()
    ours, theirs = pty.openpty()
    with subprocess.Popen(command(1, "watch", store.path, "--every", 0.1), stdin=theirs, stdout=theirs, stderr=theirs,
                          env=small_terminal()) as watching:
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


def test_long_names_are_cut_in_front_unless_they_would_be_the_same(monkeypatch, tmp_path):
    from fedmpi.commands.watch import shortened
    monkeypatch.chdir(tmp_path)
    assert shortened(["a.h5", "folder/with/b.h5"], 8) == {"a.h5": "a.h5", "folder/with/b.h5": "…th/b.h5"}
    twins = {"first/run.h5": "first/run.h5", "other/run.h5": "other/run.h5"}
    assert shortened(list(twins), 8) == twins
