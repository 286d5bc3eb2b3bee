"""Rounding is let through, and nothing else is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from patcher.ops.variants.tolerance import difference, noise

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def _numbers(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(50, 40, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("length", [32, 1024, 128256])
def test_another_order_of_a_sum_is_let_through(length: int) -> None:
    """32 lanes that add up one after the other, beside fp64; and what the bound is beside, a term left out."""
    x = torch.randn(64, length, generator=torch.Generator().manual_seed(2))
    lanes = torch.zeros(64, 32)
    for part in x.abs().split(32, 1):
        lanes[:, : part.shape[1]] += part
    exact = x.abs().double().sum(1).float()
    assert difference(lanes.sum(1), exact, length=length) == ""
    assert noise(length) < 1 / length or length > 10_000


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_few_next_numbers_are_let_through_and_many_are_not(dtype: torch.dtype) -> None:
    """In 16 bits a step of one of a hundred numbers; of every tenth it is a rounding at another place."""
    right = _numbers(dtype)
    few, many = right.clone(), right.clone()
    for x, every in ((few, 100), (many, 10)):
        x.view(-1).view(torch.int32 if dtype == torch.float32 else torch.int16)[::every] += 1
    assert difference(few, right, length=1) == ""
    assert bool(difference(many, right, length=1)) == (dtype != torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_steps_of_one_number_are_wrong(dtype: torch.dtype) -> None:
    """In fp32 what is more than noise."""
    right = _numbers(dtype)
    wrong = right.clone()
    largest = right[3].abs().argmax()
    wrong[3, largest] *= 1 + (40 if dtype == torch.float32 else 2.5) * torch.finfo(dtype).eps
    assert difference(wrong, right, length=1).startswith("1 of 2000 numbers")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_the_same(value: float) -> None:
    """At the same places, and nowhere else."""
    right = _numbers()
    right[2, 3] = value
    assert difference(right.clone(), right, length=1) == ""
    for place, other in (((2, 3), 1.0), ((2, 3), -value), ((4, 5), value)):
        wrong = right.clone()
        wrong[place] = other
        same = other != other and value != value and place == (2, 3)
        assert bool(difference(wrong, right, length=1)) != same


def test_another_type_or_shape_is_wrong() -> None:
    """Both are named."""
    right = _numbers()
    assert "float16" in difference(right.half(), right, length=1)
    assert "(40,)" in difference(right[0], right, length=1)


def test_what_is_exponentiated_may_be_off_by_its_size() -> None:
    """exp(z - top) in fp32, of z that was rounded before, beside fp64; and no more than that."""
    z = torch.linspace(-30, 30, 997)[:, None]
    exact = (z.double() - 0.1).exp().float()
    found = (z + 100.1 - 100.2).exp()
    assert difference(found, exact, length=1, exponent=100) == ""
    assert difference(found, exact, length=1) != ""
