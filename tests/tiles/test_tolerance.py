"""How far a shader may be off: each bound from both sides, on numbers made by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from patcher.tiles.admission import tolerance
from patcher.tiles.admission.tolerance import FACTOR, FEW, MEAN, NEIGHBOURS, WIDELY

EPS = torch.finfo(torch.float32).eps
COUNT = 4 * NEIGHBOURS


def told(found: torch.Tensor, right: torch.Tensor, usual: Any = None, wide: Any = None) -> str:
    """What is wrong, where other roundings give ``usual`` and ``wide``; without them there are none."""
    one = lambda x: SimpleNamespace(written=[right if x is None else x])  # noqa: E731
    roundings: Any = SimpleNamespace(usual=[one(usual), one(usual)], wide=one(wide))
    before: Any = SimpleNamespace(written=[right], before=[torch.zeros_like(right)])
    return tolerance.difference(one(found), before, roundings)  # type: ignore[arg-type]


def off(right: torch.Tensor, places: slice | int, by: float) -> torch.Tensor:
    """With some numbers that are farther from 0 by so many steps of 1."""
    found = right.clone()
    found[places] += by * EPS
    return found


ONES = torch.ones(COUNT)


def test_a_number_may_be_two_steps_off() -> None:
    """And no more where another rounding changes nothing."""
    assert not told(off(ONES, 3, 2), ONES)
    assert told(off(ONES, 3, 3), ONES).startswith(f"1 of {COUNT} numbers of torch.float32 are off, by 1.5 times")


def test_a_number_may_be_off_by_what_rounding_does_to_its_neighbours() -> None:
    """16 times as far, beyond two steps; neighbours are the 256 of its row."""
    usual = off(ONES, slice(NEIGHBOURS), 10)
    assert FACTOR == 16 and NEIGHBOURS == 256
    assert not told(off(ONES, 3, 162), ONES, usual)
    assert told(off(ONES, 3, 163), ONES, usual)
    assert not told(off(ONES, 255, 100), ONES, usual)
    assert told(off(ONES, 256, 3), ONES, usual)


def test_numbers_of_several_sizes_are_off_by_as_many_steps() -> None:
    """Where a few are a million times as large, and off by as much."""
    right = ONES.clone()
    right[::64] = 1 << 20
    usual = right * (1 + 10 * EPS)
    usual[64] = right[64]
    found = right.clone()
    found[64] *= 1 + 100 * EPS
    assert not told(found, right, usual)
    assert told(off(right, 3, 400), right, usual)


def test_one_jump_widens_nothing() -> None:
    """Among numbers that rounding takes a step away, another one jumps."""
    usual = off(ONES, slice(None), 1)
    usual[7] = 5.0
    assert told(off(ONES, 8, 20), ONES, usual)


def test_all_together_are_off_by_less_than_one_alone() -> None:
    """All by 16 times as far is wrong, where one may be."""
    usual = off(ONES, slice(None), 100)
    assert MEAN == 8
    assert not told(off(ONES, slice(None), 840), ONES, usual)
    assert "are off together, by " in told(off(ONES, slice(None), 870), ONES, usual)


def test_another_order_of_a_sum_is_a_step_of_everything() -> None:
    """In fp32; two are wrong, where rounding changes nothing."""
    assert not told(off(ONES, slice(None), 1), ONES)
    assert told(off(ONES, slice(None), 2), ONES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_narrow_types_few_numbers_are_off(dtype: torch.dtype) -> None:
    """By chance a number of fp32 rounds to the next one: 16 times, and not 17."""
    right, step = torch.ones(COUNT, dtype=dtype), torch.finfo(dtype).eps
    for count in (2 * FEW, 2 * FEW + 1):
        found = right.clone()
        found[:count] += step
        assert bool(told(found, right)) is (count > 2 * FEW)
    usual = right.clone()
    usual[:100] += step
    found = right.clone()
    found[100:900] += step
    assert not told(found, right, usual)
    found[900:] += step
    assert told(found, right, usual)
    found = right.clone()
    found[1] += 3 * step
    assert told(found, right, usual)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32, torch.int8, torch.uint8])
def test_jumps_are_as_far_and_as_many_as_with_much_rounding(dtype: torch.dtype) -> None:
    """Wherever they are; without any none is let through."""
    right = ONES.to(dtype)
    wide, found, more, farther = (right.clone() for _ in range(4))
    wide[:5], found[10:15], more[10:16], farther[10] = 4, 4, 4, 5
    assert not told(found, right, wide=wide)
    assert told(more, right, wide=wide)
    assert told(farther, right, wide=wide)
    assert told(found, right)


def test_noise_is_no_jump() -> None:
    """What much rounding takes far away, as it takes all."""
    usual, wide = off(ONES, slice(None), 10), off(ONES, slice(None), 10 * WIDELY * FACTOR)
    assert told(off(ONES, 3, 200), ONES, usual, wide)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_least_numbers_may_be_zero(dtype: torch.dtype) -> None:
    """All of them, as GPUs take them."""
    right = torch.full((COUNT,), 1e-38, dtype=dtype)
    assert not told(torch.zeros_like(right), right)
    assert told(torch.zeros_like(right), right * 4)


def test_yes_and_no() -> None:
    """Are equal, but for jumps."""
    right = torch.zeros(COUNT, dtype=torch.bool)
    found, wide = right.clone(), right.clone()
    found[3], wide[8] = True, True
    assert told(found, right) == f"1 of {COUNT} numbers of torch.bool are others"
    assert not told(found, right, wide=wide)


def test_numbers_at_the_top_of_whole_ones_are_equal_too() -> None:
    """By 1, where fp32 has no such numbers."""
    right = torch.full((4,), (1 << 62) + 1)
    assert told(right + 1, right)
    assert not told(right.clone(), right)
