"""SwiGLU's activation and slope against float64; the gated unit is in test_gated_linear_unit.py."""

from __future__ import annotations

from torch.nn import functional

from patcher.ops.swiglu import silu, silu_and_slope
from tests.ops.activation import assert_value_and_slope


def test_value_and_slope_are_those_of_float64() -> None:
    assert_value_and_slope((silu, silu_and_slope, functional.silu))
