"""Runs cases in worker processes, one at a time: a case that crashes or hangs costs that case alone."""

from __future__ import annotations

import dataclasses
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
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
        cases: every case of the corpus.
    """

    def __init__(self, corpus: str, release: str) -> None:
        """
        Args:
            corpus: its name.
            release: of the simulated Mac's torch.
        """
        self._corpus, self._release = corpus, release
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
                release=self._release,
                expected=expected["verdict"],
                source=expected["source"],
                observed=seen["outcome"],
                samples=seen["samples"],
                error=seen["error"],
                seconds=round(time.monotonic() - began, 3),
            )

    def _start(self) -> None:
        self._answers, theirs = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fidelity.worker", self._corpus, self._release, str(theirs)],
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
        os.close(self._answers)

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
            chunk = os.read(self._answers, 1 << 20)
            if not chunk:
                raise _Gone(f"the process ended with code {self._process.wait()}")
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        found: dict[str, Any] = json.loads(line)
        return found
