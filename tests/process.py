"""The environment in which the tests start fresh processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_OURS = ("UNSLOTH_", "PYTORCH_", "PATCHER_", "TOKENIZERS_", "TORCHINDUCTOR_ERROR")


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without the switches that decide what is patched; offline.

    One thread: more of them gain nothing on small models, and wait for each other where the machine is busy.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **extra}


def run_python(
    *arguments: object, timeout: float = 600, check: bool = True, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """``python arguments`` in a clean environment with these variables besides; fails with what it said.

    Args:
        timeout: in seconds.
        check: whether an exit code other than 0 fails the test.
        cwd: the working directory.
    """
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert not check or done.returncode == 0, f"{arguments}: {done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done


def run_module(module: str, *arguments: object, timeout: float = 600, **environment: str) -> None:
    """``python -m module arguments``, as `run_python`."""
    run_python("-m", module, *arguments, timeout=timeout, **environment)
