"""Kernels as networks have them: normalisation, softmax, losses, attention, rotations."""

from __future__ import annotations

from itertools import pairwise

import torch
import triton
import triton.language as tl
from torch.testing import assert_close

from tests.tiles.registry import EPS32, EPSBF, Make, case


@triton.jit
def softmax_kernel(x_ptr, out_ptr, stride, n, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * stride + at, mask=at < n, other=-float("inf")).to(tl.float32)
    e = tl.exp(x - tl.max(x, axis=0))
    tl.store(out_ptr + row * n + at, e / tl.sum(e, axis=0), mask=at < n)


@case(
    rtol=16 * EPS32, because="exp within 4 units each way, and a sum of 50 terms in another order (log2(50) roundings)"
)
def softmax(make: Make) -> torch.Tensor:
    """Rows of 50 in blocks of 64."""
    x, out = make.floats(5, 60)[:, :50], make.out(5, 50)
    softmax_kernel[(5,)](x, out, x.stride(0), 50, BLOCK=64)
    assert_close(out, torch.softmax(x, 1))
    return out


@triton.jit
def layer_norm_kernel(x_ptr, w_ptr, b_ptr, out_ptr, mean_ptr, rstd_ptr, n, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    x_ptr += row * n
    out_ptr += row * n
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        total += tl.load(x_ptr + at, mask=at < n, other=0.0).to(tl.float32)
    mean = tl.sum(total, axis=0) / n
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + at, mask=at < n, other=0.0).to(tl.float32)
        centred = tl.where(at < n, x - mean, 0.0)
        total += centred * centred
    rstd = 1 / tl.sqrt(tl.sum(total, axis=0) / n + eps)
    tl.store(mean_ptr + row, mean)
    tl.store(rstd_ptr + row, rstd)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        mask = at < n
        x = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
        w = tl.load(w_ptr + at, mask=mask)
        b = tl.load(b_ptr + at, mask=mask)
        tl.store(out_ptr + at, (x - mean) * rstd * w + b, mask=mask)


@case(rtol=16 * EPS32, atol=16 * EPS32, because="sums of 50 terms in another order, twice, of values near 1")
def layer_norm(make: Make) -> list[torch.Tensor]:
    """Three passes over blocks of 16."""
    x, w, b = make.floats(4, 50), make.floats(50), make.floats(50)
    out = [make.out(4, 50), make.out(4), make.out(4)]
    layer_norm_kernel[(4,)](x, w, b, *out, 50, 1e-5, BLOCK=16)
    assert_close(out[0], torch.nn.functional.layer_norm(x, (50,), w, b))
    return out


@triton.jit
def rms_backward_kernel(dy_ptr, x_ptr, w_ptr, rstd_ptr, dx_ptr, dw_ptr, n, rows, eps, BLOCK: tl.constexpr):
    pid = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    mask = at < n
    w = tl.load(w_ptr + at, mask=mask, other=0.0).to(tl.float32)
    dw = tl.zeros((BLOCK,), dtype=tl.float32)
    for row in range(pid, rows, tl.num_programs(0)):
        x = tl.load(x_ptr + row * n + at, mask=mask, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + row * n + at, mask=mask, other=0.0).to(tl.float32)
        rstd = tl.rsqrt(tl.sum(x * x, axis=0) / n + eps)
        tl.store(rstd_ptr + row, rstd)
        normed = x * rstd
        dw += dy * normed
        weighted = dy * w
        dx = (weighted - normed * (tl.sum(weighted * normed, axis=0) / n)) * rstd
        tl.store(dx_ptr + row * n + at, dx.to(dx_ptr.dtype.element_ty), mask=mask)
    tl.store(dw_ptr + pid * n + at, dw, mask=mask)


@case(rtol=EPSBF, atol=EPSBF, because="results that differ in float32 fall on either side of a tie in bfloat16")
def rms_norm_backward(make: Make) -> list[torch.Tensor]:
    """bfloat16 in and out, float32 within; programs take every third row."""
    dy, x = make.floats(7, 40, dtype=torch.bfloat16), make.floats(7, 40, dtype=torch.bfloat16)
    w = make.floats(40, dtype=torch.bfloat16)
    out = [make.out(7), make.out(7, 40, dtype=torch.bfloat16), make.out(3, 40)]
    rms_backward_kernel[(3,)](dy, x, w, *out, 40, 7, 1e-6, BLOCK=64)
    wide = x.float().requires_grad_()
    (torch.nn.functional.rms_norm(wide, (40,), w.float(), 1e-6) * dy.float()).sum().backward()
    assert wide.grad is not None
    assert_close(out[1].float(), wide.grad, rtol=0.02, atol=0.02)
    return out


@triton.jit
def cross_entropy_kernel(
    logits_ptr, labels_ptr, loss_ptr, n, ignored, softcap, CAPPED: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0)
    logits_ptr += row.to(tl.int64) * n
    label = tl.load(labels_ptr + row)
    highest = -float("inf")
    total = 0.0
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(logits_ptr + at, mask=at < n, other=-float("inf")).to(tl.float32)
        if CAPPED:
            x = tl.where(at < n, softcap * (2 * tl.sigmoid(2 * x / softcap) - 1), -float("inf"))
        higher = tl.maximum(highest, tl.max(x, axis=0))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(x - higher), axis=0)
        highest = higher
    lse = highest + tl.log(total)
    loss = 0.0
    if label != ignored:
        chosen = tl.load(logits_ptr + label).to(tl.float32)
        if CAPPED:
            chosen = softcap * (2 * tl.sigmoid(2 * chosen / softcap) - 1)
        loss = lse - chosen
    tl.store(loss_ptr + row, loss)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        x = tl.load(logits_ptr + at, mask=at < n, other=0.0).to(tl.float32)
        inner = 1.0
        if CAPPED:
            t = 2 * tl.sigmoid(2 * x / softcap) - 1
            x = softcap * t
            inner = 1 - t * t
        d = (tl.exp(x - lse) - tl.where(at == label, 1.0, 0.0)) * inner
        d = tl.where(label == ignored, 0.0, d)
        tl.store(logits_ptr + at, d, mask=at < n)


@case(each=(False, True), rtol=64 * EPS32, atol=64 * EPS32, because="exp and log within 4 units, and values up to 16")
def cross_entropy(make: Make, capped: bool) -> list[torch.Tensor]:
    """Loss and gradient, written over the logits, with rows to ignore; with soft capping and without."""
    logits, labels, loss = make.floats(5, 50, scale=3), make.ints(5, low=0, high=50, dtype=torch.int64), make.out(5)
    labels[2] = -100
    given = logits.clone().requires_grad_()
    cross_entropy_kernel[(5,)](logits, labels, loss, 50, -100, 10.0, CAPPED=capped, BLOCK=16)
    scores = 10 * torch.tanh(given / 10) if capped else given
    expected = torch.nn.functional.cross_entropy(scores, labels, reduction="none")
    expected.sum().backward()
    assert_close(loss, expected.detach(), rtol=1e-4, atol=1e-4)
    assert_close(logits, given.grad, rtol=1e-4, atol=1e-4)
    return [loss, logits]


@triton.jit
def attention_inner(acc, total, highest, q, k_ptrs, v_ptrs, stride, start, stop, n, row, CAUSAL: tl.constexpr,
                    N: tl.constexpr):  # fmt: skip
    for first in range(start, stop, N):
        column = first + tl.arange(0, N)
        valid = column[None, :] < n
        if CAUSAL:
            valid = valid & (row[:, None] >= column[None, :])
        k = tl.load(k_ptrs + first * stride, mask=column[:, None] < n, other=0.0)
        scores = tl.where(valid, tl.dot(q, tl.trans(k)), -1.0e6)
        higher = tl.maximum(highest, tl.max(scores, 1))
        p = tl.math.exp2(scores - higher[:, None])
        shrink = tl.math.exp2(highest - higher)
        total = total * shrink + tl.sum(p, 1)
        v = tl.load(v_ptrs + first * stride, mask=column[:, None] < n, other=0.0)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None])
        highest = higher
    return acc, total, highest


@triton.jit
def attention_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, scale, n, heads, stride_b, stride_h, stride_n,
    CAUSAL: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    batch = tl.program_id(1) // heads
    head = tl.program_id(1) % heads
    offset = batch.to(tl.int64) * stride_b + head.to(tl.int64) * stride_h
    row = block * M + tl.arange(0, M)
    inner = tl.arange(0, D)
    at = offset + row[:, None] * stride_n + inner[None, :]
    other = tl.arange(0, N)[:, None] * stride_n + inner[None, :] + offset
    q = tl.load(q_ptr + at, mask=row[:, None] < n, other=0.0)
    q = (q * (scale * 1.44269504)).to(q.dtype)
    acc = tl.zeros([M, D], dtype=tl.float32)
    total = tl.zeros([M], dtype=tl.float32)
    highest = tl.zeros([M], dtype=tl.float32) - float("inf")
    stop = n
    if CAUSAL:
        stop = tl.minimum(n, (block + 1) * M)
    acc, total, highest = attention_inner(
        acc, total, highest, q, k_ptr + other, v_ptr + other, stride_n, 0, stop, n, row, CAUSAL, N
    )
    acc = acc / total[:, None]
    tl.store(out_ptr + at, acc.to(out_ptr.dtype.element_ty), mask=row[:, None] < n)
    tl.store(lse_ptr + tl.program_id(1) * n + row, highest + tl.math.log2(total), mask=row < n)


@case(
    each=(False, True), rtol=64 * EPS32, atol=64 * EPS32, because="exp2 within 4 units, two products, sums of 40 terms"
)
def attention(make: Make, causal: bool) -> list[torch.Tensor]:
    """Attention with an online softmax, over 40 positions in blocks of 16; causal programs loop to other ends."""
    q, k, v = (make.floats(2, 2, 40, 16) for _ in range(3))
    out, lse = make.out(2, 2, 40, 16), make.out(4, 40)
    attention_kernel[(3, 4)](q, k, v, out, lse, 0.25, 40, 2, *q.stride()[:3], CAUSAL=causal, M=16, N=16, D=16)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    assert_close(out, expected, rtol=1e-4, atol=1e-4)
    return [out, lse]


@triton.jit
def rotate_kernel(q_ptr, cos_ptr, sin_ptr, heads, width, BACKWARD: tl.constexpr, H: tl.constexpr, W: tl.constexpr):
    row = tl.program_id(0)
    half = tl.arange(0, W)
    mask = half < width // 2
    cos = tl.load(cos_ptr + row * (width // 2) + half, mask=mask, other=0)
    sin = tl.load(sin_ptr + row * (width // 2) + half, mask=mask, other=0)
    if BACKWARD:
        sin = -sin
    head = tl.arange(0, H)
    first = row * heads * width + head[:, None] * width + half[None, :]
    both = (head[:, None] < heads) & mask[None, :]
    a = tl.load(q_ptr + first, mask=both, other=0).to(sin.dtype)
    b = tl.load(q_ptr + first + width // 2, mask=both, other=0).to(sin.dtype)
    tl.store(q_ptr + first, a * cos - b * sin, mask=both)
    tl.store(q_ptr + first + width // 2, b * cos + a * sin, mask=both)


@case(each=(False, True), atol=4 * EPS32, because="two products and their sum, which may be fused, of values below 4")
def rotary_embedding(make: Make, backward: bool) -> torch.Tensor:
    """In place, for 3 heads of width 20 in blocks of 4 by 16."""
    q, angle = make.floats(5, 3, 20), make.floats(5, 10)
    given = q.clone()
    rotate_kernel[(5,)](q, angle.cos(), angle.sin(), 3, 20, backward, H=4, W=16)
    a, b, sign = given[..., :10], given[..., 10:], -1 if backward else 1
    cos, sin = angle.cos()[:, None], angle.sin()[:, None] * sign
    assert_close(q, torch.cat([a * cos - b * sin, b * cos + a * sin], -1))
    return q


@triton.jit
def swiglu_kernel(e_ptr, g_ptr, d_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = at < n
    e = tl.load(e_ptr + at, mask=mask, other=0).to(tl.float32)
    g = tl.load(g_ptr + at, mask=mask, other=0)
    d = tl.load(d_ptr + at, mask=mask, other=0)
    s = tl.sigmoid(e)
    f = (s * e).to(g.dtype)
    tl.store(d_ptr + at, f * g, mask=mask)
    tl.store(e_ptr + at, (d.to(tl.float32) * g * s * (1.0 + e * (1.0 - s))).to(g.dtype), mask=mask)
    tl.store(g_ptr + at, d * f, mask=mask)


@case(
    rtol=2 * EPSBF, atol=EPSBF, because="values that differ in float32 fall on either side of a tie in bfloat16, twice"
)
def swiglu_in_place(make: Make) -> list[torch.Tensor]:
    """Forward value and both gradients are written over the three inputs."""
    tensors = [make.floats(100, dtype=torch.bfloat16) for _ in range(3)]
    swiglu_kernel[(4,)](*tensors, 100, BLOCK=32)
    return tensors


@triton.jit
def embedding_kernel(ids_ptr, table_ptr, out_ptr, width, BLOCK: tl.constexpr):
    token = tl.program_id(0)
    row = tl.load(ids_ptr + token)
    for start in range(0, width, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = tl.load(table_ptr + row * width + at, mask=at < width, other=0.0)
        tl.store(out_ptr + token * width + at, value, mask=at < width)


@case
def embedding(make: Make) -> torch.Tensor:
    """Rows chosen by ids of 64 bits."""
    ids, table, out = make.ints(9, low=0, high=20, dtype=torch.int64), make.floats(20, 24), make.out(9, 24)
    embedding_kernel[(9,)](ids, table, out, 24, BLOCK=16)
    assert torch.equal(out, table[ids])
    return out


@triton.jit
def ragged_kernel(x_ptr, offsets_ptr, out_ptr, N: tl.constexpr):
    pid = tl.program_id(0)
    start = tl.load(offsets_ptr + pid)
    stop = tl.load(offsets_ptr + pid + 1)
    if start == stop:
        tl.store(out_ptr + pid, 0)
        return
    total = tl.zeros((), dtype=tl.int32)
    for first in range(start, stop, N):
        at = first + tl.arange(0, N)
        total += tl.sum(tl.load(x_ptr + at, mask=at < stop, other=0), axis=0)
    tl.store(out_ptr + pid, total)


@case
def ragged_rows(make: Make) -> torch.Tensor:
    """Rows of other lengths, one of them empty."""
    x, offsets = make.ints(60), torch.tensor([0, 5, 5, 40, 41, 60], dtype=torch.int32)
    out = make.out(5, dtype=torch.int32)
    ragged_kernel[(5,)](x, offsets, out, 8)
    assert out.tolist() == [int(x[a:b].sum()) for a, b in pairwise(offsets)]
    return out
