"""Runs the cases of a part in processes of their own: one that crashes or hangs costs its case alone. No torch here."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from patcher import environment
from patcher.calibration.facts import Facts
from patcher.calibration.parts import DEVICE, ROOT, START_SECONDS, Part

CRASHED, HUNG = "crashed", "hung"

_USERS = ("PYTORCH_", "MTL_", "PATCHER_WITHOUT", "PATCHER_METAL_CHECK")
"""Beginnings of variables that would change what is measured; those of the user are left out."""


class NoAnswer(Exception):  # noqa: N818 - an outcome
    """A process has ended, or takes too long."""

    def __init__(self, outcome: str, text: str) -> None:
        super().__init__(text)
        self.outcome = outcome


class Worker:
    """A process that runs cases of a part, one at a time. A context manager: it ends with it.

    Attributes:
        cases: all that the part has.
    """

    def __init__(self, part: Part, simulated: Facts | None, variables: Mapping[str, str]) -> None:
        """
        Args:
            simulated: the Mac to simulate, or None for the one at hand.
            variables: of the environment, beside the user's.

        Raises:
            NoAnswer: it did not come so far as to name its cases.
        """
        command = [sys.executable, "-m", "patcher.calibration.worker", part.module]
        command += ["--simulated", json.dumps(simulated.to_dict())] if simulated is not None else []
        kept = {name: value for name, value in environment.snapshot().items() if not name.startswith(_USERS)}
        path = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH", "")]))
        self._seconds = part.case_seconds
        self._answers, theirs = os.pipe()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=theirs,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env={"OMP_NUM_THREADS": "1", **kept, "PYTHONPATH": path, **variables},
            start_new_session=True,  # Ctrl-C is for the process that keeps the file
        )
        os.close(theirs)
        self._buffer = b""
        try:
            first = self._answer(START_SECONDS)
        except NoAnswer:
            self.close()
            raise
        if "failed" in first:
            self.close()
            raise NoAnswer(CRASHED, first["failed"])
        self.cases: list[str] = first["cases"]

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def run(self, case: str) -> dict[str, Any]:
        """What came of the case. Raises NoAnswer where the process crashed or hung; then it is of no use any more."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self._process.stdin.write(json.dumps(case).encode() + b"\n")
            self._process.stdin.flush()
        return self._answer(self._seconds)

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        if self._answers >= 0:
            os.close(self._answers)
            self._answers = -1

    def _answer(self, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise NoAnswer(HUNG, f"no answer after {seconds:g} s")
            chunk = os.read(self._answers, 1 << 20)
            if not chunk:
                raise NoAnswer(CRASHED, _ending(self._process.wait()))
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        found: dict[str, Any] = json.loads(line)
        return found


def _ending(code: int) -> str:
    return f"ended by signal {-code}" if code < 0 else f"ended with code {code}"


class Cases:
    """The cases of a part, in a process that is replaced when it crashes or hangs. A context manager.

    Attributes:
        names: of all cases.
    """

    def __init__(self, part: Part, simulated: Facts | None, device: Mapping[str, Any]) -> None:
        """
        Args:
            simulated: the Mac to simulate, or None for the one at hand.
            device: what `DEVICE` has answered.

        Raises:
            NoAnswer: no process comes so far as to name them.
        """
        self._part, self._simulated, self._device = part, simulated, device
        self._worker: Worker | None = Worker(part, simulated, {})
        self.names = self._worker.cases
        if part.fresh:
            self.close()

    def __enter__(self) -> Cases:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def run(self, case: str) -> dict[str, Any]:
        """What came of the case; raises NoAnswer where no new process starts for it."""
        if self._worker is None:
            self._worker = Worker(self._part, self._simulated, self._part.variables(case, self._device))
        try:
            result = self._worker.run(case)
        except NoAnswer as lost:
            result = {"outcome": lost.outcome, "text": str(lost)}
            self.close()
        if self._part.fresh:
            self.close()
        return result

    def close(self) -> None:
        """Ends the process."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None


def ask_device(simulated: Facts | None) -> dict[str, Any]:
    """What `patcher.calibration.device` answers. Raises NoAnswer where the device does not work."""
    with Worker(DEVICE, simulated, {}) as worker:
        found = worker.run("device")
    if "facts" not in found:
        raise NoAnswer(found["outcome"], f"{found['kind']}: {found['text']}")
    return found
