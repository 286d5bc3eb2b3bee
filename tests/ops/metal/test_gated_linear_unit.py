"""SwiGLU and GEGLU as Metal shaders."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from patcher.ops.metal import gated_linear_unit
from tests.ops.metal.variant import assert_right, found_of

pytestmark = pytest.mark.slow

FAULTS = {
    "exp, a little": (("(1.0f + precise::exp(-x))", "(1.0f + 1.00001f * precise::exp(-x))"), torch.float32),
    "erf, a little": (("c10::metal::erf(e * SQRT_HALF)", "1.00001f * c10::metal::erf(e * SQRT_HALF)"), torch.float32),
    "1 - T without its digits": (("sigmoid(-v)", "(1.0f - t) * 1.0001f"), torch.float32),
    "rounded once only": (("float(D(made.x * value))", "made.x * value"), torch.bfloat16),
    "rounded once only, forward": (
        ("float(G(gate(value, unit.activation).x * value))", "gate(value, unit.activation).x * value"),
        torch.float16,
    ),
    "the last of four": (("k < EACH", "k < EACH - (place.x == 0)"), torch.bfloat16),
    "beyond the row": (("if (i < unit.columns)", "if (i <= unit.columns)"), torch.float32),
    "rows side by side": (("g += place.y * unit.strides[2]", "g += place.y * unit.columns"), torch.float16),
}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return found_of(gated_linear_unit)


def test_it_is_right_and_faults_are_noticed(found: dict[str, Any]) -> None:
    """Beside the torch variant, which other tests hold against fp64 and Unsloth's kernels."""
    assert_right(found)


def test_each_number_is_touched_once(found: dict[str, Any]) -> None:
    """Three are read and three are written."""
    assert len(found["touched"]) == 9 and max(found["touched"].values()) <= 1.0
