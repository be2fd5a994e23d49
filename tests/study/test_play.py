"""Runs of a study in processes of their own: locks on logs."""

import fcntl

from fedmpi.study.play import free


def test_a_run_that_is_being_played_is_waited_for(tmp_path):
    with open(tmp_path / "x.log", "w") as file:
        assert free(tmp_path / "x.log") and free(tmp_path / "missing.log")
        fcntl.flock(file, fcntl.LOCK_EX)
        assert not free(tmp_path / "x.log")
