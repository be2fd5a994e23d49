"""Skipped tests are told in one line with the reasons, and fail a session that must be complete."""

import pathlib
import subprocess
import sys

import pytest
from conftest import environment

TESTS = pathlib.Path(__file__).parent
SAMPLE = """
import pytest

def test_passes():
    pass

@pytest.mark.skipif(True, reason="no GPU")
@pytest.mark.parametrize("n", range(2))
def test_gpu(n):
    pass

def test_data():
    pytest.skip("no ../shared/data")
"""
SHELL = """
def test_shell():
    pytest.skip("no zsh:\\n  apt-get install zsh")
"""


@pytest.fixture
def session(tmp_path):
    """``session(source, *arguments, complete) -> (exit code, lines)`` of pytest on one file."""

    def play(source, *arguments, complete):
        (tmp_path / "test_sample.py").write_text(source)
        clean = {name: value for name, value in environment().items()
                 if not name.startswith(("PYTEST_", "FEDMPI_"))}
        argv = [sys.executable, "-m", "pytest", "-p", "skipped", *arguments, tmp_path]
        added = {"PYTHONPATH": str(TESTS), "FEDMPI_TESTS_COMPLETE": complete}
        done = subprocess.run(argv, cwd=tmp_path, env=clean | added, capture_output=True, text=True)
        return done.returncode, done.stdout.strip().splitlines()

    return play


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_one_line_counts_skipped_tests_by_reason_before_the_summary(session, workers):
    code, lines = session(SAMPLE + SHELL, *workers, complete="0")
    told = [line for line in lines if line.startswith("skipped")]
    assert code == 0
    assert told == ["skipped: 2 (no GPU), 1 (no ../shared/data), 1 (no zsh: apt-get install zsh)"]
    assert "1 passed, 4 skipped in" in lines[-1]


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_a_complete_session_fails_by_a_skip_and_names_the_test(session, workers):
    code, lines = session(SAMPLE + SHELL, *workers, complete="1")
    errors = [line for line in lines if line.startswith("error:")]
    assert code == 1 and "1 passed, 4 skipped in" in lines[-1]
    assert len(errors) == 1
    assert errors[0].startswith("error: skipped (no zsh: apt-get install zsh), where")
    assert errors[0].endswith(": test_sample.py::test_shell")


def test_a_complete_session_may_lack_a_gpu_and_the_folder_of_real_data(session):
    code, lines = session(SAMPLE, complete="1")
    assert code == 0 and not [line for line in lines if line.startswith("error:")]
    assert "skipped: 2 (no GPU), 1 (no ../shared/data)" in lines


def test_a_session_without_skips_says_nothing_of_them(session):
    code, lines = session("def test_passes():\n    pass\n", complete="1")
    assert code == 0 and not [line for line in lines if line.startswith("skipped")]
