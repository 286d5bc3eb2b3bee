"""Shapes: reshape, permute, join and split, gather, broadcasting."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from tests.tiles.registry import Make, case


@triton.jit
def at_of(M: tl.constexpr, N: tl.constexpr):
    return tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]


@triton.jit
def reshape_kernel(x_ptr, out_ptr, M: tl.constexpr, N: tl.constexpr):
    x = tl.load(x_ptr + at_of(M, N))
    tl.store(out_ptr + tl.arange(0, M * N), tl.reshape(x, (M * N,)))
    tl.store(out_ptr + M * N + at_of(N, M), tl.reshape(x, [N, M]))
    tl.store(out_ptr + 2 * M * N + at_of(N // 2, 2 * M), x.reshape(N // 2, 2 * M))
    tl.store(out_ptr + 3 * M * N + tl.arange(0, M * N), tl.ravel(x) * 2)
    tl.store(out_ptr + 4 * M * N + at_of(N, M), x.trans())


@case
def reshapes(make: Make) -> torch.Tensor:
    """reshape with a tuple, a list, as a method; ravel; trans."""
    x, out = make.floats(4, 8), make.out(5, 32)
    reshape_kernel[(1,)](x, out, 4, 8)
    assert torch.equal(out[:3], x.view(1, 32).expand(3, 32)) and torch.equal(out[4].view(8, 4), x.t())
    return out


@triton.jit
def permute_kernel(x_ptr, out_ptr, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr):
    flat = tl.arange(0, A * B * C)
    x = tl.reshape(tl.load(x_ptr + flat), (A, B, C))
    tl.store(out_ptr + flat, tl.reshape(tl.permute(x, (2, 0, 1)), (A * B * C,)))
    tl.store(out_ptr + A * B * C + flat, tl.ravel(tl.trans(x, 1, 0, 2)))
    tl.store(out_ptr + 2 * A * B * C + flat, tl.ravel(x.permute(0, 2, 1)))
    tl.store(out_ptr + 3 * A * B * C + flat, tl.ravel(tl.trans(tl.reshape(x, (A * B, C)))))
    tl.store(out_ptr + 4 * A * B * C + flat, tl.ravel(tl.reshape(x, (A, B * C)).T))


@case
def permutations(make: Make) -> torch.Tensor:
    """permute and trans with axes, of three dimensions and two."""
    x, out = make.floats(2, 4, 8), make.out(5, 64)
    permute_kernel[(1,)](x, out, 2, 4, 8)
    assert torch.equal(out[0], x.permute(2, 0, 1).flatten())
    return out


@triton.jit
def expand_kernel(x_ptr, out_ptr, M: tl.constexpr, N: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, N))
    tl.store(out_ptr + at_of(M, N), tl.broadcast_to(x[None, :], (M, N)))
    tl.store(out_ptr + M * N + at_of(N, M), tl.broadcast_to(tl.expand_dims(x, 1), [N, M]))
    tl.store(out_ptr + 2 * M * N + at_of(M, N), tl.expand_dims(x, axis=0) + tl.zeros([M, 1], tl.float32))
    tl.store(out_ptr + 3 * M * N + at_of(M, N), x + tl.arange(0, M)[:, None])
    tl.store(out_ptr + 4 * M * N + at_of(M, N), tl.full((M, N), 3, tl.float32))
    tl.store(out_ptr + 5 * M * N + at_of(M, N), tl.expand_dims(x, -2).broadcast_to(M, N))


@case
def broadcasts(make: Make) -> torch.Tensor:
    """expand_dims, broadcast_to, and blocks of fewer dimensions."""
    out = make.out(6, 32)
    expand_kernel[(1,)](make.floats(8), out, 4, 8)
    return out


@triton.jit
def broadcast_both_kernel(x_ptr, out_ptr, M: tl.constexpr, N: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, M))[:, None]
    y = tl.load(x_ptr + tl.arange(0, N))[None, :]
    a, b = tl.broadcast(x, y)
    tl.store(out_ptr + at_of(M, N), a)
    tl.store(out_ptr + M * N + at_of(M, N), b)


@case
def broadcast_together(make: Make) -> torch.Tensor:
    """``tl.broadcast`` of two blocks."""
    out = make.out(2, 32)
    broadcast_both_kernel[(1,)](make.floats(8), out, 4, 8)
    return out


@triton.jit
def index_kernel(x_ptr, out_ptr, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr):
    a = tl.arange(0, A)
    b = tl.arange(0, B)
    c = tl.arange(0, C)
    at = a[:, None, None] * (B * C) + b[None, :, None] * C + c[None, None, :]
    x = tl.load(x_ptr + at) + c
    y = x + b[:, None] * 10
    tl.store(out_ptr + at, y + a[:, None, None][:, :, :] * 100)


@case
def none_in_an_index(make: Make) -> torch.Tensor:
    """``x[:, None, None]`` and broadcasting between three dimensions, two and one."""
    out = make.out(2, 4, 8)
    index_kernel[(1,)](make.floats(2, 4, 8), out, 2, 4, 8)
    return out


@triton.jit
def join_kernel(x_ptr, y_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    y = tl.load(y_ptr + at)
    joined = tl.join(x, y)
    tl.store(out_ptr + at_of(N, 2), joined)
    a, b = tl.split(joined * 2)
    tl.store(out_ptr + 2 * N + at, a)
    tl.store(out_ptr + 3 * N + at, b)
    tl.store(out_ptr + 4 * N + tl.arange(0, 2 * N), tl.interleave(x, y))
    even, odd = tl.split(tl.reshape(tl.load(x_ptr + tl.arange(0, N)), (N // 2, 2)))
    tl.store(out_ptr + 6 * N + tl.arange(0, N // 2), even - odd)
    p, q = joined.split()
    tl.store(out_ptr + 7 * N + at, p - q)


@case(each=("float32", "int32", "bfloat16"))
def joins_and_splits(make: Make, dtype: str) -> torch.Tensor:
    """join, split, interleave."""
    kind = getattr(torch, dtype)
    x, y, out = make.values(8, kind), make.values(8, kind), make.out(8, 8, dtype=kind)
    join_kernel[(1,)](x, y, out, 8)
    assert torch.equal(out[4:6].flatten(), torch.stack([x, y], 1).flatten())
    return out


@triton.jit
def join_blocks_kernel(x_ptr, y_ptr, out_ptr, M: tl.constexpr, N: tl.constexpr):
    x = tl.load(x_ptr + at_of(M, N))
    y = tl.load(y_ptr + at_of(M, N))
    tl.store(out_ptr + at_of(M, 2 * N), tl.interleave(x, y))
    tl.store(out_ptr + 2 * M * N + at_of(M, 2 * N), tl.reshape(tl.permute(tl.join(x, y), (0, 2, 1)), (M, 2 * N)))


@case
def joins_of_matrices(make: Make) -> torch.Tensor:
    """interleave along the last axis; join and permute put halves side by side, as rotary embeddings do."""
    x, y, out = make.floats(4, 8), make.floats(4, 8), make.out(2, 4, 16)
    join_blocks_kernel[(1,)](x, y, out, 4, 8)
    assert torch.equal(out[1], torch.cat([x, y], 1))
    return out


@triton.jit
def cat_kernel(x_ptr, y_ptr, out_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    both = tl.cat(tl.load(x_ptr + at), tl.load(y_ptr + at), can_reorder=True)
    tl.store(out_ptr, tl.sum(both, axis=0))
    tl.store(out_ptr + 1, tl.max(both, axis=0))


@case
def concatenation(make: Make) -> torch.Tensor:
    """cat may reorder: only sums and extremes are told."""
    out = make.out(2, dtype=torch.int32)
    cat_kernel[(1,)](make.ints(8), make.ints(8), out, 8)
    return out


@triton.jit
def gather_kernel(x_ptr, row_ptr, column_ptr, out_ptr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    x = tl.load(x_ptr + at_of(M, N))
    columns = tl.load(column_ptr + at_of(M, K))
    tl.store(out_ptr + at_of(M, K), tl.gather(x, columns, axis=1))
    rows = tl.load(row_ptr + at_of(K, N))
    tl.store(out_ptr + M * K + at_of(K, N), tl.gather(x, rows, 0))
    tl.store(out_ptr + M * K + K * N + at_of(M, K), x.gather(columns, -1))


@case
def gathers(make: Make) -> torch.Tensor:
    """gather along each axis, into fewer and more elements."""
    x, rows, columns = make.floats(4, 8), make.ints(16, 8, low=0, high=4), make.ints(4, 16, low=0, high=8)
    out = make.out(64 + 128 + 64)
    gather_kernel[(1,)](x, rows, columns, out, 4, 8, 16)
    assert torch.equal(out[:64].view(4, 16), x.gather(1, columns.long()))
    return out


@triton.jit
def histogram_kernel(x_ptr, out_ptr, n, N: tl.constexpr, BINS: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(x_ptr + at)
    bins = tl.arange(0, BINS)
    tl.store(out_ptr + bins, tl.histogram(x, BINS))
    tl.store(out_ptr + BINS + bins, tl.histogram(x, BINS, mask=at < n))


@case
def histograms(make: Make) -> torch.Tensor:
    """histogram, with a mask too; what is beyond the last bin is not counted."""
    x, out = make.ints(64, low=0, high=10), make.out(2, 8, dtype=torch.int32)
    histogram_kernel[(1,)](x, out, 50, 64, 8)
    assert torch.equal(out[0], torch.bincount(x, minlength=10)[:8].int())
    return out


@triton.jit
def one_kernel(x_ptr, out_ptr, N: tl.constexpr):
    one = tl.arange(0, 1)
    x = tl.load(x_ptr + one)
    row = tl.load(x_ptr + tl.arange(0, N))
    tl.store(out_ptr + tl.arange(0, N), row + x)
    tl.store(out_ptr + N + one, tl.sum(row, keep_dims=True))
    tl.store(out_ptr + N + 1 + one, x * 2)


@case
def blocks_of_one_element(make: Make) -> torch.Tensor:
    """A block of one element is a block."""
    out = make.out(10, dtype=torch.int32)
    one_kernel[(1,)](make.ints(8), out, 8)
    return out


@triton.jit
def swizzle_kernel(out_ptr, rows, columns, group):
    i = tl.program_id(0)
    j = tl.program_id(1)
    a, b = tl.swizzle2d(i, j, rows, columns, group)
    tl.store(out_ptr + i * columns + j, a * 100 + b)


@case
def swizzle(make: Make) -> torch.Tensor:
    """swizzle2d renumbers programs in groups of rows."""
    out = make.out(5, 4, dtype=torch.int32)
    swizzle_kernel[(5, 4)](out, 5, 4, 2)
    return out
