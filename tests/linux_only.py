"""On a Mac, tests that need Linux are skipped: each says itself what it lacks, by the words in which it fails.

A pytest plugin; `tests/conftest.py` has its hooks. A failure with other words stays one.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import Any

import pytest

LACKS = {
    "the simulated mps device runs on Linux": "the simulated Mac, which runs on Linux",
    "no Triton in ": "Triton, which has no wheel for macOS",
    "No such file or directory: '/proc/": "Linux's /proc",
    "LD_PRELOAD needs Linux": "LD_PRELOAD, by which a disk is full and a process killed",
}
"""What a failure says, and what it needs."""


def lacking(text: str) -> str | None:
    """What a test that failed with this text needs and a Mac has not; None elsewhere, and for other failures."""
    if sys.platform != "darwin":
        return None
    return next((needed for words, needed in LACKS.items() if words in text), None)


def _skipped(report: Any, text: str, path: object, line: int) -> None:
    needed = lacking(text) if report.failed else None
    if needed is not None:
        report.outcome = "skipped"
        report.longrepr = (str(path), line, f"Skipped: needs {needed}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Of a test, or of a fixture that it needs."""
    report = yield
    _skipped(report, report.longreprtext, item.path, item.location[1] or 0)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Of a file that cannot even be imported without."""
    report = yield
    _skipped(report, report.longreprtext, collector.path, 0)
    return report
