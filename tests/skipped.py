"""Tests that were skipped, told in one line at the end of a session.

A plain machine lacks much of what the suite can use, and a skip is easily overlooked. ``.ci/run``
installs all of it and sets FEDMPI_TESTS_COMPLETE=1: then a session fails where a test was skipped for
any reason but those of ``ALLOWED``.
"""

import collections
import os
import pathlib

import pytest

COMPLETE = "FEDMPI_TESTS_COMPLETE"
NO_GPU = "no GPU"
NO_DATA = "no ../shared/data"
# No package brings a GPU, and a clone alone has no folder of real data beside it.
ALLOWED = (NO_GPU, NO_DATA)
DATA = pathlib.Path(__file__).parents[2] / "shared" / "data"


def shared_data():
    """The folder of real data beside this repository; where there is none the test is skipped."""
    if not DATA.is_dir():
        pytest.skip(NO_DATA)
    return DATA


def by_reason(reports):
    """``{reason: names of tests}`` of the reports of skipped tests, the commonest reason first."""
    names = collections.defaultdict(list)
    for report in reports:
        _, _, text = report.longrepr
        reason = " ".join(text.removeprefix("Skipped: ").split())
        names[reason].append(report.nodeid)
    return dict(sorted(names.items(), key=lambda item: (-len(item[1]), item[0])))


def forbidden(names):
    """Those of ``by_reason`` that a complete session must not have."""
    if os.environ.get(COMPLETE) != "1":
        return {}
    return {reason: tests for reason, tests in names.items() if not reason.startswith(ALLOWED)}


def skipped_of(config):
    """``by_reason`` of this session; pytest-xdist's workers leave that to the process above."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return by_reason(reporter.stats.get("skipped", [])) if reporter else {}


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    if forbidden(skipped_of(session.config)) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    names = skipped_of(terminalreporter.config)
    if names:
        counts = [f"{len(tests)} ({reason})" for reason, tests in names.items()]
        terminalreporter.write_line(f"skipped: {', '.join(counts)}")
    for reason, tests in forbidden(names).items():
        told = f"skipped ({reason}), where {COMPLETE}=1 allows only {' and '.join(ALLOWED)}"
        terminalreporter.write_line(f"error: {told}: {', '.join(tests)}", red=True)
