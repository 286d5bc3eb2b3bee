"""RMSNorm as Metal shaders."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from patcher.ops.metal import rms_norm
from tests.ops.metal.variant import assert_right, found_of

pytestmark = pytest.mark.slow

BARRIER = "    threadgroup_barrier(mem_flags::mem_threadgroup);\n"
FAULTS = {
    "rsqrt, a little": (("precise::rsqrt(", "1.00001f * precise::rsqrt("), torch.float32),
    "a dropped barrier": ((f"{BARRIER}    return", "    return"), torch.float32),
    "twice eps": (("+ eps", "+ 2 * eps"), torch.float16),
    "behind the row": (("i < columns ? float(x[i]) : 0.0f", "float(x[i])"), torch.bfloat16),
    "rounded once only": (("float(W(normed)) *", "normed *"), torch.bfloat16),
    "a projection, a little": (("normed[k] * projection", "1.0001f * normed[k] * projection"), torch.float32),
    "rows of the weight's gradient": (("row += 32", "row += 33"), torch.float16),
    "rows side by side": (("x += row * norm.x_stride", "x += row * columns"), torch.float32),
    "a simdgroup left out": (("threads / 32 ? partial", "threads / 32 - 1 ? partial"), torch.bfloat16),
    "no sum": (("add ? float(X(", "!add ? float(X("), torch.float16),
}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return found_of(rms_norm)


def test_it_is_right_and_faults_are_noticed(found: dict[str, Any]) -> None:
    """Beside the torch variant, which other tests hold against fp64 and Unsloth's kernels."""
    assert_right(found)


def test_each_number_is_touched_once(found: dict[str, Any]) -> None:
    """Of rows that are wider than a threadgroup holds twice."""
    assert {name: times for name, times in found["touched"].items() if times > 1 + name.endswith("wide")} == {}
    assert len(found["touched"]) == 18
