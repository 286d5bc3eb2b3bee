"""Which Mac this is, and whether its device holds a tensor: asked before any part."""

from __future__ import annotations

import platform
from typing import Any

import torch

import patcher
from patcher.calibration.facts import Facts
from patcher.macs import machine
from patcher.simulator.device import running


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
    simulated = running()
    here = machine.detect() if simulated is None else simulated.mac
    facts = Facts(
        chip=here.chip,
        gpu_cores=torch.backends.mps.get_core_count(),
        memory_bytes=here.memory_bytes,
        macos=here.macos or (0, 0),
        torch=torch.__version__ if simulated is None else simulated.torch,
        python=platform.python_version(),
        patcher=patcher.__version__,
        simulated=simulated is not None,
    )
    return {"facts": facts.to_dict(), "recommended_max_memory": torch.mps.recommended_max_memory()}
