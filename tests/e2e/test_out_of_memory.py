"""``except torch.cuda.OutOfMemoryError`` and accelerate see that memory ran out on mps."""

from __future__ import annotations

import json

import pytest

from tests.process import run_module


@pytest.mark.slow
def test_running_out_of_memory_is_caught_by_its_class() -> None:
    """By both names, from an allocation, a forward, a backward and a tensor too large for a buffer; nothing else is."""
    run = run_module("tests.e2e.out_of_memory", timeout=120)
    found = json.loads(run.stdout.strip().splitlines()[-1])
    for step in ("too_many", "in_forward", "in_backward", "too_large"):
        assert found[step] == [True, "MPS backend out of memory"[:24]], step
    assert found["again"] == [True, "the step did not fit: ou"]
    assert found["others"] == ["RuntimeError", "ZeroDivisionError", "passed", "its own cause"]
    assert found["sent"] == [3.0, 3.0, True]
    # An M1 of 8 GB takes buffers up to 4 GiB: accelerate comes down from 64 to the first size below.
    assert found["batch"] == 3
    assert found["outside"] and found["undone"]
