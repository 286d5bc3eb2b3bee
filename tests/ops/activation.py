"""An activation and its slope against float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Unit = tuple[Callable[..., Tensor], Callable[..., tuple[Tensor, Tensor]], Callable[..., Tensor]]
"""What gives the value, what gives value and slope, and torch's own."""


def assert_value_and_slope(unit: Unit) -> None:
    """From -30 to 30, within 4 eps of 1 + abs(e): terms as large cancel. The input is left alone."""
    value, value_and_slope, reference = unit
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
