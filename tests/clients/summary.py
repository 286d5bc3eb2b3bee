"""What the lines of `tests.clients.sample` come to: a table by file, and what failed by kind."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Line = dict[str, Any]

KINDS = (
    (r"TookTooLong", "", "took longer than the limit"),
    (r"KernelNotSupported", "", "the kernel holds what cannot run"),
    (r"LaunchRefused", "", "the launch was refused"),
    (r"KernelFailed", "", "the kernel failed"),
    (r"AssertionError", "", "numbers differ, or another assertion"),
    (r"OutOfMemoryError|MemoryError", "", "out of memory"),
    (r".*", r"MPS|mps", "mps lacks it"),
)
"""Exception, text of it, and what a failure with both is called; the first that fits."""


def read(file: Path) -> list[Line]:
    """The lines of one run."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def kind(line: Line) -> str:
    """What a failure is called."""
    for exception, text, name in KINDS:
        if re.fullmatch(exception, line.get("kind", line["when"])) and re.search(text, line.get("why", "")):
            return name
    return str(line.get("kind", line["when"]))


def outcomes(lines: Iterable[Line]) -> dict[str, str]:
    """Test to "passed", "failed" or "skipped": the worst of its phases."""
    order = ("passed", "skipped", "failed")
    found: dict[str, str] = {}
    for line in lines:
        if "test" in line:
            found[line["test"]] = max(found.get(line["test"], "passed"), line["outcome"], key=order.index)
    return found


def table(lines: list[Line]) -> str:
    """A row for each file: how many tests passed, failed and were skipped."""
    counts: dict[str, Counter[str]] = {}
    for test, outcome in outcomes(lines).items():
        counts.setdefault(test.partition("::")[0], Counter())[outcome] += 1
    total = sum(counts.values(), Counter())
    rows = [_row(file, count) for file, count in sorted(counts.items())]
    return "\n".join(["| file | passed | failed | skipped |", "|---|---|---|---|", *rows, _row("all", total)])


def _row(name: str, count: Counter[str]) -> str:
    return f"| {name} | {count['passed']} | {count['failed']} | {count['skipped']} |"


def reasons(lines: list[Line]) -> str:
    """Failures by kind with each one's last words, and skips by the reason that the tests give."""
    failed = [line for line in lines if line.get("outcome") == "failed"]
    text = [f"{number:>5}  {name}" for name, number in Counter(map(kind, failed)).most_common()]
    text += [f"       {line['test']}: {_first(line)}" for line in failed]
    skipped = Counter(_first(line) for line in lines if line.get("outcome") == "skipped")
    return "\n".join(["failed:", *text, "skipped:", *(f"{n:>5}  {why}" for why, n in skipped.most_common())])


def _first(line: Line) -> str:
    said = line.get("why", "").strip().splitlines() or [""]
    return f"{line['kind']}: {said[0][:200]}" if "kind" in line else said[0][:200]
