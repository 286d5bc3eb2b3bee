"""What stands in for a native kernel computes the same under autocast, as a native kernel does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from patcher.changes.bitsandbytes.autocast import OPERATORS
from tests.process import clean_environment

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_autocast_changes_no_bit_of_what_stands_in_for_a_native_kernel() -> None:
    """Every function in patcher/ops, every guard of a product, and every operator that bitsandbytes defines."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.e2e.below_autocast"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    found = json.loads(run.stdout.strip().splitlines()[-1])
    assert found["missing"] == []
    assert [name for name, same in found["same"].items() if not same] == []
    assert {f"bitsandbytes::{name} of torch.float32 in torch.float16" for name in OPERATORS} <= set(found["same"])
