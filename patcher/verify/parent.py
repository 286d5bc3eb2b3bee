"""Runs the groups of checks, one process each, and collects what they say."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from patcher import environment
from patcher.verify.check import REPORT_IT, Result, Status
from patcher.verify.child import CANNOT_GO_ON, MODULES

SECONDS = {"system": 60, "device": 300, "kernels": 600, "training": 600, "libraries": 1800}
"""After which a group counts as hung; far more than it takes, first builds of caches included."""

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
"""No check downloads anything, and no library may."""

_TAIL = 12
_PACKAGES = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Plan:
    """What is asked for.

    Attributes:
        work: an empty folder; the processes run in it.
        simulate: a Mac to simulate, or None.
        full: whether the long checks run too.
        groups: keys of `MODULES`.
    """

    work: Path
    simulate: str | None
    full: bool
    groups: tuple[str, ...] = tuple(MODULES)


def run(plan: Plan, begin: Callable[[str, str], None]) -> Iterator[Result]:
    """Results as they come; ``begin(section, name)`` is called before each check."""
    for group in plan.groups:
        if (yield from _run_group(plan, group, begin)) == CANNOT_GO_ON:
            return


def _run_group(plan: Plan, group: str, begin: Callable[[str, str], None]) -> Generator[Result, None, int]:
    """Results of one group; returns the exit code of its process."""
    log = plan.work / f"{group}.log"
    running = (group, "start")
    with log.open("w") as errors:
        process = _start(plan, group, errors)
        watchdog = threading.Timer(SECONDS[group], process.kill)
        watchdog.start()
        assert process.stdout is not None
        for line in process.stdout:
            data = json.loads(line)
            if "begin" in data:
                running = (data["begin"]["section"], data["begin"]["name"])
                begin(*running)
            else:
                yield Result.from_dict(data["result"])
        code = process.wait()
        hung = not watchdog.is_alive()
        watchdog.cancel()
    if code not in (0, CANNOT_GO_ON):
        yield _lost(running, f"still running after {SECONDS[group]} s" if hung else _ending(code), log.read_text())
    return code


def _start(plan: Plan, group: str, errors: IO[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "patcher.verify.child", group, "--work", str(plan.work)]
    command += ["--full"] if plan.full else []
    command += ["--simulate", plan.simulate] if plan.simulate else []
    variables = {**environment.snapshot(), **OFFLINE}
    variables["PYTHONPATH"] = f"{_PACKAGES}:{variables.get('PYTHONPATH', '')}".rstrip(":")
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=variables,
        cwd=plan.work,
        stdin=subprocess.DEVNULL,
    )


def _ending(code: int) -> str:
    return f"the process ended by {signal.Signals(-code).name}" if code < 0 else f"the process ended with code {code}"


def _lost(running: tuple[str, str], how: str, log: str) -> Result:
    tail = "\n".join(log.strip().splitlines()[-_TAIL:])
    do = f"{REPORT_IT}; the checks after it in this group did not run"
    return Result(*running, Status.FAIL, f"{how}; it said last:\n{tail}" if tail else how, do)
