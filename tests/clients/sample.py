"""A pytest plugin: of every test function some parametrisations, each with a time limit, and a line about each.

The lines go to the file that ``PATCHER_CLIENTS_OUT`` names, as JSON: test, outcome ("passed", "failed", "skipped"),
seconds, and why. Nothing of the tests is changed.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Generator, Hashable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

OUT = Path(os.environ.get("PATCHER_CLIENTS_OUT", os.devnull))
SECONDS = int(os.environ.get("PATCHER_CLIENTS_SECONDS", "60"))
EACH = int(os.environ.get("PATCHER_CLIENTS_EACH", "1"))
LARGEST = 2**27
"""No test with a larger product of its whole numbers is run: of logits of that many elements one copy is half a GB."""


class TookTooLong(BaseException):
    """The time limit of a test; no handler of a test's own takes it for something else."""


def _stop(number: int, frame: FrameType | None) -> None:
    raise TookTooLong(f"more than {SECONDS} s of the processor")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps at most `EACH` parametrisations of a function, and none larger than `LARGEST`."""
    functions: dict[str, list[pytest.Item]] = {}
    for item in items:
        functions.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = {item for group in functions.values() for item in chosen(group)}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    large = [name for name, group in functions.items() if not kept & set(group)]
    _write({"collected": len(items), "sampled": len(kept), "functions": len(functions), "too large": large})
    items[:] = [item for item in items if item in kept]


def chosen(items: list[Any]) -> list[Any]:
    """The smallest, then smallest ones with values of other parameters than sizes that none before had."""
    seen: set[Hashable] = set()
    kept: list[Any] = []
    for item in sorted((item for item in items if size(item) <= LARGEST), key=size):
        new = set(_kinds(item)) - seen
        if (new or not kept) and len(kept) < EACH:
            kept.append(item)
            seen |= new
    return kept


def size(item: Any) -> int:
    """The product of all whole numbers among the parameters."""
    product = 1
    for number in _numbers(_parameters(item).values()):
        product *= max(abs(number), 1)
    return product


def _parameters(item: Any) -> dict[str, Any]:
    return item.callspec.params if hasattr(item, "callspec") else {}


def _numbers(values: Iterable[Any]) -> Iterator[int]:
    for value in values:
        if isinstance(value, int) and not isinstance(value, bool):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _numbers(value)


def _kinds(item: Any) -> Iterator[Hashable]:
    for name, value in _parameters(item).items():
        if not isinstance(value, int) or isinstance(value, bool):
            yield name, repr(value)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Starts the clock."""
    signal.signal(signal.SIGPROF, _stop)
    signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(10 * SECONDS)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Writes the line of a test when its outcome is known."""
    report = yield
    if report.when == "call" or not report.passed:
        _write(
            {
                "test": item.nodeid,
                "outcome": report.outcome,
                "when": report.when,
                "seconds": round(call.duration, 2),
                **_why(report, call),
            }
        )
    return report


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Writes the line of a file that could not be imported."""
    if report.failed:
        text = str(report.longrepr)
        last = [line for line in text.splitlines() if line.startswith("E ")] or text.splitlines()
        _write({"test": report.nodeid, "outcome": "failed", "when": "import", "seconds": 0.0, "why": last[-1][4:]})
    elif report.outcome == "skipped":
        _write({"test": report.nodeid, "outcome": "skipped", "when": "import", "seconds": 0.0, "why": _reason(report)})


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Writes which kernels were launched, and how often."""
    from patcher.tiles.backends import launches

    counts: dict[str, int] = {}
    for launched, times in launches.items():
        counts[launched.kernel] = counts.get(launched.kernel, 0) + times
    _write({"launches": counts})


def _why(report: pytest.TestReport, call: pytest.CallInfo[None]) -> dict[str, str]:
    if report.outcome == "skipped":
        return {"why": _reason(report)}
    if call.excinfo is None:
        return {}
    kind = call.excinfo.type.__name__
    chain = call.excinfo.value.__cause__ or call.excinfo.value.__context__
    text = str(call.excinfo.value).strip()
    place = call.excinfo.traceback[-1]
    return {
        "kind": kind,
        "why": text[:2000],
        "place": f"{place.path}:{place.lineno + 1}",
        "cause": f"{type(chain).__name__}: {chain}"[:500] if chain is not None else "",
    }


def _reason(report: Any) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return str(reason).removeprefix("Skipped: ")


def _write(line: dict[str, Any]) -> None:
    with OUT.open("a") as file:
        file.write(json.dumps(line) + "\n")
