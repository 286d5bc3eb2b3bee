"""Sorting leaves equal elements in the order of torch's Metal kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cmp_to_key

import pytest
import torch

Slot = tuple[float, int]
"""What a lane holds: a value, and its index in the row; padding has the index -1."""

NAN = float("nan")


def before(first: Slot, second: Slot, descending: bool) -> bool:
    """c10/metal/utils.h, ``less``: NaN is larger than everything."""
    a, b = (second[0], first[0]) if descending else (first[0], second[0])
    return not math.isnan(a) and (math.isnan(b) or a < b)


def is_first(mine: Slot, other: Slot, when_equal: bool, descending: bool) -> bool:
    """Of a lane's slot and the one that it is compared with. Padding lies behind what is equal to it."""
    if before(mine, other, descending) or before(other, mine, descending):
        return before(mine, other, descending)
    if (mine[1] < 0) != (other[1] < 0):
        return other[1] < 0
    return when_equal


def of_one_simd_group(slots: list[Slot], descending: bool) -> list[Slot]:
    """SortMerge.h, ``simd_bitonic_sort4``, as its 32 lanes see it: each decides alone what it keeps of two."""
    length = 2
    while length <= 128:
        offset = length // 2
        while offset:
            after = []
            for position, mine in enumerate(slots):
                other, upwards = slots[position ^ offset], position & length == 0
                low = position & offset == 0
                if offset < 4 and not low:  # within a lane the first of the two decides
                    first = is_first(other, mine, False, descending)
                    after.append(other if first != upwards else mine)
                elif offset < 4:
                    first = is_first(mine, other, False, descending)
                    after.append(other if first != upwards else mine)
                else:
                    first = is_first(mine, other, low, descending)
                    after.append(other if first != (upwards == low) else mine)
            slots, offset = after, offset // 2
        length *= 2
    return slots


def order(row: Sequence[float], descending: bool) -> list[int]:
    """The indices of a row that the merge sort sorts."""
    slots = [(float(value), index) for index, value in enumerate(row)]
    padding = (-math.inf if descending else NAN, -1)
    sorted_slots = []
    for start in range(0, len(slots), 128):
        chunk = slots[start : start + 128]
        sorted_slots += of_one_simd_group(chunk + [padding] * (128 - len(chunk)), descending)
    sign = cmp_to_key(lambda a, b: before(b, a, descending) - before(a, b, descending))
    return [index for _, index in sorted(sorted_slots, key=sign) if index >= 0]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("size", [2, 5, 100, 300])
def test_equal_elements_come_as_the_metal_kernel_leaves_them(size: int, descending: bool) -> None:
    """Of floats with NaN and infinity, integers and bool, the indices of a row are those of 32 lanes of 4."""
    torch.manual_seed(size)
    floats = torch.tensor([1.0, 2.0, 3.0, NAN, math.inf, -math.inf])[torch.randint(6, (size,))]
    for row in (floats, floats.half(), torch.randint(-2, 3, (size,)), torch.randint(2, (size,), dtype=torch.bool)):
        values, indices = torch.sort(row.expand(2, size).to("mps"), descending=descending)
        expected = order(row.tolist(), descending)
        assert indices.tolist() == [expected, expected]
        assert torch.equal(values.cpu().nan_to_num(), row[expected].nan_to_num().expand(2, size))


def test_every_dimension_and_its_relatives() -> None:
    """argsort and ``out=`` too; columns are sorted as rows are."""
    x = torch.randint(3, (20, 3), generator=torch.Generator().manual_seed(0))
    expected = torch.tensor([order(column.tolist(), False) for column in x.t()]).t()
    assert torch.equal(x.to("mps").argsort(0).cpu(), expected)
    values, indices = torch.empty_like(x, device="mps"), torch.empty_like(x, device="mps")
    torch.sort(x.to("mps"), dim=0, out=(values, indices))
    assert torch.equal(indices.cpu(), expected) and torch.equal(values.cpu(), x.gather(0, expected))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.int16, torch.float16, torch.float32])
def test_a_stable_order_is_the_cpus(dtype: torch.dtype) -> None:
    """Where it is asked for, and for long rows, which the radix sort takes and leaves in their order."""
    generator = torch.Generator().manual_seed(1)
    short, long = (torch.randint(2, (size,), generator=generator).to(dtype) for size in (50, 40_000))
    for x, stable in ((short, True), (long, True), (long, False)):
        ours = torch.sort(x.to("mps"), stable=stable, descending=True)
        theirs = torch.sort(x, stable=True, descending=True)
        assert torch.equal(ours.indices.cpu(), theirs.indices) and torch.equal(ours.values.cpu(), theirs.values)


def test_the_radix_sort_puts_minus_zero_first() -> None:
    """It sorts floats by their bits (SortRadix.h, ``to_radix_key``)."""
    x = torch.tensor([0.0, -0.0, 1.0, -0.0] * 512, dtype=torch.bfloat16)
    values, indices = torch.sort(x.to("mps"))
    zeros = [i for i in range(2048) if i % 4 in (1, 3)] + [i for i in range(2048) if i % 4 == 0]
    assert indices[:1536].tolist() == zeros
    assert values[:1536].signbit().tolist() == [True] * 1024 + [False] * 512


def test_different_elements_are_the_cpus() -> None:
    """Nothing is left to chance there; gradients go where the elements came from."""
    x = torch.randperm(300, generator=torch.Generator().manual_seed(2)).float()
    here, there = x.to("mps").requires_grad_(), x.clone().requires_grad_()
    weight = torch.arange(300.0)
    (torch.msort(here) * weight.to("mps")).sum().backward()
    (torch.msort(there) * weight).sum().backward()
    assert here.grad is not None and there.grad is not None and torch.equal(here.grad.cpu(), there.grad)
