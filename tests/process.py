"""How a test starts a process: in a clean environment, from the root, and failing with what it said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from patcher.environment import FORCE
from patcher.macs.mac import VARIABLE
from tests import unreplaced
from tests.linux_only import lacking

ROOT = Path(__file__).resolve().parents[1]

_OURS = ("UNSLOTH_", "PYTORCH_", "PATCHER_", "TOKENIZERS_", "TORCHINDUCTOR_ERROR", "PYTHONSAFEPATH")


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without the switches that decide what is patched; offline; this tree is imported.

    One thread: more of them gain nothing on small models, and wait for each other where the machine is busy. A process
    that is killed by a signal of its own (a wrong pointer) says where its threads were. What other tests have found out
    about shaders is not known to it. Kernels run as they ship where `unreplaced.asked_for`; simulated Macs have the
    torch that this run of the tests is for, and the variants of ops that it asks for run.
    """
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(_OURS) or name in (VARIABLE, FORCE)
    }
    path = dict.fromkeys([str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
    ours = {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PATCHER_TRITON_CACHE": "0",
        "PYTHONFAULTHANDLER": "1",
        "PYTHONPATH": os.pathsep.join(path),
    }
    folder = unreplaced.asked_for()
    return unreplaced.as_they_ship({**kept, **ours, **extra}, folder) if folder else {**kept, **ours, **extra}


def run_python(
    *arguments: object,
    timeout: float | None = 600,
    check: bool = True,
    cwd: Path = ROOT,
    stdin: str | None = None,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """``python arguments`` in a clean environment with these variables besides; fails with what it said.

    The test is skipped where the process needs Linux and this is a Mac.

    Args:
        timeout: in seconds; None waits.
        check: whether an exit code other than 0 fails the test.
        cwd: the working directory.
        stdin: what it reads; without it, what this process reads.
    """
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=clean_environment(**environment),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if needed := lacking(done.stderr):
        pytest.skip(f"needs {needed}")
    assert not check or done.returncode == 0, f"{arguments}: {done.stdout[-3000:]}\n{_told(done.stderr)[-6000:]}"
    return done


def _told(errors: str) -> str:
    """Without the list of all extension modules, which ends what a killed process says of its threads."""
    return "\n".join(line for line in errors.splitlines() if not line.startswith("Extension modules:"))


def run_module(
    module: str, *arguments: object, timeout: float = 600, check: bool = True, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """``python -m module arguments``, as `run_python`."""
    return run_python("-m", module, *arguments, timeout=timeout, check=check, cwd=cwd, **environment)


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    """What the process said on its last line that begins with ``ANSWER``, which is JSON."""
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    assert lines, f"no answer: {done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return json.loads(lines[-1].removeprefix("ANSWER"))
