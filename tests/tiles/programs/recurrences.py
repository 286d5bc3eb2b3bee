"""Recurrent layers as libraries write them: chunks of sequences of other lengths, and a state that they hand on."""

from __future__ import annotations

from itertools import pairwise

import torch
import triton
import triton.language as tl
from torch.testing import assert_close

from tests.tiles.registry import EPS32, Make, case

PRECISIONS = [triton.Config({"PRECISION": "ieee"}, num_warps=4, num_stages=2)]
"""One, since Triton's interpreter can choose among none."""


@triton.heuristics({"RAGGED": lambda args: args["offsets"] is not None})
@triton.autotune(configs=PRECISIONS, key=["N", "RAGGED"])
@triton.jit(do_not_specialize=["length"])
def triangular_inverse_kernel(
    a,
    out,
    offsets,
    chunks,
    length,
    N: tl.constexpr,
    RAGGED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    chunk = tl.program_id(0).to(tl.int64)
    first = 0
    if RAGGED:
        sequence, chunk = tl.load(chunks + chunk * 2).to(tl.int32), tl.load(chunks + chunk * 2 + 1).to(tl.int64)
        first, last = tl.load(offsets + sequence).to(tl.int64), tl.load(offsets + sequence + 1).to(tl.int64)
        length = last - first
    a += first * N
    out += first * N
    at = tl.arange(0, N)
    rows = (chunk * N + at).to(tl.int64)
    inside = rows < length
    inverse = -tl.where(
        at[:, None] > at[None, :], tl.load(a + rows[:, None] * N + at[None, :], mask=inside[:, None], other=0.0), 0.0
    )
    for i in range(2, min(N, length - chunk * N)):
        row = tl.where(at < i, -tl.load(a + (chunk * N + i) * N + at), 0.0)
        row = row + tl.sum(row[:, None] * inverse, 0)
        inverse = tl.where((at == i)[:, None], row, inverse)
    inverse += at[:, None] == at[None, :]
    written = out + rows[:, None] * N + at[None, :]
    tl.store(written, inverse.to(written.dtype.element_ty, fp_downcast_rounding="rtne"), mask=inside[:, None])


@case(each=(False, True), rtol=64 * EPS32, atol=64 * EPS32, because="sums of 8 terms in another order, over 8 rows")
def triangular_inverses(make: Make, ragged: bool) -> torch.Tensor:
    """Row by row, with as many rows as a chunk has; sequences lie one behind the other."""
    lengths = [5, 8, 11] if ragged else [24]
    a, out = make.floats(sum(lengths), 8, scale=0.3), make.out(sum(lengths), 8)
    chunks = torch.tensor([(i, j) for i, length in enumerate(lengths) for j in range(-(-length // 8))])
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    passed = (offsets, chunks) if ragged else (None, None)
    triangular_inverse_kernel[(len(chunks),)](a, out, *passed, sum(lengths), N=8)
    for start, stop in pairwise(offsets.tolist()):
        for row in range(start, stop, 8):
            n = min(8, stop - row)
            lower = a[row : row + n, :n].double().tril(-1) + torch.eye(n)
            assert_close(out[row : row + n, :n], torch.linalg.inv(lower).float(), rtol=1e-5, atol=1e-5)
    return out


@triton.jit(do_not_specialize=["length"])
def gated_recurrence_kernel(q, k, v, g, state, out, length, C: tl.constexpr, K: tl.constexpr, V: tl.constexpr):
    head = tl.program_id(0)
    q, k, g = q + head * length * K, k + head * length * K, g + head * length
    v, o = v + head * length * V, out + head * length * V
    h = tl.zeros([K, V], dtype=tl.float32)
    at, ks, vs = tl.arange(0, C), tl.arange(0, K), tl.arange(0, V)
    for chunk in range(tl.cdiv(length, C)):
        rows = chunk * C + at
        p_q, p_k = q + rows[:, None] * K + ks[None, :], k + rows[None, :] * K + ks[:, None]
        p_v, p_o = v + rows[:, None] * V + vs[None, :], o + rows[:, None] * V + vs[None, :]
        inside = rows < length
        b_q = tl.load(p_q, mask=inside[:, None], other=0.0)
        b_k = tl.load(p_k, mask=inside[None, :], other=0.0)
        b_v = tl.load(p_v, mask=inside[:, None], other=0.0)
        b_g = tl.cumsum(tl.load(g + rows, mask=inside, other=0.0), axis=0)
        last = tl.sum(tl.where(at == min(C, length - chunk * C) - 1, b_g, 0.0), 0)
        weights = tl.dot(b_q, b_k, input_precision="ieee") * tl.exp2(b_g[:, None] - b_g[None, :])
        weights = tl.where(at[:, None] >= at[None, :], weights, 0.0)
        b_o = tl.dot(b_q * tl.exp2(b_g)[:, None], h, input_precision="ieee")
        b_o += tl.dot(weights, b_v, input_precision="ieee")
        tl.store(p_o, b_o.to(p_o.dtype.element_ty), mask=inside[:, None])
        h *= tl.exp2(last)
        h += tl.dot(b_k * tl.exp2(last - b_g)[None, :], b_v, input_precision="ieee")
    p_h = state + head * K * V + ks[:, None] * V + vs[None, :]
    tl.store(p_h, h.to(p_h.dtype.element_ty))


@case(rtol=1e-5, atol=1e-5, because="three products of 16 terms for each of three chunks, in another order")
def gated_recurrence(make: Make) -> list[torch.Tensor]:
    """A state that decays, carried from chunk to chunk; the last chunk is not full."""
    length, K, V = 37, 16, 16
    q, k, v = make.floats(2, length, K), make.floats(2, length, K), make.floats(2, length, V)
    g = -make.positive(2, length) / 4
    state, out = make.out(2, K, V), make.out(2, length, V)
    gated_recurrence_kernel[(2,)](q, k, v, g, state, out, length, C=16, K=K, V=V)
    h = torch.zeros(2, K, V, dtype=torch.float64)
    for t in range(length):
        h = h * torch.exp2(g[:, t].double())[:, None, None] + k[:, t, :, None].double() * v[:, t, None, :].double()
        assert_close(out[:, t], torch.einsum("hk,hkv->hv", q[:, t].double(), h).float(), rtol=1e-4, atol=1e-4)
    return [state, out]


@triton.jit
def of_pairs(x, first: tl.constexpr, shape: tl.constexpr):
    y, second = tl.reshape(x, shape), tl.arange(0, 2)[None, :, None]
    chosen = tl.sum(y * (1 - second) if first else y * second, 1)[:, None, :].to(x.dtype)
    return tl.reshape(tl.broadcast_to(chosen, shape), x.shape)


@triton.jit
def exchanged(x, ids, flip, i: tl.constexpr, n_dims: tl.constexpr):
    shape: tl.constexpr = [(x.numel >> n_dims) * 2**i, 2, 2 ** (n_dims - i - 1)]
    bits = tl.core.get_int_dtype(bitwidth=x.dtype.primitive_bitwidth, signed=True)
    low, high = of_pairs(x, True, shape), of_pairs(x, False, shape)
    swap = (low > high) != flip
    both = low.to(bits, bitcast=True) ^ high.to(bits, bitcast=True)
    x = (x.to(bits, bitcast=True) ^ tl.where(swap, both, tl.zeros_like(both))).to(x.dtype, bitcast=True)
    return x, ids ^ tl.where(swap, of_pairs(ids, True, shape) ^ of_pairs(ids, False, shape), 0)


@triton.jit
def merged(x, ids, stage: tl.constexpr, order: tl.constexpr, n_dims: tl.constexpr):
    if order == 2:
        shape: tl.constexpr = [(x.numel >> n_dims) * 2 ** (n_dims - 1 - stage), 2, 2**stage]
        flip = tl.reshape(tl.broadcast_to(tl.arange(0, 2)[None, :, None], shape), x.shape)
    else:
        flip = order
    for i in tl.static_range(stage):
        x, ids = exchanged(x, ids, flip, i + (n_dims - stage), n_dims)
    return x, ids


@triton.jit
def ordered(x, ids, n_dims: tl.constexpr, descending: tl.constexpr = tl.core.CONSTEXPR_0):
    for stage in tl.static_range(1, n_dims + 1):
        x, ids = merged(x, ids, stage, 2 if stage < n_dims else descending, n_dims)
    return x, ids


@triton.jit
def ordered_kernel(x_ptr, out_ptr, ids_ptr, N: tl.constexpr):
    at = tl.arange(0, N)
    n_dims: tl.constexpr = tl.standard._log2(N)
    x, ids = ordered(tl.load(x_ptr + at), at, n_dims)
    tl.store(out_ptr + at, x)
    tl.store(ids_ptr + at, ids)
    x, ids = ordered(x, at, n_dims, True)
    tl.store(out_ptr + N + at, x)
    tl.store(ids_ptr + N + at, ids)


@case(each=("float32", "float16", "int32"))
def ordered_with_ids(make: Make, dtype: str) -> list[torch.Tensor]:
    """A sorting network of one's own, with a constant and a function of Triton's own source."""
    x = make.permutation(16).to(getattr(torch, dtype))
    out, ids = make.out(2, 16, dtype=x.dtype), make.out(2, 16, dtype=torch.int32)
    ordered_kernel[(1,)](x, out, ids, 16)
    assert out[0].tolist() == [*range(16)] and torch.equal(x[ids[0].long()], out[0])
    return [out, ids]
