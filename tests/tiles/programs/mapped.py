"""Functions of single elements over blocks."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from tests.tiles.registry import Make, case

NOT_INTERPRETED = "the interpreter has no map_elementwise"


@triton.jit
def order(x, y):
    if x < y:
        return -1
    elif x == y:
        return 0
    else:
        return 1


@triton.jit
def steps(n):
    count = 0
    while n > 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        count += 1
    return count


@triton.jit
def both(a0, a1, a2, a3, b0, b1, b2, b3):
    return a0 + b0, a1 + b1, a2 + b2, a3 + b3, a0 - b3, a1 - b2, a2 - b1, a3 - b0


@triton.jit
def mapped_kernel(x_ptr, y_ptr, orders_ptr, steps_ptr, sums_ptr, rest_ptr, M: tl.constexpr, N: tl.constexpr):
    at = (tl.program_id(0) * M + tl.arange(0, M))[:, None] * N + tl.arange(0, N)[None, :]
    x, y = tl.load(x_ptr + at), tl.load(y_ptr + at)
    tl.store(orders_ptr + at, tl.map_elementwise(order, x, y))
    if tl.program_id(0) != 1:
        tl.store(steps_ptr + at, tl.map_elementwise(steps, x))
    sums, rest = tl.map_elementwise(both, x, y, pack=4)
    tl.store(sums_ptr + at, sums)
    tl.store(rest_ptr + at, rest)


def turns(n: int) -> int:
    """How often `steps` turns."""
    count = 0
    while n > 1:
        n, count = n // 2 if n % 2 == 0 else 3 * n + 1, count + 1
    return count


@case(instead=NOT_INTERPRETED)
def branches_loops_and_packs(make: Make) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Early returns, a loop of its own length for each element, and four elements at once."""
    x, y = (make.ints(12, 8, low=1, high=99, dtype=torch.int32) for _ in range(2))
    orders, counts, sums, rest = (make.out(12, 8, dtype=torch.int32) for _ in range(4))
    expected = counts.clone()
    mapped_kernel[(3,)](x, y, orders, counts, sums, rest, 4, 8)
    for row in (*range(4), *range(8, 12)):
        expected[row] = torch.tensor([turns(n) for n in x[row].tolist()])
    backwards = y.reshape(-1, 4).flip(1).reshape(12, 8)
    return (orders, counts, sums, rest), (torch.sign(x - y), expected, x + y, x - backwards)
