"""QK-norm with RoPE as Metal shaders."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from patcher.ops.metal import qk_norm_rope
from tests.ops.metal.variant import assert_right, found_of

pytestmark = pytest.mark.slow

FAULTS = {
    "rsqrt, a little": (("precise::rsqrt(", "1.00001f * precise::rsqrt("), torch.float32),
    "one eps for both": (("eps[place.query ? 0 : 1]", "eps[0]"), torch.float16),
    "a pair left out": (("n < HELD", "n < HELD - 7"), torch.bfloat16),
    "a norm that is not rounded": (("float(W(a * scale))", "(a * scale)"), torch.bfloat16),
    "a projection, a little": (("normed1[n] * projection", "1.0001f * normed1[n] * projection"), torch.float32),
    "no positions": (("both.indexed ?", "both.indexed > 1 ?"), torch.float32),
    "weights of queries": (("place.query ? q_weight : k_weight", "q_weight"), torch.float16),
    "not rotated back": (("true, back0", "false, back0"), torch.float32),
}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return found_of(qk_norm_rope)


def test_it_is_right_and_faults_are_noticed(found: dict[str, Any]) -> None:
    """Beside the torch variant, which other tests hold against fp64 and Unsloth's kernels."""
    assert_right(found)


def test_each_number_of_a_head_is_touched_once(found: dict[str, Any]) -> None:
    """Of a head that is wider than a simdgroup holds twice."""
    heads = [f"forward {number}" for number in (0, 1, 7, 8)] + [f"backward {number}" for number in (0, 1, 2, 3, 11, 12)]
    assert max(found["touched"][name] for name in heads) <= 2.0
