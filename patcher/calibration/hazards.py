"""The probes of ``verify_apple.py`` for known bugs of torch's mps backend, without the patches that keep them away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from patcher.calibration.words import without_paths
from patcher.macs import machine
from patcher.verify.check import Situation
from patcher.verify.hazards import CHECKS

_BY_NAME = {check.name: check for check in CHECKS}


def cases() -> list[str]:
    """The probes by name, the long ones included."""
    return list(_BY_NAME)


def run(case: str) -> dict[str, Any]:
    """``outcome`` is ``"ok"`` (the bug is not there), ``"FAIL"`` or ``"skip"``; ``text`` what the probe says."""
    result = _BY_NAME[case].run(Situation(machine.detect(), full=True, work=Path()))
    return {"outcome": result.status.value, "text": without_paths(result.detail.partition("\n")[0])}
