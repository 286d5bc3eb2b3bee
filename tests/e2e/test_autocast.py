"""What stands in for a native kernel computes the same under autocast, as a native kernel does."""

from __future__ import annotations

import json

import pytest

from patcher.changes.bitsandbytes.autocast import OPERATORS
from tests.process import run_module


@pytest.mark.slow
def test_autocast_changes_no_bit_of_what_stands_in_for_a_native_kernel() -> None:
    """Every function in patcher/ops, every guard of a product, every operator of bitsandbytes, a layer in 8 bit."""
    run = run_module("tests.e2e.below_autocast", timeout=120)
    found = json.loads(run.stdout.strip().splitlines()[-1])
    assert found["missing"] == []
    assert [name for name, same in found["same"].items() if not same] == []
    assert {f"bitsandbytes::{name} of torch.float32 in torch.float16" for name in OPERATORS} <= set(found["same"])
    assert "Linear8bitLt in torch.float16" in found["same"]
