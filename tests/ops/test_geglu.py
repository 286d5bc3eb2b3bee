"""GEGLU's activations and slopes against float64; the gated unit is in test_gated_linear_unit.py."""

from __future__ import annotations

from functools import partial

import pytest
from torch.nn import functional

from patcher.ops.geglu import gelu, gelu_and_slope, gelu_tanh, gelu_tanh_and_slope
from tests.ops.activation import Unit, assert_value_and_slope

UNITS: dict[str, Unit] = {
    "exact": (gelu, gelu_and_slope, functional.gelu),
    "tanh": (gelu_tanh, gelu_tanh_and_slope, partial(functional.gelu, approximate="tanh")),
}


@pytest.mark.parametrize("name", UNITS)
def test_value_and_slope_are_those_of_float64(name: str) -> None:
    assert_value_and_slope(UNITS[name])
