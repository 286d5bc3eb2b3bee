"""Which Mac this is, and whether its device holds a tensor: asked before any part."""

from __future__ import annotations

import platform
from typing import Any

import torch

import patcher
from patcher.calibration import here
from patcher.calibration.facts import Facts
from patcher.macs import machine


def cases() -> list[str]:
    """One."""
    return ["device"]


def run(case: str) -> dict[str, Any]:
    """The facts and the device's own answers, after one tensor was made and read.

    Returns:
        ``facts`` as `Facts` has them, and ``recommended_max_memory`` in bytes.
    """
    if torch.ones(1, device="mps").item() != 1:
        raise RuntimeError("a tensor of ones on mps holds something else")
    facts = here.simulated() or _facts()
    return {"facts": facts.to_dict(), "recommended_max_memory": torch.mps.recommended_max_memory()}


def _facts() -> Facts:
    """Of the machine at hand."""
    found = machine.detect()
    return Facts(
        chip=found.chip,
        gpu_cores=torch.backends.mps.get_core_count(),
        memory_bytes=found.memory_bytes,
        macos=found.macos or (0, 0),
        torch=torch.__version__,
        python=platform.python_version(),
        patcher=patcher.__version__,
        simulated=False,
    )
