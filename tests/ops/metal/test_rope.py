"""RoPE as a Metal shader."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from patcher.ops.metal import rope
from tests.ops.metal.variant import assert_right, found_of

pytestmark = pytest.mark.slow

FAULTS = {
    "the other product is rounded": (
        ("out0 = C(first * c - float(C(second * s)))", "out0 = C(float(C(first * c)) - second * s)"),
        torch.bfloat16,
    ),
    "both are rounded": (
        ("C(first * s + float(C(second * c)))", "C(float(C(first * s)) + float(C(second * c)))"),
        torch.float16,
    ),
    "forth is back": (("s = transpose ? -s : s", "s = s"), torch.float32),
    "no positions": (("rope.indexed ?", "rope.indexed > 1 ?"), torch.float32),
    "the next token": (("place.z % tokens", "(place.z + 1) % tokens"), torch.float32),
    "keys as queries": (("(query ? q : k)", "q"), torch.float32),
    "a table of 16 bits": (("float(C(cosines", "float(X(cosines"), torch.float16),
}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return found_of(rope)


def test_it_is_right_and_faults_are_noticed(found: dict[str, Any]) -> None:
    """Beside the torch variant, which other tests hold against fp64 and Unsloth's kernels."""
    assert_right(found)


def test_each_number_of_a_head_is_touched_once(found: dict[str, Any]) -> None:
    """The tables are read by each head, from the cache."""
    assert max(found["touched"][f"rotated {number}"] for number in range(4)) <= 1.0
