"""SwiGLU's activation and slope against float64, from -30 to 30; the gated unit is in test_gated_linear_unit.py."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from patcher.ops.swiglu import silu, silu_and_slope

UNITS = {"silu": (silu, silu_and_slope, functional.silu)}


@pytest.mark.parametrize("name", UNITS)
def test_value_and_slope_are_those_of_float64(name: str) -> None:
    """Within 4 eps of 1 + abs(e): terms as large cancel, such as e * (1 - sigmoid(e)). The input is left alone."""
    value, value_and_slope, reference = UNITS[name]
    e = torch.linspace(-30, 30, 6001)
    leaf = e.double().requires_grad_()
    exact = reference(leaf)
    (slope,) = torch.autograd.grad(exact.sum(), leaf)
    given = e.clone()
    f, found = value_and_slope(given)
    assert torch.equal(given, e) and torch.equal(value(given), f) and torch.equal(given, e)
    for ours, right in ((f, exact.detach()), (found, slope)):
        error = (ours.double() - right).abs() / (1 + e.double().abs())
        assert error.max() <= 4 * torch.finfo(torch.float32).eps
