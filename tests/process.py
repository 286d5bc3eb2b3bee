"""The environment in which the tests start fresh processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_OURS = ("UNSLOTH_", "PYTORCH_", "PATCHER_VERBOSE", "TOKENIZERS_", "TORCHINDUCTOR_ERROR")


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without the switches that decide what is patched; offline.

    One thread: more of them gain nothing on small models, and wait for each other where the machine is busy.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return {**kept, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **extra}


def run_module(module: str, *arguments: object, timeout: float = 600, **environment: str) -> None:
    """``python -m module arguments`` in a clean environment with these variables besides; fails with what it said.

    Args:
        timeout: in seconds.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{module} {arguments}: {done.stdout[-3000:]}\n{done.stderr[-6000:]}"
