"""Runs cases in worker processes, one at a time: a case that crashes or hangs costs that case alone."""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from patcher.simulator import build
from patcher.simulator.rules.tables import FALLBACK
from tests.fidelity.cases import Case
from tests.fidelity.measure import CRASHED

SECONDS = 300
"""A case that takes longer counts as crashed; the slowest takes a tenth of that on an idle core."""


@dataclass(frozen=True)
class Result:
    """A case with what torch expects and what was seen.

    Attributes:
        corpus, name, dtype, test: the case.
        release: of the simulated Mac's torch: ``"2.13"``.
        expected, source: see `tests.fidelity.expectations.Expectation`.
        observed, samples, error: see `tests.fidelity.measure.Observation`.
        seconds: that it took.
    """

    corpus: str
    name: str
    dtype: str
    test: str
    release: str
    expected: str
    source: str
    observed: str
    samples: int
    error: str
    seconds: float

    @property
    def case(self) -> Case:
        return Case(self.corpus, self.name, self.dtype, self.test)


class _Gone(Exception):
    """The worker has ended or does not answer."""


class Runner:
    """Runs cases, one after the other, in a worker process that is replaced when it crashes or hangs.

    Attributes:
        corpus: its name.
        release: of the simulated Mac's torch.
        cases: every case of the corpus.
    """

    def __init__(self, corpus: str, release: str) -> None:
        """
        Args:
            corpus: its name.
            release: of the simulated Mac's torch.
        """
        self.corpus, self.release = corpus, release
        build.library(torch)  # which may take minutes, the first time
        self._start()
        try:
            self.cases = [Case(*fields) for fields in self._answer()["cases"]]
        except _Gone:
            self._stop()
            raise

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def run(self, cases: Iterable[Case], limit: int | None = None) -> Iterator[Result]:
        """Runs cases.

        Args:
            limit: the most sample inputs of a case; None for all.
        """
        for case in cases:
            began, expected = time.monotonic(), {"verdict": "", "source": ""}
            try:
                self._ask(case, limit)
                expected = self._answer()
                seen = self._answer()
            except (_Gone, BrokenPipeError) as gone:
                self._stop()
                if not expected["verdict"]:
                    raise RuntimeError(f"{case}: no expectation of it: {gone}; the worker alone tells why") from gone
                self._start()
                self._answer()
                seen = {"outcome": CRASHED, "samples": 0, "error": str(gone)}
            yield Result(
                **dataclasses.asdict(case),
                release=self.release,
                expected=expected["verdict"],
                source=expected["source"],
                observed=seen["outcome"],
                samples=seen["samples"],
                error=seen["error"],
                seconds=round(time.monotonic() - began, 3),
            )

    def _start(self) -> None:
        ours, theirs = os.pipe()
        self._answers = os.fdopen(ours, "rb", buffering=0)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fidelity.worker", self.corpus, self.release, str(theirs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs],
            text=True,
            cwd=Path(__file__).parents[2],
            env={name: value for name, value in os.environ.items() if name != FALLBACK},
        )
        os.close(theirs)
        self._buffer = b""

    def _stop(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._answers.close()

    def _ask(self, case: Case, limit: int | None) -> None:
        assert self._process.stdin is not None
        request = {"case": dataclasses.astuple(case), "limit": limit}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        deadline = time.monotonic() + SECONDS
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise _Gone(f"no result after {SECONDS} s")
            chunk = self._answers.read(1 << 20)
            if not chunk:
                raise _Gone(f"the process ended with code {self._process.wait()}")
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        found: dict[str, Any] = json.loads(line)
        return found


def side_by_side(first: Runner, cases: Iterable[Case], processes: int, limit: int | None = None) -> Iterator[Result]:
    """Runs cases in several workers; results come as they are there.

    Args:
        first: one of the workers.
        processes: how many there are; each takes the next case when it has done one.
        limit: see `Runner.run`.
    """
    waiting: queue.SimpleQueue[Case] = queue.SimpleQueue()
    done: queue.SimpleQueue[Result | BaseException | None] = queue.SimpleQueue()
    for case in cases:
        waiting.put(case)

    def work(runner: Runner | None) -> None:
        try:
            with ExitStack() as own:
                used = runner or own.enter_context(Runner(first.corpus, first.release))
                for result in used.run(_taken(waiting), limit):
                    done.put(result)
            done.put(None)
        except BaseException as error:  # noqa: BLE001 - raised where the results are read
            done.put(error)

    workers = [first, *[None] * (min(processes, waiting.qsize()) - 1)]
    for worker in workers:
        threading.Thread(target=work, args=(worker,), daemon=True).start()
    left = len(workers)
    try:
        while left:
            found = done.get()
            if isinstance(found, BaseException):
                raise found
            if found is None:
                left -= 1
            else:
                yield found
    finally:
        list(_taken(waiting))


def _taken(waiting: queue.SimpleQueue[Case]) -> Iterator[Case]:
    """The cases that are left when each is asked for."""
    while True:
        try:
            yield waiting.get_nowait()
        except queue.Empty:
            return
