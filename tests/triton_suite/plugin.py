"""A pytest plugin for Triton's tests: what they import is in place, each has its time, and outcomes are written down.

``TRITON_REPO`` names the checkout, ``TRITON_SUITE_OUT`` the file, a JSON object a line.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

SECONDS = int(os.environ.get("TRITON_SUITE_SECONDS", "60"))
"""What one test may take."""


class TookTooLong(BaseException):
    """A test is still running after `SECONDS`."""


def pytest_configure(config: pytest.Config) -> None:
    """Puts the tools of the tests in place, before the first file of them is imported."""
    from tests.triton_suite import scaffolding

    if os.environ.get("TRITON_INTERPRET") != "1":
        import triton  # noqa: F401 - the shim

        scaffolding.supply()
    scaffolding.tools_of(Path(os.environ["TRITON_REPO"]))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``TRITON_SUITE_EVERY=10`` each tenth test alone."""
    every = int(os.environ.get("TRITON_SUITE_EVERY", "1"))
    items[:] = items[::every]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Ends a test that takes too long."""

    def end(*_: Any) -> None:
        raise TookTooLong(f"still running after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    try:
        with _on_cpu(item):
            return (yield)
    except TookTooLong as slow:
        raise TimeoutError(str(slow)) from None
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _on_cpu(item: pytest.Item) -> AbstractContextManager[Any]:
    """What a test of mps has beside its kernels, where mps lacks it."""
    from tests.triton_suite import on_cpu

    device = item.config.getoption("--device")
    return on_cpu.OnCpu(device) if device == "mps" else nullcontext()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
    """Writes down what became of a test."""
    report = yield
    if report.when == "call" or report.outcome != "passed":
        _write(item.nodeid, report.outcome, _why(report, call), time.time() - call.start, _launched())
    return report


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A file that cannot be imported counts as one failure."""
    if report.failed:
        _write(report.nodeid, "failed", str(report.longrepr).strip().splitlines()[-1], 0.0, {})


def _why(report: Any, call: pytest.CallInfo[Any]) -> str:
    if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    if call.excinfo is None:
        return str(report.longrepr or "")
    return f"{call.excinfo.typename}: {call.excinfo.value}"[:2000]


def _launched() -> dict[str, int]:
    """How many launches there were since this was asked last: as shaders, under "", and with torch, by the reason."""
    backends = sys.modules.get("patcher.tiles.backends")
    found: Counter[str] = Counter()
    for launched, times in backends.launches.items() if backends is not None else ():
        found[launched.why if launched.back_end == "torch" else ""] += times
    if backends is not None:
        backends.launches.clear()
    return dict(found)


def _write(test: str, outcome: str, why: str, seconds: float, launches: dict[str, int]) -> None:
    told = {"test": test, "outcome": outcome, "why": why, "seconds": round(seconds, 2), "launches": launches}
    with open(os.environ["TRITON_SUITE_OUT"], "a") as file:
        file.write(json.dumps(told) + "\n")
    sys.stdout.flush()
