"""Runs functions in copies of this process, so that the libraries are imported once and not for each of hundreds.

An mps device does not survive a fork, so a real one would refuse this, and so does the simulated one. Here nothing has
touched it before: the copy is made by the system call alone, past the handlers that would mark it as a forked process.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_CLONE = {"x86_64": 56, "aarch64": 220}
"""Linux's number of the system call, by processor."""
_FAILED = 70


def _copy_of_this_process() -> int:
    return int(ctypes.CDLL(None).syscall(_CLONE[platform.machine()], ctypes.c_long(signal.SIGCHLD), 0, 0, 0, 0))


@dataclass
class Child:
    """A copy that runs a function, which may report lines while it does.

    Attributes:
        pid: its process number.
        lines: what it has reported so far, read by `wait` and `wait_for`.
    """

    pid: int
    pipe: int
    lines: list[Any] = field(default_factory=list)
    _rest: bytes = b""

    def wait_for(self, count: int) -> None:
        """Returns when it has reported so many lines, or has ended."""
        while len(self.lines) < count and self._read():
            pass

    def kill(self) -> None:
        """SIGKILL: nothing in the process runs after it."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int | None:
        """Reads to the end; gives the exit code, or None where a signal ended it."""
        while self._read():
            pass
        os.close(self.pipe)
        status = os.waitpid(self.pid, 0)[1]
        return os.WEXITSTATUS(status) if os.WIFEXITED(status) else None

    def _read(self) -> bool:
        data = os.read(self.pipe, 65536)
        *complete, self._rest = (self._rest + data).split(b"\n")
        self.lines += [json.loads(line) for line in complete]
        return bool(data)


def start(function: Callable[[Callable[[Any], None]], None]) -> Child:
    """Runs ``function(report)`` in a copy of this process; ``report(value)`` sends a line of JSON."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = _copy_of_this_process()
    if pid:
        os.close(writing)
        return Child(pid, reading)
    code = _FAILED
    try:
        os.close(reading)
        function(lambda value: _send(writing, value))
        code = 0
    except BaseException:  # noqa: BLE001 - the copy must end here, whatever happens
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _send(pipe: int, value: Any) -> None:
    os.write(pipe, json.dumps(value).encode() + b"\n")


def result(function: Callable[[Callable[[Any], None]], None]) -> Any:
    """The last line that ``function`` reports, in a copy that runs to its end."""
    child = start(function)
    code = child.wait()
    if code != 0:
        raise SystemExit(f"the copy of the process ended with {code}")
    return child.lines[-1]
