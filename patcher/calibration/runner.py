"""Runs the cases of a part in processes of their own: one that crashes or hangs costs its case alone. No torch here."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any

from patcher import environment
from patcher.calibration.facts import Facts
from patcher.calibration.parts import DEVICE, ROOT, START_SECONDS, Part

CRASHED, HUNG = "crashed", "hung"

_USERS = ("PYTORCH_", "PATCHER_WITHOUT", "PATCHER_METAL_CHECK")
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
            env={**kept, "PYTHONPATH": path, **variables},
            start_new_session=True,  # Ctrl-C is for the process that keeps the file
        )
        os.close(theirs)
        self._buffer = b""
        try:
            self.cases: list[str] = self._answer(START_SECONDS)["cases"]
        except NoAnswer:
            self.close()
            raise

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


def all_cases(part: Part, simulated: Facts | None) -> list[str]:
    """The names of the part's cases. Raises NoAnswer where no process names them."""
    with Worker(part, simulated, {}) as worker:
        return worker.cases


def run(
    part: Part, cases: Iterable[str], simulated: Facts | None, device: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Cases, each with what came of it, as they come.

    Args:
        device: what `DEVICE` has answered.

    Raises:
        NoAnswer: a new process for the next case does not start.
    """
    with contextlib.ExitStack() as stack:
        worker: Worker | None = None
        for case in cases:
            if worker is None:
                worker = stack.enter_context(Worker(part, simulated, part.variables(case, device)))
            try:
                result = worker.run(case)
            except NoAnswer as lost:
                result = {"outcome": lost.outcome, "text": str(lost)}
            if part.fresh or result.get("outcome") in (CRASHED, HUNG):
                worker.close()
                worker = None
            yield case, result


def ask_device(simulated: Facts | None) -> dict[str, Any]:
    """What `patcher.calibration.device` answers. Raises NoAnswer where its process has none."""
    with Worker(DEVICE, simulated, {}) as worker:
        return worker.run("device")

