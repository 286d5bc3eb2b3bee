"""Kernels with the parameters that upstream's have, for `bench_launches`."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def add(x, y, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, at < n) + tl.load(y + at, at < n), at < n)


@triton.jit
def scaled(x, by, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + at, tl.load(x + at, at < n) * by, at < n)


@triton.jit
def gated(e, g, h, n, BLOCK_SIZE: tl.constexpr, LONG: tl.constexpr):
    at = tl.program_id(0) * BLOCK_SIZE + tl.arange(0, BLOCK_SIZE)
    tl.store(h + at, tl.load(e + at, at < n) * tl.load(g + at, at < n), at < n)


@triton.jit
def normed(x, x_stride, out, out_stride, weight, means, columns, eps, plus_one: tl.constexpr, BLOCK_SIZE: tl.constexpr):
    row, at = tl.program_id(0), tl.arange(0, BLOCK_SIZE)
    values = tl.load(x + row * x_stride + at, at < columns, 0)
    mean = tl.sum(values * values, 0) / columns
    tl.store(means + row, mean)
    scaled = values / tl.sqrt(mean + eps) * (tl.load(weight + at, at < columns, 0) + plus_one)
    tl.store(out + row * out_stride + at, scaled, at < columns)
