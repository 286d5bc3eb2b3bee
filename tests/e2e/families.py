"""Runs families on the simulated Mac after `patch_for_mac()`, or on the CPU without it, and writes what they gave.

``python -m tests.e2e.families OUT mps|cpu`` writes one file for each family and dtype.
"""

from __future__ import annotations

import dataclasses
import sys
import warnings
from pathlib import Path
from typing import Any

DTYPES = ("float32", "float16", "bfloat16")


def main(out: str, device: str, *names: str) -> None:
    """Runs the families named, or all."""
    if device == "mps":
        from patcher import patch_for_mac

        patch_for_mac(simulate="M3 Max 36GB")
    import torch
    import transformers

    from patcher.bench.families import FAMILIES
    from patcher.bench.steps import observe

    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    for name in names or FAMILIES:
        for dtype in DTYPES:
            file = Path(out) / f"{name}-{device}-{dtype}.pt"
            _reset(device)
            try:
                found = dataclasses.asdict(observe(FAMILIES[name], device, getattr(torch, dtype)))
            except Exception as error:  # noqa: BLE001 - one family that fails is one test that fails
                found = {"error": f"{type(error).__name__}: {error}"}
            torch.save({**found, "rules": _rules(device)}, file)


def _reset(device: str) -> None:
    if device == "mps":
        _device().rules.reset()


def _rules(device: str) -> dict[str, Any]:
    """What the Mac refused or sent to the CPU."""
    if device == "cpu":
        return {}
    rules = _device().rules
    return {
        "missing": dict(rules.missing),
        "fell_back": dict(rules.fell_back),
        "float64": rules.float64,
        "refused": dict(rules.refused),
    }


def _device() -> Any:
    from patcher.simulator import running

    device = running()
    assert device is not None
    return device


if __name__ == "__main__":
    main(*sys.argv[1:])
