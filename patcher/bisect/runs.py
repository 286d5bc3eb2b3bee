"""One run of the user's program in a process of its own, with some changes switched off."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from patcher import environment

_TRACEBACK = "Traceback (most recent call last):"
_TAIL = 15
"""How many of the last lines are kept."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        code: the exit code, negative for a signal; None where it took too long and was ended.
        output: what it printed, both streams.
        seconds: how long it took.
        told: what the user's command printed after it; None where there is none.
    """

    code: int | None
    output: str
    seconds: float
    told: str | None = None

    @property
    def passed(self) -> bool:
        """Whether it ended with exit code 0."""
        return self.code == 0

    @property
    def kind(self) -> str:
        """What it ended with, in words; two ends are the same where the words are. Of an exception it is the type."""
        if self.code is None:
            return "ran into the time limit"
        if self.code < 0:
            known = -self.code in {each.value for each in signal.Signals}  # not those of real time
            return f"was ended by {signal.Signals(-self.code).name if known else f'signal {-self.code}'}"
        if self.passed:
            return "passes"
        return f"fails with {error.partition(':')[0]}" if (error := self.error) else f"exits with {self.code}"

    @property
    def error(self) -> str | None:
        """The line of the exception that nobody caught, or None."""
        _, traceback, rest = self.output.rpartition(_TRACEBACK)
        lines = [line for line in rest.splitlines() if re.match(r"[A-Za-z_][\w.]*(:|$)", line)]
        return lines[0] if traceback and lines else None

    def tail(self) -> list[str]:
        """The last lines that it printed."""
        return self.output.rstrip().splitlines()[-_TAIL:]


@dataclass(frozen=True)
class Program:
    """What is run again and again.

    Attributes:
        arguments: what follows ``python -m patcher run``: ``-m`` or not, script, its arguments.
        simulate: the Mac to simulate, or None.
        timeout: in seconds; None waits for ever.
        command: a shell command whose output counts instead of the end of the program, or None.
    """

    arguments: Sequence[str]
    simulate: str | None = None
    timeout: float | None = None
    command: str | None = None

    def run(self, off: Sequence[str]) -> Outcome:
        """Runs it without the changes of these keys."""
        mac = [] if self.simulate is None else ["--simulate", self.simulate]
        command = [sys.executable, "-m", "patcher", "run", *mac, *self.arguments]
        variables = {**environment.snapshot(), environment.WITHOUT: ",".join(off)}
        began = time.monotonic()
        code, output = _run(command, variables, self.timeout)
        told = None
        if self.command is not None and code == 0:
            _, told = _run(["/bin/sh", "-c", self.command], variables, self.timeout)
        return Outcome(code, output, time.monotonic() - began, told)


def _run(command: Sequence[str], variables: dict[str, str], timeout: float | None) -> tuple[int | None, str]:
    """Exit code (None where the time was over) and output. The program's own children end with it."""
    with tempfile.TemporaryFile() as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=variables,
            start_new_session=True,
        )
        code: int | None = None
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            pass  # the code stays None: that is the answer
        finally:
            _end(process)
        file.seek(0)
        return code, file.read().decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):  # the group is gone where all of it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
