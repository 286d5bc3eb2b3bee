"""The results, for people and for programs."""

from __future__ import annotations

import json
import platform
import sys
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

import patcher
from patcher.macs.machine import Machine
from patcher.verify.check import Result, Status

_STYLES = {Status.OK: "green", Status.FAIL: "bold red", Status.SKIP: "dim"}
_WIDTH = 38


class Lines:
    """Prints every result as it comes; colours and a status line only on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._section = ""
        self._status = console.status("") if console.is_terminal else None

    def begin(self, section: str, name: str) -> None:
        """Shows what runs."""
        if self._status is not None:
            self._status.update(f"{section}: {name}")
            self._status.start()

    def show(self, result: Result) -> None:
        """One line, under its section; a failure is followed by what to do."""
        if result.section != self._section:
            self._section = result.section
            self._print(Text(f"\n{result.section}", "bold"))
        first, *rest = result.detail.splitlines() or [""]
        self._print(_line(result, first))
        for line in rest:
            self._print(Text(f"       {line}"))
        if result.do:
            self._print(Text(f"       do: {result.do}", "yellow"))

    def end(self, results: Sequence[Result], seconds: float) -> None:
        """The sum."""
        if self._status is not None:
            self._status.stop()
        totals = ", ".join(f"{number} {status}" for status, number in counts(results).items())
        verdict = "all that was checked is right" if passed(results) else "something is wrong: see the lines with FAIL"
        self._print(Text(f"\n{totals} in {seconds:.0f} s: {verdict}", "bold"))

    def _print(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True, highlight=False)


def _line(result: Result, detail: str) -> Text:
    style = _STYLES[result.status]
    name = (f"{result.name:<{_WIDTH}}  {detail}", "dim" if result.status is Status.SKIP else "")
    return Text.assemble((f"  {result.status.value:<4} ", style), name)


def counts(results: Sequence[Result]) -> dict[str, int]:
    """How many ended how, by the word that is printed."""
    counted = Counter(result.status for result in results)
    return {status.value: counted[status] for status in Status}


def passed(results: Sequence[Result]) -> bool:
    """Whether nothing failed, and something was checked."""
    return bool(results) and not any(result.status is Status.FAIL for result in results)


def to_json(here: Machine, results: Sequence[Result], seconds: float) -> str:
    """A JSON object: machine, simulated, python, patcher, passed, counts, seconds, checks."""
    return json.dumps(
        {
            "machine": str(here),
            "simulated": here.simulated,
            "python": platform.python_version(),
            "patcher": patcher.__version__,
            "platform": sys.platform,
            "passed": passed(results),
            "counts": counts(results),
            "seconds": round(seconds, 1),
            "checks": [result.to_dict() for result in results],
        },
        indent=2,
    )
