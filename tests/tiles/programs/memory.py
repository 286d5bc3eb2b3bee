"""Loads and stores: masks, other, dtypes, strides, pointers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch.testing import assert_close

from tests.tiles.registry import DTYPES, Make, case


@triton.jit
def copy_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    tl.store(out_ptr + at, tl.load(x_ptr + at, mask=mask), mask=mask)


@case(each=DTYPES)
def copies(make: Make, dtype: str) -> torch.Tensor:
    """A masked copy over several programs, the last one partly outside, in every dtype."""
    kind = getattr(torch, dtype)
    x, out = make.values(100, kind), make.out(110, dtype=kind)
    copy_kernel[(4,)](x, out, 100, BLOCK=32)
    assert torch.equal(out[:100], x)
    return out


@triton.jit
def other_kernel(x_ptr, out_ptr, n, fill, N: tl.constexpr):
    at = tl.arange(0, N)
    mask = at < n
    tl.store(out_ptr + at, tl.load(x_ptr + at, mask=mask, other=0))
    tl.store(out_ptr + N + at, tl.load(x_ptr + at, mask=mask, other=7))
    tl.store(out_ptr + 2 * N + at, tl.load(x_ptr + at, mask, fill))
    tl.store(out_ptr + 3 * N + at, tl.load(x_ptr + at, mask=mask, other=at * 2))
    tl.store(out_ptr + 4 * N + at, tl.load(x_ptr + at, mask=mask, other=1.75))


@case(each=("int8", "int32", "uint8", "int64", "float16", "bfloat16", "float32", "float64"))
def other_values(make: Make, dtype: str) -> torch.Tensor:
    """``other`` as number, argument and block; it takes the dtype of what is loaded."""
    kind = getattr(torch, dtype)
    out = make.out(5, 32, dtype=kind)
    other_kernel[(1,)](make.values(20, kind), out, 20, 9, 32)
    return out


@triton.jit
def infinite_other_kernel(x_ptr, out_ptr, n, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at, mask=at < n, other=-float("inf"))
    tl.store(out_ptr + at, x)
    tl.store(out_ptr + N, tl.max(x, axis=0))


@case(each=("float16", "bfloat16", "float32"))
def infinite_other(make: Make, dtype: str) -> torch.Tensor:
    """``-float("inf")`` beside the mask."""
    kind = getattr(torch, dtype)
    out = make.out(33, dtype=kind)
    infinite_other_kernel[(1,)](make.values(20, kind), out, 20, 32)
    return out


@triton.jit
def nothing_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    nothing = at > N
    x = tl.load(x_ptr + at + 1000000, mask=nothing, other=5.0)
    tl.store(out_ptr + at, x)
    tl.store(out_ptr + at - 1000000, x, mask=nothing)
    tl.store(out_ptr + at, 1.0, mask=False)


@case
def masks_all_false(make: Make) -> torch.Tensor:
    """What no mask lets through may point anywhere."""
    out = make.out(16)
    nothing_kernel[(1,)](make.floats(16), out, 16)
    return out


@triton.jit
def scalar_kernel(x_ptr, n_ptr, out_ptr):
    pid = tl.program_id(0)
    n = tl.load(n_ptr)
    x = tl.load(x_ptr + pid)
    if pid < n:
        tl.store(out_ptr + pid, x * 2 + n)
    tl.store(out_ptr + 8 + pid, 3, mask=pid % 2 == 0)
    tl.store(out_ptr + 16 + pid, tl.load(x_ptr + pid, mask=pid > 3, other=-1.0))


@case
def scalars(make: Make) -> torch.Tensor:
    """Single elements are loaded and stored, also under a mask."""
    x, out = make.floats(8), make.out(24)
    scalar_kernel[(8,)](x, torch.tensor([5], dtype=torch.int32), out)
    assert_close(out[:5], x[:5] * 2 + 5)
    return out


@triton.jit
def fill_kernel(out_ptr, value, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, value)
    tl.store(out_ptr + N + at, 2.5)
    tl.store(out_ptr + 2 * N + at, at)
    tl.store(out_ptr + 3 * N + at, at > 4)


@case(each=DTYPES)
def stores_convert(make: Make, dtype: str) -> torch.Tensor:
    """What is stored takes the dtype of the pointer, and the shape of the pointers."""
    out = make.out(4, 16, dtype=getattr(torch, dtype))
    fill_kernel[(1,)](out, 3, 16)
    return out


@triton.jit
def transpose_kernel(x_ptr, out_ptr, rows, columns, xr, xc, our, ouc, M: tl.constexpr, N: tl.constexpr):
    row = tl.program_id(0) * M + tl.arange(0, M)
    column = tl.program_id(1) * N + tl.arange(0, N)
    mask = (row[:, None] < rows) & (column[None, :] < columns)
    x = tl.load(x_ptr + row[:, None] * xr + column[None, :] * xc, mask=mask, other=0.0)
    tl.store(out_ptr + row[:, None] * our + column[None, :] * ouc, x, mask=mask)


@case
def strides(make: Make) -> torch.Tensor:
    """A transposed view, read by its strides, in blocks that reach over both edges."""
    x, out = make.floats(13, 21).t(), make.out(21, 13)
    transpose_kernel[(3, 2)](x, out, 21, 13, x.stride(0), x.stride(1), out.stride(0), out.stride(1), M=8, N=8)
    assert torch.equal(out, x)
    return out


@case
def strides_with_steps(make: Make) -> torch.Tensor:
    """Every second row and third column of a larger tensor, written into a slice of another one."""
    base = make.out(20, 30)
    x, out = make.floats(26, 63)[::2, ::3], base[4:17, 5:26]
    transpose_kernel[(2, 3)](x, out, 13, 21, x.stride(0), x.stride(1), out.stride(0), out.stride(1), M=8, N=8)
    assert torch.equal(out, x)
    return base


@triton.jit
def backwards_kernel(x_ptr, out_ptr, n, N: tl.constexpr):
    at = tl.arange(0, N)
    end = x_ptr + n - 1
    tl.store(out_ptr + at, tl.load(end - at))
    tl.store(out_ptr + N + at, tl.load(x_ptr + (n - 1 - at)))
    tl.store(out_ptr + 2 * N + at, tl.load(end + -2 * at, mask=at < n // 2, other=0))


@case
def negative_offsets(make: Make) -> torch.Tensor:
    """Pointers go backwards."""
    x, out = make.floats(16), make.out(3, 16)
    backwards_kernel[(1,)](x, out, 16, 16)
    assert torch.equal(out[0], x.flip(0))
    return out


@triton.jit
def neighbours_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, tl.load(x_ptr + at - 2) + tl.load(x_ptr + at + 2))


@case
def view_with_an_offset(make: Make) -> torch.Tensor:
    """A view's pointer is its first element; its neighbours in the storage can be reached."""
    x, base = make.floats(32), make.out(32)
    neighbours_kernel[(1,)](x[4:20], base[8:24], 16)
    assert torch.equal(base[8:24], x[2:18] + x[6:22])
    return base


@triton.jit
def walk_kernel(x_ptr, out_ptr, steps, stride, N: tl.constexpr):
    at = tl.arange(0, N)
    pointers = x_ptr + at
    total = tl.zeros([N], dtype=tl.float32)
    for _ in range(steps):
        total += tl.load(pointers)
        pointers += stride
    tl.store(out_ptr + at, total)
    out_ptr += N
    x_ptr += stride
    tl.store(out_ptr + at, tl.load(x_ptr + at))


@case
def pointers_that_walk(make: Make) -> torch.Tensor:
    """Pointers, single and in blocks, are moved on in a loop and after it."""
    x, out = make.floats(5, 24), make.out(2, 16)
    walk_kernel[(1,)](x, out, 5, x.stride(0), 16)
    return out


@triton.jit
def wide_kernel(x_ptr, index_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    index = tl.load(index_ptr + at)
    row = tl.load(x_ptr + index.to(tl.int64) * 4)
    tl.store(out_ptr + index, row)


@case(each=("uint8", "int16", "int32", "int64"))
def indexed(make: Make, dtype: str) -> torch.Tensor:
    """Pointers by indices that were loaded."""
    x, out = make.floats(16, 4), make.out(16)
    wide_kernel[(1,)](x, make.permutation(16).to(getattr(torch, dtype)), out, 16)
    assert torch.equal(out, x[:, 0])
    return out


@triton.jit
def unsigned_offset_kernel(x_ptr, index_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out_ptr + at, tl.load(x_ptr + tl.load(index_ptr + at)))


@case
def unsigned_offsets(make: Make) -> torch.Tensor:
    """An index of uint8 above 127 is no negative one."""
    x, out = make.floats(256), make.out(16)
    index = (torch.arange(16) + 200).to(torch.uint8)
    unsigned_offset_kernel[(1,)](x, index, out, 16)
    assert torch.equal(out, x[200:216])
    return out


@triton.jit
def swap_kernel(x_ptr, N: tl.constexpr):
    at = tl.program_id(0) * N + tl.arange(0, N)
    x = tl.load(x_ptr + at)
    tl.store(x_ptr + at, x * 2)
    again = tl.load(x_ptr + at)
    tl.store(x_ptr + at, again + 1)


@case
def in_place(make: Make) -> torch.Tensor:
    """What was stored is seen by the next load of the same program."""
    x = make.floats(64)
    expected = x * 2 + 1
    swap_kernel[(4,)](x, 16)
    assert torch.equal(x, expected)
    return x


@triton.jit
def aliased_kernel(x_ptr, y_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    tl.store(y_ptr + at, x + 1)
    tl.store(x_ptr + N + at, tl.load(x_ptr + at) * 10)


@case
def two_views_of_one_storage(make: Make) -> torch.Tensor:
    """A store through one view is seen through the other."""
    base = make.floats(64)
    aliased_kernel[(1,)](base[0:32], base[8:40], 16)
    return base


@triton.jit
def element_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at).to(tl.float32)
    y = (x * 1.5).to(out_ptr.dtype.element_ty)
    tl.static_assert(y.dtype == out_ptr.type.element_ty)
    tl.store(out_ptr + at, y)
    zeros = tl.zeros([N], dtype=x_ptr.dtype.element_ty)
    tl.store(out_ptr + N + at, zeros + 1)


@case(each=("float16", "bfloat16", "float32", "int32"))
def element_types(make: Make, dtype: str) -> torch.Tensor:
    """``pointer.dtype.element_ty`` is the dtype behind a pointer."""
    kind = getattr(torch, dtype)
    out = make.out(2, 16, dtype=kind)
    element_kernel[(1,)](make.values(16, kind), out, 16)
    return out


@triton.jit
def hinted_kernel(x_ptr, out_ptr, n, N: tl.constexpr):
    pid = tl.program_id(axis=0)
    start = tl.multiple_of(pid * N, N)
    at = tl.max_contiguous(tl.multiple_of(start + tl.arange(0, N), N), N)
    tl.assume(n > 0)
    x = tl.load(x_ptr + at, mask=at < n, cache_modifier=".ca", eviction_policy="evict_last", volatile=True)
    tl.debug_barrier()
    tl.store(out_ptr + at, x, mask=at < n, cache_modifier=".wb", eviction_policy="evict_first")


@case
def hints(make: Make) -> torch.Tensor:
    """Hints to the compiler change nothing."""
    x, out = make.floats(40), make.out(48)
    hinted_kernel[(3,)](x, out, 40, 16)
    assert torch.equal(out[:40], x)
    return out


@triton.jit
def reinterpret_kernel(x_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    bits = x_ptr.to(tl.pointer_type(tl.int32), bitcast=True)
    tl.store(out_ptr + at, tl.load(bits + at))


@case
def pointers_of_another_dtype(make: Make) -> torch.Tensor:
    """A pointer cast to another dtype reads the bits."""
    x, out = make.floats(16), make.out(16, dtype=torch.int32)
    reinterpret_kernel[(1,)](x, out, 16)
    assert torch.equal(out, x.view(torch.int32))
    return out


@triton.jit
def choose_pointer_kernel(x_ptr, y_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    pid = tl.program_id(0)
    source = x_ptr
    if pid == 1:
        source = y_ptr
    tl.store(out_ptr + pid * N + at, tl.load(source + at))


@case
def pointer_chosen_by_a_program(make: Make) -> torch.Tensor:
    """Programs take one tensor or another."""
    x, y, out = make.floats(16), make.floats(16), make.out(3, 16)
    choose_pointer_kernel[(3,)](x, y, out, 16)
    assert torch.equal(out, torch.stack([x, y, x]))
    return out


@triton.jit
def broadcast_kernel(x_ptr, out_ptr, M: tl.constexpr, N: tl.constexpr):
    rows = tl.arange(0, M)
    columns = tl.arange(0, N)
    x = tl.load(x_ptr + rows[:, None], mask=columns[None, :] < 6, other=0.5)
    tl.store(out_ptr + rows[:, None] * N + columns[None, :], x, mask=(rows < 3)[:, None])


@case
def masks_are_broadcast(make: Make) -> torch.Tensor:
    """Pointers of (M, 1) with a mask of (1, N), and pointers of (M, N) with a mask of (M, 1)."""
    out = make.out(4, 8)
    broadcast_kernel[(1,)](make.floats(4), out, 4, 8)
    return out


@triton.jit
def rows_kernel(x_ptr, rows_ptr, out_ptr, turns, M: tl.constexpr, N: tl.constexpr):
    i, j = tl.arange(0, M), tl.arange(0, N)
    place = x_ptr + tl.load(rows_ptr + i)[:, None] * N + j[None, :]
    target = out_ptr + tl.load(rows_ptr + i)[None, :] + j[:, None] * M
    total = tl.zeros((M, N), tl.float32)
    for _ in range(turns):
        total += tl.load(place)
        tl.store(target, tl.trans(total))
        place += M * N
        target += M * N


@case
def pointers_that_a_loop_moves(make: Make) -> torch.Tensor:
    """Rows by a list of them; what is read and what is written have different orders."""
    x, rows, out = make.floats(3, 64, 64), make.permutation(64), make.out(3, 64, 64)
    rows_kernel[(1,)](x, rows, out, 3, 64, 64)
    return out


@triton.jit
def moved_in_place_kernel(x_ptr, rows_ptr, M: tl.constexpr, N: tl.constexpr):
    i, j = tl.arange(0, M), tl.arange(0, N)
    place = (x_ptr + tl.load(rows_ptr + i)[:, None] * N + j[None, :]).to(tl.pointer_type(tl.int32))
    for _ in range(2):
        x = tl.load(place).to(tl.float32, bitcast=True) * 2
        tl.store(place, x.to(tl.int32, bitcast=True))


@case
def pointers_of_another_type_that_a_loop_keeps(make: Make) -> torch.Tensor:
    """Through which is read and written."""
    x, rows = make.floats(32, 64), make.permutation(32)
    expected = x * 4
    moved_in_place_kernel[(1,)](x, rows, 32, 64)
    assert torch.equal(x, expected)
    return x


@triton.jit
def one_of_two_kernel(x_ptr, y_ptr, rows_ptr, out_ptr, n, M: tl.constexpr, N: tl.constexpr):
    i, j = tl.arange(0, M), tl.arange(0, N)
    source = x_ptr if n > 0 else y_ptr
    place = source + tl.load(rows_ptr + i)[:, None] * N + j[None, :]
    total = tl.zeros((M, N), tl.float32)
    for _ in range(2):
        total += tl.load(place)
        place += 1
    tl.store(out_ptr + i[:, None] * N + j[None, :], total)


@case
def pointers_into_one_of_two_tensors(make: Make) -> torch.Tensor:
    """Which one is known when the program runs."""
    x, y, rows, out = make.floats(33, 32), make.floats(33, 32), make.permutation(32), make.out(32, 32)
    one_of_two_kernel[(1,)](x, y, rows, out, 3, 32, 32)
    return out
