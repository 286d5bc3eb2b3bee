"""LayerNorm as Metal shaders."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from patcher.ops.metal import layer_norm
from tests.ops.metal.variant import assert_right, found_of

pytestmark = pytest.mark.slow

BARRIER = "    threadgroup_barrier(mem_flags::mem_threadgroup);\n"
FAULTS = {
    "rsqrt, a little": (("precise::rsqrt(", "1.00001f * precise::rsqrt("), torch.float32),
    "a dropped barrier": ((f"{BARRIER}    if (tid % 32 == 0)", "    if (tid % 32 == 0)"), torch.float32),
    "twice eps": (("+ eps", "+ 2 * eps"), torch.float16),
    "the mean of the squares": (("turn ? centred * centred", "turn ? held[k] * held[k]"), torch.float32),
    "no offset": (("- offset", ""), torch.bfloat16),
    "a bias where there is none": (("norm.biased ?", "true ?"), torch.float16),
    "rows of the bias' gradient": (("sum += flowing;", "sum += row > 5 ? 0.0f : flowing;"), torch.bfloat16),
}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return found_of(layer_norm)


def test_it_is_right_and_faults_are_noticed(found: dict[str, Any]) -> None:
    """Beside the torch variant, which other tests hold against fp64 and Unsloth's kernels."""
    assert_right(found)


def test_each_number_is_touched_once(found: dict[str, Any]) -> None:
    """Of rows that are wider than a threadgroup holds once for each pass."""
    assert {name for name, times in found["touched"].items() if times > 1 + 2 * name.endswith("wide")} == set()
    assert len(found["touched"]) == 14
