"""Block pointers, as Triton had them until 3.8, and tensor descriptors."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from tests.tiles.registry import EPS32, Make, case

REMOVED = "Triton 3.9 has no block pointers"


@triton.jit
def block_pointer_kernel(x_ptr, out_ptr, rows, columns, xr, xc, M: tl.constexpr, N: tl.constexpr):
    offsets = (tl.program_id(0) * M, tl.program_id(1) * N)
    source = tl.make_block_ptr(
        base=x_ptr, shape=(rows, columns), strides=(xr, xc), offsets=offsets, block_shape=(M, N), order=(1, 0)
    )
    target = tl.make_block_ptr(out_ptr, (rows, columns), (columns, 1), offsets, (M, N), (1, 0))
    x = tl.load(source, boundary_check=(0, 1), padding_option="zero")
    tl.store(target, (x + 1).to(out_ptr.dtype.element_ty), boundary_check=(0, 1))


@case(instead=REMOVED)
def block_pointers(make: Make) -> tuple[torch.Tensor, torch.Tensor]:
    """Blocks that reach over the edges of a transposed matrix."""
    x, out = make.floats(21, 13).t(), make.out(13, 21)
    block_pointer_kernel[(2, 2)](x, out, 13, 21, x.stride(0), x.stride(1), M=8, N=16)
    return out, x + 1


@triton.jit
def advance_kernel(x_ptr, out_ptr, rows, columns, M: tl.constexpr, N: tl.constexpr):
    block = tl.make_block_ptr(x_ptr, (rows, columns), (columns, 1), (0, 0), (M, N), (1, 0))
    total = tl.zeros((M,), dtype=tl.float32)
    for _ in range(0, tl.cdiv(columns, N)):
        total += tl.sum(tl.load(block, boundary_check=(1,)), axis=1)
        block = tl.advance(block, (0, N))
    tl.store(tl.make_block_ptr(out_ptr, (rows,), (1,), (0,), (M,), (0,)), total, boundary_check=(0,))


@case(
    instead=REMOVED,
    rtol=1e-5,
    atol=1e-5,
    because="21 terms summed in another order: 21 units of 2**-24 of sums below 5",
)
def block_pointers_advance(make: Make) -> tuple[torch.Tensor, torch.Tensor]:
    """A block pointer walks along rows; a block pointer of one dimension stores."""
    x, out = make.floats(8, 21), make.out(8)
    advance_kernel[(1,)](x, out, 8, 21, M=8, N=8)
    return out, x.sum(1)


@triton.jit
def padding_kernel(x_ptr, out_ptr, n, N: tl.constexpr):
    block = tl.make_block_ptr(x_ptr, (n,), (1,), (-4,), (N,), (0,))
    x = tl.load(block, boundary_check=(0,), padding_option="nan")
    tl.store(out_ptr + tl.arange(0, N), x)


@case(instead=REMOVED)
def block_pointers_pad_with_nan(make: Make) -> tuple[torch.Tensor, torch.Tensor]:
    """Outside, also before the first element, is NaN."""
    x, out = make.floats(8), make.out(16)
    padding_kernel[(1,)](x, out, 8, 16)
    nan = torch.full((4,), float("nan"))
    return out, torch.cat([nan, x, nan])


@triton.jit
def descriptor_kernel(x_ptr, out_ptr, rows, columns, M: tl.constexpr, N: tl.constexpr):
    source = tl.make_tensor_descriptor(x_ptr, shape=[rows, columns], strides=[columns, 1], block_shape=[M, N])
    target = tl.make_tensor_descriptor(out_ptr, shape=[rows, columns], strides=[columns, 1], block_shape=[M, N])
    tl.static_assert(isinstance(target, tl.tensor_descriptor) and not isinstance(x_ptr, tl.tensor_descriptor))
    row = tl.program_id(0) * M
    column = tl.program_id(1) * N
    target.store([row, column], source.load([row, column]) * 2)


@case
def descriptors(make: Make) -> torch.Tensor:
    """Tensor descriptors load zeros outside, and store nothing there."""
    x, out = make.floats(13, 20), make.out(13, 20)
    descriptor_kernel[(2, 2)](x, out, 13, 20, M=8, N=16)
    assert torch.equal(out, x * 2)
    return out


@triton.jit
def descriptor_sum_kernel(x_ptr, out_ptr, rows, columns, M: tl.constexpr, N: tl.constexpr):
    source = tl.make_tensor_descriptor(x_ptr, [rows, columns], [columns, 1], [M, N])
    total = tl.zeros([M, N], dtype=tl.float32)
    for column in range(0, columns, N):
        total += source.load([0, column])
    at = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(out_ptr + at, total)


@case
def descriptors_in_a_loop(make: Make) -> torch.Tensor:
    """Zeros from outside do not change a sum."""
    x, out = make.floats(6, 20), make.out(8, 8)
    descriptor_sum_kernel[(1,)](x, out, 6, 20, M=8, N=8)
    return out


@triton.heuristics({"RAGGED": lambda given: given["starts_ptr"] is not None})
@triton.jit(do_not_specialize=["length"])
def chunks_kernel(
    q, k, v, out, starts_ptr, length, scale, H: tl.constexpr, D: tl.constexpr, T: tl.constexpr, RAGGED: tl.constexpr
):
    sequence, head = tl.program_id(0) // H, tl.program_id(0) % H
    if RAGGED:
        first, last = tl.load(starts_ptr + sequence).to(tl.int32), tl.load(starts_ptr + sequence + 1).to(tl.int32)
        length = last - first
    else:
        first = sequence * length
    offset = (first * H + head) * D
    order = tl.arange(0, T)
    state = tl.zeros([D, D], dtype=tl.float32)
    for i in range(tl.cdiv(length, T)):
        q_block = tl.make_block_ptr(q + offset, (length, D), (H * D, 1), (i * T, 0), (T, D), (1, 0))
        k_block = tl.make_block_ptr(k + offset, (D, length), (1, H * D), (0, i * T), (D, T), (0, 1))
        v_block = tl.make_block_ptr(v + offset, (length, D), (H * D, 1), (i * T, 0), (T, D), (1, 0))
        out_block = tl.make_block_ptr(out + offset, (length, D), (H * D, 1), (i * T, 0), (T, D), (1, 0))
        b_q = tl.load(q_block, boundary_check=(0, 1)) * scale
        b_k = tl.load(k_block, boundary_check=(0, 1))
        b_v = tl.load(v_block, boundary_check=(0, 1))
        scores = tl.where(order[:, None] >= order[None, :], tl.dot(b_q, b_k), 0)
        b_out = tl.dot(scores, b_v) + tl.dot(b_q, state)
        state += tl.dot(b_k, b_v)
        tl.store(out_block, b_out.to(out_block.dtype.element_ty), boundary_check=(0, 1))


@case(
    each=(False, True),
    instead=REMOVED,
    rtol=64 * EPS32,
    atol=64 * EPS32 * 8,
    because="three products, summed over 16 channels and 27 positions, of values below 8",
)
def linear_attention(make: Make, ragged: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """In chunks of 16 with a state between them; sequences of one length, or of several lengths in one tensor."""
    starts = torch.tensor([0, 13, 40]) if ragged else torch.tensor([0, 20, 40])
    q, k, v = (make.floats(40, 2, 16) for _ in range(3))
    out = make.out(40, 2, 16)
    chunks_kernel[(4,)](q, k, v, out, starts if ragged else None, 20, 0.25, H=2, D=16, T=16)
    expected = torch.zeros(40, 2, 16)
    for first, last in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        scores = torch.einsum("ihd,jhd->hij", q[first:last] * 0.25, k[first:last]).tril()
        expected[first:last] = torch.einsum("hij,jhd->ihd", scores, v[first:last])
    return out, expected


@triton.jit
def rows_kernel(x_ptr, rows_ptr, out_ptr, sums_ptr, rows, columns, N: tl.constexpr, COUNT: tl.constexpr):
    named = tl.load(rows_ptr + tl.arange(0, COUNT))
    source = tl.make_tensor_descriptor(x_ptr, [rows, columns], [columns, 1], [1, N])
    target = tl.make_tensor_descriptor(out_ptr, [rows, columns], [columns, 1], [1, N])
    target.scatter(source.gather(named, 8) + 1, named, 8)
    sums = tl.make_tensor_descriptor(sums_ptr, [rows, columns], [columns, 1], [COUNT, N])
    sums.atomic_add([4, 8], tl.full((COUNT, N), 2.0, tl.float32))


@case(instead="the interpreter has no atomic operations of descriptors")
def rows_and_sums_of_descriptors(make: Make) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    """Rows by their numbers, some of the columns outside, and atomic sums that are cut off."""
    x, out, sums = make.floats(16, 20), make.out(16, 20), make.out(16, 20)
    named, expected, added = make.permutation(16)[:8].contiguous(), out.clone(), sums.clone()
    rows_kernel[(1,)](x, named, out, sums, 16, 20, N=16, COUNT=8)
    expected[named.long(), 8:] = x[named.long(), 8:] + 1
    added[4:12, 8:] += 2
    return (out, sums), (expected, added)
